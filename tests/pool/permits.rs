//! A permit is released however its task ends: it finishes, it panics, its caller leaves, or nobody can wake it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_test::assert_pending;
use tower_offload::config::Queue;
use tower_offload::{PoolConfig, cancelled};

use crate::support::{Gate, Held, end_of, hold, pools, stats, until, until_at_rest};

/// Opens its gate when it is dropped.
struct Dropped(Gate);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn ten_thousand_panics_leave_every_worker_alive_and_every_number_exact() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>().is_none_or(|said| *said != "one of many") {
            quiet(info);
        }
    }));
    let pools = pools("panic", PoolConfig::new(4).queue_capacity(10_000).queue(Queue::Fifo));
    let held = hold(&pools, "panic", 4);
    let handles: Vec<_> =
        (0..10_000).map(|_| pools.submit_to_pool("panic", || -> u8 { panic!("one of many") }).unwrap()).collect();
    held.into_iter().for_each(Held::release);
    for handle in handles {
        assert_eq!(end_of(handle).unwrap_err().to_string(), "the task panicked: one of many");
    }
    until_at_rest(&pools, "panic");
    let stats = stats(&pools, "panic");
    assert_eq!((stats.counts.panicked, stats.counts.ok), (10_000, 4));
    assert_eq!(stats.workers, 4, "none of the workers died");
    hold(&pools, "panic", 4).into_iter().for_each(Held::release);
}

#[test]
fn dropping_a_queued_task_takes_it_out_of_the_queue_at_once_and_it_never_starts() {
    let pools = pools("leave", PoolConfig::new(1).queue_capacity(1));
    let held = hold(&pools, "leave", 1);
    let started = Arc::new(AtomicBool::new(false));
    for round in 1..=100 {
        let dropped = Gate::default();
        let (values, started) = (Dropped(dropped.clone()), started.clone());
        let task = move || {
            started.store(true, Ordering::SeqCst);
            drop(values);
        };
        let mut task = tokio_test::task::spawn(pools.run_in_pool("leave", task));
        assert_pending!(task.poll());
        assert_eq!(stats(&pools, "leave").queued_tasks, 1);
        drop(task);
        // Both hold as soon as the drop returns.
        let stats = stats(&pools, "leave");
        assert_eq!((stats.queued_tasks, stats.counts.cancelled), (0, round));
        dropped.wait();
    }
    held.into_iter().for_each(Held::release);
    until_at_rest(&pools, "leave");
    assert!(!started.load(Ordering::SeqCst));
}

#[test]
fn dropping_a_task_that_awaits_drops_its_future_and_releases_its_permit() {
    let pools = pools("await", PoolConfig::new(1).queue_capacity(0));
    for round in 1..=100 {
        let (begun, dropped) = (Gate::default(), Gate::default());
        let (begins, value) = (begun.clone(), Dropped(dropped.clone()));
        let task = async move {
            let _value = value;
            begins.open();
            pending::<()>().await;
        };
        let mut task = tokio_test::task::spawn(pools.run_in_pool("await", task));
        assert_pending!(task.poll());
        begun.wait();
        assert_eq!(stats(&pools, "await").in_flight, 1);
        drop(task);
        dropped.wait();
        until("the permit is released", || stats(&pools, "await").in_flight == 0);
        assert_eq!(stats(&pools, "await").counts.cancelled, round);
    }
}

/// The future does not keep its waker, and its handle is dropped before its first poll ends. So the worker has the last
/// reference to the task. If the worker kept it while it parks, the permit would be held until its keep-alive ends.
#[test]
fn a_task_that_nobody_can_wake_is_cancelled_before_its_worker_parks() {
    let pools = pools("asleep", PoolConfig::new(1).keep_alive(Duration::from_secs(3_600)));
    for round in 1..=20 {
        let (begun, left, dropped) = (Gate::default(), Gate::default(), Gate::default());
        let (begins, leaves, value) = (begun.clone(), left.clone(), Dropped(dropped.clone()));
        let task = async move {
            let (_value, _never_polled) = (value, cancelled());
            begins.open();
            leaves.wait();
            pending::<()>().await;
        };
        let handle = pools.submit_to_pool("asleep", task).unwrap();
        begun.wait();
        drop(handle);
        assert_eq!(stats(&pools, "asleep").in_flight, 1, "a dropped handle does not cancel a task");
        left.open();
        dropped.wait();
        until("the permit is released", || stats(&pools, "asleep").in_flight == 0);
        assert_eq!(stats(&pools, "asleep").counts.cancelled, round);
    }
    assert_eq!(stats(&pools, "asleep").workers, 1, "the worker is parked");
}

#[test]
fn a_blocking_task_whose_caller_left_counts_until_it_ends() {
    let pools = pools("block", PoolConfig::new(1).queue_capacity(0));
    let (gate, begun) = (Gate::default(), Gate::default());
    let (holds, begins) = (gate.clone(), begun.clone());
    let task = move || {
        begins.open();
        holds.wait();
    };
    let mut task = tokio_test::task::spawn(pools.run_in_pool("block", task));
    assert_pending!(task.poll());
    begun.wait();
    drop(task);
    assert_eq!(stats(&pools, "block").in_flight, 1, "code that blocks cannot be interrupted");
    assert!(pools.submit_to_pool("block", || ()).is_err());
    gate.open();
    until_at_rest(&pools, "block");
    assert_eq!(stats(&pools, "block").counts.ended(), 2);
}

#[test]
fn cancelling_a_handle_takes_its_task_out_of_the_queue_and_dropping_one_does_not() {
    let pools = pools("handle", PoolConfig::new(1).queue_capacity(2));
    let held = hold(&pools, "handle", 1);
    let ran = Gate::default();
    let runs = ran.clone();
    drop(pools.submit_to_pool("handle", move || runs.open()).unwrap());
    pools.submit_to_pool("handle", || panic!("it was cancelled")).unwrap().cancel();
    assert_eq!(stats(&pools, "handle").queued_tasks, 1);
    held.into_iter().for_each(Held::release);
    ran.wait();
    until_at_rest(&pools, "handle");
    let counts = stats(&pools, "handle").counts;
    assert_eq!((counts.ok, counts.cancelled, counts.panicked), (2, 1, 0));
}
