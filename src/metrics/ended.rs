//! Which pools there are, and the counters of those that have ended: a later pool of the same name counts on from there, as
//! its histograms do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use crate::sync::lock_std as lock;

/// A counter of a pool: the metric, the label `result` if it has one, and the value.
pub(super) type Total = (&'static str, Option<&'static str>, u64);

/// All pools of one name.
#[derive(Default)]
struct Known {
    /// How many there are.
    live: usize,
    /// The counters of those that have ended.
    ended: HashMap<(&'static str, Option<&'static str>), u64>,
}

/// By name. It has no more entries than the recorder has series.
static POOLS: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

/// There is one more pool of this name.
pub(super) fn begin(pool: &str) {
    lock(&POOLS).entry(pool.to_owned()).or_default().live += 1;
}

/// Adds the counters of a pool that has ended. Whether it was the last one of its name.
pub(super) fn end(pool: &str, totals: &[Total]) -> bool {
    let mut pools = lock(&POOLS);
    let known = pools.entry(pool.to_owned()).or_default();
    for &(name, result, value) in totals.iter().filter(|(_, _, value)| *value > 0) {
        *known.ended.entry((name, result)).or_default() += value;
    }
    known.live -= 1;
    known.live == 0
}

/// Whether there is no pool of any name.
pub(super) fn none_left() -> bool {
    lock(&POOLS).values().all(|known| known.live == 0)
}

/// The values of these counters for all earlier pools of this name.
pub(super) fn before(pool: &str, totals: &[Total]) -> Vec<u64> {
    let pools = lock(&POOLS);
    let known = pools.get(pool);
    let before = |&(name, result, _): &Total| known.and_then(|known| known.ended.get(&(name, result)).copied());
    totals.iter().map(|total| before(total).unwrap_or_default()).collect()
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_last_pool_of_a_name_is_known_and_its_counters_add_up() {
        let totals = [("total", None, 3)];
        begin("ended");
        begin("ended");
        assert!(!end("ended", &totals), "another one is there");
        assert!(end("ended", &totals));
        assert_eq!(before("ended", &totals), [6]);
        begin("ended");
        assert!(!none_left());
        assert!(end("ended", &[]));
    }
}
