//! Brings a pool's numbers to the recorder of the metrics, shortly after they changed, and tells when overload begins
//! and ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::stats::PoolStats;
use crate::metrics;
use crate::timer::{self, Alarm};

/// How long after a change the gauges and counters show it, where nobody asks before.
const DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Publisher {
    pool: Weak<Shared>,
    due: AtomicBool,
    /// Whether the pool was last seen overloaded.
    overloaded: AtomicBool,
}

fn soon() -> Instant {
    Instant::now() + DELAY
}

impl Publisher {
    pub(super) fn new(pool: Weak<Shared>) -> Arc<Self> {
        Arc::new(Self { pool, due: AtomicBool::new(false), overloaded: AtomicBool::new(false) })
    }

    /// Something has changed.
    pub(super) fn touch(self: &Arc<Self>) {
        if !self.due.load(Ordering::Relaxed) && !self.due.swap(true, Ordering::AcqRel) {
            let this: Weak<Self> = Arc::downgrade(self);
            timer::METRICS.arm(soon(), this);
        }
    }
}

impl Alarm for Publisher {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        // In this order: what changes from here on is published again.
        self.due.store(false, Ordering::Release);
        let pool = self.pool.upgrade()?;
        // The turn ends before the pool may.
        pool.publish(&metrics::turn());
        let numbers = pool.numbers();
        let PoolStats { name, queued_tasks, in_flight, overloaded, .. } = &numbers;
        match (self.overloaded.swap(*overloaded, Ordering::Relaxed), *overloaded) {
            (false, true) => tracing::warn!(
                target: "tower_offload",
                pool = %name, queued = queued_tasks, in_flight,
                "overload begins: even the jobs that wait least wait too long"
            ),
            (true, false) => tracing::info!(target: "tower_offload", pool = %name, "overload has ended"),
            _ => {}
        }
        // It can end with nothing more to happen in the pool.
        (*overloaded && !self.due.swap(true, Ordering::AcqRel)).then(soon)
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;
    use crate::pool::Plan;

    #[test]
    fn changes_are_published_once_until_that_is_done_and_a_pool_at_rest_not_at_all() {
        let pool = Shared::new(Plan::of_one_worker());
        let publisher = Publisher::new(Arc::downgrade(&pool));
        let is_due = || publisher.due.load(Ordering::Relaxed);
        assert!(!is_due() && soon() > Instant::now());
        publisher.touch();
        assert!(is_due(), "whoever comes next asks for nothing more");
        assert_eq!(publisher.clone().ring(), None);
        assert!(!is_due());
    }
}
