//! Code of the application that panics in unexpected places: destructors, wakers and subscribers.

use std::future::Future;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tower_offload::current::HeldPermit;
use tower_offload::{PoolConfig, Pools, hold_permit};
use tracing::subscriber::with_default;
use tracing::{Event, Metadata, Subscriber, span};
use tracing_subscriber::layer::{self, Layer, SubscriberExt};

use crate::support::{Gate, Held, end_of, hold, pools, stats, until, until_at_rest};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped a bomb");
    }
}

/// Checks that both workers are alive, and that the numbers add up.
fn check(pools: &Pools, name: &str, submitted: u64) {
    until_at_rest(pools, name);
    let before = stats(pools, name);
    assert_eq!((before.counts.submitted, before.counts.ended()), (submitted, submitted), "{before:?}");
    hold(pools, name, 2).into_iter().for_each(Held::release);
    until_at_rest(pools, name);
    assert_eq!(stats(pools, name).workers, 2);
}

#[test]
fn a_future_that_panics_as_it_is_dropped_harms_nobody() {
    let pools = pools("future", PoolConfig::new(2));
    // It ended, it panicked, it was cancelled in flight, and it was cancelled while queued.
    let bomb = Bomb;
    end_of(pools.submit_to_pool("future", async move { std::mem::forget(bomb) }).unwrap()).unwrap();
    let bomb = Bomb;
    let ended = pools.submit_to_pool(
        "future",
        std::future::poll_fn(move |_| {
            let _ = &bomb;
            std::task::Poll::Ready(())
        }),
    );
    end_of(ended.unwrap()).unwrap();
    let begun = Gate::default();
    let (bomb, begins) = (Bomb, begun.clone());
    let awaits = pools.submit_to_pool("future", async move {
        let _bomb = bomb;
        begins.open();
        std::future::pending::<()>().await;
    });
    begun.wait();
    awaits.unwrap().cancel();
    until_at_rest(&pools, "future");
    let held = hold(&pools, "future", 2);
    let bomb = Bomb;
    pools.submit_to_pool("future", move || std::mem::forget(bomb)).unwrap().cancel();
    held.into_iter().for_each(Held::release);
    check(&pools, "future", 6);
}

#[test]
fn a_value_that_panics_as_it_is_dropped_harms_nobody() {
    let pools = pools("value", PoolConfig::new(2));
    let held = hold(&pools, "value", 2);
    drop(pools.submit_to_pool("value", || Bomb).unwrap());
    held.into_iter().for_each(Held::release);
    until_at_rest(&pools, "value");
    // The value is there, and its caller leaves without it.
    let unclaimed = pools.submit_to_pool("value", || Bomb).unwrap();
    until("it has ended", || unclaimed.is_finished());
    drop(unclaimed);
    check(&pools, "value", 4);
}

#[test]
fn a_panic_whose_value_panics_as_it_is_dropped_harms_nobody() {
    let pools = pools("panic", PoolConfig::new(2));
    let unclaimed = pools.submit_to_pool("panic", || panic_any(Bomb)).unwrap();
    until("it has ended", || unclaimed.is_finished());
    drop(unclaimed);
    let error = end_of(pools.submit_to_pool("panic", || panic_any(Bomb)).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: a panic payload that is not a string");
    // Nor the caller, who has the error but no interest in the value.
    drop(error);
    drop(end_of(Pools::disabled().submit_to_pool("any", || panic_any(Bomb)).unwrap()).unwrap_err());
    check(&pools, "panic", 2);
}

#[test]
fn the_value_of_a_panic_can_be_taken_and_resumed() {
    let pools = pools("resume", PoolConfig::new(2));
    let fails = || end_of(pools.submit_to_pool("resume", || panic_any(7_u8)).unwrap()).unwrap_err();
    let tower_offload::TaskError::Panicked(panic) = fails() else { panic!("it panicked") };
    assert_eq!(*panic.into_payload().downcast::<u8>().unwrap(), 7);
    let tower_offload::TaskError::Panicked(panic) = fails() else { panic!("it panicked") };
    let resumed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| panic.resume()));
    assert_eq!(*resumed.unwrap_err().downcast::<u8>().unwrap(), 7);
}

/// A waker that panics.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker panics");
    }
}

#[test]
fn a_task_that_waits_for_room_with_a_waker_that_panics_harms_no_worker() {
    let pools = pools("room", PoolConfig::new(2).queue_capacity(1));
    let held = hold(&pools, "room", 2);
    let queued = pools.submit_to_pool("room", || ()).unwrap();
    let batch = pools.batch_executor("room", 1).unwrap();
    let mut waits = Box::pin(batch.run(|| ()));
    let waker = Waker::from(Arc::new(Panics));
    assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(stats(&pools, "room").queued_tasks, 1, "it waits outside of the queue");
    held.into_iter().for_each(Held::release);
    end_of(queued).unwrap();
    check(&pools, "room", 3);
    tokio_test::block_on(waits).unwrap();
}

/// The future keeps its permit, and it panics again as it is dropped: in the context of the task, and on no other thread.
#[test]
fn a_task_that_holds_its_permit_and_panics_ends_although_its_future_panics_again() {
    struct Fails(Option<HeldPermit>, Sender<Option<thread::ThreadId>>);
    impl Future for Fails {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            self.0 = Some(hold_permit());
            panic!("the first panic")
        }
    }
    impl Drop for Fails {
        fn drop(&mut self) {
            let inside = tokio::runtime::Handle::try_current().is_ok();
            let _ = self.1.send(inside.then(|| thread::current().id()));
            panic!("the second panic");
        }
    }
    let pools = pools("twice", PoolConfig::new(2));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (sender, dropped) = channel();
    let error = {
        let _entered = runtime.enter();
        end_of(pools.submit_to_pool("twice", Fails(None, sender)).unwrap()).unwrap_err()
    };
    assert_eq!(error.to_string(), "the task panicked: the first panic");
    let thread = dropped.recv().unwrap();
    assert!(thread.is_some_and(|thread| thread != std::thread::current().id()), "not in the context of the task");
    check(&pools, "twice", 1);
}

#[test]
fn a_drain_whose_waker_panics_loses_no_task() {
    let pools = pools("waker", PoolConfig::new(2).queue_timeout(Duration::from_millis(20)));
    let held = hold(&pools, "waker", 2);
    let mut shutdown = Box::pin(pools.shutdown(Duration::from_millis(10)));
    let waker = Waker::from(Arc::new(Panics));
    assert!(shutdown.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    held.into_iter().for_each(Held::release);
    until_at_rest(&pools, "waker");
    assert_eq!(stats(&pools, "waker").counts.ok, 2);
    // The timer called this waker too, and lives on.
    let others = crate::support::pools("timer", PoolConfig::new(1).queue_timeout(Duration::from_millis(30)));
    let held = hold(&others, "timer", 1);
    end_of(others.submit_to_pool("timer", || ()).unwrap()).unwrap_err();
    held.into_iter().for_each(Held::release);
}

/// Panics in every callback that can.
struct PanickingSubscriber;

impl Subscriber for PanickingSubscriber {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        panic!("the subscriber panics at an event");
    }

    fn enter(&self, _: &span::Id) {
        panic!("the subscriber panics at a span");
    }

    fn exit(&self, _: &span::Id) {}

    fn try_close(&self, _: span::Id) -> bool {
        panic!("the subscriber panics at the end of a span");
    }
}

#[test]
fn a_subscriber_that_panics_harms_no_pool() {
    let pools = Pools::builder().pool("log", PoolConfig::new(2)).verbose(true).build().unwrap();
    with_default(PanickingSubscriber, || {
        // The submission is logged, and the end.
        for number in 0..10 {
            assert_eq!(end_of(pools.submit_to_pool("log", move || number).unwrap()).unwrap(), number);
        }
        // A span travels with the task: to enter it fails the task, to close it fails nothing.
        let span = std::mem::ManuallyDrop::new(tracing::info_span!("request"));
        let entered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| span.enter()));
        assert!(entered.is_err());
        std::mem::forget(entered);
    });
    check(&pools, "log", 10);
}

/// Panics as a span is entered on a worker.
struct PanicsInPools;

impl<S: Subscriber> Layer<S> for PanicsInPools {
    fn on_enter(&self, _: &span::Id, _: layer::Context<'_, S>) {
        let on_a_worker = thread::current().name().is_some_and(|name| name.starts_with("offload-"));
        assert!(!on_a_worker, "the subscriber panics at a span");
    }
}

#[test]
fn a_task_whose_span_cannot_be_entered_fails_and_what_it_holds_is_dropped_without_harm() {
    struct Dropped(Gate, Bomb);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.open();
        }
    }
    let pools = pools("span", PoolConfig::new(2));
    let dropped = Gate::default();
    with_default(tracing_subscriber::registry().with(PanicsInPools), || {
        let _span = tracing::info_span!("request").entered();
        let value = Dropped(dropped.clone(), Bomb);
        let error = end_of(pools.submit_to_pool("span", move || drop(value)).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the task panicked: the subscriber panics at a span");
    });
    dropped.wait();
    assert_eq!(stats(&pools, "span").counts.panicked, 1);
    check(&pools, "span", 1);
}
