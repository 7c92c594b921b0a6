//! Closures in process, at 1 to 2,000 callers: an empty task, and one of 20 µs.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::kernel;
use crate::server::DEDICATED;
use crate::ways::{self, Dedicated, Direct, Done, Ours, SpawnBlocking, SpawnBlockingLimited, Speed, Task, Way};

const CALLERS: [usize; 4] = [1, 16, 256, 2000];
const RAYON: &str = "rayon + oneshot";
const SPAN: Duration = Duration::from_millis(150);

/// Gathers the cases of one scenario.
struct Cases<'a> {
    all: Vec<Case<'a>>,
    runtime: &'a Runtime,
    task: Task,
    callers: usize,
    span: Duration,
    /// The figures that the table shows.
    shown: fn(Done) -> Vec<f64>,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    if !harness.wants("task") {
        return;
    }
    let span = harness.span(SPAN);
    let runtime = ways::runtime();
    let dedicated = ways::runtime();
    let rayon = ways::rayon();
    let pools = ways::pools(ways::default_cpu());
    let limited = SpawnBlockingLimited::default();
    let buffer = ways::buffer(&runtime);
    let executor = ways::executor(dedicated.handle());
    let bulkhead = ways::executor_with_bulkhead(dedicated.handle());
    let layer = ways::layer(&pools);
    let mut compare = |name: String, columns: &[Column], task, callers, shown, target| {
        let mut cases = Cases { all: Vec::new(), runtime: &runtime, task, callers, span, shown };
        cases.add(OURS, &Ours(pools.clone()));
        cases.add("ours, as a layer", &layer);
        if task_is_long(columns) {
            cases.add("direct", &Direct);
        }
        cases.add("spawn_blocking", &SpawnBlocking);
        cases.add("spawn_blocking + semaphore", &limited);
        cases.add("Buffer + ConcurrencyLimit", &buffer);
        cases.add(DEDICATED, &Dedicated(dedicated.handle().clone()));
        cases.add("resilience-executor", &executor);
        cases.add("resilience-executor + bulkhead", &bulkhead);
        cases.add(RAYON, &rayon);
        harness.run(Scenario { name, columns, cases: cases.all, baseline: OURS, target: Some(target) });
    };
    for callers in CALLERS {
        let columns = [Column { name: "a task", unit: "ns" }, kernel::SWITCHES, kernel::TIME];
        let alone = Target {
            text: "ahead of every alternative whose threads sleep when they have nothing to do: all but rayon",
            reached: |medians| medians.is_least_but(RAYON, 0),
        };
        let dedicated = Target {
            text: "at or ahead of the dedicated runtime",
            reached: |medians| medians.ratio_to(DEDICATED, 0) <= 1.0,
        };
        let target = if callers == 1 { alone } else { dedicated };
        compare(format!("task, empty, callers: {callers}"), &columns, Task::EMPTY, callers, time, target);
    }
    for callers in CALLERS {
        let columns = [Column { name: "throughput", unit: "tasks/s" }, kernel::SWITCHES, kernel::TIME];
        let alone = Target { text: "ahead of every alternative", reached: |medians| medians.is_most_but("direct", 0) };
        let best = Target {
            text: "at least 0.97 of the better of the dedicated runtime and rayon",
            reached: |medians| [DEDICATED, RAYON].iter().all(|way| medians.ratio_to(way, 0) >= 0.97),
        };
        let target = if callers == 1 { alone } else { best };
        let task = speed.task(Duration::from_micros(20));
        compare(format!("task, 20 µs, callers: {callers}"), &columns, task, callers, throughput, target);
    }
    // A runtime that is dropped waits for its blocking threads, which are idle by now.
    drop((buffer, executor, bulkhead));
}

fn time(done: Done) -> Vec<f64> {
    vec![1e9 / done.tasks_per_second, done.switches, done.kernel]
}

fn throughput(done: Done) -> Vec<f64> {
    vec![done.tasks_per_second, done.switches, done.kernel]
}

/// An empty task that is called directly is nothing at all.
fn task_is_long(columns: &[Column]) -> bool {
    columns[0].unit == "tasks/s"
}

impl<'a> Cases<'a> {
    fn add<W: Way>(&mut self, name: &'static str, way: &W) {
        let &mut Self { runtime, task, callers, span, shown, .. } = self;
        let way = [way.clone()];
        let sample = move || shown(ways::measure(runtime, &way, task, callers, span));
        self.all.push(Case { name, sample: Box::new(sample) });
    }
}
