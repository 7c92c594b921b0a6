//! Closures in process, at 1 to 2,000 callers: an empty job, and one of 20 µs.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::kernel;
use crate::ways::{self, Dedicated, Direct, Done, Job, Ours, SpawnBlocking, SpawnBlockingLimited, Speed, Way};

const CALLERS: [usize; 4] = [1, 16, 256, 2000];
const SPAN: Duration = Duration::from_millis(150);

/// Gathers the cases of one scenario.
struct Cases<'a> {
    all: Vec<Case<'a>>,
    runtime: &'a Runtime,
    job: Job,
    callers: usize,
    span: Duration,
    /// What is shown of it.
    shown: fn(Done) -> Vec<f64>,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    if !harness.wants("job") {
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
    let mut compare = |name: String, columns: &[Column], job, callers, shown, target| {
        let mut cases = Cases { all: Vec::new(), runtime: &runtime, job, callers, span, shown };
        cases.add(OURS, &Ours(pools.clone()));
        cases.add("ours, as a layer", &layer);
        if job_is_long(columns) {
            cases.add("direct", &Direct);
        }
        cases.add("spawn_blocking", &SpawnBlocking);
        cases.add("spawn_blocking + semaphore", &limited);
        cases.add("Buffer + ConcurrencyLimit", &buffer);
        cases.add("dedicated runtime", &Dedicated(dedicated.handle().clone()));
        cases.add("resilience-executor", &executor);
        cases.add("resilience-executor + bulkhead", &bulkhead);
        cases.add("rayon + oneshot", &rayon);
        harness.run(Scenario { name, columns, cases: cases.all, baseline: OURS, target: Some(target) });
    };
    for callers in CALLERS {
        let columns = [Column { name: "a job", unit: "ns" }, kernel::SWITCHES, kernel::TIME];
        let target = Target { text: "at or ahead of the best alternative", reached: |medians| medians.is_least(0) };
        compare(format!("job, empty, callers: {callers}"), &columns, Job::EMPTY, callers, time, target);
    }
    for callers in CALLERS {
        let columns = [Column { name: "throughput", unit: "jobs/s" }, kernel::SWITCHES, kernel::TIME];
        let ahead = Target { text: "ahead of every alternative", reached: |medians| medians.is_most_but("direct", 0) };
        let ahead_and_near = Target {
            text: "at least 0.95 of direct, ahead of every alternative",
            reached: |medians| medians.ratio_to("direct", 0) >= 0.95 && medians.is_most_but("direct", 0),
        };
        let target = if callers == 1 { ahead } else { ahead_and_near };
        let job = speed.job(Duration::from_micros(20));
        compare(format!("job, 20 µs, callers: {callers}"), &columns, job, callers, throughput, target);
    }
    // A runtime that is dropped waits for its blocking threads, which are idle by now.
    drop((buffer, executor, bulkhead));
}

fn time(done: Done) -> Vec<f64> {
    vec![1e9 / done.jobs_per_second, done.switches, done.kernel]
}

fn throughput(done: Done) -> Vec<f64> {
    vec![done.jobs_per_second, done.switches, done.kernel]
}

/// An empty job that is called directly is nothing at all.
fn job_is_long(columns: &[Column]) -> bool {
    columns[0].unit == "jobs/s"
}

impl<'a> Cases<'a> {
    fn add<W: Way>(&mut self, name: &'static str, way: &W) {
        let &mut Self { runtime, job, callers, span, shown, .. } = self;
        let way = [way.clone()];
        let sample = move || shown(ways::measure(runtime, &way, job, callers, span));
        self.all.push(Case { name, sample: Box::new(sample) });
    }
}
