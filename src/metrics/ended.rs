//! The counters of pools that have ended: a later pool of the same name counts on from there, as its histograms do.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use crate::sync::lock_std as lock;

/// A counter of a pool: the metric, the label `result` if it has one, and the value.
pub(super) type Total = (&'static str, Option<&'static str>, u64);

type Values = HashMap<(&'static str, Option<&'static str>), u64>;

/// By the name of the pool. It has no more entries than the recorder has series.
static ENDED: LazyLock<Mutex<HashMap<String, Values>>> = LazyLock::new(Mutex::default);

/// Adds the counters of a pool that has ended.
pub(super) fn add(pool: &str, totals: &[Total]) {
    let mut ended = lock(&ENDED);
    let values = ended.entry(pool.to_owned()).or_default();
    for &(name, result, value) in totals.iter().filter(|(_, _, value)| *value > 0) {
        *values.entry((name, result)).or_default() += value;
    }
}

/// The values of these counters for all earlier pools of this name.
pub(super) fn before(pool: &str, totals: &[Total]) -> Vec<u64> {
    let ended = lock(&ENDED);
    let values = ended.get(pool);
    let before = |&(name, result, _): &Total| values.and_then(|values| values.get(&(name, result)).copied());
    totals.iter().map(|total| before(total).unwrap_or_default()).collect()
}
