//! `tracing`'s scoped dispatcher, which travels without a hook.

use tower_offload::pools::PoolsBuilder;
use tracing::dispatcher::{Dispatch, get_default, with_default};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::properties::{Ambient, properties_of};

/// A subscriber with a number, which ignores all spans and events.
struct Numbered(u8);

impl Subscriber for Numbered {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl Ambient for Numbered {
    fn carried(pools: PoolsBuilder) -> PoolsBuilder {
        pools
    }

    fn enter<T>(number: u8, run: impl FnOnce() -> T) -> T {
        with_default(&Dispatch::new(Self(number)), run)
    }

    fn current() -> Option<u8> {
        get_default(|dispatcher| dispatcher.downcast_ref::<Self>().map(|numbered| numbered.0))
    }
}

properties_of!(Numbered);
