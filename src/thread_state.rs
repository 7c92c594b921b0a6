//! The state of a thread as the kernel shows it: runnable or blocked, and its CPU time.

use std::time::Duration;

/// The kernel's number of a thread.
pub(crate) type ThreadId = i32;

/// Whether the kernel shows the state of a thread.
pub(crate) const IS_KNOWN: bool = cfg!(target_os = "linux");

/// The calling thread's number; `None` if the kernel does not show the state of a thread.
#[cfg(target_os = "linux")]
pub(crate) fn current() -> Option<ThreadId> {
    Some(rustix::thread::gettid().as_raw_nonzero().get())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn current() -> Option<ThreadId> {
    None
}

/// Whether a thread of this process is runnable: it runs, or waits for a core. A thread that sleeps, waits for a disk
/// or has ended is not, nor is a thread whose state cannot be read.
pub(crate) fn runs(thread: ThreadId) -> bool {
    std::fs::read(format!("/proc/self/task/{thread}/stat")).is_ok_and(|stat| state_in(&stat) == Some(b'R'))
}

/// The state of a thread of this process in words; `None` if the kernel does not show it.
#[cfg(feature = "dashboard")]
pub(crate) fn doing(thread: ThreadId) -> Option<&'static str> {
    let read = |file: &str| std::fs::read(format!("/proc/self/task/{thread}/{file}")).ok();
    match state_in(&read("stat")?)? {
        b'R' => Some("computes"),
        b'D' => Some("waits for a disk"),
        b'S' => Some(read("wchan").map_or(BLOCKED, |function| waits_in(&String::from_utf8_lossy(&function)))),
        b't' | b'T' => Some("is stopped"),
        _ => None,
    }
}

#[cfg(any(feature = "dashboard", test))]
const BLOCKED: &str = "is blocked";

/// What a thread waits for that sleeps in this function of the kernel: see `wchan` in proc(5). Their names differ between
/// versions, so this looks for parts of names.
#[cfg(any(feature = "dashboard", test))]
fn waits_in(function: &str) -> &'static str {
    const WORDS: [(&str, &[&str]); 7] = [
        ("waits for a lock, a channel or another thread", &["futex"]),
        ("sleeps", &["nanosleep"]),
        ("waits for a pipe", &["pipe"]),
        ("waits for a file lock", &["flock", "locks_lock", "posix_lock"]),
        ("waits for a disk", &["io_schedule", "folio", "fsync", "jbd2"]),
        ("waits for a socket", &["poll", "select", "skb", "sk_wait", "unix_", "inet_", "tcp_", "udp_", "sock"]),
        ("waits for a process", &["do_wait", "wait4", "waitid"]),
    ];
    let known = WORDS.iter().find(|(_, parts)| parts.iter().any(|part| function.contains(part)));
    known.map_or(BLOCKED, |(words, _)| words)
}

/// The CPU time of a thread of this process, from the scheduler, or else from its times in clock ticks: see proc(5).
/// `None` if the kernel shows neither, or the thread has ended.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_time(thread: ThreadId) -> Option<Duration> {
    let read = |file: &str| std::fs::read(format!("/proc/self/task/{thread}/{file}")).ok();
    read("schedstat").and_then(|times| nanos_in(&times, 0)).or_else(|| ticks_in(&read("stat")?).map(of_ticks))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_time(_thread: ThreadId) -> Option<Duration> {
    None
}

/// How long the calling thread has waited for a core since its start. `None` if the kernel does not show it.
#[cfg(target_os = "linux")]
pub(crate) fn run_delay() -> Option<Duration> {
    nanos_in(&std::fs::read("/proc/thread-self/schedstat").ok()?, 1)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run_delay() -> Option<Duration> {
    None
}

/// One of the first two numbers: nanoseconds on a core, and nanoseconds of waiting for one.
#[cfg(any(target_os = "linux", test))]
fn nanos_in(schedstat: &[u8], number: usize) -> Option<Duration> {
    let text = std::str::from_utf8(schedstat).ok()?;
    text.split_whitespace().nth(number)?.parse().ok().map(Duration::from_nanos)
}

/// Times in user mode and in the kernel: the twelfth and thirteenth field after the name.
#[cfg(any(target_os = "linux", test))]
fn ticks_in(stat: &[u8]) -> Option<u64> {
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    let mut times = text.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

/// Linux shows times to programs in hundredths of a second on every architecture that Rust supports.
#[cfg(any(target_os = "linux", test))]
fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// The time between two samples is at least this multiple of the time that a sample takes, because reading the states
/// of many threads costs CPU time. It is at most [`LONGEST_REST`]: a sample may have taken long because its thread was
/// suspended.
const LEAST_REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_millis(100);

/// The time until the next sample: `next`, or longer if the last sample took long.
pub(crate) fn rest(next: Duration, took: Duration) -> Duration {
    next.max((took * LEAST_REST).min(LONGEST_REST))
}

/// The letter of the state. It comes after the name of the thread in parentheses, and the name may contain parentheses
/// too: see proc(5).
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
    fn functions_of_the_kernel_become_words() {
        let words = |function: &str| waits_in(function).rsplit(' ').next().unwrap_or_default();
        // From Linux 5.10 and 6.12.
        for (last, functions) in [
            ("thread", &["futex_wait_queue_me", "futex_do_wait"][..]),
            ("sleeps", &["hrtimer_nanosleep", "do_nanosleep"]),
            ("pipe", &["pipe_read", "anon_pipe_read", "pipe_wait"]),
            ("socket", &["ep_poll", "do_poll.constprop.0", "__skb_wait_for_more_packets", "sk_wait_data"]),
            ("socket", &["unix_stream_read_generic", "inet_csk_accept"]),
            ("process", &["do_wait", "kernel_wait4"]),
            ("blocked", &["0", "", "rescuer_thread"]),
        ] {
            functions.iter().for_each(|function| assert_eq!(words(function), last, "{function}"));
        }
    }

    #[cfg(all(target_os = "linux", feature = "dashboard"))]
    #[test]
    fn a_thread_that_waits_for_a_channel_says_so() {
        assert_eq!(doing(current().unwrap()), Some("computes"));
        let (sender, receiver) = std::sync::mpsc::channel();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = sender.send(current());
            let _ = gate.recv();
        });
        let waits = receiver.recv().unwrap().unwrap();
        while !doing(waits).is_some_and(|doing| doing == BLOCKED || doing.starts_with("waits for a lock")) {
            std::thread::yield_now();
        }
        drop(release);
        thread.join().unwrap();
        assert_eq!(doing(ThreadId::MAX), None);
    }

    #[test]
    fn a_sample_that_took_long_delays_the_next_one_by_a_tenth_of_a_second_at_most() {
        let millis = Duration::from_millis;
        assert_eq!(rest(millis(1), Duration::from_micros(10)), millis(1));
        assert_eq!(rest(millis(1), millis(2)), millis(40));
        assert_eq!(rest(millis(1), Duration::from_secs(60)), LONGEST_REST);
        assert_eq!(rest(millis(100), Duration::from_secs(60)), millis(100));
    }

    #[test]
    fn cpu_times_are_read_from_both_files() {
        assert_eq!(nanos_in(b"1234567890 55 3\n", 0), Some(Duration::from_nanos(1_234_567_890)));
        assert_eq!(nanos_in(b"", 0), None);
        let stat = b"42 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 7 0 0 20 0";
        assert_eq!(ticks_in(stat).map(of_ticks), Some(Duration::from_millis(1570)));
        assert_eq!(ticks_in(b"42 (a) R 1 2"), None);
    }

    #[test]
    fn the_wait_for_a_core_is_the_second_number() {
        assert_eq!(nanos_in(b"883566 422804 3\n", 1), Some(Duration::from_nanos(422_804)));
        assert_eq!(nanos_in(b"883566\n", 1), None);
        assert_eq!(nanos_in(b"0 -1 0", 1), None);
        assert_eq!(nanos_in(b"\xff \xff", 1), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cpu_time_of_a_thread_grows_while_it_computes() {
        let this = current().unwrap();
        let before = cpu_time(this).unwrap();
        while cpu_time(this).unwrap() < before + Duration::from_millis(20) {}
        assert_eq!(cpu_time(ThreadId::MAX), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_computes_is_runnable_and_a_thread_that_waits_is_not() {
        use std::sync::mpsc;

        let (sender, receiver) = mpsc::channel();
        let (release, gate) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _ = sender.send(current());
            let _ = gate.recv();
        });
        let waits = receiver.recv().unwrap().unwrap();
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
