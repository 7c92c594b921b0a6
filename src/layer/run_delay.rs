//! How long the system has made this thread wait for a core, so that a poll is not blamed for it.
//!
//! On a machine that is in full use, a thread is suspended for milliseconds wherever it is. Linux sums up these waits for
//! each thread. To read the sum takes microseconds, too long for each poll. So it is read before a poll only if the last
//! reading is [older](FRESH), and after a poll only if that was long. What the thread waited between the reading and the
//! poll is then taken off as well: a poll may seem shorter than it was, but never longer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::thread_state::run_delay;

/// How old a reading may be when a poll begins.
const FRESH: Duration = Duration::from_millis(10);

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// A reading of the sum.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    /// `None` if the system does not tell.
    sum: Option<Duration>,
}

/// A poll of this thread begins.
pub(super) fn begin(now: Instant) {
    LAST.with(|last| {
        if last.get().is_none_or(|last| now.saturating_duration_since(last.at) > FRESH) {
            last.set(Some(Reading { at: now, sum: run_delay() }));
        }
    });
}

/// For how long a poll has held this thread that took so long and ends now: without the time in which the thread waited
/// for a core. Without Linux that time is not known.
pub(super) fn held(took: Duration) -> Duration {
    let sum = run_delay();
    let before = LAST.with(|last| last.replace(Some(Reading { at: Instant::now(), sum })));
    let waited = before.and_then(|before| sum?.checked_sub(before.sum?));
    took.saturating_sub(waited.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads on one core: one of them waits while the other computes.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_time_in_which_a_thread_waits_for_a_core_is_not_held() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        use std::sync::atomic::{AtomicBool, Ordering};

        let all = sched_getaffinity(None).expect("Linux tells the cores");
        let core = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).expect("this thread runs on a core");
        let mut one = CpuSet::new();
        one.set(core);
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let compute = || {
                sched_setaffinity(None, &one).expect("it is one of its cores");
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            scope.spawn(compute);
            scope.spawn(|| {
                sched_setaffinity(None, &one).expect("it is one of its cores");
                let limit = Instant::now() + Duration::from_secs(30);
                loop {
                    let begun = Instant::now();
                    begin(begun);
                    while begun.elapsed() < 2 * FRESH {
                        std::hint::spin_loop();
                    }
                    let took = begun.elapsed();
                    let held = held(took);
                    // It may have been alone on the core, until the other thread has begun.
                    if held < took * 3 / 4 {
                        break;
                    }
                    assert!(Instant::now() < limit, "held for {held:?} of {took:?}");
                }
                ends.store(true, Ordering::Relaxed);
            });
        });
    }

    #[test]
    fn a_poll_that_sleeps_holds_its_thread_as_long_as_it_sleeps() {
        // A wait for a core after the sleep may make the poll seem shorter, but not each of them.
        let holds = |_| {
            let begun = Instant::now();
            begin(begun);
            std::thread::sleep(2 * FRESH);
            held(begun.elapsed()) >= 2 * FRESH
        };
        assert!((0..100).any(holds));
    }
}
