//! Publishes a pool's numbers to the recorder of the metrics shortly after they changed, and logs when overload begins and
//! ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::stats::PoolStats;
use crate::metrics::{self, PublishGuard};
use crate::shield::shielded;
use crate::timer::METRICS;

/// How long after a change the gauges and counters show it, where nobody asks before.
const DELAY: Duration = Duration::from_millis(500);

/// Publishes the numbers of this instant.
pub(super) fn publish(pool: &Shared, _guard: &PublishGuard) {
    metrics::publish(&pool.numbers().reading());
}

/// The numbers of `pool` have changed.
pub(super) fn changed(pool: &Arc<Shared>) {
    if !pool.publishes.load(Ordering::Relaxed) && !pool.publishes.swap(true, Ordering::AcqRel) {
        let weak = Arc::downgrade(pool);
        let set = METRICS.try_set(soon(), move || weak.upgrade().and_then(|pool| publish_due(&pool)));
        if !set {
            // The next change tries again.
            pool.publishes.store(false, Ordering::Release);
        }
    }
}

fn publish_due(pool: &Shared) -> Option<Instant> {
    pool.plan.group.read_cores();
    // In this order: what changes from here on is published again.
    pool.publishes.store(false, Ordering::Release);
    // The turn ends before the pool may.
    publish(pool, &metrics::lock_publishing());
    let numbers = pool.numbers();
    let PoolStats { name, queued_tasks, in_flight, overloaded, .. } = &numbers;
    match (pool.overloaded.swap(*overloaded, Ordering::Relaxed), *overloaded) {
        (false, true) => tracing::warn!(
            target: "tower_offload",
            pool = %name, queued = queued_tasks, in_flight,
            "overload begins: even the tasks that wait least wait too long"
        ),
        (true, false) => tracing::info!(target: "tower_offload", pool = %name, "overload has ended"),
        _ => {}
    }
    // It can end without any further event in the pool.
    (*overloaded && !pool.publishes.swap(true, Ordering::AcqRel)).then(soon)
}

fn soon() -> Instant {
    Instant::now() + DELAY
}

/// The last numbers of a pool that is gone.
impl Drop for Shared {
    fn drop(&mut self) {
        shielded(|| publish(self, &metrics::lock_publishing()));
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;
    use crate::pool::Plan;

    #[test]
    fn changes_are_published_once_until_that_is_done_and_a_pool_at_rest_not_at_all() {
        let pool = Shared::new(Plan::of_one_worker());
        let is_due = || pool.publishes.load(Ordering::Relaxed);
        assert!(!is_due() && soon() > Instant::now());
        changed(&pool);
        assert!(is_due(), "the next change asks for nothing more");
        assert_eq!(publish_due(&pool), None);
        assert!(!is_due());
    }
}
