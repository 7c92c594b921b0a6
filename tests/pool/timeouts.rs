//! The queue timeout: told at the time, by no worker.

use std::time::{Duration, Instant};

use tower_offload::{Cause, JobError, PoolConfig};

use crate::support::{Gate, Held, end_of, hold, pools, stats, until};

fn expired(result: Result<(), JobError>) {
    let Err(JobError::Rejected(rejection)) = result else { panic!("{result:?}") };
    assert_eq!((rejection.cause(), rejection.started()), (Cause::QueueTimeout, false));
    assert!(rejection.retry_after().is_some_and(|wait| !wait.is_zero()), "when to come again: {rejection:?}");
}

/// There is no Tokio runtime in this test.
#[test]
fn a_late_job_is_answered_while_every_worker_is_blocked() {
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

/// What a late job holds is dropped by its pool's own timer.
#[test]
fn a_late_job_whose_destructor_blocks_does_not_hold_up_the_time_of_another_pool() {
    struct Blocks(Gate, Gate);
    impl Drop for Blocks {
        fn drop(&mut self) {
            self.0.open();
            self.1.wait();
        }
    }
    let soon = PoolConfig::new(1).queue_timeout(Duration::from_millis(10));
    let pools = tower_offload::Pools::builder().pool("slow", soon.clone()).pool("quick", soon).build().unwrap();
    let held = [hold(&pools, "slow", 1), hold(&pools, "quick", 1)];
    let (drops, goes_on) = (Gate::default(), Gate::default());
    let blocks = Blocks(drops.clone(), goes_on.clone());
    let slow = pools.submit_to_pool("slow", move || drop(blocks)).unwrap();
    drops.wait();
    expired(end_of(pools.submit_to_pool("quick", || ()).unwrap()));
    assert_eq!(stats(&pools, "slow").counts.expired, 1, "it has left the queue");
    goes_on.open();
    expired(end_of(slow));
    held.into_iter().flatten().for_each(Held::release);
}

/// The timer is set for the oldest job; those that come later have their turn too.
#[test]
fn each_job_has_its_own_time() {
    let pools = pools("own", PoolConfig::new(1).queue_timeout(Duration::from_millis(40)));
    let held = hold(&pools, "own", 1);
    for round in 1..=5 {
        let handle = pools.submit_to_pool("own", || panic!("it never starts")).unwrap();
        let gone = pools.submit_to_pool("own", || panic!("it was cancelled")).unwrap();
        gone.cancel();
        expired(end_of(handle));
        assert_eq!(stats(&pools, "own").counts.expired, round);
    }
    held.into_iter().for_each(Held::release);
}

#[test]
fn a_job_that_got_its_permit_in_time_is_not_timed_out_while_it_runs() {
    let timeout = Duration::from_millis(20);
    let pools = pools("run", PoolConfig::new(1).queue_timeout(timeout));
    let held = hold(&pools, "run", 1);
    // Its own time passes, and that of a job behind it, while it runs.
    expired(end_of(pools.submit_to_pool("run", || panic!("it never starts")).unwrap()));
    held.into_iter().for_each(Held::release);
    let counts = stats(&pools, "run").counts;
    assert_eq!((counts.ok, counts.expired), (1, 1));
}

/// Linux keeps fifteen letters of a thread's name: the timer of the pool `z` has just so many.
#[cfg(target_os = "linux")]
#[test]
fn the_timer_of_a_pool_ends_with_it() {
    let timers = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "offload-timer-z").count()
    };
    let pools = pools("z", PoolConfig::new(1));
    let held = hold(&pools, "z", 1);
    assert_eq!(timers(), 0, "nothing waits");
    let waits = pools.submit_to_pool("z", || ()).unwrap();
    until("the timer has its name", || timers() == 1);
    held.into_iter().for_each(Held::release);
    end_of(waits).unwrap();
    drop(pools);
    // Its next moment is half a minute away.
    until("the timer has ended", || timers() == 0);
}
