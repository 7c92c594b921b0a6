//! The batches of a pool, counted by result.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// How many batches ended, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchCounts {
    /// Batches that gave a result for each item, which may be an error.
    pub ok: u64,
    /// Batches that failed as a whole: the service returned an error, or too few or too many results.
    pub error: u64,
    /// Batches that panicked.
    pub panicked: u64,
    /// Batches whose callers had all left, or that a shutdown cut off.
    pub cancelled: u64,
}

/// How a batch ended: the fields of [`BatchCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchResult {
    Ok,
    Error,
    Panicked,
    Cancelled,
}

/// The counters of one pool.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// Whether the pool has a function for batches.
    in_use: AtomicBool,
    counts: [AtomicU64; 4],
}

impl BatchCounts {
    /// The counts and their names.
    #[must_use]
    pub const fn by_result(&self) -> [(&'static str, u64); 4] {
        [("ok", self.ok), ("error", self.error), ("panicked", self.panicked), ("cancelled", self.cancelled)]
    }
}

impl Batches {
    pub(crate) fn set_in_use(&self) {
        self.in_use.store(true, Relaxed);
    }

    pub(crate) fn ended(&self, result: BatchResult) {
        self.counts[result as usize].fetch_add(1, Relaxed);
    }

    /// `None` in a pool without batches.
    pub(crate) fn counts(&self) -> Option<BatchCounts> {
        let [ok, error, panicked, cancelled] = self.counts.each_ref().map(|count| count.load(Relaxed));
        self.in_use.load(Relaxed).then_some(BatchCounts { ok, error, panicked, cancelled })
    }
}
