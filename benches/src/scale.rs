//! The cost of a task as the number of pools, or of the workers of one pool, grows.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use tokio::runtime::Runtime;
use tower_offload::{PoolConfig, Pools};

use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::kernel;
use crate::ways::{self, Task, Way};

/// The callers of each pool. More pools then have more callers, and a cost that they share shows.
const CALLERS: usize = 16;
const SPAN: Duration = Duration::from_millis(200);

/// `run_in_pool` in a pool of some name.
#[derive(Clone)]
struct InPool {
    pools: Pools,
    name: Arc<str>,
}

impl Way for InPool {
    async fn run(&self, task: Task) {
        self.pools.run_in_pool(&*self.name, move || task.run()).await.expect("the queue is long enough");
    }
}

pub fn run(harness: &mut Harness) {
    let runtime = ways::runtime();
    let span = harness.span(SPAN);
    if harness.wants("scale, pools") {
        let cases = [("1 pool", 1), ("4 pools", 4), ("16 pools", 16), ("64 pools", 64)];
        let cases = cases.map(|(name, pools)| case(name, &runtime, pools, 2, span));
        let target = Target {
            text: "flat from 1 pool to 64: at most 1.5 times as much",
            reached: |medians| medians.ratio_to("64 pools", 0) >= 1.0 / 1.5,
        };
        compare(harness, "scale, pools of 2 workers, 16 callers each", cases.into(), target);
    }
    if harness.wants("scale, workers") {
        let cases = [("1 worker", 1), ("2 workers", 2), ("30 workers", 30), ("100 workers", 100), ("500 workers", 500)];
        let cases = cases.map(|(name, workers)| case(name, &runtime, 1, workers, span));
        let target = Target {
            text: "flat from 1 worker to 500: at most 1.5 times as much",
            reached: |medians| medians.ratio_to("500 workers", 0) >= 1.0 / 1.5,
        };
        compare(harness, "scale, workers of one pool, 16 callers", cases.into(), target);
    }
}

fn compare(harness: &mut Harness, name: &str, cases: Vec<Case<'_>>, target: Target) {
    let columns = [Column { name: "an empty task", unit: "ns" }, kernel::SWITCHES, kernel::TIME];
    let baseline = cases[0].name;
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline, target: Some(target) });
}

fn case<'a>(name: &'static str, runtime: &'a Runtime, pools: usize, workers: usize, span: Duration) -> Case<'a> {
    let names: Vec<Arc<str>> = (0..pools).map(|pool| format!("pool-{pool}").into()).collect();
    let builder = names
        .iter()
        .fold(Pools::builder(), |builder, name| builder.pool(&**name, ways::patient(PoolConfig::new(workers))));
    let pools = builder.build().expect("the settings are right");
    for name in &names {
        start_all(&pools, name, workers);
    }
    let ways: Vec<_> = names.into_iter().map(|name| InPool { pools: pools.clone(), name }).collect();
    let callers = CALLERS * ways.len();
    let sample = move || {
        let done = ways::measure(runtime, &ways, Task::EMPTY, callers, span);
        vec![1e9 / done.tasks_per_second, done.switches, done.kernel]
    };
    Case { name, sample: Box::new(sample) }
}

/// Has every worker of a pool started: each gets a task that waits for the others.
fn start_all(pools: &Pools, name: &str, workers: usize) {
    let barrier = Arc::new(Barrier::new(workers));
    let task = || {
        let barrier = barrier.clone();
        pools.submit_to_pool(name, move || {
            barrier.wait();
        })
    };
    let tasks: Vec<_> = (0..workers).map(|_| task()).collect();
    for task in tasks {
        task.expect("the queue is long enough").wait().expect("the task does not panic");
    }
}
