//! The JSON of the stats endpoint.

use serde_json::{Map, Value, json};

use super::status::Totals;
use crate::pool::{ActiveTask, PoolStats};

pub(super) fn document(stats: &[PoolStats]) -> Value {
    let totals = Totals::of(stats);
    let pools: Map<_, _> = stats.iter().map(|stats| (stats.name.to_string(), pool(stats))).collect();
    json!({
        "summary": {
            "total_workers": totals.max_workers,
            "total_active": totals.active,
            "total_queued": totals.queued,
            "utilization_percent": tenths(totals.utilization() * 100.0),
        },
        "pools": pools,
    })
}

/// Whether the application is ready, and the JSON that says why not: it drains, or one of these pools is overloaded.
pub(super) fn readiness(draining: bool, ready_by: &[PoolStats]) -> (bool, Value) {
    let overloaded = ready_by.iter().filter(|stats| stats.overloaded);
    let pools: Map<_, _> = overloaded.map(|stats| (stats.name.to_string(), json!("overloaded"))).collect();
    let ready = !draining && pools.is_empty();
    let mut document = json!({ "ready": ready, "pools": pools });
    if draining {
        document["reason"] = json!("draining");
    }
    (ready, document)
}

fn pool(stats: &PoolStats) -> Value {
    let tasks: Map<_, _> = stats.counts.by_result().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    json!({
        "max_workers": stats.max_workers,
        "workers": stats.workers,
        "active_threads": stats.active_threads,
        "queued_tasks": stats.queued_tasks,
        "queue_capacity": stats.queue_capacity,
        "in_flight": stats.in_flight,
        "concurrency_limit": stats.concurrency_limit,
        "overloaded": stats.overloaded,
        "draining": stats.draining,
        "utilization_percent": tenths(stats.utilization() * 100.0),
        "submitted": stats.counts.submitted,
        "results": tasks,
        "active_tasks": stats.active_tasks.iter().map(task).collect::<Vec<_>>(),
    })
}

fn task(task: &ActiveTask) -> Value {
    json!({
        "task_id": task.task_id,
        "function": task.function,
        "running_for_seconds": thousandths(task.running_for.as_secs_f64()),
    })
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
