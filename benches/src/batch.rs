//! Batches of callers that each wait for their answer: beside no batches, and beside the most that a thread can do which
//! runs full lists one after the other.

use std::convert::Infallible;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
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
const UP_TO_8: &str = "ours, lists of up to 8";
const UP_TO_16: &str = "ours, lists of up to 16";
const LISTS_OF_8: &str = "a thread that runs lists of 8";
const LISTS_OF_16: &str = "a thread that runs lists of 16";
const LISTS_OF_32: &str = "a thread that runs lists of 32";
const QUEUE: &str = "a thread with a queue, beside the callers";
const ROUNDS: usize = 15;
const FEW: usize = 16;
const MANY: usize = 256;

/// A batch, and the item that every caller submits.
#[derive(Clone)]
struct Batched(Batch<Item, Output, Infallible>, Item);

/// One task for each item.
#[derive(Clone)]
struct Alone(Pools, Function, Item);

/// Submits an item to a [`Queue`].
#[derive(Clone)]
struct Queued(Arc<Queue>, Item);

/// An item, and where its result goes.
type Asked = (Item, oneshot::Sender<Output>);

/// Items that wait for a thread, with the channels of their callers. `None` once no more of them come.
struct Queue {
    items: Mutex<Option<Vec<Asked>>>,
    pushed: Condvar,
}

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
    let network = Subject {
        name: "network.onnx",
        function: functions::network(),
        item: functions::features(),
        span: harness.span(Duration::from_secs(1)),
    };
    let large = Subject {
        name: "network-large.onnx",
        function: functions::large_network(),
        item: functions::features(),
        span: harness.span(Duration::from_secs(2)),
    };
    let dear = Subject {
        name: "4 ms + n · 0.25 ms",
        function: functions::blocking(DEAR),
        item: Item::default(),
        span: harness.span(Duration::from_secs(1)),
    };
    for Subject { name, function, item, span } in [&digits, &network, &large] {
        if harness.wants(&format!("batch, {name}")) {
            let Cost { fixed, each } = Cost::measure(function, item, *span);
            println!("{name}: a list of n items takes {fixed:.1?} + n · {each:.2?}.\n");
        }
    }
    for subject in [&digits, &network, &dear] {
        few_callers(harness, &runtime, subject);
        many_callers(harness, &runtime, subject);
    }
    many_callers(harness, &runtime, &large);
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

/// Sixteen callers. While one list runs, the others wait, so they are always in two lists, and the most that two lists
/// without a pause between them can do is that of lists of 8. For lists of 16, a worker would have to wait until the
/// callers of the list before are back.
fn few_callers(harness: &mut Harness, runtime: &Runtime, subject: &Subject<'_>) {
    let cases = vec![
        in_batches(OURS, runtime, subject, FEW, MAX_ITEMS),
        in_batches(UP_TO_16, runtime, subject, FEW, 16),
        in_batches(UP_TO_8, runtime, subject, FEW, 8),
        one_by_one(runtime, subject, FEW),
        full_lists(LISTS_OF_8, subject, 8),
        full_lists(LISTS_OF_16, subject, 16),
    ];
    let target = Target {
        text: "at least 0.95 of lists of 8, the most for 16 callers without a pause between lists",
        reached: |medians| medians.paired(OURS, LISTS_OF_8) >= 0.95,
    };
    saturated(harness, subject, FEW, cases, target, LISTS_OF_8);
}

/// More callers than two lists hold: every list can be full.
///
/// The thread that only runs lists has a core for itself. A thread with a queue shares the cores with the callers, as a
/// worker does.
fn many_callers(harness: &mut Harness, runtime: &Runtime, subject: &Subject<'_>) {
    let cases = vec![
        in_batches(OURS, runtime, subject, MANY, MAX_ITEMS),
        from_a_queue(runtime, subject),
        one_by_one(runtime, subject, MANY),
        full_lists(LISTS_OF_32, subject, MAX_ITEMS),
    ];
    let target = Target {
        text: "at least 0.97 of lists of 32, the most that one thread can do",
        reached: |medians| medians.paired(OURS, LISTS_OF_32) >= 0.97,
    };
    saturated(harness, subject, MANY, cases, target, LISTS_OF_32);
}

fn saturated(
    harness: &mut Harness,
    subject: &Subject<'_>,
    callers: usize,
    cases: Vec<Case<'_>>,
    target: Target,
    most: &'static str,
) {
    let columns = [
        Column { name: "throughput", unit: "items/s" },
        Column { name: "in a batch", unit: "items" },
        kernel::SWITCHES,
    ];
    let scenario = Scenario {
        name: format!("batch, {}, {callers} callers", subject.name),
        columns: &columns,
        cases,
        baseline: OURS,
        target: Some(target),
    };
    harness.run_rounds(ROUNDS, scenario, Some(most));
}

/// Callers that submit the next item when they have the result of the one before, and a pool of one worker.
fn in_batches<'a>(
    name: &'static str,
    runtime: &'a Runtime,
    subject: &'a Subject<'_>,
    callers: usize,
    max_items: usize,
) -> Case<'a> {
    let pools = ways::pools(ways::patient(PoolConfig::new(1)));
    let batched = Batched(batch(&pools, &subject.function, max_items), subject.item.clone());
    let sample = move || {
        let before = ended(&pools);
        let done = ways::measure(runtime, std::slice::from_ref(&batched), Task::EMPTY, callers, subject.span);
        let after = ended(&pools);
        vec![done.tasks_per_second, (after.0 - before.0) / (after.1 - before.1), done.switches]
    };
    Case { name, sample: Box::new(sample) }
}

/// The least that answers callers with lists of 32: a queue, a thread, and a channel for each result.
fn from_a_queue<'a>(runtime: &'a Runtime, subject: &'a Subject<'_>) -> Case<'a> {
    let sample = move || {
        let queue = Arc::new(Queue::default());
        let (taken, function) = (queue.clone(), subject.function.clone());
        let thread = thread::spawn(move || taken.serve(&*function));
        let way = Queued(queue.clone(), subject.item.clone());
        let done = ways::measure(runtime, &[way], Task::EMPTY, MANY, subject.span);
        queue.close();
        let (items, lists) = thread.join().expect("the function does not panic");
        vec![done.tasks_per_second, items / lists, done.switches]
    };
    Case { name: QUEUE, sample: Box::new(sample) }
}

fn one_by_one<'a>(runtime: &'a Runtime, subject: &'a Subject<'_>, callers: usize) -> Case<'a> {
    let pools = ways::pools(ways::patient(PoolConfig::new(1)));
    let alone = Alone(pools, subject.function.clone(), subject.item.clone());
    let sample = move || {
        let done = ways::measure(runtime, std::slice::from_ref(&alone), Task::EMPTY, callers, subject.span);
        vec![done.tasks_per_second, 1.0, done.switches]
    };
    Case { name: ALONE, sample: Box::new(sample) }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn full_lists<'a>(name: &'static str, subject: &'a Subject<'_>, size: usize) -> Case<'a> {
    let sample = move || {
        let lists = lists_per_second(&subject.function, &subject.item, size, subject.span);
        vec![lists * size as f64, size as f64, f64::NAN]
    };
    Case { name, sample: Box::new(sample) }
}

/// A batch of the function in the `cpu` pool.
pub fn batch(pools: &Pools, function: &Function, max_items: usize) -> Batch<Item, Output, Infallible> {
    let function = function.clone();
    let run = move |items| function(items).into_iter().map(Ok).collect();
    Batch::builder(pools, Cpu).max_items(max_items).run(run).expect("the pool exists")
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

impl Way for Queued {
    async fn run(&self, _: Task) {
        let (sender, receiver) = oneshot::channel();
        self.0.items.lock().expect("no caller panics").as_mut().expect("it is open").push((self.1.clone(), sender));
        self.0.pushed.notify_one();
        receiver.await.expect("the thread ends after its callers");
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { items: Mutex::new(Some(Vec::new())), pushed: Condvar::new() }
    }
}

impl Queue {
    /// Runs lists until the queue is closed. The result is the number of items and of lists.
    #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 items")]
    fn serve(&self, function: &(dyn Fn(Vec<Item>) -> Vec<Output> + Send + Sync)) -> (f64, f64) {
        let (mut items, mut lists) = (0.0, 0.0);
        loop {
            let waiting = self.items.lock().expect("no caller panics");
            let is_empty = |waiting: &mut Option<Vec<_>>| waiting.as_ref().is_some_and(Vec::is_empty);
            let mut held = self.pushed.wait_while(waiting, is_empty).expect("no caller panics");
            let Some(waiting) = &mut *held else { return (items, lists) };
            let (list, senders): (Vec<_>, Vec<_>) = waiting.drain(..waiting.len().min(MAX_ITEMS)).unzip();
            drop(held);
            (items, lists) = (items + list.len() as f64, lists + 1.0);
            for (sender, output) in senders.into_iter().zip(function(list)) {
                // Every caller waits.
                let _ = sender.send(output);
            }
        }
    }

    fn close(&self) {
        *self.items.lock().expect("no caller panics") = None;
        self.pushed.notify_all();
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
