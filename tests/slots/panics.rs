//! Code of the application that panics on the threads that load: a destructor, and a subscriber.

use std::sync::Arc;
use std::thread;

use tower_offload::slots::{Models, Slots};
use tower_offload::{PoolConfig, Pools};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Metadata, Subscriber};

use crate::support::{PATIENCE, pools};

/// A value whose destructor panics.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        assert!(thread::panicking(), "a destructor that panics");
    }
}

/// A subscriber that panics when a loader enters a span.
struct PanicsInLoaders;

impl Subscriber for PanicsInLoaders {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {
        assert_ne!(thread::current().name(), Some("offload-loader"), "a subscriber that panics");
    }

    fn exit(&self, _span: &Id) {}
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it ends")
}

fn slots(pools: &Pools, name: &str) -> Slots<u32> {
    Slots::builder(pools, name).make(|| Ok::<_, String>(1)).build_lazy().unwrap()
}

/// Calls `call` in a span of a subscriber that panics in loaders.
fn in_span<R>(call: impl FnOnce() -> R) -> R {
    with_default(PanicsInLoaders, || tracing::info_span!("caller").in_scope(call))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_go_on_after_the_destructor_of_a_swap_that_failed_or_was_replaced_has_panicked() {
    let pools = pools("pdrop", PoolConfig::new(1));
    let slots = slots(&pools, "pdrop");
    slots.run(|_value| ()).await.unwrap();
    let captured = PanicsOnDrop;
    let failed = slots.swap(move || {
        let _captured = &captured;
        Err::<u32, _>("half written")
    });
    let error = in_time(failed).await.unwrap_err();
    assert_eq!(error.to_string(), "a value could not be made: half written");
    for number in 2..6_u32 {
        let captured = PanicsOnDrop;
        let swap = slots.swap(move || {
            let _captured = &captured;
            Ok::<_, String>(number)
        });
        let swapped = in_time(swap).await.unwrap();
        assert_eq!((swapped.generation, swapped.is_complete()), (u64::from(number), true));
        assert_eq!(slots.run(|value| *value).await.unwrap(), number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_and_loads_end_although_a_subscriber_panics() {
    let pools = pools("psub", PoolConfig::new(1));
    let slots = slots(&pools, "psub");
    slots.run(|_value| ()).await.unwrap();
    for number in 2..4 {
        let swap = in_span(|| slots.swap(move || Ok::<_, String>(number)));
        assert!(in_time(swap).await.unwrap().is_complete());
        assert_eq!(slots.run(|value| *value).await.unwrap(), number);
    }
    let models = Models::builder(&pools, "psub").budget(10).weigh(|_model: &u32| 10).load(|_key| Ok::<_, String>(7));
    let models = Arc::new(models.build().unwrap());
    for key in ["a", "b"] {
        let mut get = tokio_test::task::spawn(models.get(key));
        // The first poll captures the span.
        let polled = in_span(|| get.poll());
        if polled.is_pending() {
            drop(in_time(get).await.unwrap());
        }
    }
    assert_eq!(models.stats().loads_ok, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_panics_as_it_is_weighed_and_dropped_fails_its_load_alone() {
    let pools = pools("pweigh", PoolConfig::new(1));
    let models = Models::builder(&pools, "pweigh").budget(10).load(|_key| Ok::<_, String>(PanicsOnDrop));
    let models = models.weigh(|_model| panic!("a broken header")).build().unwrap();
    for key in ["a", "b"] {
        let error = in_time(models.get(key)).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("a broken header"), "{error}");
    }
    assert_eq!((models.stats().loads_failed, models.stats().bytes), (2, 0));
}
