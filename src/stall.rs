//! The signal that the client of a response has stopped to read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "server")]
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;

/// Set when the client of a response has read nothing for the stall timeout; an extension of the response.
///
/// A server that does not poll the body, because its connection takes no bytes, learns from this that it should close
/// the connection. If the server finds first that the client takes nothing, it sets the signal itself.
#[derive(Clone, Debug)]
pub(crate) struct StallSignal(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    timeout: Duration,
    set: AtomicBool,
    server: AtomicWaker,
}

impl StallSignal {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self(Arc::new(Signal { timeout, set: AtomicBool::new(false), server: AtomicWaker::new() }))
    }

    /// The stall timeout.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    pub(crate) fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.server.wake();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// Completes when the signal is set. Only the last task that polled is woken.
    #[cfg(feature = "server")]
    pub(crate) fn poll_set(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.server.register(cx.waker());
        if self.is_set() { Poll::Ready(()) } else { Poll::Pending }
    }
}
