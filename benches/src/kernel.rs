//! The context switches and the CPU time of a process, and the CPU time that other programs take meanwhile.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::child;
use crate::harness::Column;

/// The price of each hand-over between threads, which the operating system takes.
pub const SWITCHES: Column = Column { name: "context switches", unit: "each" };
pub const TIME: Column = Column { name: "kernel", unit: "µs each" };
pub const USER: Column = Column { name: "user", unit: "µs each" };
/// User and kernel together.
pub const CPU: Column = Column { name: "CPU", unit: "µs each" };

/// From the start of the process, or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel {
    /// Context switches, whether a thread went to sleep or had to make room for another.
    pub switches: f64,
    /// CPU time in the kernel.
    pub time: Duration,
    /// CPU time outside of it.
    pub user: Duration,
}

/// The share of the machine's cores that other programs may take while something is measured. The kernel's figures are off
/// by some hundredths where threads switch often.
pub const OTHERS: f64 = 0.1;

/// The CPU time of all programs, from the start of the machine. It comes in hundredths of a second.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    busy: Duration,
    all: Duration,
    /// The part of this process, and of those that it started.
    own: Duration,
}

impl Machine {
    /// All zero if the system does not tell.
    pub fn so_far() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        // The fields are user, nice, system, idle, waiting for the disk, interrupts of two kinds, and stolen by the host.
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let times: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        let idle: u64 = times.iter().skip(3).take(2).sum();
        let all: u64 = times.iter().sum();
        let own = [Kernel::usage(UsageWho::RUSAGE_SELF), Kernel::usage(UsageWho::RUSAGE_CHILDREN)];
        let running = child::running().into_iter().filter_map(|process| Kernel::of(process).ok());
        let own = own.into_iter().chain(running).map(|Kernel { time, user, .. }| time + user).sum();
        Self { busy: Duration::from_millis(10 * (all - idle)), all: Duration::from_millis(10 * all), own }
    }

    /// The share of the cores that others took since then.
    pub fn others_since(self, before: Self) -> f64 {
        let others = (self.busy - before.busy).saturating_sub(self.own - before.own);
        let all = (self.all - before.all).max(Duration::from_millis(1));
        others.as_secs_f64() / all.as_secs_f64()
    }
}

impl Kernel {
    pub fn so_far() -> Self {
        Self::usage(UsageWho::RUSAGE_SELF)
    }

    fn usage(who: UsageWho) -> Self {
        let usage = getrusage(who).expect("a process may ask what it uses");
        #[expect(clippy::cast_precision_loss, reason = "no process lives for 2^53 switches")]
        let switches = (usage.voluntary_context_switches() + usage.involuntary_context_switches()) as f64;
        let micros = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
        Self { switches, time: micros(usage.system_time()), user: micros(usage.user_time()) }
    }

    /// The same of another process, of the threads that it has now. Its time comes in hundredths of a second.
    pub fn of(process: u32) -> io::Result<Self> {
        let folder = Path::new("/proc").join(process.to_string());
        let mut kernel = Self::default();
        for thread in fs::read_dir(folder.join("task"))? {
            // A thread that has ended since is left out.
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
            kernel.switches += status.lines().filter_map(switches).sum::<f64>();
        }
        // The name of the program, in brackets, may contain anything. The 12th field after it is the user time, the 13th
        // the time in the kernel.
        let stat = fs::read_to_string(folder.join("stat"))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let time = |field: usize| {
            let ticks = fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok());
            Duration::from_millis(10 * ticks.unwrap_or_default())
        };
        (kernel.user, kernel.time) = (time(11), time(12));
        Ok(kernel)
    }

    pub fn since(self, before: Self) -> Self {
        // A thread that has ended takes its count along.
        Self {
            switches: (self.switches - before.switches).max(0.0),
            time: self.time.saturating_sub(before.time),
            user: self.user.saturating_sub(before.user),
        }
    }
}

/// The context switches that a line of a thread's status reports, if any.
fn switches(line: &str) -> Option<f64> {
    let (name, count) = line.split_once(':')?;
    name.ends_with("ctxt_switches").then(|| count.trim().parse().ok())?
}
