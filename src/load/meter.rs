//! Measures the load of a pool: reads its counters and the CPU time of its workers once a second.
//!
//! The CPU time of the pool is the sum over its workers, those that have ended included. A worker that ends adds its own
//! time under the meter's lock, after it has left the pool's list of workers. The meter takes that list under its own lock,
//! so each thread on it lives until the lock is released: its number belongs to no other thread.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::window::{Capacity, Measured, Sums, Window};
use crate::admission::{Demand, Timestamp};
use crate::sync::lock_std as lock;
use crate::thread_state::{self, ThreadId};

#[derive(Debug)]
pub(crate) struct LoadMeter {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    cpu: CpuTime,
}

/// The CPU time of threads that come and go.
#[derive(Debug, Default)]
struct CpuTime {
    total: Duration,
    /// The part of each thread that lives.
    threads: HashMap<ThreadId, Duration>,
    /// Whether the kernel shows the times. The first reading of a thread decides: a difference between these times and
    /// those that are taken in their place would mean nothing.
    shown: Option<bool>,
}

impl LoadMeter {
    /// The meter of a pool that is made now.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { state: Mutex::new(State { window: Window::new(now), cpu: CpuTime::default() }) }
    }

    /// The load, from counters that are read now if they were not read within the last second: the demand, the time of
    /// all polls, and the workers' threads.
    pub(crate) fn read(
        &self,
        now: Timestamp,
        cores: usize,
        counters: impl FnOnce() -> (Demand, Duration, Vec<ThreadId>),
    ) -> Measured {
        let State { window, cpu } = &mut *lock(&self.state);
        if window.is_due(now) {
            let (demand, poll_time, threads) = counters();
            let cpu_time = cpu.read(&threads, thread_state::cpu_time).unwrap_or(poll_time);
            window.add(now, Sums { demand, cpu_time }, Capacity { permits: demand.limit, cores });
        }
        window.measure()
    }

    /// The pool has work again after it rested.
    pub(crate) fn resume(&self, now: Timestamp) {
        lock(&self.state).window.resume(now);
    }

    /// Whether the pool had no work in the whole window.
    pub(crate) fn is_at_rest(&self, demand: &Demand) -> bool {
        lock(&self.state).window.is_at_rest(demand)
    }

    /// The calling thread was a worker of the pool, and has left its list of workers.
    pub(crate) fn worker_ends(&self) {
        if let Some(thread) = thread_state::current() {
            lock(&self.state).cpu.end(thread, thread_state::cpu_time);
        }
    }
}

impl CpuTime {
    /// Reads the times of threads that live, and returns the sum. A time that cannot be read this time is part of the next
    /// reading. `None` if the kernel shows no times.
    fn read(&mut self, threads: &[ThreadId], time_of: impl Fn(ThreadId) -> Option<Duration>) -> Option<Duration> {
        let times: Vec<_> = threads.iter().filter_map(|&thread| Some((thread, time_of(thread)?))).collect();
        for &(thread, time) in &times {
            self.add(thread, time);
        }
        if !threads.is_empty() || !thread_state::IS_KNOWN {
            self.shown.get_or_insert(!times.is_empty());
        }
        self.shown.unwrap_or(true).then_some(self.total)
    }

    fn end(&mut self, thread: ThreadId, time_of: impl Fn(ThreadId) -> Option<Duration>) {
        if let Some(time) = time_of(thread) {
            self.add(thread, time);
        }
        self.threads.remove(&thread);
    }

    fn add(&mut self, thread: ThreadId, time: Duration) {
        let before = self.threads.insert(thread, time).unwrap_or_default();
        self.total += time.saturating_sub(before);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn each_second_of_a_thread_counts_once_and_its_number_may_come_back() {
        let mut cpu = CpuTime::default();
        assert_eq!(cpu.read(&[7, 8], |thread| seconds(if thread == 7 { 2 } else { 1 })), seconds(3));
        assert_eq!(cpu.read(&[7, 8], |thread| seconds(if thread == 7 { 5 } else { 1 })), seconds(6));
        cpu.end(7, |_| seconds(6));
        assert_eq!(Some(cpu.total), seconds(7));
        // A new thread with the number of one that has ended.
        assert_eq!(cpu.read(&[7, 8], |_| seconds(1)), seconds(8));
    }

    #[test]
    fn a_worker_that_was_never_read_counts_at_its_end() {
        let mut cpu = CpuTime::default();
        cpu.end(7, |_| seconds(4));
        assert_eq!((Some(cpu.total), cpu.threads.len()), (seconds(4), 0));
    }

    #[test]
    fn threads_whose_times_cannot_be_read_are_reported() {
        let mut cpu = CpuTime::default();
        assert_eq!(cpu.read(&[7, 8], |_| None), None);
        // A sum of the two sources would mean nothing.
        assert_eq!(cpu.read(&[7, 8], |_| seconds(1)), None);
    }

    #[test]
    fn a_reading_that_fails_once_is_made_up_for_by_the_next() {
        let mut cpu = CpuTime::default();
        assert_eq!(cpu.read(&[7], |_| seconds(2)), seconds(2));
        assert_eq!(cpu.read(&[7], |_| None), seconds(2));
        assert_eq!(cpu.read(&[7], |_| seconds(4)), seconds(4));
    }
}
