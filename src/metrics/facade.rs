//! Sets the metrics of pools in the application's recorder.

use std::time::Duration;

use metrics::{Histogram, counter, gauge, histogram};

use super::batches::BatchCounts;
use super::ended::{self, Total};
use super::holdings::HoldingsReading;
use super::names;
use super::stats::PoolStats;
use crate::admission::Timestamp;
use crate::budget::Budget;
use crate::workload::Workload;

/// The histograms of a pool, for one recording thread.
#[derive(Debug)]
pub(crate) struct TaskTimes {
    pool: Workload,
    handles: Option<Handles>,
}

#[derive(Debug)]
struct Handles {
    pool: String,
    wait: Histogram,
    run: Histogram,
    /// Those of streams exist only in pools that have some.
    first_frame: Option<Histogram>,
    frame_gap: Option<Histogram>,
    /// Those of batches, too.
    batch_time: Option<Histogram>,
    batch_items: Option<Histogram>,
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

    pub(crate) fn record_first_frame(&mut self, now: Timestamp, after: Duration) {
        let Handles { pool, first_frame, .. } = self.handles(now);
        first_frame.get_or_insert_with(|| of_pool(names::FIRST_FRAME, pool)).record(after);
    }

    pub(crate) fn record_frame_gap(&mut self, now: Timestamp, gap: Duration) {
        let Handles { pool, frame_gap, .. } = self.handles(now);
        frame_gap.get_or_insert_with(|| of_pool(names::FRAME_GAP, pool)).record(gap);
    }

    #[expect(clippy::cast_precision_loss, reason = "no batch has 2^53 items")]
    pub(crate) fn record_batch(&mut self, now: Timestamp, items: usize, took: Duration) {
        let Handles { pool, batch_time, batch_items, .. } = self.handles(now);
        batch_time.get_or_insert_with(|| of_pool(names::BATCH_TIME, pool)).record(took);
        batch_items.get_or_insert_with(|| of_pool(names::BATCH_ITEMS, pool)).record(items as f64);
    }

    fn handles(&mut self, now: Timestamp) -> &mut Handles {
        if self.handles.as_ref().is_some_and(|handles| now.since(handles.resolved) >= RESOLVE_AFTER) {
            self.handles = None;
        }
        self.handles.get_or_insert_with(|| Handles::resolve(&self.pool, now))
    }
}

impl Handles {
    fn resolve(pool: &Workload, now: Timestamp) -> Self {
        names::describe_histograms();
        let pool = pool.to_string();
        Self {
            wait: of_pool(names::QUEUE_WAIT, &pool),
            run: of_pool(names::RUN, &pool),
            pool,
            first_frame: None,
            frame_gap: None,
            batch_time: None,
            batch_items: None,
            resolved: now,
        }
    }
}

fn of_pool(name: &'static str, pool: &str) -> Histogram {
    histogram!(name, "pool" => pool.to_owned())
}

/// There is a new pool of this name.
pub(crate) fn begin(pool: &Workload) {
    ended::begin(pool.as_str());
}

/// Sets every gauge and counter of a pool from one reading of it.
pub(crate) fn publish(stats: &PoolStats) {
    names::describe();
    let pool = stats.name.to_string();
    for (name, value) in gauges_of(stats) {
        gauge!(name, "pool" => pool.clone()).set(value);
    }
    set_counters(&pool, &totals_of(stats));
}

fn gauges_of(stats: &PoolStats) -> [(&'static str, f64); 14] {
    [
        (names::WORKERS, count(stats.workers)),
        (names::WORKERS_MAX, count(stats.max_workers)),
        (names::WORKERS_ACTIVE, count(stats.active_threads)),
        (names::IN_FLIGHT, count(stats.in_flight)),
        (names::PERMITS_IN_USE, count(stats.permits_in_use)),
        (names::CONCURRENCY_LIMIT, count(stats.concurrency_limit)),
        (names::QUEUE_DEPTH, count(stats.queued_tasks)),
        (names::QUEUE_CAPACITY, count(stats.queue_capacity)),
        (names::OVERLOADED, f64::from(u8::from(stats.overloaded))),
        (names::UTILIZATION, stats.utilization()),
        (names::LOAD, stats.load_ratio),
        (names::STREAMS, count(stats.streams)),
        (names::STREAMS_LIMIT, count(stats.streams_limit)),
        (names::STREAM_BUFFERED, count(stats.stream_buffered_bytes)),
    ]
}

/// The counters of a pool.
fn totals_of(stats: &PoolStats) -> Vec<Total> {
    let tasks = stats.counts.by_result().map(|(result, value)| (names::TASKS, Some(result), value));
    let batches = stats.batches.iter().flat_map(BatchCounts::by_result);
    let batches = batches.map(|(result, value)| (names::BATCHES, Some(result), value));
    [(names::SUBMITTED, None, stats.counts.submitted)].into_iter().chain(tasks).chain(batches).collect()
}

/// The counters of the models of a pool.
fn totals_of_holdings(reading: &HoldingsReading) -> Vec<Total> {
    let Some(models) = &reading.models else { return Vec::new() };
    vec![
        (names::MODEL_LOADS, Some("ok"), models.loads_ok),
        (names::MODEL_LOADS, Some("error"), models.loads_failed),
        (names::MODEL_EVICTIONS, None, models.evictions),
    ]
}

fn set_counters(pool: &str, totals: &[Total]) {
    for (&(name, result, value), before) in totals.iter().zip(ended::before(pool, totals)) {
        let counter = match result {
            Some(result) => counter!(name, "pool" => pool.to_owned(), "result" => result),
            None => counter!(name, "pool" => pool.to_owned()),
        };
        counter.absolute(before + value);
    }
}

/// Keeps the counters of a pool that ends, after they were published for the last time. If there is no other pool of its
/// name, its gauges become 0. Those of its slots and models are that already.
pub(crate) fn end(stats: &PoolStats, holdings: &HoldingsReading) {
    let totals = [totals_of(stats), totals_of_holdings(holdings)].concat();
    if ended::end(stats.name.as_str(), &totals) {
        for (name, _) in gauges_of(stats) {
            gauge!(name, "pool" => stats.name.to_string()).set(0.0);
        }
    }
    if ended::none_left() {
        for name in [names::PROCESS_LOAD, names::REQUEST_BODIES, names::REQUEST_BODIES_LIMIT] {
            gauge!(name).set(0.0);
        }
    }
}

/// Sets the gauge of the load of the process.
pub(crate) fn publish_load(ratio: f64) {
    names::describe();
    gauge!(names::PROCESS_LOAD).set(ratio);
}

/// Sets the gauges and counters of the slots and models of a pool. A pool without any has none.
pub(crate) fn publish_holdings(pool: &Workload, reading: &HoldingsReading) {
    let pool = pool.to_string();
    if let Some(slots) = &reading.slots {
        for (state, value) in [("idle", slots.idle), ("in_use", slots.in_use), ("loading", slots.loading)] {
            gauge!(names::SLOTS, "pool" => pool.clone(), "state" => state).set(count(value));
        }
        gauge!(names::SLOT_GENERATION, "pool" => pool.clone()).set(real(slots.generation));
    }
    if let Some(models) = &reading.models {
        gauge!(names::MODELS, "pool" => pool.clone()).set(count(models.loaded));
        gauge!(names::MODELS_BYTES, "pool" => pool.clone()).set(real(models.bytes));
        gauge!(names::MODELS_BUDGET, "pool" => pool.clone()).set(real(models.budget));
    }
    set_counters(&pool, &totals_of_holdings(reading));
}

/// Records how long the load of a model took. Loads are rare, so the handle is resolved each time.
pub(crate) fn record_model_load(pool: &Workload, took: Duration) {
    of_pool(names::MODEL_LOAD, pool.as_str()).record(took);
}

/// Sets the gauges of the memory for request bodies, which all pools share.
pub(crate) fn publish_bodies(budget: &Budget) {
    names::describe();
    gauge!(names::REQUEST_BODIES).set(count(budget.in_use()));
    gauge!(names::REQUEST_BODIES_LIMIT).set(count(budget.limit()));
}

/// Sets the number of routes to a pool that have matched no request.
pub(crate) fn publish_routes(pool: &Workload, unmatched: usize) {
    gauge!(names::ROUTES_UNMATCHED, "pool" => pool.to_string()).set(count(unmatched));
}

#[expect(clippy::cast_precision_loss, reason = "nothing weighs 2^53 bytes")]
const fn real(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "no pool counts to 2^53")]
const fn count(value: usize) -> f64 {
    value as f64
}

#[cfg(all(test, feature = "prometheus"))]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn only_a_pool_with_streams_has_their_histograms() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = metrics::with_local_recorder(&recorder, || {
            let (start, second) = (Timestamp::default(), Duration::from_secs(1));
            let mut plain = TaskTimes::of(&Workload::CPU);
            plain.record_run(start, second);
            let mut streaming = TaskTimes::of(&Workload::INFERENCE);
            streaming.record_first_frame(start, second);
            streaming.record_frame_gap(start, second);
            streaming.record_frame_gap(start + RESOLVE_AFTER, second);
            recorder.handle().render()
        });
        let has = |line: &str| rendered.lines().any(|found| found == line);
        assert!(has("workload_pool_run_seconds_count{pool=\"cpu\"} 1"), "{rendered}");
        assert!(has("workload_pool_first_frame_seconds_count{pool=\"inference\"} 1"), "{rendered}");
        assert!(has("workload_pool_frame_gap_seconds_count{pool=\"inference\"} 2"), "{rendered}");
        let of_streams = rendered.lines().filter(|line| line.contains("frame") && line.contains("cpu"));
        assert_eq!(of_streams.count(), 0, "{rendered}");
    }
}
