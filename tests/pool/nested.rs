//! Tasks that submit tasks: in parallel where there is room, in place where there is none, and on behalf of the same
//! request.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tower_offload::pool::TaskOptions;
use tower_offload::{Cancelled, PoolConfig, Pools, Reason, TaskError, checkpoint, is_cancelled};

use crate::support::{Gate, Held, PATIENCE, begun_in_time, end_of, hold, pools, stats, until};

#[test]
fn nested_tasks_of_one_pool_run_in_parallel_where_there_is_room() {
    let pools = pools("room", PoolConfig::new(9));
    let inner = pools.clone();
    let task = async move {
        let all = Arc::new(Barrier::new(8));
        let meet = || {
            let all = all.clone();
            inner.run_in_pool("room", move || _ = all.wait())
        };
        futures_util::future::join_all((0..8).map(|_| meet())).await
    };
    let met = end_of(pools.submit_to_pool("room", task).unwrap()).unwrap();
    assert!(met.into_iter().all(|met| met.is_ok()));
}

#[test]
fn a_full_pool_runs_its_nested_tasks_in_place() {
    for capacity in [0, 1, 100] {
        let pools = pools("place", PoolConfig::new(1).queue_capacity(capacity));
        let inner = pools.clone();
        let task = async move {
            let here = thread::current().id();
            let there = |_| inner.run_in_pool("place", || thread::current().id());
            let threads = futures_util::future::join_all((0..20).map(there)).await;
            assert!(threads.into_iter().all(|thread| thread.unwrap() == here));
        };
        end_of(pools.submit_to_pool("place", task).unwrap()).unwrap();
        assert_eq!(stats(&pools, "place").counts.ok, 21);
    }
}

#[test]
fn a_task_that_submits_another_and_returns_does_not_wait_for_it() {
    let pools = pools("fire", PoolConfig::new(1));
    let (gate, inner) = (Gate::default(), pools.clone());
    let holds = gate.clone();
    let fires = pools.submit_to_pool("fire", move || inner.submit_to_pool("fire", move || holds.wait()).unwrap());
    let fired = end_of(fires.unwrap()).unwrap();
    assert!(!fired.is_finished());
    gate.open();
    end_of(fired).unwrap();
}

/// The shutdown waits for the inner task, and is woken by its end, on the worker that polls both.
#[test]
fn a_shutdown_inside_of_a_task_ends_with_a_task_that_runs_in_place() {
    let pools = pools("inside", PoolConfig::new(1));
    let inner = pools.clone();
    let task = async move {
        let nested = inner.submit_to_pool("inside", || 5).unwrap();
        // The shutdown is polled first, while the inner task is queued.
        let (report, nested) = futures_util::future::join(inner.shutdown(Duration::MAX), nested).await;
        (report.finished(), nested.unwrap())
    };
    assert_eq!(end_of(pools.submit_to_pool("inside", task).unwrap()).unwrap(), (1, 5));
}

/// The inner task has a permit, awaits, and is woken while the only worker waits for it.
#[test]
fn a_worker_that_waits_for_a_woken_task_of_its_pool_polls_it() {
    let pools = pools("woken", PoolConfig::new(1).concurrency(10));
    let inner = pools.clone();
    let (wake, woken) = tokio::sync::oneshot::channel::<u8>();
    let begun = Gate::default();
    let begins = begun.clone();
    let task = move || {
        let other = inner.submit_to_pool("woken", async move {
            begins.open();
            woken.await.unwrap()
        });
        other.unwrap().wait().unwrap()
    };
    let task = pools.submit_to_pool("woken", task).unwrap();
    begun.wait();
    wake.send(5).unwrap();
    assert_eq!(end_of(task).unwrap(), 5);
}

#[test]
fn every_worker_may_wait_for_a_nested_task_at_the_same_time() {
    let pools = pools("all", PoolConfig::new(3).concurrency(3).queue_capacity(100));
    let all = Arc::new(Barrier::new(3));
    let tasks = [(); 3].map(|()| {
        let (inner, all) = (pools.clone(), all.clone());
        let task = move || {
            all.wait();
            inner.submit_to_pool("all", || 1).unwrap().wait().unwrap()
        };
        pools.submit_to_pool("all", task).unwrap()
    });
    assert_eq!(tasks.map(|task| end_of(task).unwrap()), [1; 3]);
}

#[test]
fn a_task_of_a_batch_may_run_another_one_of_the_same_batch() {
    let pools = pools("batch", PoolConfig::new(1));
    let batch = pools.batch_executor("batch", 1).unwrap();
    let inner = batch.clone();
    let task = pools.submit_to_pool("batch", async move { 1 });
    let nested = batch.run(async move { inner.run(|| 2).await.unwrap() + 1 });
    let mut nested = tokio_test::task::spawn(nested);
    // The task may end before its caller is registered, which then is not woken.
    let polled = match nested.poll() {
        std::task::Poll::Pending => {
            until("it has ended", || nested.is_woken());
            nested.poll()
        }
        ready => ready,
    };
    assert!(matches!(polled, std::task::Poll::Ready(Ok(3))));
    end_of(task.unwrap()).unwrap();
}

#[test]
fn a_batch_loses_no_task_to_a_full_queue_or_to_overload_control() {
    for (capacity, most) in [(0, 50), (10, 200), (1000, 1)] {
        let pools = pools("many", PoolConfig::new(2).queue_capacity(capacity).queue_timeout(Duration::from_millis(50)));
        let batch = pools.batch_executor("many", most).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = (0..200).map(|number| {
            move || {
                thread::sleep(Duration::from_millis(1));
                number
            }
        });
        let results = runtime.block_on(batch.run_all(tasks));
        let results: Vec<u32> = results.into_iter().map(|result| result.unwrap()).collect();
        assert_eq!(results, (0..200).collect::<Vec<_>>());
        let counts = stats(&pools, "many").counts;
        assert_eq!((counts.submitted, counts.ok), (200, 200));
    }
}

#[test]
fn a_shutdown_inside_a_task_does_not_wait_for_that_task() {
    let pools = pools("end", PoolConfig::new(2));
    let held = hold(&pools, "end", 1);
    let inner = pools.clone();
    let task = pools.submit_to_pool("end", async move { inner.shutdown(PATIENCE).await });
    until("the drain has begun", || stats(&pools, "end").draining);
    held.into_iter().for_each(Held::release);
    let report = end_of(task.unwrap()).unwrap();
    assert_eq!((report.finished(), report.cut_off()), (1, 0));
}

/// A request that was accepted is finished, together with the tasks that it submits.
#[test]
fn a_task_in_flight_may_submit_to_the_pools_while_they_drain() {
    let pools = Pools::builder().pool("outer", PoolConfig::new(1)).pool("other", PoolConfig::new(1)).build().unwrap();
    let (gate, begun, inner) = (Gate::default(), Gate::default(), pools.clone());
    let (holds, begins) = (gate.clone(), begun.clone());
    let task = pools.submit_to_pool("outer", move || {
        begins.open();
        holds.wait();
        inner.submit_to_pool("other", || 3).unwrap().wait().unwrap()
    });
    begun.wait();
    let mut shutdown = tokio_test::task::spawn(pools.shutdown(PATIENCE));
    tokio_test::assert_pending!(shutdown.poll());
    let Err(TaskError::Rejected(rejection)) = pools.submit_to_pool("other", || 4) else { panic!("it drains") };
    assert_eq!(rejection.reason(), Reason::Draining);
    gate.open();
    assert_eq!(end_of(task.unwrap()).unwrap(), 3);
    until("it has ended", || shutdown.is_woken());
    while shutdown.poll().is_pending() {
        thread::yield_now();
    }
}

/// Runs until the task is cancelled, and returns the reason.
fn until_cancelled() -> Cancelled {
    loop {
        if let Err(reason) = checkpoint() {
            return reason;
        }
        thread::yield_now();
    }
}

#[test]
fn a_nested_task_inherits_the_deadline_unless_it_is_independent() {
    let pools = Pools::builder().pool("outer", PoolConfig::new(1)).pool("other", PoolConfig::new(1)).build().unwrap();
    let (outer, other) = (pools.get("outer").unwrap(), pools.get("other").unwrap().clone());
    let (alone, late) = begun_in_time(|deadline| {
        let other = other.clone();
        let task = move || {
            assert_eq!(other.submit(until_cancelled)?.wait()?, Cancelled::DeadlinePassed);
            let alone = other.submit_with(TaskOptions::new().independent(), is_cancelled)?.wait()?;
            Ok((alone, other.submit(|| ()).unwrap_err()))
        };
        end_of(outer.submit_with(TaskOptions::new().deadline(deadline), task)?)?
    });
    assert!(!alone, "it has no deadline");
    let TaskError::Rejected(late) = late else { panic!("{late}") };
    assert_eq!(late.reason(), Reason::DeadlineExceeded);
}
