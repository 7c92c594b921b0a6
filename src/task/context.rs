//! The context of a task. It is captured on the thread that submits the task, and entered on the worker that polls it:
//! the Tokio handle, the `tracing` span, a scoped `tracing` dispatcher, and the captures of the application's hooks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tracing::Span;
use tracing::dispatcher::{self, Dispatch as Dispatcher};
use tracing::subscriber::DefaultGuard;

/// Enters a captured context, and calls its argument inside.
pub(crate) type Enter = Box<dyn Fn(&mut dyn FnMut()) + Send>;

/// Captures a context on the thread that submits a task.
pub(crate) type Capture = Arc<dyn Fn() -> Enter + Send + Sync>;

/// The context of one task.
pub(crate) struct TaskContext {
    tokio: Option<Handle>,
    span: Span,
    dispatcher: Carried,
    captured: Vec<Enter>,
}

struct Carried {
    dispatcher: Dispatcher,
    address: usize,
}

impl TaskContext {
    /// The context of the calling thread.
    pub(crate) fn capture(hooks: &[Capture]) -> Self {
        let dispatcher = Carried::get();
        let captured = hooks.iter().map(|capture| capture()).collect();
        Self { tokio: Handle::try_current().ok(), span: Span::current(), dispatcher, captured }
    }

    /// No context of the application, for a task of this crate that another thread of it submits.
    pub(crate) fn none() -> Self {
        Self { tokio: None, span: Span::none(), dispatcher: Carried::get(), captured: Vec::new() }
    }

    /// Calls `body` once in this context.
    pub(crate) fn run(&self, body: impl FnOnce()) {
        let _tokio = self.tokio.as_ref().map(Handle::enter);
        // The span is left before the dispatcher that knows it.
        let _dispatcher = self.dispatcher.enter();
        let _span = self.span.enter();
        if self.captured.is_empty() {
            return body();
        }
        let mut body = Some(body);
        let mut once = || {
            if let Some(body) = body.take() {
                body();
            }
        };
        nest(&self.captured, &mut once);
        // A hook may have failed to call its argument.
        once();
    }
}

/// Calls `body` inside all captured contexts. The first one is outermost.
fn nest(captured: &[Enter], body: &mut dyn FnMut()) {
    match captured.split_first() {
        Some((enter, rest)) => enter(&mut || nest(rest, body)),
        None => body(),
    }
}

thread_local! {
    /// The address at which this thread keeps every scoped dispatcher.
    static SCOPED: usize = {
        let _none = dispatcher::set_default(&Dispatcher::none());
        dispatcher::get_default(address_of)
    };
}

impl Carried {
    /// The dispatcher of this thread.
    fn get() -> Self {
        dispatcher::get_default(|current| Self { dispatcher: current.clone(), address: address_of(current) })
    }

    /// Sets the dispatcher on this thread, unless it is the global one and this thread has no other.
    ///
    /// While any thread has a scoped dispatcher, `tracing` takes its slow path in the whole process, so the global
    /// dispatcher must not be set again. `tracing` does not say which of the two a dispatcher is, but it hands out
    /// references: to one place of the process for the global dispatcher, and to one place of the thread for every
    /// scoped one. So two equal addresses mean the global dispatcher, unless it is the address at which this thread
    /// keeps scoped ones.
    fn enter(&self) -> Option<DefaultGuard> {
        let here = dispatcher::get_default(address_of);
        let is_global = here == self.address && here != SCOPED.with(|scoped| *scoped);
        (!is_global).then(|| dispatcher::set_default(&self.dispatcher))
    }
}

fn address_of(dispatcher: &Dispatcher) -> usize {
    std::ptr::from_ref(dispatcher).addr()
}
