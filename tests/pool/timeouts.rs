//! The queue timeout: the timer rejects a task on time, even if every worker is blocked.

use std::time::{Duration, Instant};

use tower_offload::{PoolConfig, Pools, Reason, TaskError};

use crate::children::in_child;
use crate::support::{Gate, Held, end_of, hold, pools, stats, until};

fn expired(result: Result<(), TaskError>) {
    let Err(TaskError::Rejected(rejection)) = result else { panic!("{result:?}") };
    assert_eq!((rejection.reason(), rejection.started()), (Reason::QueueTimeout, false));
    assert!(rejection.retry_after().is_some_and(|wait| !wait.is_zero()), "when to come again: {rejection:?}");
}

/// There is no Tokio runtime in this test.
#[test]
fn a_late_task_is_answered_while_every_worker_is_blocked() {
    let timeout = Duration::from_millis(60);
    let pools = pools("late", PoolConfig::new(2).queue_timeout(timeout));
    let held = hold(&pools, "late", 2);
    let start = Instant::now();
    let handles: Vec<_> =
        (0..20).map(|_| pools.submit_to_pool("late", || panic!("it never starts")).unwrap()).collect();
    handles.into_iter().for_each(|handle| expired(end_of(handle)));
    assert!(start.elapsed() >= timeout, "they were given up early");
    let numbers = stats(&pools, "late");
    assert_eq!((numbers.counts.expired, numbers.queued_tasks, numbers.active_threads), (20, 0, 2));
    held.into_iter().for_each(Held::release);
}

/// A worker of its pool drops a late task, so a destructor that blocks does not block the timer.
#[test]
fn a_late_task_whose_destructor_blocks_does_not_delay_the_timeouts_of_another_pool() {
    struct Blocks(Gate, Gate);
    impl Drop for Blocks {
        fn drop(&mut self) {
            self.0.open();
            self.1.wait();
        }
    }
    let soon = PoolConfig::new(1).queue_timeout(Duration::from_millis(10));
    let slow = PoolConfig::new(2).concurrency(1).queue_timeout(Duration::from_millis(10));
    let pools = Pools::builder().pool("slow", slow).pool("quick", soon).build().unwrap();
    let held = [hold(&pools, "slow", 1), hold(&pools, "quick", 1)];
    let (drops, resumes) = (Gate::default(), Gate::default());
    let blocks = Blocks(drops.clone(), resumes.clone());
    let slow = pools.submit_to_pool("slow", move || drop(blocks)).unwrap();
    drops.wait();
    expired(end_of(pools.submit_to_pool("quick", || ()).unwrap()));
    assert_eq!(stats(&pools, "slow").counts.expired, 1, "it has left the queue");
    resumes.open();
    expired(end_of(slow));
    held.into_iter().flatten().for_each(Held::release);
}

/// The timer is set to the oldest task's timeout, and then to that of each later task.
#[test]
fn each_task_has_its_own_timeout() {
    let pools = pools("own", PoolConfig::new(1).queue_timeout(Duration::from_millis(40)));
    let held = hold(&pools, "own", 1);
    for round in 1..=5 {
        let handle = pools.submit_to_pool("own", || panic!("it never starts")).unwrap();
        let gone = pools.submit_to_pool("own", || panic!("it was cancelled")).unwrap();
        gone.cancel();
        expired(end_of(handle));
        let counts = stats(&pools, "own").counts;
        // On a slow machine, the other one may be too late before it is cancelled.
        assert_eq!((counts.expired + counts.cancelled, counts.expired >= round), (2 * round, true), "{counts:?}");
    }
    held.into_iter().for_each(Held::release);
}

#[test]
fn a_task_that_got_its_permit_in_time_is_not_timed_out_while_it_runs() {
    let timeout = Duration::from_millis(20);
    let pools = pools("run", PoolConfig::new(1).queue_timeout(timeout));
    let held = hold(&pools, "run", 1);
    // Its timeout passes while it runs, and that of the task behind it.
    expired(end_of(pools.submit_to_pool("run", || panic!("it never starts")).unwrap()));
    held.into_iter().for_each(Held::release);
    let counts = stats(&pools, "run").counts;
    assert_eq!((counts.ok, counts.expired), (1, 1));
}

/// All pools share them.
#[cfg(target_os = "linux")]
#[test]
fn a_process_has_two_helper_threads_and_none_without_a_timeout() {
    in_child(
        "timeouts::a_process_has_two_helper_threads_and_none_without_a_timeout",
        |_| {},
        || {
            let helpers = || {
                let tasks = std::fs::read_dir("/proc/self/task").unwrap();
                let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
                let mut names: Vec<_> = names.filter(|name| name.starts_with("offload-")).collect();
                names.retain(|name| name.trim_end() == "offload-timer" || name.trim_end() == "offload-metrics");
                names.len()
            };
            let names = ["io", "cpu", "inference", "embedding", "db"];
            let pool = PoolConfig::new(2).queue_timeout(Duration::from_secs(20));
            let builder = names.iter().fold(Pools::builder(), |builder, name| builder.pool(*name, pool.clone()));
            let pools = builder.build().unwrap();
            assert_eq!(helpers(), 0);
            let held: Vec<_> = names.iter().flat_map(|name| hold(&pools, name, 2)).collect();
            let waiting: Vec<_> = names.iter().map(|name| pools.submit_to_pool(*name, || ()).unwrap()).collect();
            until("both helper threads run", || helpers() == 2);
            held.into_iter().for_each(Held::release);
            waiting.into_iter().for_each(|task| end_of(task).unwrap());
            drop(pools);
            // They end two seconds after the last timeout, or its cancellation.
            until("both have ended", || helpers() == 0);
        },
    );
}
