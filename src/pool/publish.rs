//! Publishes a pool's numbers to the metrics recorder shortly after they changed and while its load is not 0, and logs
//! the beginning and end of an overload.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::metrics::stats::PoolStats;
use crate::metrics::{self, PublishGuard};
use crate::shield::shielded;
use crate::timer::METRICS;

/// The time after a change at which gauges and counters show it, unless a scrape comes first.
const DELAY: Duration = Duration::from_millis(500);

/// Publishes the numbers of this moment, and returns them.
pub(super) fn publish(pool: &Shared, _guard: &PublishGuard) -> PoolStats {
    let numbers = pool.numbers();
    metrics::publish(&numbers);
    metrics::publish_holdings(pool.name(), &pool.holdings.reading());
    metrics::publish_bodies(&pool.plan.group.bodies);
    pool.plan.group.keep_load(pool.id, pool.load());
    metrics::publish_load(pool.plan.group.load_ratio());
    numbers
}

/// Schedules a publication, unless one is scheduled already.
pub(super) fn changed(pool: &Arc<Shared>) {
    if !pool.publication_due.load(Ordering::Relaxed) && !pool.publication_due.swap(true, Ordering::AcqRel) {
        // Publications go on until the pool's load is 0, so this is a change after a rest.
        pool.load.resume(pool.now());
        let weak = Arc::downgrade(pool);
        let set = METRICS.try_set(soon(), move || weak.upgrade().and_then(|pool| publish_due(&pool)));
        if !set {
            // The next change tries again.
            pool.publication_due.store(false, Ordering::Release);
        }
    }
}

fn publish_due(pool: &Shared) -> Option<Instant> {
    pool.plan.group.cores.read();
    // Stored before the numbers are read: a later change schedules another publication.
    pool.publication_due.store(false, Ordering::Release);
    // The guard is dropped before the last reference to the pool may be.
    let numbers = publish(pool, &metrics::lock_publishing());
    let PoolStats { name, queued_tasks, in_flight, overloaded, .. } = &numbers;
    match (pool.overloaded.swap(*overloaded, Ordering::Relaxed), *overloaded) {
        (false, true) => tracing::warn!(
            target: "tower_offload",
            pool = %name, queued = queued_tasks, in_flight,
            "overload begins: more arrives than the pool can do"
        ),
        (true, false) => tracing::info!(target: "tower_offload", pool = %name, "overload has ended"),
        _ => {}
    }
    // An overload can end without any further event in the pool, and so can a load.
    let goes_on = *overloaded
        || *in_flight > 0
        || *queued_tasks > 0
        || !pool.load.is_at_rest(&pool.dispatch.demand(pool.now()).0);
    (goes_on && !pool.publication_due.swap(true, Ordering::AcqRel)).then(soon)
}

fn soon() -> Instant {
    Instant::now() + DELAY
}

/// Publishes the last numbers of a pool that is dropped.
impl Drop for Shared {
    fn drop(&mut self) {
        let publishing = metrics::lock_publishing();
        shielded(|| {
            let numbers = publish(self, &publishing);
            metrics::end(&numbers, &self.holdings.reading());
        });
        self.plan.group.remove_load(self.id);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::pool::Plan;

    #[test]
    fn changes_schedule_one_publication_and_a_pool_at_rest_schedules_none() {
        let pool = Shared::new(Plan::of_one_worker());
        let is_due = || pool.publication_due.load(Ordering::Relaxed);
        let begun = Instant::now();
        assert!(!is_due() && soon() >= begun + DELAY);
        changed(&pool);
        assert!(is_due() || begun.elapsed() >= DELAY, "a publication is scheduled");
        assert_eq!(publish_due(&pool), None);
        assert!(!is_due());
    }

    #[test]
    fn publications_go_on_while_a_pool_has_a_load() {
        let pool = Shared::new(Plan::of_one_worker());
        changed(&pool);
        pool.dispatch.count_rejected(Reason::Draining);
        assert!(publish_due(&pool).is_some(), "its counters have changed");
        assert!(pool.publication_due.load(Ordering::Relaxed));
    }
}
