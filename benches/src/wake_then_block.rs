//! A job wakes another and then blocks its thread for 100 ms: how late is the other?
//!
//! A Tokio worker keeps the task that was woken last to itself, and runs it when it is done with the one before.

use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_offload::{Cpu, Pools};

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::ways;

const BLOCKED: Duration = Duration::from_millis(100);

pub fn run(harness: &mut Harness) {
    let name = "wake-then-block, a job that was woken before its waker blocks";
    if !harness.wants(name) {
        return;
    }
    let pools = ways::pools(ways::default_cpu());
    let dedicated = ways::runtime();
    let cases = vec![
        Case { name: OURS, sample: Box::new(|| vec![in_pool(&pools)]) },
        Case { name: "dedicated runtime", sample: Box::new(|| vec![in_runtime(&dedicated)]) },
        Case { name: "plain threads", sample: Box::new(|| vec![on_threads()]) },
    ];
    let columns = [Column { name: "late", unit: "ms" }];
    let target = Target { text: "at most 1 ms", reached: |medians| medians.of(OURS, 0) <= 1.0 };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: OURS, target: Some(target) });
}

/// Awaits the moment at which it was woken; milliseconds since then.
async fn woken(wake: oneshot::Receiver<Instant>) -> f64 {
    let at = wake.await.expect("the other job sends");
    at.elapsed().as_secs_f64() * 1e3
}

async fn wake_and_block(wake: oneshot::Sender<Instant>) {
    let _ = wake.send(Instant::now());
    thread::sleep(BLOCKED);
}

fn in_pool(pools: &Pools) -> f64 {
    let (sender, receiver) = oneshot::channel();
    let woken = pools.submit_to_pool(Cpu, woken(receiver)).expect("the pool is not full");
    // The first job waits before the second wakes it.
    thread::sleep(Duration::from_millis(5));
    let waker = pools.submit_to_pool(Cpu, wake_and_block(sender)).expect("the pool is not full");
    let late = woken.wait().expect("the job does not panic");
    waker.wait().expect("the job does not panic");
    late
}

fn in_runtime(runtime: &Runtime) -> f64 {
    let (sender, receiver) = oneshot::channel();
    let woken = runtime.spawn(woken(receiver));
    thread::sleep(Duration::from_millis(5));
    let waker = runtime.spawn(wake_and_block(sender));
    let late = runtime.block_on(woken).expect("the job does not panic");
    runtime.block_on(waker).expect("the job does not panic");
    late
}

fn on_threads() -> f64 {
    let (sender, receiver) = std::sync::mpsc::channel::<Instant>();
    let woken = thread::spawn(move || receiver.recv().map(|at| at.elapsed().as_secs_f64() * 1e3));
    thread::sleep(Duration::from_millis(5));
    let waker = thread::spawn(move || {
        let _ = sender.send(Instant::now());
        thread::sleep(BLOCKED);
    });
    let late = woken.join().expect("the thread does not panic").expect("the other thread sends");
    waker.join().expect("the thread does not panic");
    late
}
