//! The global `tracing` dispatcher, alone in its process: it is not set a second time on the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower::{Layer, ServiceExt, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};
use tracing::dispatcher;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::SubscriberExt;

/// Counts the events of this test.
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

/// Where the dispatcher of this thread stands: for the global one that is one place for all threads.
fn place_of_dispatcher() -> usize {
    dispatcher::get_default(|current| std::ptr::from_ref(current).addr())
}

#[tokio::test]
async fn a_worker_takes_the_global_dispatcher_as_it_is_and_a_scoped_one_for_one_request() {
    let global = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Events(global.clone()))).unwrap();
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).build().unwrap();
    let service = PoolLayer::<Cpu>::new(&pools).any_request().layer(service_fn(|()| async {
        tracing::info!(marked = 1, "in the handler");
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(place_of_dispatcher())
    }));

    let place = place_of_dispatcher();
    assert_eq!(service.clone().oneshot(()).await.unwrap(), place);
    assert_eq!(global.load(Ordering::SeqCst), 1);

    let scoped = Arc::new(AtomicUsize::new(0));
    let in_scope = {
        let _here = tracing::subscriber::set_default(tracing_subscriber::registry().with(Events(scoped.clone())));
        service.clone().oneshot(()).await.unwrap()
    };
    assert_ne!(in_scope, place);
    assert_eq!((global.load(Ordering::SeqCst), scoped.load(Ordering::SeqCst)), (1, 1));

    assert_eq!(service.oneshot(()).await.unwrap(), place, "the worker has the global one again");
    assert_eq!(global.load(Ordering::SeqCst), 2);
}
