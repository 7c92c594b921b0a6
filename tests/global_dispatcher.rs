//! Workers do not set the global `tracing` dispatcher again. The test sets it, so it has a process to itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower::{Layer, ServiceExt, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};
use tracing::dispatcher;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt;

/// Counts the events that the handler of this test emits.
struct Events(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _cx: tracing_subscriber::layer::Context<'_, S>) {
        struct Marked(bool);

        impl Visit for Marked {
            fn record_debug(&mut self, field: &Field, _value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "marked";
            }
        }

        let mut marked = Marked(false);
        event.record(&mut marked);
        self.0.fetch_add(marked.0.into(), Ordering::SeqCst);
    }
}

/// The address of this thread's current dispatcher. The global dispatcher has the same address on every thread.
fn address_of_dispatcher() -> usize {
    dispatcher::get_default(|current| std::ptr::from_ref(current).addr())
}

#[tokio::test]
async fn a_worker_uses_the_global_dispatcher_as_it_is_and_sets_a_scoped_one_for_one_request_only() {
    let global = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Events(global.clone()))).unwrap();
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).build().unwrap();
    let service = PoolLayer::<Cpu>::new(&pools).any_request().layer(service_fn(|()| async {
        tracing::info!(marked = 1, "in the handler");
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(address_of_dispatcher())
    }));

    let global_address = address_of_dispatcher();
    assert_eq!(service.clone().oneshot(()).await.unwrap(), global_address);
    assert_eq!(global.load(Ordering::SeqCst), 1);

    let scoped = Arc::new(AtomicUsize::new(0));
    let in_scope = {
        let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(Events(scoped.clone())));
        service.clone().oneshot(()).await.unwrap()
    };
    assert_ne!(in_scope, global_address);
    assert_eq!((global.load(Ordering::SeqCst), scoped.load(Ordering::SeqCst)), (1, 1));

    assert_eq!(service.oneshot(()).await.unwrap(), global_address, "the worker uses the global dispatcher again");
    assert_eq!(global.load(Ordering::SeqCst), 2);
}
