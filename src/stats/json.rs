//! The JSON of the stats endpoint.
//!
//! Its objects keep the order of their fields, and `pools` the order of the settings. `serde_json`'s own map would sort
//! both, unless its feature `preserve_order` changed that for the whole application.

use serde::{Serialize, Serializer};

use super::status::Totals;
use crate::load::Load;
use crate::pool::{ActiveTask, ModelsStats, PoolStats, SlotsStats};
use crate::pools::SlowRoute;
use crate::workload::Workload;

#[derive(Serialize)]
pub(super) struct Document<'a> {
    summary: Summary,
    pools: InOrder<Vec<(&'a str, PoolNumbers<'a>)>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    slow_routes: Vec<SlowRouteNumbers<'a>>,
}

/// Why the application is not ready: it drains, or some of its pools are overloaded.
#[derive(Serialize)]
pub(super) struct Readiness<'a> {
    pub(super) ready: bool,
    pools: InOrder<Vec<(&'a str, &'static str)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The load, for autoscalers: numbers, and the names of pools.
#[derive(Serialize)]
pub(super) struct ScaleNumbers<'a> {
    load: f64,
    target: f64,
    factor: f64,
    /// `null` while there is no load, and if the sum of the CPU parts is the load.
    bound_by: Option<&'a str>,
    pools: InOrder<Vec<(&'a str, f64)>>,
}

#[derive(Serialize)]
struct Summary {
    total_workers: usize,
    total_active: usize,
    total_queued: usize,
    utilization_percent: f64,
}

/// The first four fields and `active_tasks` come from this endpoint's predecessor, and keep their names.
#[derive(Serialize)]
struct PoolNumbers<'a> {
    max_workers: usize,
    active_threads: usize,
    queued_tasks: usize,
    active_tasks: Vec<TaskNumbers<'a>>,
    workers: usize,
    queue_capacity: usize,
    in_flight: usize,
    permits_in_use: usize,
    concurrency_limit: usize,
    overloaded: bool,
    draining: bool,
    utilization_percent: f64,
    load_ratio: f64,
    streams: StreamNumbers,
    submitted: u64,
    results: InOrder<Vec<(&'static str, u64)>>,
    /// Only of a pool with a function for batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    batches: Option<InOrder<Vec<(&'static str, u64)>>>,
    /// Only of a pool that has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<SlotNumbers<'a>>,
    /// Only of a pool that has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<ModelNumbers<'a>>,
}

#[derive(Serialize)]
struct SlotNumbers<'a> {
    name: &'a str,
    generation: u64,
    idle: usize,
    in_use: usize,
    loading: usize,
    outdated: usize,
    /// Whether the last value could not be made. The text of its error is not shown: it may contain a secret.
    failing: bool,
}

#[derive(Serialize)]
struct ModelNumbers<'a> {
    name: &'a str,
    budget_bytes: u64,
    bytes: u64,
    loaded: InOrder<Vec<(&'a str, LoadedNumbers)>>,
    loading: &'a [String],
    leaving: usize,
    loads: InOrder<Vec<(&'static str, u64)>>,
    evictions: u64,
}

#[derive(Serialize)]
struct LoadedNumbers {
    version: u64,
    bytes: u64,
    held: usize,
}

#[derive(Serialize)]
struct StreamNumbers {
    open: usize,
    limit: usize,
    buffered_bytes: usize,
}

#[derive(Serialize)]
struct TaskNumbers<'a> {
    task_id: u64,
    function: &'a str,
    running_for_seconds: f64,
}

/// A route that holds threads of the runtime for long.
#[derive(Serialize)]
struct SlowRouteNumbers<'a> {
    route: &'a str,
    long_polls: u64,
    longest_seconds: f64,
}

/// An object whose entries keep their order.
struct InOrder<T>(T);

impl<'a> Document<'a> {
    pub(super) fn of(stats: &'a [PoolStats], slow_routes: &'a [SlowRoute]) -> Self {
        let totals = Totals::of(stats);
        Self {
            summary: Summary {
                total_workers: totals.max_workers,
                total_active: totals.active,
                total_queued: totals.queued,
                utilization_percent: tenths(totals.utilization() * 100.0),
            },
            pools: InOrder(stats.iter().map(|stats| (stats.name.as_str(), PoolNumbers::of(stats))).collect()),
            slow_routes: slow_routes.iter().map(SlowRouteNumbers::of).collect(),
        }
    }
}

impl<'a> Readiness<'a> {
    /// `ready_by` are the pools whose overload counts.
    pub(super) fn of(draining: bool, ready_by: &'a [PoolStats]) -> Self {
        let overloaded = ready_by.iter().filter(|stats| stats.overloaded);
        let pools: Vec<_> = overloaded.map(|stats| (stats.name.as_str(), "overloaded")).collect();
        Self { ready: !draining && pools.is_empty(), pools: InOrder(pools), reason: draining.then_some("draining") }
    }
}

impl<'a> ScaleNumbers<'a> {
    pub(super) fn of(load: &'a Load) -> Self {
        let pools = load.pools.iter().map(|pool| (pool.name.as_str(), thousandths(pool.ratio)));
        Self {
            load: thousandths(load.ratio),
            target: load.target,
            factor: thousandths(load.factor()),
            bound_by: load.bound_by.as_ref().map(Workload::as_str),
            pools: InOrder(pools.collect()),
        }
    }
}

impl<'a> PoolNumbers<'a> {
    fn of(stats: &'a PoolStats) -> Self {
        Self {
            max_workers: stats.max_workers,
            active_threads: stats.active_threads,
            queued_tasks: stats.queued_tasks,
            active_tasks: stats.active_tasks.iter().map(TaskNumbers::of).collect(),
            workers: stats.workers,
            queue_capacity: stats.queue_capacity,
            in_flight: stats.in_flight,
            permits_in_use: stats.permits_in_use,
            concurrency_limit: stats.concurrency_limit,
            overloaded: stats.overloaded,
            draining: stats.draining,
            utilization_percent: tenths(stats.utilization() * 100.0),
            load_ratio: thousandths(stats.load_ratio),
            streams: StreamNumbers {
                open: stats.streams,
                limit: stats.streams_limit,
                buffered_bytes: stats.stream_buffered_bytes,
            },
            submitted: stats.counts.submitted,
            results: InOrder(stats.counts.by_result().collect()),
            batches: stats.batches.map(|batches| InOrder(batches.by_result().to_vec())),
            slots: stats.holdings.slots.iter().map(SlotNumbers::of).collect(),
            models: stats.holdings.models.iter().map(ModelNumbers::of).collect(),
        }
    }
}

impl<'a> SlotNumbers<'a> {
    fn of(slots: &'a SlotsStats) -> Self {
        Self {
            name: &slots.name,
            generation: slots.generation,
            idle: slots.idle,
            in_use: slots.in_use,
            loading: slots.loading,
            outdated: slots.outdated,
            failing: slots.error.is_some(),
        }
    }
}

impl<'a> ModelNumbers<'a> {
    fn of(models: &'a ModelsStats) -> Self {
        let loaded = models.loaded.iter().map(|model| {
            (model.key.as_str(), LoadedNumbers { version: model.version, bytes: model.bytes, held: model.held })
        });
        Self {
            name: &models.name,
            budget_bytes: models.budget_bytes,
            bytes: models.bytes,
            loaded: InOrder(loaded.collect()),
            loading: &models.loading,
            leaving: models.leaving,
            loads: InOrder(vec![("ok", models.loads_ok), ("error", models.loads_failed)]),
            evictions: models.evictions,
        }
    }
}

impl<'a> TaskNumbers<'a> {
    fn of(task: &'a ActiveTask) -> Self {
        Self {
            task_id: task.task_id,
            function: &task.function,
            running_for_seconds: thousandths(task.running_for.as_secs_f64()),
        }
    }
}

impl<'a> SlowRouteNumbers<'a> {
    fn of(route: &'a SlowRoute) -> Self {
        Self {
            route: &route.route,
            long_polls: route.long_polls,
            longest_seconds: thousandths(route.longest.as_secs_f64()),
        }
    }
}

impl<V: Serialize> Serialize for InOrder<Vec<(&str, V)>> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
