//! Starts the threads that load values and models aside, while the pool serves.

use std::io;

use tokio::runtime::Handle;
use tracing::Span;

use super::recipe::caught;
use crate::error::MakeError;
use crate::shield::shielded;
use crate::threads;

/// The `nice` value of loaders: a loader takes about a tenth of the time of a worker on the same core (Linux).
pub(super) const NICE: i32 = 10;

/// Where a loader calls the application's functions: the Tokio runtime and the span of the caller.
#[derive(Clone, Debug)]
pub(super) struct Context {
    runtime: Option<Handle>,
    span: Span,
}

impl Context {
    /// The context of the calling thread.
    pub(super) fn capture() -> Self {
        Self { runtime: Handle::try_current().ok(), span: Span::current() }
    }

    /// Calls a function of the application in this context. A panic becomes an error. A subscriber that panics as the span
    /// is entered or exited changes nothing.
    pub(super) fn run<T>(&self, call: impl FnOnce() -> Result<T, MakeError>) -> Result<T, MakeError> {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        let span = shielded(|| self.span.enter());
        let result = caught(call);
        shielded(|| drop(span));
        result
    }
}

/// Starts a thread with a `nice` value.
///
/// # Errors
///
/// The error of the operating system, if it cannot start another thread.
pub(super) fn start(nice: i32, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    threads::start("offload-loader".to_owned(), None, move || {
        if nice != 0 {
            // Without the right to it, or on another system than Linux, the thread runs as all others do.
            let _ = threads::renice(nice);
        }
        shielded(body);
    })
}
