//! The cost of a job as the number of pools, or of the workers of one pool, grows.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use tokio::runtime::Runtime;
use tower_offload::{PoolConfig, Pools};

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::ways::{self, Job, Way};

const CALLERS: usize = 64;
const SPAN: Duration = Duration::from_millis(200);

/// `run_in_pool` in a pool of some name.
#[derive(Clone)]
struct InPool {
    pools: Pools,
    name: Arc<str>,
}

impl Way for InPool {
    async fn run(&self, job: Job) {
        self.pools.run_in_pool(&*self.name, move || job.run()).await.expect("the queue is long enough");
    }
}

pub fn run(harness: &mut Harness) {
    let runtime = ways::runtime();
    let span = harness.span(SPAN);
    let columns = [Column { name: "an empty job", unit: "ns" }];
    if harness.wants("scale, pools") {
        let named = [(OURS, 1), ("4 pools", 4), ("16 pools", 16), ("64 pools", 64)];
        let cases = named.map(|(name, pools)| case(name, &runtime, pools, 2, span));
        let target = Target {
            text: "flat from one pool (called `ours`) to 64: at most 1.5 times as much",
            reached: |medians| medians.ratio_to("64 pools", 0) >= 1.0 / 1.5,
        };
        let scenario =
            Scenario { name: "scale, pools".to_owned(), columns: &columns, cases: cases.into(), target: Some(target) };
        harness.run(scenario);
    }
    if harness.wants("scale, workers") {
        let named = [(OURS, 1), ("2 workers", 2), ("30 workers", 30), ("100 workers", 100), ("500 workers", 500)];
        let cases = named.map(|(name, workers)| case(name, &runtime, 1, workers, span));
        let target = Target {
            text: "flat from one worker (called `ours`) to 500: at most 1.5 times as much",
            reached: |medians| medians.ratio_to("500 workers", 0) >= 1.0 / 1.5,
        };
        let scenario = Scenario {
            name: "scale, workers".to_owned(),
            columns: &columns,
            cases: cases.into(),
            target: Some(target),
        };
        harness.run(scenario);
    }
}

fn case<'a>(name: &'static str, runtime: &'a Runtime, pools: usize, workers: usize, span: Duration) -> Case<'a> {
    let names: Vec<Arc<str>> = (0..pools).map(|pool| format!("pool-{pool}").into()).collect();
    let builder = names.iter().fold(Pools::builder(), |builder, name| builder.pool(&**name, PoolConfig::new(workers)));
    let pools = builder.build().expect("the settings are right");
    for name in &names {
        start_all(&pools, name, workers);
    }
    let ways: Vec<_> = names.into_iter().map(|name| InPool { pools: pools.clone(), name }).collect();
    let sample = move || vec![1e9 / ways::jobs_per_second(runtime, &ways, Job::EMPTY, CALLERS, span)];
    Case { name, sample: Box::new(sample) }
}

/// Has every worker of a pool started: each gets a job that waits for the others.
fn start_all(pools: &Pools, name: &str, workers: usize) {
    let barrier = Arc::new(Barrier::new(workers));
    let jobs: Vec<_> = (0..workers)
        .map(|_| {
            let barrier = barrier.clone();
            pools.submit_to_pool(name, move || {
                barrier.wait();
            })
        })
        .collect();
    for job in jobs {
        job.expect("the queue is long enough").wait().expect("the job does not panic");
    }
}
