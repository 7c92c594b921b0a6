//! Latency of a health route while the workers of five pools compute, and while those of one pool do.
//!
//! The pools are the five of one `Pools`. `/health` runs on the server's runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_offload::{PoolConfig, PoolLayer, Pools};

use crate::child::Process;
use crate::harness::{Column, Harness, Scenario, Target};
use crate::health;
use crate::server;
use crate::ways::{self, Speed};

/// The pools, and the workers that each has by default.
const POOLS: [(&str, usize); 5] = [("cpu", 30), ("io", 50), ("inference", 20), ("embedding", 15), ("db", 25)];

const FIVE: &str = "five pools saturated";
const ONE: &str = "one pool saturated";
const NONE: &str = "none";

pub fn run(harness: &mut Harness, speed: Speed) {
    let name = "pools, /health beside tasks that compute for 10 to 20 ms";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(health::SPAN);
    let cases = [(FIVE, 5), (ONE, 1), (NONE, 0)].map(|(name, saturated)| {
        let paths = POOLS[..saturated].iter().map(|(pool, _)| format!("/{pool}")).collect();
        health::case(name, Process::start("pools", name, speed), paths, span)
    });
    let [p50, p99] = health::COLUMNS;
    let columns = [p50, p99, Column { name: "computing tasks", unit: "requests/s" }];
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
