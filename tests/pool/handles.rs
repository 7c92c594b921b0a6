//! The caller's handle: awaiting, waiting, leaving, and the last handle of a pool.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use tower_offload::{PoolConfig, Pools};

use crate::support::{Gate, Held, PATIENCE, end_of, hold, pools, stats, threads_of, until};

#[test]
fn a_wait_with_a_limit_gives_the_handle_back() {
    let pools = pools("wait", PoolConfig::new(1));
    let held = hold(&pools, "wait", 1);
    let handle = pools.submit_to_pool("wait", || 9).unwrap();
    let handle = handle.wait_timeout(Duration::from_millis(1)).expect_err("it is queued");
    let handle = handle.wait_timeout(Duration::ZERO).expect_err("it is queued");
    assert!(!handle.is_finished());
    held.into_iter().for_each(Held::release);
    assert_eq!(handle.wait_timeout(Duration::MAX).expect("it ends").unwrap(), 9);
}

#[test]
fn a_handle_can_be_awaited() {
    let pools = pools("async", PoolConfig::new(1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sum = runtime.block_on(async {
        let handles: Vec<_> = (0..100).map(|number| pools.submit_to_pool("async", move || number).unwrap()).collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 4_950);
}

#[test]
fn a_task_is_finished_before_its_value_is_taken() {
    let pools = pools("done", PoolConfig::new(1));
    let handle = pools.submit_to_pool("done", || 3).unwrap();
    until("it has ended", || handle.is_finished());
    assert_eq!(handle.wait().unwrap(), 3);
}

/// The token of `unpark` belongs to the thread, not to one wait: code that parks inside a poll may consume it.
#[test]
fn a_wake_up_is_not_lost_while_a_future_blocks_the_waiting_thread() {
    let (asked, answered) = (Gate::default(), Gate::default());
    let (asks, answers) = (asked.clone(), answered.clone());
    let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
    let waker = thread::spawn(move || {
        let waker = receiver.recv().unwrap();
        asks.wait();
        waker.wake();
        answers.open();
    });
    let mut polls = 0;
    let task = poll_fn(move |cx| {
        polls += 1;
        if polls == 2 {
            return Poll::Ready(());
        }
        sender.send(cx.waker().clone()).unwrap();
        asked.open();
        answered.wait();
        // This consumes the token, if there is one.
        thread::park_timeout(Duration::ZERO);
        Poll::Pending
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // A disabled pool runs the future on the thread that submits it.
        Pools::disabled().submit_to_pool("any", task).unwrap().wait().unwrap();
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(PATIENCE).expect("the waiting thread sleeps for ever");
    waker.join().unwrap();
}

/// Callers leave at every moment of a task's life.
#[test]
fn callers_that_leave_at_any_moment_lose_no_permit() {
    let pools = pools("leave", PoolConfig::new(2).queue_capacity(100_000));
    let ran = Arc::new(AtomicUsize::new(0));
    let rounds = 4_000;
    for round in 0..rounds {
        let ran = ran.clone();
        let task = async move {
            tokio::task::yield_now().await;
            ran.fetch_add(1, Ordering::Relaxed);
        };
        let mut future = Box::pin(pools.run_in_pool("leave", task));
        let mut cx = std::task::Context::from_waker(Waker::noop());
        let first = Pin::new(&mut future).poll(&mut cx);
        for _ in 0..round % 50 {
            std::hint::spin_loop();
        }
        if round % 7 == 0 {
            thread::yield_now();
        }
        drop((first, future));
    }
    until("all have ended", || {
        let stats = stats(&pools, "leave");
        crate::support::check_numbers(&stats);
        stats.in_flight == 0 && stats.queued_tasks == 0
    });
    let counts = stats(&pools, "leave").counts;
    assert_eq!((counts.submitted, counts.ok + counts.cancelled), (rounds, rounds));
    assert_eq!(counts.ok, ran.load(Ordering::Relaxed) as u64);
    hold(&pools, "leave", 2).into_iter().for_each(Held::release);
}

#[test]
fn dropping_the_last_handle_never_blocks_and_queued_tasks_run() {
    let all = pools("last", PoolConfig::new(1));
    let held = hold(&all, "last", 1);
    let handles: Vec<_> = (0..50).map(|number| all.submit_to_pool("last", move || number).unwrap()).collect();
    // The tasks are held, so a drop that waited for them would not return.
    drop(all);
    held.into_iter().for_each(Held::release);
    for (number, handle) in handles.into_iter().enumerate() {
        assert_eq!(end_of(handle).unwrap(), number);
    }
    until("its threads have ended", || threads_of("last") == 0);
}

#[test]
fn the_last_handle_may_be_dropped_by_a_task_of_the_pool() {
    for _ in 0..50 {
        let all = pools("suic", PoolConfig::new(2));
        let begun = Gate::default();
        let inner = all.clone();
        let waits = begun.clone();
        let handle = all
            .submit_to_pool("suic", move || {
                waits.wait();
                drop(inner);
            })
            .unwrap();
        drop(all);
        begun.open();
        end_of(handle).unwrap();
    }
    until("their threads have ended", || threads_of("suic") == 0);
}

#[test]
fn idle_workers_of_a_dropped_pool_end_at_once() {
    let all = pools("gone", PoolConfig::new(3).keep_alive(Duration::from_secs(3_600)));
    hold(&all, "gone", 3).into_iter().for_each(Held::release);
    drop(all);
    until("its threads have ended", || threads_of("gone") == 0);
}

#[test]
fn a_task_that_awaits_is_finished_after_the_last_handle_is_gone() {
    let all = pools("after", PoolConfig::new(1));
    let (wake, woken) = tokio::sync::oneshot::channel::<u8>();
    let begun = Gate::default();
    let begins = begun.clone();
    let handle = all
        .submit_to_pool("after", async move {
            begins.open();
            woken.await.unwrap()
        })
        .unwrap();
    begun.wait();
    drop(all);
    until("its worker has ended", || threads_of("after") == 0);
    wake.send(4).unwrap();
    assert_eq!(end_of(handle).unwrap(), 4);
    until("its worker has ended again", || threads_of("after") == 0);
}
