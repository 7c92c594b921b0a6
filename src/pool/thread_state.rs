//! What the system says of a thread: whether it runs, or waits for something.

use std::time::Duration;

/// The system's number of a thread.
pub(super) type ThreadId = i32;

/// Whether the system says what a thread does.
pub(super) const IS_KNOWN: bool = cfg!(target_os = "linux");

/// The calling thread's; none where the system does not say what a thread does.
#[cfg(target_os = "linux")]
pub(super) fn current() -> Option<ThreadId> {
    Some(rustix::thread::gettid().as_raw_nonzero().get())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn current() -> Option<ThreadId> {
    None
}

/// Whether a thread of this process runs, or would if a core were free. A thread that sleeps, waits for a disk or is
/// gone does not, nor does one of which the system says nothing.
pub(super) fn runs(thread: ThreadId) -> bool {
    std::fs::read(format!("/proc/self/task/{thread}/stat")).is_ok_and(|stat| state_in(&stat) == Some(b'R'))
}

/// Between two samples are at least so many times what one takes, because reading many threads' states is work as well;
/// but never more than [`LONGEST_REST`], because the sampler may have been suspended itself.
const LEAST_REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_millis(100);

/// The time until the next sample, which is due after `next`, if the last one took so long.
pub(super) fn rest(next: Duration, took: Duration) -> Duration {
    next.max((took * LEAST_REST).min(LONGEST_REST))
}

/// The letter of the state, which comes after the name of the thread in parentheses (proc(5)); the name may have some
/// of its own.
fn state_in(stat: &[u8]) -> Option<u8> {
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(name_ends + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_the_letter_after_the_name() {
        assert_eq!(state_in(b"42 (offload-cpu-3) R 1 2 3"), Some(b'R'));
        assert_eq!(state_in(b"42 (a) S (b) D 1 2 3"), Some(b'D'));
        assert_eq!(state_in(b"42 (offload"), None);
        assert_eq!(state_in(b""), None);
    }

    #[test]
    fn a_sample_that_took_long_delays_the_next_one_by_a_tenth_of_a_second_at_most() {
        let millis = Duration::from_millis;
        assert_eq!(rest(millis(1), Duration::from_micros(10)), millis(1));
        assert_eq!(rest(millis(1), millis(2)), millis(40));
        assert_eq!(rest(millis(1), Duration::from_secs(60)), LONGEST_REST);
        assert_eq!(rest(millis(100), Duration::from_secs(60)), millis(100));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_computes_runs_and_one_that_waits_does_not() {
        use std::sync::mpsc;

        let (told, tell) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = told.send(current());
            let _ = gate.recv();
        });
        let waits = tell.recv().unwrap().unwrap();
        assert!(runs(current().unwrap()));
        while runs(waits) {
            std::thread::yield_now();
        }
        drop(release);
        thread.join().unwrap();
        while runs(waits) {
            std::thread::yield_now();
        }
    }
}
