//! The signal that the client of a response has stopped to read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Set when the client of a response has read nothing for the stall timeout; an extension of the response.
///
/// A server that does not poll the body, because its connection takes no bytes, learns from this that it should close
/// the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct StallSignal(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    set: AtomicBool,
    notify: Notify,
}

impl StallSignal {
    pub(crate) fn set(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Waits until the signal is set.
    pub(crate) async fn stalled(&self) {
        let notified = self.0.notify.notified();
        if !self.0.set.load(Ordering::Acquire) {
            notified.await;
        }
    }
}
