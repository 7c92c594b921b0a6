//! The concurrency limit, the capacity of the queue, and the order of tasks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tower_offload::{PoolConfig, Reason, TaskError};

use crate::support::{check_numbers, end_of, hold, pools, stats};

fn reason<T: std::fmt::Debug>(result: Result<T, TaskError>) -> Reason {
    match result.expect_err("the task was rejected") {
        TaskError::Rejected(rejection) => rejection.reason(),
        other => panic!("{other}"),
    }
}

#[test]
fn no_more_tasks_are_in_flight_than_the_limit_and_no_more_wait_than_the_capacity() {
    let pools = pools("tight", PoolConfig::new(3).concurrency(2).queue_capacity(4));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut rejected = 0;
    let mut handles = Vec::new();
    for _ in 0..2_000 {
        let (now, most) = (now.clone(), most.clone());
        let task = move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
        };
        match pools.submit_to_pool("tight", task) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                assert_eq!(reason::<()>(Err(error)), Reason::QueueFull);
                rejected += 1;
            }
        }
        check_numbers(&stats(&pools, "tight"));
    }
    let admitted = handles.len() as u64;
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
    assert!(most.load(Ordering::SeqCst) <= 2);
    let counts = stats(&pools, "tight").counts;
    assert_eq!((counts.submitted, counts.ok, counts.rejected), (2_000, admitted, rejected));
}

#[test]
fn of_fifty_submissions_exactly_the_excess_is_rejected() {
    let pools = pools("small", PoolConfig::new(1).queue_capacity(2));
    let held = hold(&pools, "small", 1);
    let answers: Vec<_> = (0..50).map(|number| pools.submit_to_pool("small", move || number)).collect();
    let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((admitted.len(), refused.len()), (2, 48));
    for refusal in refused {
        let TaskError::Rejected(rejection) = refusal.unwrap_err() else { panic!("it is a rejection") };
        assert_eq!((rejection.reason(), rejection.started()), (Reason::QueueFull, false));
        assert!(rejection.retry_after().is_some());
    }
    held.into_iter().for_each(crate::support::Held::release);
    let values: Vec<i32> = admitted.into_iter().map(|handle| end_of(handle.unwrap()).unwrap()).collect();
    assert_eq!(values, [0, 1], "those that came first were admitted");
}

#[test]
fn a_pool_without_a_queue_rejects_each_task_that_it_cannot_start() {
    let pools = pools("none", PoolConfig::new(1).queue_capacity(0));
    for _ in 0..100 {
        let held = hold(&pools, "none", 1);
        assert_eq!(reason(pools.submit_to_pool("none", || ()).map(drop)), Reason::QueueFull);
        // A caller that has its answer finds the permit released.
        held.into_iter().for_each(crate::support::Held::release);
    }
}

#[test]
fn tasks_start_in_the_order_in_which_they_came() {
    let pools = pools("fifo", PoolConfig::new(1));
    let held = hold(&pools, "fifo", 1);
    let (sender, receiver) = mpsc::channel();
    let handles: Vec<_> = (0..500)
        .map(|number| {
            let sender = sender.clone();
            pools.submit_to_pool("fifo", move || sender.send(number).unwrap()).unwrap()
        })
        .collect();
    held.into_iter().for_each(crate::support::Held::release);
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_full_pool_does_not_hold_up_another() {
    let pools = tower_offload::Pools::builder()
        .pool("full", PoolConfig::new(1).queue_capacity(0))
        .pool("free", PoolConfig::new(1))
        .build()
        .unwrap();
    let held = hold(&pools, "full", 1);
    assert_eq!(end_of(pools.submit_to_pool("free", || 7).unwrap()).unwrap(), 7);
    assert_eq!(reason(pools.submit_to_pool("full", || ()).map(drop)), Reason::QueueFull);
    held.into_iter().for_each(crate::support::Held::release);
}
