//! What the kernel does for this process: how often it switches threads, and how long it takes for all it does.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::harness::Column;

/// Why no more is done than is: what the operating system takes for each hand-over between threads.
pub const SWITCHES: Column = Column { name: "context switches", unit: "a job" };
pub const TIME: Column = Column { name: "kernel", unit: "µs a job" };

/// From the start of the process, or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// Context switches, whether a thread went to sleep or had to make room for another.
    pub switches: f64,
    pub time: Duration,
}

impl Kernel {
    pub fn so_far() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask what it uses");
        #[expect(clippy::cast_precision_loss, reason = "no process lives for 2^53 switches")]
        let switches = (usage.voluntary_context_switches() + usage.involuntary_context_switches()) as f64;
        let micros = usage.system_time().num_microseconds().unsigned_abs();
        Self { switches, time: Duration::from_micros(micros) }
    }

    pub fn since(self, before: Self) -> Self {
        Self { switches: self.switches - before.switches, time: self.time.saturating_sub(before.time) }
    }
}
