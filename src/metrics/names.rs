//! The names, units and help texts of the metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) const WORKERS: &str = "workload_pool_workers";
pub(super) const WORKERS_MAX: &str = "workload_pool_workers_max";
pub(super) const WORKERS_ACTIVE: &str = "workload_pool_workers_active";
pub(super) const IN_FLIGHT: &str = "workload_pool_in_flight";
pub(super) const PERMITS_IN_USE: &str = "workload_pool_permits_in_use";
pub(super) const CONCURRENCY_LIMIT: &str = "workload_pool_concurrency_limit";
pub(super) const QUEUE_DEPTH: &str = "workload_pool_queue_depth";
pub(super) const QUEUE_CAPACITY: &str = "workload_pool_queue_capacity";
pub(super) const UTILIZATION: &str = "workload_pool_utilization_ratio";
pub(super) const LOAD: &str = "workload_pool_load_ratio";
pub(super) const PROCESS_LOAD: &str = "workload_load_ratio";
pub(super) const OVERLOADED: &str = "workload_pool_overloaded";
pub(super) const ROUTES_UNMATCHED: &str = "workload_pool_routes_unmatched";
pub(super) const SUBMITTED: &str = "workload_pool_tasks_submitted_total";
pub(super) const TASKS: &str = "workload_pool_tasks_total";
pub(super) const STREAMS: &str = "workload_pool_streams";
pub(super) const STREAMS_LIMIT: &str = "workload_pool_streams_limit";
pub(super) const STREAM_BUFFERED: &str = "workload_pool_stream_buffered_bytes";
pub(super) const REQUEST_BODIES: &str = "workload_request_body_bytes";
pub(super) const REQUEST_BODIES_LIMIT: &str = "workload_request_body_bytes_limit";
pub(super) const QUEUE_WAIT: &str = "workload_pool_queue_wait_seconds";
pub(super) const RUN: &str = "workload_pool_run_seconds";
pub(super) const FIRST_FRAME: &str = "workload_pool_first_frame_seconds";
pub(super) const FRAME_GAP: &str = "workload_pool_frame_gap_seconds";

pub(super) const BATCHES: &str = "workload_pool_batches_total";
pub(super) const BATCH_TIME: &str = "workload_pool_batch_seconds";
pub(super) const SLOTS: &str = "workload_pool_slots";
pub(super) const SLOT_GENERATION: &str = "workload_pool_slot_generation";
pub(super) const MODELS: &str = "workload_pool_models";
pub(super) const MODELS_BYTES: &str = "workload_pool_models_bytes";
pub(super) const MODELS_BUDGET: &str = "workload_pool_models_budget_bytes";
pub(super) const MODEL_LOADS: &str = "workload_pool_model_loads_total";
pub(super) const MODEL_EVICTIONS: &str = "workload_pool_model_evictions_total";
pub(super) const MODEL_LOAD: &str = "workload_pool_model_load_seconds";

pub(super) const BATCH_ITEMS: &str = "workload_pool_batch_items";

/// The histograms of a pool with their buckets, for an exporter whose buckets are set by name.
pub const HISTOGRAMS: &[(&str, &[f64])] = &[
    (QUEUE_WAIT, SECONDS),
    (RUN, SECONDS),
    (FIRST_FRAME, SECONDS),
    (FRAME_GAP, SECONDS),
    (BATCH_TIME, SECONDS),
    (MODEL_LOAD, SECONDS),
    (BATCH_ITEMS, ITEMS),
];

/// From the cost of an idle pool to a long queue timeout.
const SECONDS: &[f64] = &[
    0.000_025, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    30.0,
];

const ITEMS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

pub(super) fn describe() {
    describe_histograms();
    describe_gauge!(WORKERS, Unit::Count, "Threads of the pool");
    describe_gauge!(WORKERS_MAX, Unit::Count, "Threads the pool may have");
    describe_gauge!(WORKERS_ACTIVE, Unit::Count, "Threads of the pool that are polling a task");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Tasks that were admitted and have not ended");
    describe_gauge!(
        PERMITS_IN_USE,
        Unit::Count,
        "Permits in use; fewer than tasks in flight where tasks run inside the permit of another"
    );
    describe_gauge!(CONCURRENCY_LIMIT, Unit::Count, "Permits that may be in use at once");
    describe_gauge!(QUEUE_DEPTH, Unit::Count, "Tasks that wait for a permit");
    describe_gauge!(QUEUE_CAPACITY, Unit::Count, "Tasks that may wait for a permit");
    describe_gauge!(UTILIZATION, "Active threads as a share of the threads the pool may have");
    describe_gauge!(LOAD, "What arrives over what the pool can do, rejected tasks included; above 1 it is too much");
    describe_gauge!(PROCESS_LOAD, "The greatest load of the pools, or the sum of their CPU parts if that is greater");
    describe_gauge!(
        OVERLOADED,
        "1 while tasks wait too long, or more of them leave the queue unserved than there is room for; 0 otherwise"
    );
    describe_gauge!(
        ROUTES_UNMATCHED,
        Unit::Count,
        "Routes of the settings to the pool that have matched no request yet"
    );
    describe_gauge!(REQUEST_BODIES, Unit::Bytes, "Memory of request bodies that are read before the queue, or queued");
    describe_gauge!(REQUEST_BODIES_LIMIT, Unit::Bytes, "Memory that these bodies may take");
    describe_gauge!(STREAMS, Unit::Count, "Responses whose body is open after their head");
    describe_gauge!(STREAMS_LIMIT, Unit::Count, "Streams that may be open at once; 0 without a limit");
    describe_gauge!(
        STREAM_BUFFERED,
        Unit::Bytes,
        "Bytes of streams that the pool has produced and no client has taken"
    );
    describe_gauge!(SLOTS, Unit::Count, "Values of the slots of the pool, by state");
    describe_gauge!(
        SLOT_GENERATION,
        "The version of new values of the slots of the pool: 1, and one more for each swap"
    );
    describe_gauge!(MODELS, Unit::Count, "Models that are loaded");
    describe_gauge!(MODELS_BYTES, Unit::Bytes, "Weight of the models that are loaded or being loaded");
    describe_gauge!(MODELS_BUDGET, Unit::Bytes, "Weight that the models may have");
    describe_counter!(MODEL_LOADS, Unit::Count, "Loads of models, by result");
    describe_counter!(MODEL_EVICTIONS, Unit::Count, "Models that were unloaded to make room for others");
    describe_counter!(SUBMITTED, Unit::Count, "Tasks that were submitted, whatever became of them");
    describe_counter!(TASKS, Unit::Count, "Tasks that ended, by result");
    describe_counter!(BATCHES, Unit::Count, "Batches that ended, by result");
}

/// The histograms alone. Some recorders take the description of a metric only before its first handle.
pub(super) fn describe_histograms() {
    describe_histogram!(MODEL_LOAD, Unit::Seconds, "Time to load a model");
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "Time from a task's submission to its first poll, of tasks that began"
    );
    describe_histogram!(RUN, Unit::Seconds, "Time from a task's first poll to its end, awaits included");
    describe_histogram!(BATCH_ITEMS, Unit::Count, "Tasks in a batch");
    describe_histogram!(BATCH_TIME, Unit::Seconds, "Time from the start of a batch to its end");
    describe_histogram!(FIRST_FRAME, Unit::Seconds, "Time from a task's submission to the first frame of its stream");
    describe_histogram!(
        FRAME_GAP,
        Unit::Seconds,
        "Time from one frame of a stream to the next, without the time in which the buffer was full"
    );
}
