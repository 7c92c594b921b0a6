//! A signal to many tasks that is given once: that a drain is announced, or that a shutdown cuts the tasks off.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::shield::shielded;

/// A signal that is given once, and stays given.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_given: AtomicBool,
    notify: Notify,
}

impl Signal {
    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        // This calls wakers.
        shielded(|| self.notify.notify_waiters());
    }

    pub(crate) fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Acquire)
    }

    pub(crate) async fn given(&self) {
        // The flag is read after `notified` was made: a signal in between ends it.
        let notified = self.notify.notified();
        if !self.is_given() {
            notified.await;
        }
    }
}
