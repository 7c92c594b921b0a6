//! Latency of a health route while the workers of five pools compute, and while those of one pool do.
//!
//! The pools are the five of one `Pools`. `/health` runs on the server's runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tower_offload::{PoolConfig, PoolLayer, Pools};

use crate::child::Process;
use crate::client::{self, Load};
use crate::harness::{Case, Column, Harness, Scenario, Target, quantile};
use crate::http::port;
use crate::server;
use crate::ways::{self, Speed};

/// The pools, and the workers that each has by default.
const POOLS: [(&str, usize); 5] = [("cpu", 30), ("io", 50), ("inference", 20), ("embedding", 15), ("db", 25)];
/// Clients of each pool: more than it has workers.
const CLIENTS: usize = 64;
const PER_SECOND: u32 = 400;
const PROBES: u32 = 32;
const WARM_UP: Duration = Duration::from_millis(300);
const SPAN: Duration = Duration::from_millis(2500);

const FIVE: &str = "five pools saturated";
const ONE: &str = "one pool saturated";
const NONE: &str = "none";

pub fn run(harness: &mut Harness, speed: Speed) {
    let name = "pools, /health beside tasks that compute for 10 to 20 ms";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(SPAN);
    let cases = [(FIVE, 5), (ONE, 1), (NONE, 0)].map(|(name, saturated)| {
        let mut server = Process::start("pools", name, speed);
        let port = port(&mut server);
        let sample = move || {
            let _server = &server;
            sample(port, &POOLS[..saturated], span)
        };
        Case { name, sample: Box::new(sample) }
    });
    let columns = [
        Column { name: "health p50", unit: "ms" },
        Column { name: "health p99", unit: "ms" },
        Column { name: "computing tasks", unit: "requests/s" },
    ];
    let target = Target {
        text: "p99 beside five saturated pools at most 1.5 times that beside one",
        reached: |medians| medians.ratio_to(ONE, 1) <= 1.5,
    };
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &columns,
        cases: cases.into(),
        baseline: FIVE,
        target: Some(target),
    });
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn sample(port: u16, saturated: &[(&str, usize)], span: Duration) -> Vec<f64> {
    let load: Vec<_> = saturated.iter().map(|(pool, _)| Load::start(port, &format!("/{pool}"), CLIENTS)).collect();
    let answered = || load.iter().map(Load::answered).sum::<u64>();
    thread::sleep(WARM_UP);
    let (before, began) = (answered(), Instant::now());
    let mut latencies = client::on_schedule(port, "/health", PER_SECOND, PROBES, span);
    let throughput = (answered() - before) as f64 / began.elapsed().as_secs_f64();
    vec![quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99), throughput]
}

/// Serves until the process is ended.
pub fn play(speed: Speed) {
    let runtime = ways::runtime();
    let built = POOLS.iter().fold(Pools::builder(), |builder, (name, workers)| {
        builder.pool(*name, ways::patient(PoolConfig::new(*workers)).queue_capacity(1000))
    });
    let pools = built.build().expect("the settings are right");
    // 10, 11, … 20 ms in turn.
    let tasks: Arc<[_]> = (10..=20).map(|millis| speed.task(Duration::from_millis(millis))).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    let router = POOLS.iter().fold(Router::new(), |router, (name, _)| {
        let (tasks, turn) = (tasks.clone(), turn.clone());
        let compute = move || async move { tasks[turn.fetch_add(1, Ordering::Relaxed) % tasks.len()].run() };
        let pool = pools.get(*name).expect("it was built");
        router.route(&format!("/{name}"), get(compute).layer(PoolLayer::for_pool(pool)))
    });
    server::serve(&runtime, router, None);
}
