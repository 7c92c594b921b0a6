//! Sets the metrics of pools in the recorder that the application has installed.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Histogram, counter, gauge, histogram, with_recorder};

use super::{Reading, names};
use crate::workload::Workload;

/// The two histograms of a pool.
#[derive(Debug)]
pub(crate) struct JobTimes {
    pool: Workload,
    /// Resolved when the pool was made.
    early: Handles,
    /// Resolved again if the application installed its recorder after that.
    late: OnceLock<Handles>,
}

#[derive(Debug)]
struct Handles {
    wait: Histogram,
    run: Histogram,
    /// The address of the recorder that these handles belong to.
    recorder: usize,
}

impl JobTimes {
    pub(crate) fn of(pool: &Workload) -> Self {
        Self { pool: pool.clone(), early: Handles::resolve(pool), late: OnceLock::new() }
    }

    pub(crate) fn record_wait(&self, waited: Duration) {
        self.handles().wait.record(waited);
    }

    pub(crate) fn record_run(&self, ran: Duration) {
        self.handles().run.record(ran);
    }

    /// Resolves the handles again if a recorder was installed since.
    pub(crate) fn refresh(&self) {
        if self.late.get().is_none() && self.early.recorder != recorder() {
            let _ = self.late.set(Handles::resolve(&self.pool));
        }
    }

    fn handles(&self) -> &Handles {
        self.late.get().unwrap_or(&self.early)
    }
}

impl Handles {
    fn resolve(pool: &Workload) -> Self {
        let pool = pool.to_string();
        Self {
            wait: histogram!(names::QUEUE_WAIT, "pool" => pool.clone()),
            run: histogram!(names::RUN, "pool" => pool),
            recorder: recorder(),
        }
    }
}

/// The address of the current recorder. It changes once, when the application installs one.
fn recorder() -> usize {
    with_recorder(|recorder| std::ptr::from_ref(recorder).addr())
}

/// Sets every gauge and counter of a pool from one reading of it.
pub(crate) fn publish(reading: &Reading<'_>) {
    names::describe();
    let pool = reading.pool.to_string();
    let gauges = [
        (names::WORKERS, count(reading.workers)),
        (names::WORKERS_MAX, count(reading.workers_max)),
        (names::WORKERS_BUSY, count(reading.busy)),
        (names::IN_FLIGHT, count(reading.in_flight)),
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
        counter!(names::JOBS, "pool" => pool.clone(), "result" => result).absolute(value);
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
