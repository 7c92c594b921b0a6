//! What travels with a job from the thread that submits it to the worker that polls it: the Tokio handle, the `tracing`
//! span, and the dispatcher if it is a scoped one.

use tokio::runtime::{EnterGuard, Handle};
use tracing::Span;
use tracing::dispatcher::{self, Dispatch};
use tracing::span::Entered;
use tracing::subscriber::DefaultGuard;

#[derive(Debug)]
pub(crate) struct JobContext {
    tokio: Option<Handle>,
    span: Span,
    dispatch: Carried,
}

#[derive(Debug)]
struct Carried {
    dispatch: Dispatch,
    place: usize,
}

/// Everything is entered while this lives.
#[derive(Debug)]
pub(crate) struct InContext<'a> {
    // In this order: the span is left before the dispatcher that knows it.
    _span: Entered<'a>,
    _dispatch: Option<DefaultGuard>,
    _tokio: Option<EnterGuard<'a>>,
}

impl JobContext {
    /// The context of the thread that submits.
    pub(crate) fn capture() -> Self {
        let dispatch =
            dispatcher::get_default(|current| Carried { dispatch: current.clone(), place: place_of(current) });
        Self { tokio: Handle::try_current().ok(), span: Span::current(), dispatch }
    }

    pub(crate) fn enter(&self) -> InContext<'_> {
        InContext {
            _tokio: self.tokio.as_ref().map(Handle::enter),
            _dispatch: self.dispatch.enter(),
            _span: self.span.enter(),
        }
    }
}

impl Carried {
    /// Sets the dispatcher on this thread, unless it is the one that this thread has anyway.
    ///
    /// A dispatcher that is set for a thread takes the whole process off `tracing`'s fast path for as long as it is, so
    /// the global one must not be set again. `tracing` cannot be asked which of the two a dispatcher is. But the global
    /// one is handed out by reference to one place for all threads, and a scoped one by reference into its thread.
    fn enter(&self) -> Option<DefaultGuard> {
        let here = dispatcher::get_default(place_of);
        (here != self.place).then(|| dispatcher::set_default(&self.dispatch))
    }
}

fn place_of(dispatch: &Dispatch) -> usize {
    std::ptr::from_ref(dispatch).addr()
}
