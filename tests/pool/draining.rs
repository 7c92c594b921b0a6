//! Draining: a pool rejects new tasks, finishes those that it has, and at the deadline gives up the rest.

use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use tower_offload::pools::{DrainReport, PoolDrain};
use tower_offload::{PoolConfig, Pools, Reason, TaskError};

use crate::support::{Held, PATIENCE, end_of, hold, pools, stats, threads_of, until};

fn shut_down(pools: &Pools, deadline: Duration) -> DrainReport {
    let shutdown = pools.shutdown(deadline);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(block_on(shutdown)));
    receiver.recv_timeout(PATIENCE).expect("the shutdown did not end")
}

/// Blocks on a future without Tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

fn of<'a>(report: &'a DrainReport, pool: &str) -> &'a PoolDrain {
    report.pools.iter().find(|drain| drain.pool.as_str() == pool).unwrap()
}

fn reason<T: std::fmt::Debug>(result: Result<T, TaskError>) -> Reason {
    match result {
        Err(TaskError::Rejected(rejection)) => rejection.reason(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_drain_rejects_new_tasks_and_finishes_those_that_it_has() {
    let pools = pools("drain", PoolConfig::new(1));
    let held = hold(&pools, "drain", 1);
    let queued: Vec<_> = (0..10).map(|number| pools.submit_to_pool("drain", move || number).unwrap()).collect();
    let shutdown = pools.shutdown(PATIENCE);
    assert_eq!(reason(pools.submit_to_pool("drain", || ())), Reason::Draining, "before it is awaited");
    let mut shutdown = tokio_test::task::spawn(shutdown);
    tokio_test::assert_pending!(shutdown.poll());
    assert_eq!(stats(&pools, "drain").queued_tasks, 10);
    held.into_iter().for_each(Held::release);
    for (number, handle) in queued.into_iter().enumerate() {
        assert_eq!(end_of(handle).unwrap(), number);
    }
    until("the shutdown was woken", || shutdown.is_woken());
    let report = tokio_test::assert_ready!(shutdown.poll());
    assert_eq!((of(&report, "drain").finished, report.finished(), report.unfinished()), (11, 11, 0));
    until("its threads have ended", || threads_of("drain") == 0);
    let counts = stats(&pools, "drain").counts;
    assert_eq!((counts.ok, counts.rejected), (11, 1));
}

#[test]
fn at_the_deadline_queued_tasks_are_rejected_and_those_in_flight_are_reported() {
    let pools = pools("dead", PoolConfig::new(2));
    let held = hold(&pools, "dead", 2);
    let queued: Vec<_> = (0..5).map(|_| pools.submit_to_pool("dead", || ()).unwrap()).collect();
    let report = shut_down(&pools, Duration::from_millis(20));
    assert!(report.took >= Duration::from_millis(20));
    assert_eq!((report.given_up(), report.cut_off(), report.unfinished()), (5, 2, 7));
    let drain = of(&report, "dead");
    assert_eq!((drain.finished, drain.given_up, drain.cut_off), (0, 5, 2));
    assert!(report.to_string().contains("pool `dead`: 5 never started, 2 in flight"), "{report}");
    for handle in queued {
        let error = end_of(handle).unwrap_err();
        assert!(matches!(&error, TaskError::Rejected(rejection) if !rejection.started()), "{error}");
        assert_eq!(reason::<()>(Err(error)), Reason::Draining);
    }
    // The tasks in flight are finished, and their callers get answers.
    held.into_iter().for_each(Held::release);
    until("its threads have ended", || threads_of("dead") == 0);
    let numbers = stats(&pools, "dead");
    assert_eq!((numbers.counts.ok, numbers.counts.rejected, numbers.in_flight), (2, 5, 0));
}

#[test]
fn a_second_shutdown_is_as_good_as_the_first() {
    let pools = pools("twice", PoolConfig::new(1));
    let held = hold(&pools, "twice", 1);
    let mut first = tokio_test::task::spawn(pools.shutdown(PATIENCE));
    tokio_test::assert_pending!(first.poll());
    let mut second = tokio_test::task::spawn(pools.shutdown(PATIENCE));
    tokio_test::assert_pending!(second.poll());
    held.into_iter().for_each(Held::release);
    until("both were woken", || first.is_woken() && second.is_woken());
    assert_eq!(tokio_test::assert_ready!(first.poll()).finished(), 1);
    assert_eq!(tokio_test::assert_ready!(second.poll()).finished(), 1);
    let third = shut_down(&pools, Duration::ZERO);
    assert_eq!((third.finished(), third.unfinished()), (0, 0));
}

#[test]
fn pools_at_rest_shut_down_at_once_with_any_deadline() {
    assert_eq!(shut_down(&Pools::default(), Duration::MAX).finished(), 0);
    assert_eq!(shut_down(&Pools::default(), Duration::ZERO).unfinished(), 0);
    assert_eq!(shut_down(&Pools::disabled(), Duration::MAX).pools, []);
}

#[test]
fn a_shutdown_that_is_dropped_leaves_the_pools_draining() {
    let pools = pools("lost", PoolConfig::new(1));
    let held = hold(&pools, "lost", 1);
    let queued = pools.submit_to_pool("lost", || 5).unwrap();
    let mut shutdown = tokio_test::task::spawn(pools.shutdown(PATIENCE));
    tokio_test::assert_pending!(shutdown.poll());
    drop(shutdown);
    assert_eq!(reason(pools.submit_to_pool("lost", || ())), Reason::Draining);
    held.into_iter().for_each(Held::release);
    assert_eq!(end_of(queued).unwrap(), 5);
}

/// A task in flight may be woken long after the shutdown.
#[test]
fn a_task_cut_off_by_a_shutdown_still_ends_when_it_is_woken() {
    let pools = pools("woken", PoolConfig::new(1));
    let (wake, woken) = tokio::sync::oneshot::channel::<u8>();
    let handle = pools.submit_to_pool("woken", async { woken.await.unwrap() }).unwrap();
    assert_eq!(of(&shut_down(&pools, Duration::ZERO), "woken").cut_off, 1);
    until("its worker has ended", || threads_of("woken") == 0);
    wake.send(8).unwrap();
    assert_eq!(end_of(handle).unwrap(), 8);
    until("its worker has ended again", || threads_of("woken") == 0);
}

/// Several threads submit while the drain begins. Each submission is answered, and each admitted task runs.
#[test]
fn a_drain_in_the_middle_of_submissions_loses_none() {
    for _ in 0..20 {
        let pools = pools("race", PoolConfig::new(2).queue_capacity(100_000));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let pools = pools.clone();
                thread::spawn(move || {
                    let (mut ran, mut refused) = (0, 0);
                    while refused < 10 {
                        match pools.submit_to_pool("race", || ()).and_then(end_of) {
                            Ok(()) => ran += 1,
                            Err(error) => {
                                assert_eq!(reason::<()>(Err(error)), Reason::Draining);
                                refused += 1;
                            }
                        }
                    }
                    ran
                })
            })
            .collect();
        until("they submit", || stats(&pools, "race").counts.ok > 50);
        let report = shut_down(&pools, PATIENCE);
        assert_eq!(report.unfinished(), 0);
        let ran: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        let counts = stats(&pools, "race").counts;
        assert_eq!((counts.ok, counts.rejected, counts.ended()), (ran, 30, counts.submitted));
    }
}
