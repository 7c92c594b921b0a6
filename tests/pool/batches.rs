//! Batches: which items share one, what happens to them when a batch fails, and who notices that callers left.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_test::{assert_pending, task::Spawn};
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::batch::{Batch, BatchError, BatchFuture, BatchLayer, BatchSettings};
use tower_offload::config::Queue;
use tower_offload::pool::TaskOptions;
use tower_offload::{Deadline, PoolConfig, Pools, Priority, Reason, TaskError, checkpoint};

use crate::support::{Gate, Held, PATIENCE, check_numbers, end_of, hold, pools, stats, until, until_at_rest};

type Seen = Arc<Mutex<Vec<Vec<u32>>>>;

type Echo = Batch<u32, u32, Infallible>;

/// A pool of one worker.
fn one_worker() -> Pools {
    pools("batch", PoolConfig::new(1).queue_capacity(1000))
}

/// A batch that gives its items back, and the lists that it was called with.
fn echo(pools: &Pools, max_items: usize) -> (Echo, Seen) {
    let seen = Seen::default();
    let batch = {
        let seen = seen.clone();
        Batch::builder(pools, "batch").max_items(max_items).run(move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.clone());
            items.into_iter().map(Ok).collect()
        })
    };
    (batch.unwrap(), seen)
}

/// A batch that gives its items back, a gate that it opens when it begins, and the one that it then waits for.
fn gated(pools: &Pools) -> (Echo, Gate, Gate) {
    let (begun, gate) = (Gate::default(), Gate::default());
    let batch = {
        let (begun, gate) = (begun.clone(), gate.clone());
        Batch::builder(pools, "batch").run(move |items: Vec<u32>| {
            begun.open();
            gate.wait();
            items.into_iter().map(Ok).collect()
        })
    };
    (batch.unwrap(), begun, gate)
}

/// The future of an item that is in the queue.
fn queued<O, E>(batch: &Batch<u32, O, E>, item: u32) -> Spawn<BatchFuture<u32, O, E>>
where
    O: Send + 'static,
    E: Send + 'static,
{
    queued_with(batch, TaskOptions::new(), item)
}

fn queued_with<O, E>(batch: &Batch<u32, O, E>, options: TaskOptions, item: u32) -> Spawn<BatchFuture<u32, O, E>>
where
    O: Send + 'static,
    E: Send + 'static,
{
    let mut task = tokio_test::task::spawn(batch.call_with(options, item));
    assert!(task.poll().is_pending());
    task
}

fn release(held: Vec<Held>) {
    held.into_iter().for_each(Held::release);
}

fn results<O, E, F: Future<Output = Result<O, E>>>(tasks: impl IntoIterator<Item = F>) -> Vec<Result<O, E>> {
    tokio_test::block_on(join_all(tasks))
}

#[test]
fn a_lone_item_runs_at_once_and_what_waits_meanwhile_runs_together() {
    let pools = one_worker();
    let (batch, seen) = echo(&pools, 32);
    assert_eq!(tokio_test::block_on(batch.clone().oneshot(7)).unwrap(), 7);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..10).map(|item| queued(&batch, item)).collect();
    release(held);
    let answers: Vec<_> = results(tasks).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, (0..10).collect::<Vec<_>>(), "each caller has its own result");
    assert_eq!(*seen.lock().unwrap(), [vec![7], (0..10).collect()]);
    until_at_rest(&pools, "batch");
    let stats = stats(&pools, "batch");
    check_numbers(&stats);
    assert_eq!(
        (stats.counts.ok, stats.batches.unwrap().ok),
        (12, 2),
        "results count items, and one task held the worker"
    );
}

#[test]
fn a_batch_has_one_permit_and_all_of_its_tasks_are_in_flight() {
    let pools = one_worker();
    let (batch, begun, gate) = gated(&pools);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..5).map(|item| queued(&batch, item)).collect();
    release(held);
    begun.wait();
    let during = stats(&pools, "batch");
    assert_eq!((during.in_flight, during.permits_in_use, during.queued_tasks), (5, 1, 0));
    assert_eq!(during.counts.submitted, during.counts.ended() + 5);
    gate.open();
    assert!(results(tasks).iter().all(Result::is_ok));
    until_at_rest(&pools, "batch");
}

#[test]
fn callers_have_their_results_while_the_worker_runs_the_next_batch() {
    let pools = one_worker();
    let gate = Gate::default();
    let waits = gate.clone();
    let batch = Batch::builder(&pools, "batch").max_items(4).run(move |items: Vec<u32>| {
        if items.contains(&4) {
            waits.wait();
        }
        items.into_iter().map(Ok::<_, Infallible>).collect()
    });
    let batch = batch.unwrap();
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..8).map(|item| queued(&batch, item)).collect();
    let next = tasks.split_off(4);
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    gate.open();
    assert!(results(next).iter().all(Result::is_ok), "the next batch had not ended");
}

#[test]
fn callers_have_their_results_while_the_worker_runs_a_task_of_another_kind() {
    let pools = one_worker();
    let (batch, _) = echo(&pools, 32);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..4).map(|item| queued(&batch, item)).collect();
    let gate = Gate::default();
    let waits = gate.clone();
    let next = pools.submit_to_pool("batch", move || waits.wait()).unwrap();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    gate.open();
    end_of(next).expect("it had not ended");
}

#[test]
fn a_batch_has_at_most_so_many_items() {
    let pools = one_worker();
    let (batch, seen) = echo(&pools, 4);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..10).map(|item| queued(&batch, item)).collect();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    let sizes: Vec<_> = seen.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 4, 2]);
}

#[test]
fn a_batch_may_have_more_items_than_are_taken_at_a_time() {
    let pools = one_worker();
    let (batch, seen) = echo(&pools, 300);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..400).map(|item| queued(&batch, item)).collect();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    let sizes: Vec<_> = seen.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [300, 100]);
}

#[test]
fn a_batch_has_at_most_so_much_weight_and_an_item_above_it_is_alone() {
    let pools = one_worker();
    let seen = Seen::default();
    let batch: Echo = {
        let seen = seen.clone();
        let weighed = Batch::builder(&pools, "batch").max_weight(10, |item: &u32| u64::from(*item));
        weighed.run(move |items| {
            seen.lock().unwrap().push(items.clone());
            items.into_iter().map(Ok).collect()
        })
    }
    .unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = [4, 5, 2, 11, 0, 10, 3].map(|item| queued(&batch, item)).into();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    let expected: [&[u32]; 5] = [&[4, 5], &[2], &[11], &[0, 10], &[3]];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn only_items_of_one_group_share_a_batch() {
    let pools = one_worker();
    let seen = Seen::default();
    let batch: Echo = {
        let seen = seen.clone();
        Batch::builder(&pools, "batch").group_by(|item: &u32| item % 3).run(move |items| {
            seen.lock().unwrap().push(items.clone());
            items.into_iter().map(Ok).collect()
        })
    }
    .unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..9).map(|item| queued(&batch, item)).collect();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    assert_eq!(*seen.lock().unwrap(), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
}

#[test]
fn batches_of_one_layer_do_not_share_items() {
    let pools = one_worker();
    let layer = Batch::builder(&pools, "batch").group_by(|item: &u32| item % 2).layer().unwrap();
    let service = |add: u32| {
        service_fn(move |items: Vec<u32>| async move {
            Ok::<_, Infallible>(items.into_iter().map(|item| Ok::<_, Infallible>(item + add)).collect::<Vec<_>>())
        })
    };
    let (tens, hundreds) = (layer.layer(service(10)), layer.layer(service(100)));
    let held = hold(&pools, "batch", 1);
    let tasks = [queued(&tens, 1), queued(&hundreds, 1), queued(&tens, 3), queued(&hundreds, 3)];
    release(held);
    assert_eq!(results(tasks).into_iter().map(Result::unwrap).collect::<Vec<_>>(), [11, 101, 13, 103]);
    assert_eq!(stats(&pools, "batch").batches.unwrap().ok, 2);
}

#[test]
fn high_priorities_come_first_and_low_ones_fill_what_is_left() {
    let pools = one_worker();
    let (batch, seen) = echo(&pools, 4);
    let held = hold(&pools, "batch", 1);
    let submit = |priority, item| queued_with(&batch, TaskOptions::new().priority(priority), item);
    let low: Vec<_> = (0..3).map(|item| submit(Priority::Low, item)).collect();
    let high: Vec<_> = (10..12).map(|item| submit(Priority::High, item)).collect();
    release(held);
    assert!(results(low.into_iter().chain(high)).iter().all(Result::is_ok));
    assert_eq!(*seen.lock().unwrap(), [vec![10, 11, 0, 1], vec![2]]);
}

/// Panics at 13, forgets one result at 14, and rejects 15.
fn superstitious(items: &[u32]) -> Vec<Result<u32, String>> {
    assert!(!items.contains(&13), "unlucky");
    let kept = items.iter().skip(usize::from(items.contains(&14)));
    kept.map(|&item| if item == 15 { Err("not this one".to_owned()) } else { Ok(item) }).collect()
}

#[test]
fn a_panic_or_a_wrong_number_of_results_fails_that_batch_alone() {
    let pools = one_worker();
    let batch = Batch::builder(&pools, "batch").max_items(3).run(|items: Vec<u32>| superstitious(&items)).unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = [1, 13, 2, 3, 14, 4, 5, 15, 6].map(|item| queued(&batch, item)).into();
    release(held);
    let results = results(tasks);
    for (index, result) in results.iter().enumerate() {
        match (index, result) {
            (0..3, Err(BatchError::Task(TaskError::Panicked(panic)))) => assert_eq!(panic.message(), "unlucky"),
            (3..6, Err(BatchError::Length { items: 3, results: 2 })) => {}
            (7, Err(BatchError::Item(error))) => assert_eq!(error, "not this one"),
            (6 | 8, Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    until_at_rest(&pools, "batch");
    let stats = stats(&pools, "batch");
    assert_eq!((stats.counts.panicked, stats.counts.error, stats.counts.ok), (3, 4, 3));
    let batches = stats.batches.unwrap();
    assert_eq!((batches.ok, batches.error, batches.panicked, batches.cancelled), (1, 1, 1, 0));
}

#[test]
fn with_isolation_only_the_bad_item_fails() {
    let pools = one_worker();
    let batch = Batch::builder(&pools, "batch").isolate().run(|items: Vec<u32>| superstitious(&items)).unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = [1, 13, 2, 15].map(|item| queued(&batch, item)).into();
    release(held);
    let results = results(tasks);
    assert!(matches!((&results[0], &results[2]), (Ok(1), Ok(2))), "{results:?}");
    assert!(matches!(&results[1], Err(BatchError::Task(TaskError::Panicked(_)))));
    assert!(results[1].as_ref().is_err_and(|error| error.is_panic() && !error.is_rejected()));
    assert!(matches!(&results[3], Err(BatchError::Item(_))));
}

/// An item that cannot be copied at 13.
#[derive(Debug)]
struct Unlucky(u32);

impl Clone for Unlucky {
    fn clone(&self) -> Self {
        assert!(self.0 != 13, "no copy");
        Self(self.0)
    }
}

#[test]
fn with_isolation_an_item_whose_clone_panics_has_the_result_of_the_batch() {
    let pools = one_worker();
    let batch = Batch::builder(&pools, "batch")
        .isolate()
        .run(|items: Vec<Unlucky>| superstitious(&items.into_iter().map(|item| item.0).collect::<Vec<_>>()));
    let batch = batch.unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = [1, 13, 2]
        .map(|item| {
            let mut task = tokio_test::task::spawn(batch.call_with(TaskOptions::new(), Unlucky(item)));
            assert_pending!(task.poll());
            task
        })
        .into();
    release(held);
    let results = results(tasks);
    assert!(matches!((&results[0], &results[2]), (Ok(1), Ok(2))), "{results:?}");
    let Err(BatchError::Task(TaskError::Panicked(panic))) = &results[1] else { panic!("{results:?}") };
    assert_eq!(panic.message(), "unlucky");
}

/// A value whose destructor panics at 1.
#[derive(Debug)]
struct Fragile(u32);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(self.0 != 1 || std::thread::panicking(), "fragile");
    }
}

#[test]
fn a_result_that_nobody_wants_and_that_panics_as_it_is_dropped_harms_no_other() {
    let pools = one_worker();
    let (begun, go) = (Gate::default(), Gate::default());
    let batch: Batch<u32, Fragile, Infallible> = {
        let (begun, go) = (begun.clone(), go.clone());
        Batch::builder(&pools, "batch").run(move |items: Vec<u32>| {
            begun.open();
            go.wait();
            items.into_iter().map(|item| Ok(Fragile(item))).collect()
        })
    }
    .unwrap();
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..4).map(|item| queued(&batch, item)).collect();
    release(held);
    begun.wait();
    drop(tasks.remove(1));
    go.open();
    let results = results(tasks);
    assert_eq!(results.iter().map(|result| result.as_ref().unwrap().0).collect::<Vec<_>>(), [0, 2, 3]);
    until_at_rest(&pools, "batch");
}

#[test]
fn an_error_of_the_service_reaches_every_caller_of_the_batch() {
    let pools = one_worker();
    let service = service_fn(|items: Vec<u32>| async move {
        match items.contains(&0) {
            true => Err(std::io::Error::other("no model")),
            false => Ok(items.into_iter().map(Ok::<_, Infallible>).collect::<Vec<_>>()),
        }
    });
    let batch = Batch::builder(&pools, "batch").service(service).unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..3).map(|item| queued(&batch, item)).collect();
    release(held);
    for result in results(tasks) {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "the batch failed: no model");
        assert!(std::error::Error::source(&error).is_none(), "a report would show the error twice");
        assert!(!error.is_rejected() && !error.is_panic());
    }
    assert_eq!(tokio_test::block_on(batch.oneshot(1)).unwrap(), 1);
}

#[test]
fn a_batch_that_failed_is_answered_with_a_problem_without_details() {
    let service = || BatchError::<Infallible>::Service(Arc::new(std::io::Error::other("no model")));
    for error in [service(), BatchError::Length { items: 2, results: 1 }] {
        let response = axum::response::IntoResponse::into_response(error);
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (http::StatusCode::INTERNAL_SERVER_ERROR, &http::HeaderValue::from_static("application/problem+json"),)
        );
        let body = tokio_test::block_on(axum::body::to_bytes(response.into_body(), 1000)).unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&problem["status"], &problem["detail"]), (&500.into(), &"the batch failed".into()));
    }
}

#[test]
fn a_layer_for_items_that_cannot_be_cloned_can_be_cloned() {
    struct Item(u32);
    let pools = one_worker();
    let layer: BatchLayer<Item> = Batch::builder(&pools, "batch").max_items(2).layer().unwrap();
    let batch = layer.clone().layer(service_fn(|items: Vec<Item>| async move {
        Ok::<_, Infallible>(items.into_iter().map(|item| Ok::<_, Infallible>(item.0)).collect::<Vec<_>>())
    }));
    assert_eq!(tokio_test::block_on(batch.oneshot(Item(7))).unwrap(), 7);
}

#[test]
fn an_item_whose_caller_left_is_not_in_the_batch() {
    let pools = one_worker();
    let (batch, seen) = echo(&pools, 32);
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..6).map(|item| queued(&batch, item)).collect();
    // The first would have led the batch.
    drop(tasks.remove(3));
    drop(tasks.remove(0));
    assert_eq!(stats(&pools, "batch").queued_tasks, 4);
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    assert_eq!(*seen.lock().unwrap(), [[1, 2, 4, 5]]);
    until_at_rest(&pools, "batch");
    assert_eq!(stats(&pools, "batch").counts.cancelled, 2);
}

/// Checks that a batch stops exactly when the last of three callers leaves, in this order.
fn the_batch_stops_when_all_have_left(order: [usize; 3]) {
    let pools = one_worker();
    let (begun, look) = (Gate::default(), Arc::new(Mutex::new(None::<Gate>)));
    let batch: Batch<u32, u32, Infallible> = {
        let (begun, look) = (begun.clone(), look.clone());
        Batch::builder(&pools, "batch").run(move |items: Vec<u32>| {
            begun.open();
            // Each look is asked for by the test, and answered with what `checkpoint` says.
            loop {
                let asked = look.lock().unwrap().take();
                if let Some(answer) = asked {
                    if checkpoint().is_err() {
                        return items.into_iter().map(Ok).collect();
                    }
                    answer.open();
                }
                std::thread::yield_now();
            }
        })
    }
    .unwrap();
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..3).map(|item| Some(queued(&batch, item))).collect();
    release(held);
    begun.wait();
    for (left, index) in order.into_iter().enumerate() {
        if left > 0 {
            let answer = Gate::default();
            *look.lock().unwrap() = Some(answer.clone());
            answer.wait();
        }
        tasks[index] = None;
    }
    *look.lock().unwrap() = Some(Gate::default());
    until_at_rest(&pools, "batch");
}

#[test]
fn a_blocking_batch_is_told_when_all_of_its_callers_have_left() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        the_batch_stops_when_all_have_left(order);
    }
}

/// A service that never ends, and counts how many of its futures were dropped.
fn endless(pools: &Pools, begun: &Gate, dropped: &Arc<AtomicUsize>) -> Echo {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (begun, dropped) = (begun.clone(), dropped.clone());
    let service = service_fn(move |_: Vec<u32>| {
        let (begun, dropped) = (begun.clone(), Dropped(dropped.clone()));
        async move {
            let _dropped = dropped;
            begun.open();
            std::future::pending::<Result<Vec<Result<u32, Infallible>>, Infallible>>().await
        }
    });
    Batch::builder(pools, "batch").service(service).unwrap()
}

#[test]
fn an_async_batch_is_dropped_when_all_of_its_callers_have_left_and_not_before() {
    let pools = one_worker();
    let (begun, dropped) = (Gate::default(), Arc::default());
    let batch = endless(&pools, &begun, &dropped);
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..3).map(|item| queued(&batch, item)).collect();
    release(held);
    begun.wait();
    drop(tasks.remove(0));
    drop(tasks.remove(1));
    until("the rider that left is counted", || stats(&pools, "batch").counts.cancelled == 1);
    assert_eq!(dropped.load(Ordering::SeqCst), 0, "one caller still waits");
    let mut last = tasks.remove(0);
    assert_pending!(last.poll());
    drop(last);
    until_at_rest(&pools, "batch");
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    let stats = stats(&pools, "batch");
    check_numbers(&stats);
    assert_eq!((stats.counts.cancelled, stats.batches.unwrap().cancelled), (3, 1));
}

#[test]
fn callers_that_stay_have_their_results_when_the_first_one_leaves() {
    let pools = one_worker();
    let (begun, gate) = (Gate::default(), Arc::new(tokio::sync::Notify::new()));
    let batch = {
        let (begun, gate) = (begun.clone(), gate.clone());
        let service = service_fn(move |items: Vec<u32>| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.open();
                gate.notified().await;
                Ok::<_, Infallible>(items.into_iter().map(Ok::<_, Infallible>).collect::<Vec<_>>())
            }
        });
        Batch::builder(&pools, "batch").service(service).unwrap()
    };
    let held = hold(&pools, "batch", 1);
    let mut tasks: Vec<_> = (0..3).map(|item| queued(&batch, item)).collect();
    release(held);
    begun.wait();
    drop(tasks.remove(0));
    gate.notify_one();
    assert_eq!(results(tasks).into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
    until_at_rest(&pools, "batch");
}

/// The leader of a batch can fail outside of the function: here, because a hook panics.
#[test]
fn callers_are_answered_when_the_task_that_leads_their_batch_panics() {
    let panics = Arc::new(AtomicBool::new(false));
    let hook = {
        let panics = panics.clone();
        move || {
            let panics = panics.clone();
            move |poll: &mut dyn FnMut()| {
                assert!(!panics.load(Ordering::SeqCst), "the hook panics");
                poll();
            }
        }
    };
    let pool = PoolConfig::new(1).queue_capacity(1000);
    let pools = Pools::builder().pool("batch", pool).context(hook).build().unwrap();
    let (begun, gate) = (Gate::default(), Arc::new(tokio::sync::Notify::new()));
    let service = {
        let (begun, gate) = (begun.clone(), gate.clone());
        service_fn(move |items: Vec<u32>| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                begun.open();
                gate.notified().await;
                Ok::<_, Infallible>(items.into_iter().map(Ok::<_, Infallible>).collect::<Vec<_>>())
            }
        })
    };
    let batch = Batch::builder(&pools, "batch").service(service).unwrap();
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..3).map(|item| queued(&batch, item)).collect();
    release(held);
    begun.wait();
    until("the batch waits", || stats(&pools, "batch").active_threads == 0);
    panics.store(true, Ordering::SeqCst);
    gate.notify_one();
    assert!(results(tasks).iter().all(Result::is_err));
    panics.store(false, Ordering::SeqCst);
    until_at_rest(&pools, "batch");
    assert_eq!(stats(&pools, "batch").batches.unwrap().cancelled, 1);
}

#[test]
fn a_list_has_its_results_in_order_however_long_it_is() {
    let pools = pools("batch", PoolConfig::new(1).queue_capacity(10));
    let (batch, seen) = echo(&pools, 8);
    let held = hold(&pools, "batch", 1);
    let mut list = tokio_test::task::spawn(batch.clone().call_all(0..100));
    assert_pending!(list.poll(), "the first items are queued");
    release(held);
    let results: Vec<_> = tokio_test::block_on(list).into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (0..100).collect::<Vec<_>>());
    assert!(seen.lock().unwrap().iter().any(|batch| batch.len() > 1));
    assert!(tokio_test::block_on(batch.call_all([])).is_empty());
}

#[test]
fn a_list_does_not_overfill_the_queue() {
    for (capacity, max_items) in [(0, 1000), (1, 1000), (10, 1000), (10, 1)] {
        let pools = pools("batch", PoolConfig::new(1).queue_capacity(capacity));
        let (batch, _) = echo(&pools, max_items);
        let results = tokio_test::block_on(batch.call_all(0..1000));
        assert!(results.iter().all(Result::is_ok), "queue of {capacity}, batches of {max_items}");
    }
}

#[test]
fn an_item_that_would_miss_its_deadline_even_alone_never_starts() {
    let pools = one_worker();
    let seen = Seen::default();
    let batch: Echo = {
        let seen = seen.clone();
        Batch::builder(&pools, "batch").run(move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.clone());
            // The time of a batch is what this test is about.
            std::thread::sleep(Duration::from_millis(100));
            items.into_iter().map(Ok).collect()
        })
    }
    .unwrap();
    // Nothing is learned from the first.
    for _ in 0..2 {
        tokio_test::block_on(batch.clone().oneshot(0)).unwrap();
    }
    let tight = TaskOptions::new().deadline(Deadline::after(Duration::from_millis(50)));
    let error = tokio_test::block_on(batch.call_with(tight, 1)).unwrap_err();
    assert!(error.is_rejected() && !error.is_panic());
    let BatchError::Task(TaskError::Rejected(rejection)) = &error else { panic!("{error:?}") };
    assert_eq!((rejection.reason(), rejection.started()), (Reason::DeadlineExceeded, false));
    let loose = TaskOptions::new().deadline(Deadline::after(Duration::from_secs(60)));
    assert_eq!(tokio_test::block_on(batch.call_with(loose, 2)).unwrap(), 2);
    assert_eq!(*seen.lock().unwrap(), [[0], [0], [2]]);
    assert_eq!(stats(&pools, "batch").counts.expired, 1);
}

#[test]
fn a_deadline_that_passes_while_a_batch_runs_takes_no_result_away() {
    let pools = one_worker();
    let (batch, begun, gate) = gated(&pools);
    let held = hold(&pools, "batch", 1);
    let deadline = Deadline::after(Duration::from_millis(200));
    let late = |item| queued_with(&batch, TaskOptions::new().deadline(deadline), item);
    // One of those with a deadline leads the batch, and the other one rides.
    let tasks = vec![late(0), queued(&batch, 1), late(2)];
    release(held);
    // If the machine is so slow that the deadline passed in the queue, those with a deadline do not run.
    begun.wait();
    let joined = stats(&pools, "batch").in_flight;
    until("the deadline passes", || Instant::now() > deadline.moment() + Duration::from_millis(20));
    gate.open();
    let answers = results(tasks);
    assert!(joined < 3 || answers.iter().all(Result::is_ok), "{joined} ran: {answers:?}");
    until_at_rest(&pools, "batch");
}

#[test]
fn a_task_that_a_batch_submits_has_the_latest_deadline_of_its_items_whoever_leads() {
    for leader_is_late in [true, false] {
        let pools = one_worker();
        let (begun, gate, nested) = (Gate::default(), Gate::default(), Arc::new(Mutex::new(None)));
        let batch: Echo = {
            let (here, pools, begun, gate, nested) =
                (&pools, pools.clone(), begun.clone(), gate.clone(), nested.clone());
            let run = move |items: Vec<u32>| {
                begun.open();
                gate.wait();
                *nested.lock().unwrap() = Some(pools.submit_to_pool("io", || 7));
                items.into_iter().map(Ok).collect()
            };
            Batch::builder(here, "batch").run(run).unwrap()
        };
        let held = hold(&pools, "batch", 1);
        let deadline = Deadline::after(Duration::from_millis(200));
        let late = || queued_with(&batch, TaskOptions::new().deadline(deadline), 0);
        let tasks = if leader_is_late { [late(), queued(&batch, 1)] } else { [queued(&batch, 1), late()] };
        release(held);
        begun.wait();
        until("the deadline passes", || Instant::now() > deadline.moment() + Duration::from_millis(20));
        gate.open();
        results(tasks);
        let nested = nested.lock().unwrap().take().expect("the batch ran");
        assert_eq!(end_of(nested.expect("an item has no deadline")).unwrap(), 7);
    }
}

/// Deadlines that pass before, while and after the batch of their items forms.
#[test]
fn an_item_whose_deadline_is_near_is_rejected_or_runs_and_never_both() {
    // Nothing is shed.
    let pools = pools("batch", PoolConfig::new(1).queue_capacity(1000).queue(Queue::Fifo));
    let (batch, seen) = echo(&pools, 8);
    let (mut ok, mut late) = (Vec::new(), 0);
    for round in 0..60 {
        let held = hold(&pools, "batch", 1);
        let tasks: Vec<_> = (0..40)
            .map(|item| {
                let deadline = Deadline::after(Duration::from_micros(20 * u64::from(item)));
                queued_or_late(&batch, TaskOptions::new().deadline(deadline), round * 40 + item)
            })
            .collect();
        release(held);
        for (item, result) in results(tasks).into_iter().enumerate() {
            match result {
                Ok(answer) => {
                    assert_eq!(answer, round * 40 + item as u32);
                    ok.push(answer);
                }
                Err(BatchError::Task(TaskError::Rejected(rejection))) => {
                    assert_eq!((rejection.reason(), rejection.started()), (Reason::DeadlineExceeded, false));
                    late += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    let mut ran: Vec<_> = seen.lock().unwrap().concat();
    ran.sort_unstable();
    assert_eq!(ran, ok, "what ran has a result, and nothing else ran");
    until_at_rest(&pools, "batch");
    let stats = stats(&pools, "batch");
    check_numbers(&stats);
    assert_eq!((stats.counts.expired, stats.counts.ok), (late, ok.len() as u64 + 60));
}

/// An item that is in the queue, unless it is late already.
fn queued_or_late(
    batch: &Echo,
    options: TaskOptions,
    item: u32,
) -> impl Future<Output = Result<u32, BatchError<Infallible>>> {
    let mut task = Box::pin(batch.call_with(options, item));
    let polled = futures_util::FutureExt::now_or_never(&mut task);
    async move {
        match polled {
            Some(result) => result,
            None => task.await,
        }
    }
}

#[test]
fn a_shutdown_finishes_the_batches_that_wait() {
    let pools = one_worker();
    let (batch, _) = echo(&pools, 4);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..10).map(|item| queued(&batch, item)).collect();
    let mut shutdown = tokio_test::task::spawn(pools.shutdown(PATIENCE));
    assert_pending!(shutdown.poll());
    let refused = tokio_test::block_on(batch.clone().oneshot(11)).unwrap_err();
    assert!(refused.to_string().contains("shutting down"), "{refused}");
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    tokio_test::block_on(shutdown);
}

#[test]
fn a_task_of_a_batch_may_run_another_item_of_the_same_batch() {
    let pools = one_worker();
    let itself: Arc<Mutex<Option<Echo>>> = Arc::default();
    let service = {
        let itself = itself.clone();
        service_fn(move |items: Vec<u32>| {
            let nested = itself.lock().unwrap().clone().unwrap();
            async move {
                let mut results = Vec::new();
                for item in items {
                    let below = match item.checked_sub(1) {
                        Some(below) => nested.clone().oneshot(below).await.unwrap(),
                        None => 0,
                    };
                    results.push(Ok::<_, Infallible>(item + below));
                }
                Ok::<_, Infallible>(results)
            }
        })
    };
    let batch = Batch::builder(&pools, "batch").service(service).unwrap();
    *itself.lock().unwrap() = Some(batch.clone());
    assert_eq!(tokio_test::block_on(batch.oneshot(4)).unwrap(), 10);
    *itself.lock().unwrap() = None;
}

#[test]
fn disabled_pools_run_each_item_where_it_is_called() {
    let (batch, seen) = echo(&Pools::disabled(), 32);
    let results = tokio_test::block_on(batch.call_all(0..3));
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(*seen.lock().unwrap(), [[0], [1], [2]]);
}

#[test]
fn the_settings_of_the_pool_take_precedence() {
    let pools = pools("batch", PoolConfig::new(1).queue_capacity(1000).batch(BatchSettings::new().max_items(2)));
    let (batch, seen) = echo(&pools, 32);
    let held = hold(&pools, "batch", 1);
    let tasks: Vec<_> = (0..4).map(|item| queued(&batch, item)).collect();
    release(held);
    assert!(results(tasks).iter().all(Result::is_ok));
    assert_eq!(*seen.lock().unwrap(), [[0, 1], [2, 3]]);
}

#[test]
fn limits_that_make_no_sense_are_errors_that_say_what_is_right() {
    let pools = one_worker();
    let run = |items: Vec<u32>| items.into_iter().map(Ok::<_, Infallible>).collect();
    let error = Batch::builder(&pools, "batch").max_items(0).run(run).unwrap_err();
    assert_eq!(error.to_string(), "`max_items` of a batch is 0, so it would run nothing; give 1 or more");
    let error = Batch::builder(&pools, "batch").max_weight(0, |_| 1).run(run).unwrap_err();
    assert!(error.to_string().starts_with("`max_weight` of a batch is 0"), "{error}");
    let error = Batch::builder(&pools, "bacth").run(run).unwrap_err();
    assert!(error.to_string().contains("bacth"), "{error}");
    let weighed = pools_with(BatchSettings::new().max_weight(100));
    let error = Batch::builder(&weighed, "batch").run(run).unwrap_err();
    assert!(error.to_string().contains("`batch.max_weight`"), "{error}");
    let mistaken = PoolConfig::new(1).batch(BatchSettings::new().max_items(0)).validate("batch").unwrap_err();
    assert!(mistaken.to_string().contains("batch.max_items"), "{mistaken}");
}

fn pools_with(settings: BatchSettings) -> Pools {
    pools("batch", PoolConfig::new(1).batch(settings))
}

#[test]
fn a_panic_of_the_weight_function_reaches_its_caller_alone() {
    let pools = one_worker();
    let weighed = Batch::builder(&pools, "batch").max_weight(10, |item: &u32| {
        assert_ne!(*item, 13, "unlucky");
        1
    });
    let batch: Echo = weighed.run(|items| items.into_iter().map(Ok).collect()).unwrap();
    let other = batch.clone();
    let panicked = std::thread::spawn(move || tokio_test::block_on(other.oneshot(13))).join();
    assert!(panicked.is_err());
    assert_eq!(tokio_test::block_on(batch.oneshot(1)).unwrap(), 1);
    assert_eq!(stats(&pools, "batch").counts.submitted, 1);
}

/// An item of the test with many callers: what it does, and a count of how often it was dropped.
struct Counted {
    kind: u32,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Callers that leave at any time, functions that panic, fail or wait, deadlines and groups, on real threads.
#[test]
fn every_item_is_dropped_once_and_counted_once_whatever_its_callers_do() {
    const CALLERS: u32 = 8;
    const ITEMS: u32 = 400;
    // Each caller waits when it has kept 16 items, so the queue has room for all of them.
    let pools = pools("batch", PoolConfig::new(2).queue_capacity(200));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (dropped, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let service = service_fn(|items: Vec<Counted>| async move {
        for item in &items {
            match item.kind % 50 {
                0 => std::panic::panic_any("one of many"),
                1..10 => tokio::task::yield_now().await,
                _ => {}
            }
        }
        if items.iter().any(|item| item.kind % 50 == 11) {
            return Err("none of these");
        }
        Ok(items.iter().map(|item| if item.kind.is_multiple_of(7) { Err(item.kind) } else { Ok(item.kind) }).collect())
    });
    let grouped = Batch::builder(&pools, "batch").max_items(8).group_by(|item: &Counted| item.kind % 3);
    let batch: Batch<Counted, u32, u32> = grouped.service(service).unwrap();
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>().is_none_or(|said| *said != "one of many") {
            quiet(info);
        }
    }));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (batch, dropped, answered) = (batch.clone(), dropped.clone(), answered.clone());
            runtime.spawn(async move {
                let mut kept = Vec::new();
                for index in 0..ITEMS {
                    let kind = (caller * ITEMS + index).wrapping_mul(2_654_435_761) >> 8;
                    let mut options = TaskOptions::new();
                    // None of those that panic.
                    if kind % 5 == 2 {
                        options = options.deadline(Deadline::after(Duration::from_micros(u64::from(kind % 997))));
                    }
                    let item = Counted { kind, dropped: dropped.clone() };
                    let mut call = Box::pin(batch.call_with(options, item));
                    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
                    match kind % 4 {
                        _ if first.is_ready() => _ = answered.fetch_add(1, Ordering::SeqCst),
                        // It leaves at once, a little later, or stays.
                        0 => drop(call),
                        1 => {
                            tokio::task::yield_now().await;
                            drop(call);
                        }
                        _ => kept.push(call),
                    }
                    if kept.len() == 16 {
                        let all = join_all(kept.drain(..)).await;
                        answered.fetch_add(all.len(), Ordering::SeqCst);
                    }
                }
                answered.fetch_add(join_all(kept).await.len(), Ordering::SeqCst);
            })
        })
        .collect();
    for caller in callers {
        runtime.block_on(caller).unwrap();
    }
    let report = runtime.block_on(pools.shutdown(PATIENCE));
    assert!(report.is_complete(), "{report:?}");
    drop(batch);
    let all = (CALLERS * ITEMS) as usize;
    until("every item was dropped", || dropped.load(Ordering::SeqCst) == all);
    let stats = stats(&pools, "batch");
    assert_eq!((stats.counts.submitted, stats.counts.ended()), (all as u64, all as u64), "{stats:?}");
    assert!(stats.batches.unwrap().panicked > 0 && stats.batches.unwrap().ok > 0 && stats.counts.cancelled > 0);
    assert!(answered.load(Ordering::SeqCst) > all / 3);
}
