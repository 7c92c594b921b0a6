//! Unit tests of the handle to a task.

use std::sync::Barrier;
use std::sync::mpsc::{Sender, channel};
use std::task::Wake;
use std::thread;
use std::time::Instant;

use futures_util::future::{BoxFuture, join};

use super::*;
use crate::admission::Settings;
use crate::block_on::block_on;
use crate::budget::Budget;
use crate::config::Cores;
use crate::load::Scale;
use crate::pool::{Group, Plan, Pool, Submission, TaskOptions, always_ok};
use crate::pools::TaskHandle;
use crate::task::Boxed;

/// How long a test waits for a task before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn pool() -> Pool {
    Pool::new(Plan::of_one_worker())
}

fn submit<F>(pool: &Pool, future: F) -> CancelOnDrop<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let submission = Submission::new(Boxed::new(future), TaskOptions::new(), String::new, always_ok);
    pool.submit_future(submission).map_err(|rejected| rejected.rejection).expect("there is room")
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// A task that has begun, and ends when the sender is used.
fn hold(pool: &Pool) -> (CancelOnDrop<()>, Sender<()>) {
    let (release, held) = channel();
    let (begins, begun) = channel();
    let task = submit(pool, async move {
        begins.send(()).expect("the test waits for it");
        held.recv().expect("the test releases it");
    });
    begun.recv().expect("it begins");
    (task, release)
}

/// A waker keeps the caller's task in memory, and that task may own the handle.
#[test]
fn nothing_keeps_the_waker_of_a_caller_that_has_its_answer_or_has_left() {
    struct Caller;
    impl Wake for Caller {
        fn wake(self: Arc<Self>) {}
    }
    let pool = pool();
    let (caller, other) = (Arc::new(Caller), Arc::new(Caller));
    let poll = |pending: &mut CancelOnDrop<()>, caller: &Arc<Caller>| {
        Pin::new(pending).poll(&mut Context::from_waker(&caller.clone().into())).is_ready()
    };
    let (mut first, release) = hold(&pool);
    let mut second = submit(&pool, async {});
    assert!(!poll(&mut first, &caller) && !poll(&mut second, &other));
    let second = TaskHandle::new(second);
    drop(second);
    assert_eq!(Arc::strong_count(&other), 1, "the task is still queued");
    release.send(()).expect("it waits for this");
    until("it ends by itself", || poll(&mut first, &caller));
    // The worker may not have dropped the waker yet that it has just called.
    until("it has its answer", || Arc::strong_count(&caller) == 1);
    drop(first);
}

/// A waker that the application has kept keeps the task in memory.
#[test]
fn a_value_that_nobody_wants_any_more_is_dropped_at_once() {
    let pool = pool();
    let value = Arc::new(());
    let (wakers, kept) = channel();
    let task = |value: Arc<()>, wakers: Sender<std::task::Waker>| async move {
        std::future::poll_fn(|cx| Poll::Ready(wakers.send(cx.waker().clone()))).await.expect("the test waits for it");
        value
    };
    let [dropped, detached] = [(); 2].map(|()| submit(&pool, task(value.clone(), wakers.clone())));
    let _kept = [(); 2].map(|()| kept.recv().expect("it begins"));
    until("they end by themselves", || dropped.is_finished() && detached.is_finished());
    assert_eq!(Arc::strong_count(&value), 3);
    drop(dropped);
    assert_eq!(Arc::strong_count(&value), 2);
    drop(TaskHandle::new(detached));
    assert_eq!(Arc::strong_count(&value), 1);
}

/// The caller leaves before the queue has noticed the deadline.
#[test]
fn a_queued_task_that_was_said_to_be_too_late_counts_as_expired() {
    let pool = pool();
    let (first, release) = hold(&pool);
    let [late, left] = [(); 2].map(|()| submit(&pool, async {}));
    late.too_late();
    drop((late, left));
    let counts = pool.stats().counts;
    assert_eq!((counts.expired, counts.cancelled), (1, 1));
    release.send(()).expect("it waits for this");
    block_on(first).expect("it ends by itself");
}

/// A client that receives `started: false` may send the request again.
#[test]
fn a_task_that_was_said_not_to_have_started_never_does() {
    let pool = pool();
    let (first, release) = hold(&pool);
    assert!(first.too_late().started());
    let second = submit(&pool, async { panic!("it began after all") });
    assert!(!second.too_late().started());
    release.send(()).expect("it waits for this");
    block_on(first).expect("it ends by itself");
    let Err(TaskError::Rejected(rejection)) = block_on(second) else { panic!("it ran") };
    assert_eq!((rejection.reason(), rejection.started()), (Reason::DeadlineExceeded, false));
}

/// A drain may begin between a rejection for a full queue and the wait for room.
#[test]
fn a_task_does_not_wait_for_room_in_a_pool_that_drains() {
    let pool = pool();
    let (first, release) = hold(&pool);
    let queued: Vec<_> = (0..pool.stats().queue_capacity).map(|_| submit(&pool, async {})).collect();
    let mut waits = tokio_test::task::spawn(pool.room());
    tokio_test::assert_pending!(waits.poll());
    pool.drain();
    assert!(waits.is_woken());
    tokio_test::assert_ready!(tokio_test::task::spawn(pool.room()).poll());
    release.send(()).expect("it waits for this");
    block_on(first).expect("it ends by itself");
    drop(queued);
}

/// Runs tasks in a pool of one core, 50 times. Each begins while the pool lets one worker be awake.
fn often_with_a_low_limit<F>(workers: usize, mut task: impl FnMut(Pool) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let pool = Pool::new(Plan {
        workers,
        admission: Settings::fixed(workers).with_capacity(100),
        group: Group::new(Cores::Count(1), Arc::default(), Budget::new(0), Scale::default()),
        ..Plan::of_one_worker()
    });
    for round in 0..50 {
        pool.shared().dispatch.lower_limit();
        let task = TaskHandle::new(submit(&pool, task(pool.clone())));
        let ended = task.wait_timeout(PATIENCE);
        ended.unwrap_or_else(|_| panic!("round {round} hangs: {:?}", pool.stats())).expect("it ends by itself");
    }
}

/// Two inner tasks that block until both have begun. Each does the same again, `depth` times.
fn meet(pool: Pool, depth: usize) -> BoxFuture<'static, ()> {
    let both = Arc::new(Barrier::new(2));
    let inner = [(); 2].map(|()| {
        let (both, inner) = (both.clone(), pool.clone());
        pool.run(async move {
            both.wait();
            if depth > 0 {
                meet(inner, depth - 1).await;
            }
        })
    });
    let [one, two] = inner;
    Box::pin(async {
        let (one, two) = join(one, two).await;
        one.and(two).expect("both end");
    })
}

#[test]
fn inner_tasks_may_block_for_each_other_while_the_pool_lets_one_worker_be_awake() {
    often_with_a_low_limit(3, |pool| meet(pool, 0));
    often_with_a_low_limit(15, |pool| meet(pool, 2));
}

#[test]
fn the_same_holds_if_their_submitter_blocks_for_both() {
    often_with_a_low_limit(3, |pool| async { block_on(meet(pool, 0)) });
    often_with_a_low_limit(3, |pool| async move {
        let both = Arc::new(Barrier::new(2));
        let inner = [(); 2].map(|()| {
            let both = both.clone();
            pool.submit(move || _ = both.wait()).expect("there is room")
        });
        for inner in inner {
            inner.wait().expect("it ends by itself");
        }
    });
}
