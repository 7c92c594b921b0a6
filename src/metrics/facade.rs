//! Sets the metrics of pools in the application's recorder.

use std::time::Duration;

use metrics::{Histogram, counter, gauge, histogram};

use super::{Reading, names};
use crate::admission::Timestamp;
use crate::workload::Workload;

/// The two histograms of a pool, for one recording thread.
#[derive(Debug)]
pub(crate) struct TaskTimes {
    pool: Workload,
    handles: Option<Handles>,
}

#[derive(Debug)]
struct Handles {
    wait: Histogram,
    run: Histogram,
    resolved: Timestamp,
}

/// How long a histogram's handle is used before it is resolved again. The application may have installed its recorder
/// in the meantime, and an exporter with an idle timeout may have removed the histogram of an idle pool.
const RESOLVE_AFTER: Duration = Duration::from_millis(500);

impl TaskTimes {
    pub(crate) fn of(pool: &Workload) -> Self {
        Self { pool: pool.clone(), handles: None }
    }

    pub(crate) fn record_wait(&mut self, now: Timestamp, waited: Duration) {
        self.handles(now).wait.record(waited);
    }

    pub(crate) fn record_run(&mut self, now: Timestamp, ran: Duration) {
        self.handles(now).run.record(ran);
    }

    fn handles(&mut self, now: Timestamp) -> &Handles {
        if self.handles.as_ref().is_some_and(|handles| now.since(handles.resolved) >= RESOLVE_AFTER) {
            self.handles = None;
        }
        self.handles.get_or_insert_with(|| Handles::resolve(&self.pool, now))
    }
}

impl Handles {
    fn resolve(pool: &Workload, now: Timestamp) -> Self {
        let pool = pool.to_string();
        Self {
            wait: histogram!(names::QUEUE_WAIT, "pool" => pool.clone()),
            run: histogram!(names::RUN, "pool" => pool),
            resolved: now,
        }
    }
}

/// Sets every gauge and counter of a pool from one reading of it.
pub(crate) fn publish(reading: &Reading<'_>) {
    names::describe();
    let pool = reading.pool.to_string();
    let gauges = [
        (names::WORKERS, count(reading.workers)),
        (names::WORKERS_MAX, count(reading.workers_max)),
        (names::WORKERS_ACTIVE, count(reading.active)),
        (names::IN_FLIGHT, count(reading.in_flight)),
        (names::PERMITS_IN_USE, count(reading.permits_in_use)),
        (names::CONCURRENCY_LIMIT, count(reading.concurrency_limit)),
        (names::QUEUE_DEPTH, count(reading.queue_depth)),
        (names::QUEUE_CAPACITY, count(reading.queue_capacity)),
        (names::OVERLOADED, f64::from(u8::from(reading.overloaded))),
        (names::UTILIZATION, reading.utilization),
    ];
    for (name, value) in gauges {
        gauge!(name, "pool" => pool.clone()).set(value);
    }
    counter!(names::SUBMITTED, "pool" => pool.clone()).absolute(reading.counts.submitted);
    for (result, value) in reading.counts.by_result() {
        counter!(names::TASKS, "pool" => pool.clone(), "result" => result).absolute(value);
    }
}

/// Sets the number of routes to a pool that have matched no request.
pub(crate) fn publish_routes(pool: &Workload, unmatched: usize) {
    gauge!(names::ROUTES_UNMATCHED, "pool" => pool.to_string()).set(count(unmatched));
}

#[expect(clippy::cast_precision_loss, reason = "no pool counts to 2^53")]
const fn count(value: usize) -> f64 {
    value as f64
}
