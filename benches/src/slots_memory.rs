//! The most memory of a process whose two instances are swapped ten times while the pool is saturated.
//!
//! Each sample is a process of its own, by the most that the system has ever given it.

use std::time::Duration;

use tower_offload::slots::Slots;
use tower_offload::{Cpu, PoolConfig};

use crate::child::{self, Process};
use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::memory::of_process;
use crate::ways::{self, Speed, Task, Way};

pub const PART: &str = "slots-memory";

const BEFORE: &str = "ours, without a swap";
const SWAPS: &str = "ours, during ten swaps";

/// The permits of the pool, and the instances before a swap.
const PERMITS: usize = 2;
const CALLERS: usize = 16;
const TIMES: usize = 10;
const BYTES: usize = 64 << 20;
/// Between two swaps.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Saturated(Slots<Vec<u8>>, Task);

pub fn run(harness: &mut Harness, speed: Speed) {
    let sample = |kind| Box::new(move || vec![Process::start(PART, kind, speed).number()]);
    harness.run(Scenario {
        name: "slots, memory of swaps under saturation, 64 MiB an instance".to_owned(),
        columns: &[Column { name: "most memory", unit: "instances" }],
        cases: vec![Case { name: BEFORE, sample: sample(BEFORE) }, Case { name: SWAPS, sample: sample(SWAPS) }],
        baseline: BEFORE,
        target: Some(Target {
            text: "one instance more, within 5 %",
            reached: |medians| medians.of(SWAPS, 0) - medians.of(BEFORE, 0) <= 1.05,
        }),
    });
}

/// Serves 16 callers, and tells the most memory that it had, beside what it has without an instance.
#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
pub fn play(kind: &str, speed: Speed) {
    let (runtime, pools) = (ways::runtime(), ways::pools(ways::patient(PoolConfig::new(PERMITS))));
    // Written to, so that the system has given it.
    let make = || Ok::<_, String>(vec![1; BYTES]);
    let slots = Slots::builder(&pools, Cpu).make(make).build_lazy().expect("it is complete");
    let way = Saturated(slots.clone(), speed.task(Duration::from_millis(1)));
    let before = of_process("self", "VmRSS:");
    let times = if kind == SWAPS { TIMES } else { 0 };
    let swaps = runtime.spawn(async move {
        for _ in 0..times {
            tokio::time::sleep(PAUSE).await;
            let swapped = slots.swap(make).await.expect("instances can be made");
            assert!(swapped.is_complete(), "both are replaced");
        }
    });
    loop {
        ways::measure(&runtime, std::slice::from_ref(&way), Task::EMPTY, CALLERS, PAUSE * 10);
        if swaps.is_finished() {
            break;
        }
    }
    runtime.block_on(swaps).expect("no swap fails");
    child::tell(of_process("self", "VmHWM:").saturating_sub(before) as f64 / BYTES as f64);
}

impl Way for Saturated {
    async fn run(&self, _: Task) {
        let task = self.1;
        let run = move |instance: &mut Vec<u8>| {
            task.run();
            std::hint::black_box(instance[0]);
        };
        self.0.run(run).await.expect("the queue is long enough");
    }
}
