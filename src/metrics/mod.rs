//! The metrics of a pool, recorded through the `metrics` facade with the label `pool`.
//!
//! | metric | |
//! |---|---|
//! | `workload_pool_workers`, `_workers_max`, `_workers_active` | threads that exist, that may exist, and that are polling a task |
//! | `workload_pool_in_flight` | tasks admitted and not ended |
//! | `workload_pool_permits_in_use`, `_concurrency_limit` | permits in use; their limit |
//! | `workload_pool_queue_depth`, `_queue_capacity` | queued tasks; their limit |
//! | `workload_pool_utilization_ratio` | active threads as a share of the threads that may exist |
//! | `workload_pool_load_ratio` | [load](crate::load): what arrives, over what the pool can do |
//! | `workload_pool_overloaded` | 1 while the minimum queue wait has exceeded the target for a whole interval (CoDel), or while more tasks leave the queue unserved than free permits make up for |
//! | `workload_pool_routes_unmatched` | routes of the settings to this pool that have matched no request yet; absent for a pool without routes |
//! | `workload_pool_streams`, `_streams_limit` | streams: responses whose body is open after its head; their limit, 0 for none |
//! | `workload_pool_stream_buffered_bytes` | bytes of streams that are produced and not taken by a client |
//! | `workload_pool_slots`, `_slot_generation` | values of the pool's [`Slots`](crate::slots::Slots) by the label `state`; the version of new ones |
//! | `workload_pool_models`, `_models_bytes`, `_models_budget_bytes` | loaded models; their weight; its limit |
//! | `workload_pool_model_loads_total`, `_model_evictions_total` | loads by the label `result`; models that made room for others |
//! | `workload_pool_model_load_seconds` | histogram: the time to load a model |
//! | `workload_pool_tasks_submitted_total` | all tasks |
//! | `workload_pool_tasks_total` | tasks that ended, by the label `result`: the fields of [`Counts`](crate::pool::Counts) |
//! | `workload_pool_queue_wait_seconds` | histogram: from submission to first poll, of the tasks that began |
//! | `workload_pool_run_seconds` | histogram: from first poll to end, awaits included |
//! | `workload_pool_batches_total` | batches that ended, by the label `result`: the fields of [`BatchCounts`](crate::pool::BatchCounts); absent for a pool without batches |
//! | `workload_pool_batch_items` | histogram: tasks in a batch |
//! | `workload_pool_batch_seconds` | histogram: from the start of a batch to its end |
//! | `workload_pool_first_frame_seconds` | histogram: from submission to the first frame of a stream |
//! | `workload_pool_frame_gap_seconds` | histogram: between frames of a stream, without the client's stalls |
//!
//! `workload_load_ratio`, without a label, is the load of the process.
//! `workload_request_body_bytes` and `_limit`, without a label, are the memory for request bodies that all pools share.
//!
//! Counters and gauges are set from one reading of the pool, so that in every scrape *submitted = Σ results + queued +
//! in flight*. A pool counts on from where an earlier pool of its name has ended, and the gauges of a name without a pool
//! are 0. Only the histograms are recorded for each task or frame. Each worker keeps their handles, and resolves them
//! again every half second, because the recorder may have been installed late.

use std::sync::{Mutex, MutexGuard};

use crate::sync::lock_std as lock;

pub(crate) mod batches;
#[cfg(feature = "metrics")]
mod ended;
#[cfg(feature = "metrics")]
mod facade;
pub(crate) mod holdings;
#[cfg(feature = "metrics")]
mod names;
pub(crate) mod stats;
pub(crate) mod waits;

#[cfg(feature = "metrics")]
pub(crate) use self::facade::{
    TaskTimes, begin, end, publish, publish_bodies, publish_holdings, publish_load, publish_routes, record_model_load,
};
#[cfg(feature = "metrics")]
pub use self::names::HISTOGRAMS;

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::{
    TaskTimes, begin, end, publish, publish_bodies, publish_holdings, publish_load, publish_routes, record_model_load,
};

/// The lock on the published metrics. While it is held, no other thread sets them, so that readings are published in
/// order, and not while a scrape is being rendered.
#[derive(Debug)]
pub(crate) struct PublishGuard {
    _guard: MutexGuard<'static, ()>,
}

/// Locks the published metrics.
pub(crate) fn lock_publishing() -> PublishGuard {
    static PUBLISHING: Mutex<()> = Mutex::new(());
    PublishGuard { _guard: lock(&PUBLISHING) }
}
