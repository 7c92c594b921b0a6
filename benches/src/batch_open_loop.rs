//! Batches of items that arrive by chance, whether or not those before have an answer: an overload with callers that
//! leave, and a low load.
//!
//! The function blocks for 4 ms and 0.25 ms for each item, and one list runs at a time. Latency counts from the moment at
//! which an item was due.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tower::{ServiceBuilder, ServiceExt};
use tower_offload::pool::TaskOptions;
use tower_offload::{Deadline, PoolConfig};

use crate::batch::{DEAR, MAX_ITEMS, batch};
use crate::batch_arrivals::{Answers, Arrivals, PATIENCE, WARM_UP};
use crate::batch_functions::{self as functions, Function, Item};
use crate::batch_windows::{batch_control, tower_batch};
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target, quantile};
use crate::ways;

const NO_DEADLINES: &str = "ours, without deadlines";
const TOWER_BATCH: &str = "tower-batch, window of 5 ms";
const CONTROL: &str = "tower-batch-control, window of 5 ms";
const SHED: &str = "LoadShed + tower-batch";
const WINDOW: Duration = Duration::from_millis(5);
const SPAN: Duration = Duration::from_secs(3);
const QUEUE: usize = 1024;

/// What was answered, and the mean size of a batch.
struct Sample {
    answers: Answers,
    items_in_batch: f64,
}

pub fn run(harness: &mut Harness) {
    let span = harness.span(SPAN).max(WARM_UP + Duration::from_millis(500));
    let runtime = ways::runtime();
    let name = "batch, overload of 4, callers that leave after 100 ms";
    if harness.wants(name) {
        let columns = [
            Column { name: "good answers, of those possible", unit: "%" },
            Column { name: "p99 of the good", unit: "ms" },
            Column { name: "in a batch", unit: "items" },
        ];
        let target = Target {
            text: "at least 97 % of what full batches could answer",
            reached: |medians| medians.of(OURS, 0) >= 97.0,
        };
        let kinds = [OURS, NO_DEADLINES, TOWER_BATCH, CONTROL, SHED];
        let cases = kinds.map(|kind| case(&runtime, kind, 4.0, span, overload)).into();
        harness.run(Scenario { name: name.into(), columns: &columns, cases, baseline: OURS, target: Some(target) });
    }
    let name = "batch, load of 0.3";
    if harness.wants(name) {
        let columns = [
            Column { name: "mean latency", unit: "ms" },
            Column { name: "p99", unit: "ms" },
            Column { name: "in a batch", unit: "items" },
        ];
        let cases = [OURS, TOWER_BATCH, CONTROL].map(|kind| case(&runtime, kind, 0.3, span, latency)).into();
        let target = Target {
            text: "a lower mean than with either window",
            reached: |medians| [TOWER_BATCH, CONTROL].iter().all(|window| medians.ratio_to(window, 0) < 1.0),
        };
        harness.run(Scenario { name: name.into(), columns: &columns, cases, baseline: OURS, target: Some(target) });
    }
}

/// Items a second, in full lists that follow each other without a gap.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn capacity() -> f64 {
    MAX_ITEMS as f64 / DEAR.of(MAX_ITEMS).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 items")]
fn overload(sample: &Sample) -> Vec<f64> {
    let mut good = sample.answers.latencies();
    let possible = capacity() * sample.answers.counted.as_secs_f64();
    vec![good.len() as f64 / possible * 100.0, quantile(&mut good, 0.99), sample.items_in_batch]
}

#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 items")]
fn latency(sample: &Sample) -> Vec<f64> {
    let mut latencies = sample.answers.latencies();
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
    vec![mean, quantile(&mut latencies, 0.99), sample.items_in_batch]
}

/// Each sample has a new system, which has an empty queue.
fn case<'a>(
    runtime: &'a Runtime,
    kind: &'static str,
    load: f64,
    span: Duration,
    shown: fn(&Sample) -> Vec<f64>,
) -> Case<'a> {
    let mut seed = 0;
    let sample = move || {
        seed += 1;
        let lists = Lists::default();
        let arrivals = Arrivals { runtime, per_second: load * capacity(), span, seed };
        let function = lists.seen_of(functions::blocking(DEAR));
        let _in_runtime = runtime.enter();
        let answers = match kind {
            TOWER_BATCH => {
                let batch = tower_batch(function, MAX_ITEMS, WINDOW);
                arrivals.run(move |_| batch.clone().oneshot(Item::default()))
            }
            SHED => {
                let batch = ServiceBuilder::new().load_shed().service(tower_batch(function, MAX_ITEMS, WINDOW));
                arrivals.run(move |_| batch.clone().oneshot(Item::default()))
            }
            CONTROL => {
                let batch = batch_control(function, MAX_ITEMS, WINDOW);
                arrivals.run(move |_| batch.clone().oneshot(Item::default().into()))
            }
            _ => {
                let pools = ways::pools(PoolConfig::new(1).queue_capacity(QUEUE));
                let batch = batch(&pools, &function, MAX_ITEMS);
                let options = move |due| match kind {
                    OURS => TaskOptions::new().deadline(Deadline::at(due + PATIENCE)),
                    _ => TaskOptions::new(),
                };
                arrivals.run(move |due| batch.call_with(options(due), Item::default()))
            }
        };
        let items_in_batch = lists.mean_since(answers.counted_from);
        shown(&Sample { answers, items_in_batch })
    };
    Case { name: kind, sample: Box::new(sample) }
}

/// When the function was called, and with how many items.
#[derive(Clone, Default)]
struct Lists(Arc<Mutex<Vec<(Instant, usize)>>>);

impl Lists {
    fn seen_of(&self, function: Function) -> Function {
        let seen = self.0.clone();
        Arc::new(move |items| {
            seen.lock().expect("no caller panics").push((Instant::now(), items.len()));
            function(items)
        })
    }

    /// The mean size of those that began after this moment.
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    fn mean_since(&self, from: Instant) -> f64 {
        let seen = self.0.lock().expect("no caller panics");
        let (lists, items) =
            seen.iter().filter(|(at, _)| *at >= from).fold((0, 0), |sum, (_, size)| (sum.0 + 1, sum.1 + size));
        items as f64 / f64::from(lists)
    }
}
