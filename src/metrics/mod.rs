//! What a pool shows to the `metrics` facade, with the label `pool`.
//!
//! | metric | |
//! |---|---|
//! | `workload_pool_workers`, `_workers_max`, `_workers_busy` | threads there are, there may be, and that poll a job now |
//! | `workload_pool_in_flight`, `_concurrency_limit` | jobs admitted and not ended; the most there may be |
//! | `workload_pool_queue_depth`, `_queue_capacity` | jobs that wait; the most there may be |
//! | `workload_pool_utilization_ratio` | busy threads of those there may be |
//! | `workload_pool_overloaded` | 1 while even the shortest waits are too long |
//! | `workload_pool_routes_unmatched` | routes of the settings to this pool that have matched no request yet; absent for a pool without routes |
//! | `workload_pool_jobs_submitted_total` | all jobs |
//! | `workload_pool_jobs_total` | jobs that ended, by the label `result`: the fields of [`Counts`] |
//! | `workload_pool_queue_wait_seconds` | histogram: from submission to first poll, of the jobs that began |
//! | `workload_pool_run_seconds` | histogram: from first poll to end, awaits included |
//!
//! Counters and gauges are not counted here: they are set from one reading of the pool, so that in every scrape
//! *submitted = Σ results + queued + in flight*. Only the two histograms are recorded job by job, through handles that
//! are resolved once for each pool.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::admission::Counts;

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "metrics")]
mod names;

#[cfg(feature = "metrics")]
pub(crate) use self::facade::{TaskTimes, publish, publish_routes};
#[cfg(feature = "metrics")]
pub use self::names::{DURATION_BUCKETS, HISTOGRAMS};

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{TaskTimes, publish, publish_routes};

/// The right to publish: one reading after the other, so that none overtakes a later one, and none in the middle of a
/// scrape.
#[derive(Debug)]
pub(crate) struct Turn {
    _guard: MutexGuard<'static, ()>,
}

/// Waits for the turn to publish.
pub(crate) fn turn() -> Turn {
    static PUBLISHING: Mutex<()> = Mutex::new(());
    Turn { _guard: PUBLISHING.lock().unwrap_or_else(PoisonError::into_inner) }
}

/// One reading of a pool, in the numbers that its metrics show.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the metrics"))]
pub(crate) struct Reading<'a> {
    pub(crate) pool: &'a crate::workload::Workload,
    pub(crate) workers: usize,
    pub(crate) workers_max: usize,
    pub(crate) busy: usize,
    pub(crate) in_flight: usize,
    pub(crate) concurrency_limit: usize,
    pub(crate) queue_depth: usize,
    pub(crate) queue_capacity: usize,
    pub(crate) overloaded: bool,
    pub(crate) utilization: f64,
    pub(crate) counts: Counts,
}
