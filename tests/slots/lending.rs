//! How tasks get values: as many as there are permits, the one that was used last first, and none for a second time.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll};
use std::time::Duration;

use tower_offload::pool::TaskOptions;
use tower_offload::slots::{SlotError, SlotGuard, Slots};
use tower_offload::{Deadline, PoolConfig, Pools, Reason, TaskError};

use crate::support::{Gate, PATIENCE, hold, pools, until, until_at_rest};
use crate::tally::{Tally, Value};

/// Slots of a pool, whose values count themselves.
fn slots(pools: &Pools, name: &str, tally: &Tally) -> Slots<Value> {
    let tally = tally.clone();
    Slots::builder(pools, name).make(move || Ok::<_, String>(tally.make(1))).build_lazy().unwrap()
}

/// A task that has a value, and keeps it until its gate opens.
fn keep(slots: &Slots<Value>) -> (tokio::task::JoinHandle<Result<usize, SlotError>>, Gate, Gate) {
    let (begun, gate) = (Gate::default(), Gate::default());
    let (begins, waits) = (begun.clone(), gate.clone());
    let kept = slots.run(move |value| {
        begins.open();
        waits.wait();
        value.number
    });
    (tokio::spawn(kept), begun, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_that_was_used_last_is_used_first_and_a_second_one_is_made_only_for_a_second_task() {
    let (pools, tally) = (pools("lifo", PoolConfig::new(3)), Tally::default());
    let slots = slots(&pools, "lifo", &tally);
    assert_eq!(tally.made(), 0, "no task has needed a value");
    for _ in 0..10 {
        assert_eq!(slots.run(|value| value.number).await.unwrap(), 1);
    }
    let (one, begun, gate) = keep(&slots);
    begun.wait();
    for _ in 0..10 {
        assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    }
    gate.open();
    assert_eq!(one.await.unwrap().unwrap(), 1);
    until("the value is put back", || slots.stats().idle == 2);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 1, "it was put back last");
    assert_eq!((tally.made(), tally.live()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_values_than_permits() {
    let (pools, tally) = (pools("many", PoolConfig::new(3).queue_capacity(1000)), Tally::default());
    let slots = slots(&pools, "many", &tally);
    let in_use = Arc::<AtomicUsize>::default();
    let meet = Arc::new(Barrier::new(3));
    let tasks: Vec<_> = (0..300)
        .map(|_| {
            let (in_use, meet) = (in_use.clone(), meet.clone());
            tokio::spawn(slots.run(move |value| {
                assert!(in_use.fetch_add(1, Ordering::SeqCst) < 3);
                // All permits are in use at once.
                meet.wait();
                value.uses += 1;
                in_use.fetch_sub(1, Ordering::SeqCst);
            }))
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!((tally.made(), tally.peak()), (3, 3));
    let stats = slots.stats();
    assert_eq!((stats.idle, stats.in_use, stats.loading), (3, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_waits_in_the_pools_queue_with_its_deadline_and_is_rejected_like_any_other() {
    let (pools, tally) = (pools("queue", PoolConfig::new(1).queue_capacity(1)), Tally::default());
    let slots = slots(&pools, "queue", &tally);
    let held = hold(&pools, "queue", 1);
    let late = TaskOptions::new().deadline(Deadline::after(Duration::from_millis(1)));
    let error = slots.run_with(late, |_value| ()).await.unwrap_err();
    let SlotError::Task(TaskError::Rejected(rejection)) = &error else { panic!("{error:?}") };
    assert_eq!(rejection.reason(), Reason::DeadlineExceeded);
    let waits = tokio::spawn(slots.run(|_value| ()));
    until("it is queued", || pools.get("queue").unwrap().stats().queued_tasks == 1);
    let error = slots.run(|_value| ()).await.unwrap_err();
    assert!(error.is_rejected(), "{error:?}");
    held.into_iter().for_each(crate::support::Held::release);
    waits.await.unwrap().unwrap();
    assert_eq!(tally.made(), 1, "no rejected task has made a value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_in_a_task_of_the_pool_uses_a_value_without_a_second_queue_and_other_code_gets_an_error() {
    let (pools, tally) = (pools("here", PoolConfig::new(1).queue_capacity(0)), Tally::default());
    let slots = slots(&pools, "here", &tally);
    let inside = slots.clone();
    let number = pools.run_in_pool("here", move || inside.here(|value| value.number)).await.unwrap();
    assert_eq!(number.unwrap(), 1);
    let error = slots.here(|value| value.number).unwrap_err();
    assert!(matches!(&error, SlotError::Outside(pool) if pool == "here"), "{error:?}");
    assert!(error.to_string().contains("outside of a task of this pool"), "{error}");
    let elsewhere = slots.clone();
    let error = pools.run_in_pool("cpu", move || elsewhere.take().err()).await.unwrap().unwrap();
    assert!(matches!(error, SlotError::Outside(_)), "a task of another pool has no permit of this one: {error:?}");
    assert_eq!(tally.made(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_has_a_value_gets_no_second_one_and_does_not_wait_for_itself() {
    let (pools, tally) = (pools("nested", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "nested", &tally);
    let (run, here, pool) = (slots.clone(), slots.clone(), pools.clone());
    let errors = slots.run(move |_value| {
        let run = futures_util::FutureExt::now_or_never(run.run(|_value| ())).unwrap();
        let direct = here.here(|_value| ());
        // The pool has one permit, so this task runs in place, inside the permit of the one that waits for it.
        let in_place = pool.submit_to_pool("nested", move || here.here(|_value| ())).unwrap().wait().unwrap();
        [run, direct, in_place]
    });
    for error in errors.await.unwrap() {
        assert!(matches!(&error, Err(SlotError::Nested(pool)) if pool == "nested"), "{error:?}");
    }
    assert_eq!(tally.made(), 1);
    slots.run(|_value| ()).await.unwrap();
    let stats = slots.stats();
    assert_eq!((stats.idle, stats.in_use), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_keeps_its_value_across_awaits_and_a_second_task_uses_another() {
    let (pools, tally) = (pools("await", PoolConfig::new(2)), Tally::default());
    let slots = slots(&pools, "await", &tally);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (inside, begun) = (slots.clone(), Gate::default());
    let begins = begun.clone();
    let waits = tokio::spawn(pools.run_in_pool("await", async move {
        let mut value = inside.take().unwrap();
        value.uses += 1;
        begins.open();
        receiver.await.unwrap();
        let nested = inside.run(|_value| ()).await;
        assert!(matches!(nested, Err(SlotError::Nested(_))), "{nested:?}");
        (value.number, value.uses, SlotGuard::generation(&value))
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    sender.send(()).unwrap();
    assert_eq!(waits.await.unwrap().unwrap(), (1, 1, 1));
    until("it is put back", || slots.stats().idle == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_value_of_a_future_that_is_dropped_is_put_back() {
    let (pools, tally) = (pools("drop", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "drop", &tally);
    let (inside, begun) = (slots.clone(), Gate::default());
    let begins = begun.clone();
    let task = tokio::spawn(pools.run_in_pool("drop", async move {
        let _value = inside.take().unwrap();
        begins.open();
        std::future::pending::<()>().await;
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    assert_eq!(slots.stats().in_use, 1);
    task.abort();
    tokio::task::spawn_blocking(move || until_at_rest(&pools, "drop")).await.unwrap();
    assert_eq!((slots.stats().idle, slots.stats().in_use), (1, 0));
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 1);
}

/// A future that is a struct, as those of middlewares are: its guard is dropped after its panic, and not during it.
struct Panics {
    slots: Slots<Value>,
    guard: Option<SlotGuard<Value>>,
}

impl Future for Panics {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        self.guard = Some(self.slots.take().unwrap());
        panic!("in a poll");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_does_not_survive_the_panic_of_a_future_that_has_its_guard_as_a_field() {
    let (pools, tally) = (pools("field", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "field", &tally);
    let error = pools.run_in_pool("field", Panics { slots: slots.clone(), guard: None }).await.unwrap_err();
    assert!(error.is_panic(), "{error:?}");
    assert_eq!((slots.stats().idle, tally.live()), (0, 0));
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    // The next task of the same worker keeps its value.
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_outlives_its_permit_costs_one_value_more_for_each_task_that_needs_one() {
    let (pools, tally) = (pools("leak", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "leak", &tally);
    let inside = slots.clone();
    let guard = pools.run_in_pool("leak", move || inside.take().unwrap()).await.unwrap();
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    assert_eq!((tally.peak(), tally.live()), (2, 1), "the further value goes as soon as its task has ended");
    drop(guard);
    assert_eq!((tally.live(), slots.stats().idle), (1, 1));
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_drops_the_value_unless_it_is_to_be_kept() {
    for keep in [false, true] {
        let (pools, tally) = (pools("panic", PoolConfig::new(1)), Tally::default());
        let builder = Slots::builder(&pools, "panic");
        let made = tally.clone();
        let builder = builder.make(move || Ok::<_, String>(made.make(1)));
        let slots = if keep { builder.keep_on_panic() } else { builder }.build_lazy().unwrap();
        let panicked = slots.run(|_value| panic!("its state is not known")).await;
        assert!(panicked.as_ref().is_err_and(SlotError::is_panic), "{panicked:?}");
        let inside = slots.clone();
        let future = pools.run_in_pool("panic", async move {
            let _value = inside.take().unwrap();
            tokio::task::yield_now().await;
            panic!("in a future");
        });
        assert!(future.await.unwrap_err().is_panic());
        let expected = if keep { 1 } else { 3 };
        assert_eq!(slots.run(|value| value.number).await.unwrap(), expected);
        assert_eq!(tally.live(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_a_guard_discards_is_not_used_again() {
    let (pools, tally) = (pools("discard", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "discard", &tally);
    let inside = slots.clone();
    pools.run_in_pool("discard", move || SlotGuard::discard(inside.take().unwrap())).await.unwrap();
    assert_eq!((tally.live(), slots.stats().idle), (0, 0));
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_slots_drops_their_values_after_the_last_task() {
    let (pools, tally) = (pools("end", PoolConfig::new(2)), Tally::default());
    let slots = slots(&pools, "end", &tally);
    slots.run(|_value| ()).await.unwrap();
    let (task, begun, gate) = keep(&slots);
    begun.wait();
    drop(slots);
    assert_eq!(tally.live(), 1, "the task has it");
    gate.open();
    assert_eq!(task.await.unwrap().unwrap(), 1);
    until("the last value is dropped", || tally.live() == 0);
    assert!(pools.get("end").unwrap().stats().holdings.slots.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disabled_pools_lend_values_on_the_thread_that_awaits_them() {
    let (pools, tally) = (Pools::disabled(), Tally::default());
    let slots = slots(&pools, "any", &tally);
    let here = std::thread::current().id();
    assert_eq!(slots.run(|_value| std::thread::current().id()).await.unwrap(), here);
    assert_eq!(slots.here(|value| value.number).unwrap(), 1);
    assert!(slots.run(|_value| panic!("still an error")).await.is_err_and(|error| error.is_panic()));
    let inside = slots.clone();
    let both = slots.run(move |outer| inside.here(|inner| (outer.number, inner.number)).unwrap()).await.unwrap();
    assert_eq!(both, (2, 3), "without a pool there is no limit");
    let made = tally.clone();
    let swapped = tokio::time::timeout(PATIENCE, slots.swap(move || Ok::<_, String>(made.make(2)))).await;
    assert!(swapped.unwrap().unwrap().is_complete());
    assert_eq!(slots.run(|value| value.version).await.unwrap(), 2);
}

#[tokio::test]
async fn an_error_of_slots_is_a_response_that_shows_a_wrong_use_and_no_error_of_the_application() {
    use axum::response::IntoResponse;
    let pools = Pools::default();
    let slots = Slots::builder(&pools, "cpu").make(|| Err::<u8, _>("the secret file is missing")).build_lazy().unwrap();
    let remedy = "a slot of pool `cpu` was asked for outside of a task of this pool; use `run`";
    let outside = || slots.here(|_value| ()).unwrap_err();
    let status = tonic::Status::from(outside());
    assert_eq!((status.code(), status.message()), (tonic::Code::Internal, remedy));
    let response = outside().into_response();
    assert_eq!(response.status(), 500);
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["detail"], remedy);
    let error = slots.run(|_value| ()).await.unwrap_err();
    let status = tonic::Status::from(slots.run(|_value| ()).await.unwrap_err());
    assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "a value could not be made"));
    let response = error.into_response();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (503, "application/problem+json")
    );
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("secret"), "{body:?}");
}
