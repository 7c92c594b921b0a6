//! Sentry's hub, with the hook that the documentation of `PoolsBuilder::context` describes.

use std::cell::Cell;
use std::sync::Arc;

use sentry_core::test::TestTransport;
use sentry_core::{Client, ClientOptions, Hub, Level, Scope};
use tower_offload::pools::PoolsBuilder;

use crate::properties::{Ambient, properties_of};

/// The number is a tag of the hub's scope, which every event of the hub has.
struct Tagged;

thread_local! {
    /// The tag of the event that this thread captured last.
    static CAPTURED: Cell<Option<u8>> = const { Cell::new(None) };
}

/// A client that notes the tag of each event on the thread that captures it, and sends nothing.
fn client() -> Arc<Client> {
    let mut options = ClientOptions::default();
    options.dsn = Some("https://public@sentry.invalid/1".parse().expect("it is valid"));
    options.transport = Some(Arc::new(TestTransport::new()));
    options.before_send = Some(Arc::new(|event| {
        CAPTURED.set(event.tags.get("number").and_then(|number| number.parse().ok()));
        None
    }));
    Arc::new(options.into())
}

impl Ambient for Tagged {
    fn carried(pools: PoolsBuilder) -> PoolsBuilder {
        pools.context(|| {
            let hub = Hub::current();
            move |run: &mut dyn FnMut()| Hub::run(hub.clone(), run)
        })
    }

    fn enter<T>(number: u8, run: impl FnOnce() -> T) -> T {
        let hub = Arc::new(Hub::new(Some(client()), Arc::new(Scope::default())));
        hub.configure_scope(|scope| scope.set_tag("number", number));
        Hub::run(hub, run)
    }

    fn current() -> Option<u8> {
        CAPTURED.set(None);
        Hub::current().capture_message("where am I?", Level::Info);
        CAPTURED.take()
    }
}

properties_of!(Tagged);
