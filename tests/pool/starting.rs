//! Threads that cannot be started: the pool works with those that it has, and without any it rejects each task at once.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::mpsc::{Sender, channel};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tower_offload::{PoolConfig, Reason, TaskError};

use crate::children::in_child;
use crate::support::{Held, Log, end_of, hold, pools, stats, until, until_at_rest, until_others_sleep};

/// Leaves this process no address space for the stack of another thread, until it is dropped.
struct NoThreads {
    before: Rlimit,
    /// Threads that reuse the cached stacks of ended threads wait for these.
    _stacks: Vec<Sender<()>>,
}

impl NoThreads {
    fn begin() -> Self {
        // A thread that is just starting allocates memory, and aborts the process if there is none.
        until_others_sleep();
        let before = getrlimit(Resource::As);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let in_use = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")).unwrap();
        let limit = (in_use.trim().parse::<u64>().unwrap() + 512) * 1024;
        setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: before.maximum }).unwrap();
        let occupy = |_| {
            let (hold, held) = channel();
            std::thread::Builder::new()
                .spawn(move || {
                    let _ = held.recv();
                })
                .ok()
                .map(|_| hold)
        };
        let stacks: Vec<_> = (0..64).map_while(occupy).collect();
        assert!(stacks.len() < 64, "threads can still be started");
        Self { before, _stacks: stacks }
    }
}

impl Drop for NoThreads {
    fn drop(&mut self) {
        setrlimit(Resource::As, Rlimit { current: self.before.current, maximum: self.before.maximum }).unwrap();
    }
}

fn reason<T>(result: Result<T, TaskError>) -> Reason {
    match result {
        Err(TaskError::Rejected(rejection)) => rejection.reason(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it ran"),
    }
}

#[test]
fn without_any_worker_a_task_is_an_error_and_not_a_hang() {
    in_child(
        "starting::without_any_worker_a_task_is_an_error_and_not_a_hang",
        |_| {},
        || {
            let log = Log::of_process();
            let pools = pools("none", PoolConfig::new(4));
            let no_threads = NoThreads::begin();
            // The later ones find that a start has just failed.
            for _ in 0..5 {
                assert_eq!(reason(end_of(pools.submit_to_pool("none", || ()).unwrap())), Reason::NoWorkers);
            }
            let numbers = stats(&pools, "none");
            assert_eq!((numbers.workers, numbers.in_flight, numbers.queued_tasks), (0, 0, 0));
            assert_eq!((numbers.counts.ended(), numbers.counts.rejected), (5, 5));
            assert_eq!(log.lines_with("a worker's thread could not be started").len(), 1);
            drop(no_threads);
            assert_eq!(end_of(pools.submit_to_pool("none", || 7).unwrap()).unwrap(), 7);
        },
    );
}

#[test]
fn a_task_that_has_begun_is_not_said_to_be_safe_to_run_again() {
    in_child(
        "starting::a_task_that_has_begun_is_not_said_to_be_safe_to_run_again",
        |_| {},
        || {
            let pools = pools("begun", PoolConfig::new(1).keep_alive(std::time::Duration::from_millis(5)));
            let (wake, woken) = tokio::sync::oneshot::channel::<()>();
            let handle = pools.submit_to_pool("begun", woken).unwrap();
            until("the task awaits, and its worker has ended", || {
                let numbers = stats(&pools, "begun");
                (numbers.workers, numbers.in_flight) == (0, 1)
            });
            let _no_threads = NoThreads::begin();
            wake.send(()).unwrap();
            let Err(TaskError::CutOff(rejection)) = end_of(handle) else { panic!("there is nobody to finish it") };
            assert_eq!((rejection.reason(), rejection.started()), (Reason::CutOff, true));
            assert_eq!(stats(&pools, "begun").counts.cancelled, 1);
        },
    );
}

#[test]
fn a_pool_goes_on_with_the_workers_it_has() {
    in_child(
        "starting::a_pool_goes_on_with_the_workers_it_has",
        |_| {},
        || {
            let log = Log::of_process();
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
            assert_eq!(log.lines_with("a worker's thread could not be started").len(), 1);
        },
    );
}

#[test]
fn a_task_that_found_no_thread_starts_once_one_can_be_had_though_nothing_else_happens() {
    in_child(
        "starting::a_task_that_found_no_thread_starts_once_one_can_be_had_though_nothing_else_happens",
        |_| {},
        || {
            let pools = pools("late", PoolConfig::new(2));
            // Two tasks that block; the second finds no thread.
            let held = hold(&pools, "late", 1);
            let no_threads = NoThreads::begin();
            let (sender, receiver) = std::sync::mpsc::channel();
            let second = pools.submit_to_pool("late", move || sender.send(()).unwrap()).unwrap();
            assert_eq!((stats(&pools, "late").workers, second.is_finished()), (1, false));
            drop(no_threads);
            receiver.recv_timeout(crate::support::PATIENCE).expect("it never starts");
            end_of(second).unwrap();
            held.into_iter().for_each(Held::release);
        },
    );
}

#[test]
fn a_timer_that_could_not_be_started_is_there_once_threads_can_be_had() {
    in_child(
        "starting::a_timer_that_could_not_be_started_is_there_once_threads_can_be_had",
        |_| {},
        || {
            let log = Log::of_process();
            let timeout = std::time::Duration::from_millis(5);
            let pools = pools("timer", PoolConfig::new(1).queue_timeout(timeout));
            let no_threads = NoThreads::begin();
            assert_eq!(reason(end_of(pools.submit_to_pool("timer", || ()).unwrap())), Reason::NoWorkers);
            // Once for each of the two helper threads.
            assert!((1..=2).contains(&log.lines_with("a helper thread could not be started").len()));
            drop(no_threads);
            let held = hold(&pools, "timer", 1);
            let late = pools.submit_to_pool("timer", || ()).unwrap();
            assert_eq!(reason(end_of(late)), Reason::QueueTimeout);
            held.into_iter().for_each(Held::release);
        },
    );
}
