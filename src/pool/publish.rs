//! Brings a pool's numbers to the recorder of the metrics, shortly after they changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::metrics;
use crate::timer::{self, Alarm};

/// How long after a change the gauges and counters show it, where nobody asks before.
const DELAY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Publisher {
    pool: Weak<Shared>,
    due: AtomicBool,
}

impl Publisher {
    pub(super) fn new(pool: Weak<Shared>) -> Arc<Self> {
        Arc::new(Self { pool, due: AtomicBool::new(false) })
    }

    /// Something has changed.
    pub(super) fn touch(self: &Arc<Self>) {
        if cfg!(feature = "metrics") && !self.due.load(Ordering::Relaxed) && !self.due.swap(true, Ordering::AcqRel) {
            let this: Weak<Self> = Arc::downgrade(self);
            timer::arm(Instant::now() + DELAY, this);
        }
    }
}

impl Alarm for Publisher {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        // In this order: what changes from here on is published again.
        self.due.store(false, Ordering::Release);
        if let Some(pool) = self.pool.upgrade() {
            // The turn ends before the pool may.
            pool.publish(&metrics::turn());
        }
        None
    }
}
