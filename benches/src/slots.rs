//! Slots: what a value costs beside the permit, and ten swaps while the pool is saturated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tower_offload::config::Queue;
use tower_offload::slots::Slots;
use tower_offload::{PoolConfig, Pools};

use crate::harness::{Case, Column, Harness, Scenario, Target, quantile};
use crate::ways::{self, Speed};

const HERE: &str = "a value of the slots";
const NONE: &str = "the permit alone";
const BEFORE: &str = "ours, without a swap";
const SWAPS: &str = "ours, during ten swaps";

/// The permits of the pool, and the instances.
const PERMITS: usize = 2;

/// A stand-in for a session of this many bytes.
struct Session {
    weights: Vec<u8>,
    live: Arc<AtomicUsize>,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    if !harness.wants("slots") {
        return;
    }
    let takes = harness.times(200_000);
    let cost = |value: bool| Box::new(move || vec![cost(value, takes)]);
    harness.run(Scenario {
        name: "slots, in a task of the pool".to_owned(),
        columns: &[Column { name: "a use", unit: "ns" }],
        cases: vec![Case { name: HERE, sample: cost(true) }, Case { name: NONE, sample: cost(false) }],
        baseline: HERE,
        target: Some(Target {
            text: "at most 100 ns more than the permit",
            reached: |medians| medians.of(HERE, 0) - medians.of(NONE, 0) <= 100.0,
        }),
    });
    let span = harness.span(Duration::from_millis(500));
    let task = speed.task(Duration::from_millis(1));
    let shown = |served: Served| vec![served.p99, served.failed, served.peak];
    harness.run(Scenario {
        name: "slots, swaps under saturation".to_owned(),
        columns: &[
            Column { name: "p99", unit: "ms" },
            Column { name: "failed", unit: "requests" },
            Column { name: "most instances", unit: "instances" },
        ],
        cases: vec![
            Case { name: BEFORE, sample: Box::new(move || shown(serve(span * 4, task, 0))) },
            Case { name: SWAPS, sample: Box::new(move || shown(serve(span * 4, task, 10))) },
        ],
        baseline: BEFORE,
        target: Some(Target {
            text: "no failure, p99 at most 1.3 times that without, one instance more",
            reached: |medians| {
                let (before, during) = (medians.of(BEFORE, 0), medians.of(SWAPS, 0));
                during <= 1.3 * before && medians.of(SWAPS, 1) == 0.0 && medians.of(SWAPS, 2) <= PERMITS as f64 + 1.0
            },
        }),
    });
}

/// Nanoseconds of a use, many times in one task.
fn cost(value: bool, takes: usize) -> f64 {
    let pools = pools();
    let slots = Slots::builder(&pools, "model").make(|| Ok::<_, String>(0_u64)).build_lazy().expect("it is complete");
    let task = move || {
        let mut alone = 0_u64;
        let begun = Instant::now();
        for _ in 0..takes {
            if value {
                slots.here(|value| *std::hint::black_box(value) += 1).expect("it is in a task");
            } else {
                *std::hint::black_box(&mut alone) += 1;
            }
        }
        begun.elapsed().as_secs_f64() * 1e9 / takes as f64
    };
    pools.submit_to_pool("model", task).expect("there is room").wait().expect("no panic")
}

struct Served {
    /// Milliseconds from submission to answer.
    p99: f64,
    failed: f64,
    peak: f64,
}

/// 16 callers that each wait for their answer.
fn serve(span: Duration, task: ways::Task, swaps: usize) -> Served {
    let runtime = ways::runtime();
    let pools = pools();
    let (live, peak) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let make = {
        let (live, peak) = (live.clone(), peak.clone());
        move || {
            peak.fetch_max(live.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            Ok::<_, String>(Session { weights: vec![1; 4 << 20], live: live.clone() })
        }
    };
    let slots = Slots::builder(&pools, "model").make(make.clone()).build_lazy().expect("it is complete");
    let (done, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let begun = Instant::now();
    let times: Vec<f64> = runtime.block_on(async {
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let (slots, done, failed) = (slots.clone(), done.clone(), failed.clone());
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let run = move |session: &mut Session| {
                            task.run();
                            std::hint::black_box(session.weights[0]);
                        };
                        let ended = slots.run(run).await.is_ok();
                        failed.fetch_add(u64::from(!ended), Ordering::Relaxed);
                        times.push(begun.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        for _ in 0..swaps {
            tokio::time::sleep(span / 12).await;
            let swapped = slots.swap(make.clone()).await;
            failed.fetch_add(u64::from(!swapped.is_ok_and(|swapped| swapped.is_complete())), Ordering::Relaxed);
        }
        tokio::time::sleep(span.saturating_sub(begun.elapsed())).await;
        done.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for caller in callers {
            times.extend(caller.await.expect("no panic"));
        }
        times
    });
    let mut times = times;
    let p99 = quantile(&mut times, 0.99);
    let peak = peak.load(Ordering::Relaxed) as f64;
    Served { p99, failed: failed.load(Ordering::Relaxed) as f64, peak }
}

fn pools() -> Pools {
    let pool = PoolConfig::new(PERMITS).queue_capacity(1000).queue(Queue::Fifo);
    Pools::builder().pool("model", pool).build().expect("it is valid")
}

impl Drop for Session {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}
