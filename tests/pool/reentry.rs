//! Tasks that submit to their pool: the inner task is queued like any other, and never waits for the worker that waits
//! for it.

use std::cell::RefCell;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tower_offload::{PoolConfig, Pools};

use crate::support::{Gate, end_of, pools, stats, until};

#[test]
fn a_pool_of_one_worker_does_not_deadlock_on_itself() {
    let pools = pools("self", PoolConfig::new(1).queue_capacity(0));
    let inner = pools.clone();
    let task = move || {
        let here = thread::current().id();
        let closure = inner.submit_to_pool("self", || thread::current().id()).unwrap().wait().unwrap();
        let future = inner.submit_to_pool("self", async { thread::current().id() }).unwrap().wait().unwrap();
        assert!(inner.get("self").unwrap().is_current());
        assert_eq!((closure, future), (here, here));
    };
    end_of(pools.submit_to_pool("self", task).unwrap()).unwrap();
    assert_eq!(stats(&pools, "self").counts.ok, 3, "the inner tasks count as tasks");
    assert!(!pools.get("self").unwrap().is_current());
}

#[test]
fn a_future_in_its_own_pool_awaits_inline() {
    let pools = pools("inner", PoolConfig::new(1).queue_capacity(0));
    let inner = pools.clone();
    let task = async move {
        let batch = inner.batch_executor("inner", 2).unwrap();
        let one = inner.run_in_pool("inner", || 1).await.unwrap();
        let two = inner.run_in_pool("inner", async { 2 }).await.unwrap();
        let panicked = inner.run_in_pool("inner", || -> u8 { panic!("in the inner task") }).await.unwrap_err();
        assert!(panicked.is_panic());
        let rest: i32 = batch.run_all([3, 4].map(|number| move || number)).await.into_iter().map(Result::unwrap).sum();
        one + two + rest
    };
    assert_eq!(end_of(pools.submit_to_pool("inner", task).unwrap()).unwrap(), 10);
}

#[test]
fn a_task_may_wait_for_another_pool() {
    let pools = Pools::builder().pool("outer", PoolConfig::new(1)).pool("other", PoolConfig::new(1)).build().unwrap();
    let inner = pools.clone();
    let task = move || inner.submit_to_pool("other", || 5).unwrap().wait().unwrap();
    assert_eq!(end_of(pools.submit_to_pool("outer", task).unwrap()).unwrap(), 5);
}

#[test]
fn pools_of_the_same_name_are_not_taken_for_each_other() {
    let one = pools("same", PoolConfig::new(1));
    let two = pools("same", PoolConfig::new(1));
    let task = move || two.submit_to_pool("same", || thread::current().id()).unwrap().wait().unwrap();
    let here = thread::current().id();
    let there = end_of(one.submit_to_pool("same", move || (thread::current().id(), task())).unwrap()).unwrap();
    assert_ne!(there.0, there.1);
    assert_ne!(there.1, here);
}

/// Uses the pool when the values of its thread are destroyed.
struct Late(Pools, Gate);

impl Drop for Late {
    fn drop(&mut self) {
        let ran = tokio_test::task::spawn(self.0.run_in_pool("tls", || 3)).poll();
        assert!(matches!(ran, Poll::Pending | Poll::Ready(Ok(3))), "{ran:?}");
        self.1.open();
    }
}

thread_local! { static LATE: RefCell<Option<Late>> = const { RefCell::new(None) } }

#[test]
fn a_thread_local_value_may_use_the_pool_while_its_thread_ends() {
    let pools = pools("tls", PoolConfig::new(1).keep_alive(Duration::from_millis(1)));
    // Destructors run in an order that differs: on a worker, this value is younger than the worker's thread-local
    // values; on another thread, it can be older.
    let (of_worker, of_thread) = (Gate::default(), Gate::default());
    let late = Late(pools.clone(), of_worker.clone());
    end_of(pools.submit_to_pool("tls", move || LATE.set(Some(late))).unwrap()).unwrap();
    of_worker.wait();
    let late = Late(pools.clone(), of_thread.clone());
    let thread = thread::spawn(move || {
        let pools = late.0.clone();
        LATE.set(Some(late));
        assert!(!pools.get("tls").unwrap().is_current());
    });
    thread.join().unwrap();
    of_thread.wait();
    until("its workers have ended", || stats(&pools, "tls").workers == 0);
}

/// The wake-up comes while the worker that waits for the inner task polls it, and no other worker could take it.
#[test]
fn a_worker_that_waits_for_an_inner_task_which_yields_polls_it_again() {
    let pools = pools("yields", PoolConfig::new(1).queue_capacity(0));
    let inner = pools.clone();
    let outer = move || {
        let yields = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            5
        };
        inner.submit_to_pool("yields", yields).unwrap().wait().unwrap()
    };
    assert_eq!(end_of(pools.submit_to_pool("yields", outer).unwrap()).unwrap(), 5);
}
