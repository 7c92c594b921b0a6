//! Threads that cannot be started: the pool goes on with those it has, and without any it says so at once.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tower_offload::{Cause, JobError, PoolConfig};
use tracing_subscriber::fmt::MakeWriter;

use crate::children::in_child;
use crate::support::{Held, end_of, hold, pools, stats, until_at_rest};

/// Leaves this process no address space for the stack of another thread, until it is dropped.
struct NoThreads(Rlimit);

impl NoThreads {
    fn begin() -> Self {
        let before = getrlimit(Resource::As);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let in_use = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")).unwrap();
        let limit = (in_use.trim().parse::<u64>().unwrap() + 512) * 1024;
        setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: before.maximum }).unwrap();
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "threads can still be started");
        Self(before)
    }
}

impl Drop for NoThreads {
    fn drop(&mut self) {
        setrlimit(Resource::As, Rlimit { current: self.0.current, maximum: self.0.maximum }).unwrap();
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin() -> Self {
        let log = Self::default();
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).init();
        log
    }

    fn lines_with(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(text)).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn cause<T>(result: Result<T, JobError>) -> Cause {
    match result {
        Err(JobError::Rejected(rejection)) => rejection.cause(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it ran"),
    }
}

#[test]
fn without_any_worker_a_job_is_an_error_and_not_a_hang() {
    in_child(
        "starting::without_any_worker_a_job_is_an_error_and_not_a_hang",
        |_| {},
        || {
            let log = Log::begin();
            let pools = pools("none", PoolConfig::new(4));
            let no_threads = NoThreads::begin();
            // More than once: the second one finds that a start has just failed.
            for _ in 0..5 {
                assert_eq!(cause(end_of(pools.submit_to_pool("none", || ()).unwrap())), Cause::NoWorkers);
            }
            let numbers = stats(&pools, "none");
            assert_eq!((numbers.workers, numbers.in_flight, numbers.queued_tasks), (0, 0, 0));
            assert_eq!(numbers.counts.ended(), 5);
            assert_eq!(log.lines_with("a worker's thread could not be started"), 1);
            drop(no_threads);
            assert_eq!(end_of(pools.submit_to_pool("none", || 7).unwrap()).unwrap(), 7);
        },
    );
}

#[test]
fn a_pool_goes_on_with_the_workers_it_has() {
    in_child(
        "starting::a_pool_goes_on_with_the_workers_it_has",
        |_| {},
        || {
            let log = Log::begin();
            let pools = pools("some", PoolConfig::new(4));
            let held = hold(&pools, "some", 1);
            let _no_threads = NoThreads::begin();
            let handles: Vec<_> = (0..10).map(|number| pools.submit_to_pool("some", move || number).unwrap()).collect();
            held.into_iter().for_each(Held::release);
            for (number, handle) in handles.into_iter().enumerate() {
                assert_eq!(end_of(handle).unwrap(), number);
            }
            until_at_rest(&pools, "some");
            assert_eq!((stats(&pools, "some").workers, stats(&pools, "some").counts.ok), (1, 11));
            assert_eq!(log.lines_with("a worker's thread could not be started"), 1);
        },
    );
}

/// Without the timer's thread a job cannot be told that it is late; but a worker that comes by tells it.
#[test]
fn without_a_timer_a_worker_ends_the_waiting() {
    in_child(
        "starting::without_a_timer_a_worker_ends_the_waiting",
        |_| {},
        || {
            // The numbers' care would start the timer before: the limit comes first, the worker's thread after it.
            let log = Log::begin();
            let timeout = std::time::Duration::from_millis(5);
            let pools = pools("timer", PoolConfig::new(1).queue_timeout(timeout));
            let no_threads = NoThreads::begin();
            assert_eq!(cause(end_of(pools.submit_to_pool("timer", || ()).unwrap())), Cause::NoWorkers);
            assert_eq!(log.lines_with("the timer's thread could not be started"), 1);
            drop(no_threads);
            // Once threads can be had, the timer is there as well.
            let held = hold(&pools, "timer", 1);
            let late = pools.submit_to_pool("timer", || ()).unwrap();
            assert_eq!(cause(end_of(late)), Cause::QueueTimeout);
            held.into_iter().for_each(Held::release);
        },
    );
}
