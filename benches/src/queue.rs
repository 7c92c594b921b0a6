//! The cost to submit, to cancel and to take a task with 10 and with 100,000 tasks in the queue.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tower_offload::TaskHandle;
use tower_offload::{Cpu, Pools};

use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::memory;

const SHALLOW: &str = "10 waiting";
const DEEP: &str = "100,000 waiting";
/// Tasks that are submitted, or cancelled, between two looks at the clock.
const BATCH: usize = 10;

pub fn run(harness: &mut Harness) {
    let name = "queued, cost at depth";
    let batches = harness.times(20_000);
    let drains = harness.times(2000);
    let cases = vec![
        Case { name: SHALLOW, sample: Box::new(move || costs(10, batches, drains)) },
        Case { name: "1,000 waiting", sample: Box::new(move || costs(1000, batches, drains / 20)) },
        Case { name: DEEP, sample: Box::new(move || costs(100_000, batches, 2)) },
    ];
    let columns = ["submit", "cancel", "take and run"].map(|name| Column { name, unit: "ns" });
    let target = Target {
        text: "flat from 10 waiting to 100,000: at most twice as much",
        reached: |medians| (0..3).all(|column| medians.ratio_to(DEEP, column) >= 0.5),
    };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: SHALLOW, target: Some(target) });
}

/// Holds the only worker of a pool until it is released.
struct Held {
    task: TaskHandle<()>,
    release: mpsc::Sender<()>,
}

impl Held {
    fn new(pools: &Pools) -> Self {
        let (release, gate) = mpsc::channel();
        let (running, runs) = mpsc::channel();
        let hold = move || {
            let _ = running.send(());
            let _ = gate.recv();
        };
        let task = pools.submit_to_pool(Cpu, hold).expect("the queue is long enough");
        runs.recv().expect("the task is begun");
        Self { task, release }
    }

    fn release(self) {
        let _ = self.release.send(());
        self.task.wait().expect("the task does not panic");
    }
}

/// Nanoseconds to submit, to cancel from anywhere in the queue, and to take and run a task.
fn costs(depth: usize, batches: usize, drains: usize) -> Vec<f64> {
    let pools = memory::pools();
    let held = Held::new(&pools);
    let submit = || pools.submit_to_pool(Cpu, || ()).expect("the queue is long enough");
    let mut waiting: Vec<_> = (0..depth).map(|_| submit()).collect();
    let (mut submitting, mut cancelling) = (Duration::ZERO, Duration::ZERO);
    let mut place = 0;
    for _ in 0..batches {
        let began = Instant::now();
        let mut fresh = [(); BATCH].map(|()| submit());
        submitting += began.elapsed();
        for handle in &mut fresh {
            // A step without a common factor with the depth: in time it comes by everywhere.
            place = (place + 61_813) % depth;
            std::mem::swap(handle, &mut waiting[place]);
        }
        let began = Instant::now();
        fresh.into_iter().for_each(TaskHandle::cancel);
        cancelling += began.elapsed();
    }
    waiting.into_iter().for_each(TaskHandle::cancel);
    held.release();
    let taken: Vec<_> = (0..drains).map(|_| drain(&pools, depth)).collect();
    let taking: f64 = taken.iter().sum::<f64>() / taken.len() as f64;
    let each = |all: Duration| all.as_secs_f64() * 1e9 / (batches * BATCH) as f64;
    vec![each(submitting), each(cancelling), taking]
}

/// Nanoseconds from the first of `depth` queued tasks to the last, for each.
fn drain(pools: &Pools, depth: usize) -> f64 {
    let held = Held::new(pools);
    let first = pools.submit_to_pool(Cpu, Instant::now).expect("the queue is long enough");
    let between: Vec<_> =
        (2..depth).map(|_| pools.submit_to_pool(Cpu, || ()).expect("the queue is long enough")).collect();
    let last = pools.submit_to_pool(Cpu, Instant::now).expect("the queue is long enough");
    held.release();
    let (first, last) = (first.wait().expect("no panic"), last.wait().expect("no panic"));
    drop(between);
    last.duration_since(first).as_secs_f64() * 1e9 / (depth - 1) as f64
}
