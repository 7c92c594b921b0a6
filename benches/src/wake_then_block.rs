//! A task wakes another and then blocks its thread for 100 ms: how late is the other?
//!
//! A Tokio worker keeps the task that was woken last to itself, and runs it when it is done with the one before.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_offload::{Cpu, Pools};

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::ways;

const BLOCKED: Duration = Duration::from_millis(100);

pub fn run(harness: &mut Harness) {
    let name = "wake-then-block, a task that was woken before its waker blocks";
    if !harness.wants(name) {
        return;
    }
    let pools = ways::pools(ways::default_cpu());
    let dedicated = ways::runtime();
    let rayon = ways::rayon();
    let mut cases = vec![
        Case { name: OURS, sample: Box::new(|| vec![in_pool(&pools)]) },
        Case { name: "dedicated runtime", sample: Box::new(|| vec![in_runtime(&dedicated)]) },
        Case { name: "spawn_blocking", sample: Box::new(|| vec![on(&|task| drop(dedicated.spawn_blocking(task)))]) },
        Case { name: "plain threads", sample: Box::new(|| vec![on(&|task| drop(thread::spawn(task)))]) },
    ];
    if ways::cores() > 1 {
        // With one thread, the task that waits would hold it for ever.
        cases.push(Case { name: "rayon", sample: Box::new(|| vec![on(&|task| rayon.0.spawn(task))]) });
    }
    let columns = [Column { name: "late", unit: "ms" }];
    let target = Target { text: "at most 1 ms", reached: |medians| medians.of(OURS, 0) <= 1.0 };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: OURS, target: Some(target) });
}

/// Awaits the moment at which it was woken; milliseconds since then.
async fn woken(wake: oneshot::Receiver<Instant>) -> f64 {
    let at = wake.await.expect("the other task sends");
    at.elapsed().as_secs_f64() * 1e3
}

async fn wake_and_block(wake: oneshot::Sender<Instant>) {
    let _ = wake.send(Instant::now());
    thread::sleep(BLOCKED);
}

fn in_pool(pools: &Pools) -> f64 {
    let (sender, receiver) = oneshot::channel();
    let woken = pools.submit_to_pool(Cpu, woken(receiver)).expect("the pool is not full");
    // The first task waits before the second wakes it.
    thread::sleep(Duration::from_millis(5));
    let waker = pools.submit_to_pool(Cpu, wake_and_block(sender)).expect("the pool is not full");
    let late = woken.wait().expect("the task does not panic");
    waker.wait().expect("the task does not panic");
    late
}

fn in_runtime(runtime: &Runtime) -> f64 {
    let (sender, receiver) = oneshot::channel();
    let woken = runtime.spawn(woken(receiver));
    thread::sleep(Duration::from_millis(5));
    let waker = runtime.spawn(wake_and_block(sender));
    let late = runtime.block_on(woken).expect("the task does not panic");
    runtime.block_on(waker).expect("the task does not panic");
    late
}

/// On threads that are started in some way, where a task that waits blocks its own.
fn on(start: &dyn Fn(Box<dyn FnOnce() + Send>)) -> f64 {
    let (sender, receiver) = mpsc::channel::<Instant>();
    let (late, told) = mpsc::channel();
    start(Box::new(move || {
        let _ = late.send(receiver.recv().map(|at| at.elapsed().as_secs_f64() * 1e3));
    }));
    thread::sleep(Duration::from_millis(5));
    let (end, ended) = mpsc::channel();
    start(Box::new(move || {
        let _ = sender.send(Instant::now());
        thread::sleep(BLOCKED);
        let _ = end.send(());
    }));
    let late = told.recv().expect("the task does not panic").expect("the other task sends");
    ended.recv().expect("the task does not panic");
    late
}
