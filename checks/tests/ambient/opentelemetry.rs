//! OpenTelemetry's `Context`, with the hook that the documentation of `PoolsBuilder::context` describes.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tower_offload::pools::PoolsBuilder;

use crate::properties::{Ambient, properties_of};

/// The number is the trace's id.
struct Trace;

impl Ambient for Trace {
    fn carried(pools: PoolsBuilder) -> PoolsBuilder {
        pools.context(|| {
            let context = Context::current();
            move |run: &mut dyn FnMut()| {
                let _attached = context.clone().attach();
                run();
            }
        })
    }

    fn enter<T>(number: u8, run: impl FnOnce() -> T) -> T {
        let id = TraceId::from(u128::from(number) + 1);
        let span = SpanContext::new(id, SpanId::from(1), TraceFlags::SAMPLED, true, TraceState::default());
        let _attached = Context::current().with_remote_span_context(span).attach();
        run()
    }

    fn current() -> Option<u8> {
        let context = Context::current();
        let id = context.span().span_context().trace_id();
        (id != TraceId::INVALID).then(|| id.to_bytes()[15] - 1)
    }
}

properties_of!(Trace);
