//! Batches of callers that each wait for their answer: beside no batches, and beside the most that a thread can do which
//! runs full lists one after the other.

use std::convert::Infallible;
use std::time::Duration;

use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_offload::batch::Batch;
use tower_offload::{Cpu, PoolConfig, Pools};

use crate::batch_functions::{self as functions, Cost, Function, Item, Output, lists_per_second};
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::kernel;
use crate::ways::{self, Task, Way};

/// The most items in a batch.
pub const MAX_ITEMS: usize = 32;

/// A function that takes long enough to be worth a batch.
pub const DEAR: Cost = Cost { fixed: Duration::from_millis(4), each: Duration::from_micros(250) };

const RUN_IN_POOL: &str = "run_in_pool";
const ALONE: &str = "one by one, run_in_pool";
const CEILING: &str = "ceiling: a thread that runs full lists";
const CALLERS: [usize; 2] = [16, 256];

/// A batch, and the item that every caller submits.
#[derive(Clone)]
struct Batched(Batch<Item, Output, Infallible>, Item);

/// One task for each item.
#[derive(Clone)]
struct Alone(Pools, Function, Item);

/// The echo of nothing, in a batch.
#[derive(Clone)]
struct Echo(Batch<(), (), Infallible>);

/// A function of lists, and what it is called in the tables.
struct Subject<'a> {
    name: &'a str,
    function: Function,
    item: Item,
    span: Duration,
}

pub fn run(harness: &mut Harness) {
    if !harness.wants("batch") {
        return;
    }
    let runtime = ways::runtime();
    one_caller(harness, &runtime);
    let digits = Subject {
        name: "digits.onnx",
        function: functions::digits(),
        item: functions::image(),
        span: harness.span(Duration::from_millis(500)),
    };
    if harness.wants("batch, digits.onnx") {
        let Cost { fixed, each } = Cost::measure(&digits.function, &digits.item, digits.span);
        println!("digits.onnx: a list of n items takes {fixed:.1?} + n · {each:.2?}.\n");
    }
    let network = Subject {
        name: "network.onnx",
        function: functions::network(),
        item: functions::features(),
        span: harness.span(Duration::from_secs(1)),
    };
    if harness.wants("batch, network.onnx") {
        let Cost { fixed, each } = Cost::measure(&network.function, &network.item, network.span);
        println!("network.onnx: a list of n items takes {fixed:.1?} + n · {each:.2?}.\n");
    }
    let dear = Subject {
        name: "4 ms + n · 0.25 ms",
        function: functions::blocking(DEAR),
        item: Item::default(),
        span: harness.span(Duration::from_secs(1)),
    };
    for subject in [&digits, &network, &dear] {
        for callers in CALLERS {
            saturated(harness, &runtime, subject, callers);
        }
    }
}

fn one_caller(harness: &mut Harness, runtime: &Runtime) {
    let span = harness.span(Duration::from_millis(300));
    let [batches, tasks] = [(); 2].map(|()| ways::pools(ways::default_cpu()));
    let echo = |items: Vec<()>| items.into_iter().map(Ok).collect();
    let batched = Echo(Batch::builder(&batches, Cpu).run(echo).expect("the pool exists"));
    let plain = ways::Ours(tasks);
    let cases = vec![
        Case { name: OURS, sample: Box::new(|| one(runtime, &batched, span)) },
        Case { name: RUN_IN_POOL, sample: Box::new(|| one(runtime, &plain, span)) },
    ];
    let columns = [Column { name: "a call", unit: "µs" }, kernel::SWITCHES, kernel::TIME];
    let target = Target {
        text: "at most 5 µs more than `run_in_pool`",
        reached: |medians| medians.of(OURS, 0) - medians.of(RUN_IN_POOL, 0) <= 5.0,
    };
    harness.run(Scenario {
        name: "batch, one caller".to_owned(),
        columns: &columns,
        cases,
        baseline: OURS,
        target: Some(target),
    });
}

fn one<W: Way>(runtime: &Runtime, way: &W, span: Duration) -> Vec<f64> {
    let done = ways::measure(runtime, std::slice::from_ref(way), Task::EMPTY, 1, span);
    vec![1e6 / done.tasks_per_second, done.switches, done.kernel]
}

/// Callers that submit the next item when they have the result of the one before, and a pool of one worker.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn saturated(harness: &mut Harness, runtime: &Runtime, subject: &Subject<'_>, callers: usize) {
    let Subject { name, function, item, span } = subject;
    let [batches, tasks] = [(); 2].map(|()| ways::pools(ways::patient(PoolConfig::new(1))));
    let batched = Batched(batch(&batches, function), item.clone());
    let alone = Alone(tasks, function.clone(), item.clone());
    let full = callers.min(MAX_ITEMS);
    let measure = |done: ways::Done| (done.tasks_per_second, done.switches);
    let cases = vec![
        Case {
            name: OURS,
            sample: Box::new(|| {
                let before = ended(&batches);
                let (items, switches) =
                    measure(ways::measure(runtime, std::slice::from_ref(&batched), Task::EMPTY, callers, *span));
                let after = ended(&batches);
                vec![items, (after.0 - before.0) / (after.1 - before.1), switches]
            }),
        },
        Case {
            name: ALONE,
            sample: Box::new(|| {
                let (items, switches) =
                    measure(ways::measure(runtime, std::slice::from_ref(&alone), Task::EMPTY, callers, *span));
                vec![items, 1.0, switches]
            }),
        },
        Case {
            name: CEILING,
            sample: Box::new(move || {
                let full = full as f64;
                vec![full * lists_per_second(function, item, full as usize, *span), full, f64::NAN]
            }),
        },
    ];
    let columns = [
        Column { name: "throughput", unit: "items/s" },
        Column { name: "in a batch", unit: "items" },
        kernel::SWITCHES,
    ];
    let few = Target {
        text: "at least 0.95 of the ceiling, one list of 16 after the other",
        reached: |medians| medians.ratio_to(CEILING, 0) >= 0.95,
    };
    let many = Target {
        text: "at least 0.97 of the ceiling, one list of 32 after the other",
        reached: |medians| medians.ratio_to(CEILING, 0) >= 0.97,
    };
    harness.run(Scenario {
        name: format!("batch, {name}, {callers} callers"),
        columns: &columns,
        cases,
        baseline: OURS,
        target: Some(if callers < MAX_ITEMS { few } else { many }),
    });
}

/// A batch of the function in the `cpu` pool.
pub fn batch(pools: &Pools, function: &Function) -> Batch<Item, Output, Infallible> {
    let function = function.clone();
    let run = move |items| function(items).into_iter().map(Ok).collect();
    Batch::builder(pools, Cpu).max_items(MAX_ITEMS).run(run).expect("the pool exists")
}

/// How many items and batches of the `cpu` pool have ended.
#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 items")]
fn ended(pools: &Pools) -> (f64, f64) {
    let stats = pools.stats().into_iter().find(|stats| stats.name.as_str() == "cpu").expect("the pool exists");
    (stats.counts.ok as f64, stats.batches.expect("it has batches").ok as f64)
}

impl Way for Batched {
    async fn run(&self, _: Task) {
        self.0.clone().oneshot(self.1.clone()).await.expect("the queue is long enough");
    }
}

impl Way for Alone {
    async fn run(&self, _: Task) {
        let (function, item) = (self.1.clone(), self.2.clone());
        self.0.run_in_pool(Cpu, move || function(vec![item])).await.expect("the queue is long enough");
    }
}

impl Way for Echo {
    async fn run(&self, _: Task) {
        self.0.clone().oneshot(()).await.expect("the queue is long enough");
    }
}
