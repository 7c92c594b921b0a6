//! Whether a drain of the pools was announced.

use std::future::pending;

use tokio::sync::watch;

/// Whether a drain was announced. An announcement is final.
#[derive(Debug)]
pub(crate) struct Drain {
    announced: watch::Sender<bool>,
}

impl Drain {
    pub(crate) fn announce(&self) {
        self.announced.send_replace(true);
    }

    pub(crate) fn is_announced(&self) -> bool {
        *self.announced.borrow()
    }

    /// Waits until a drain is announced. The future keeps no pool alive.
    pub(crate) fn announced(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut announced = self.announced.subscribe();
        async move {
            if announced.wait_for(|announced| *announced).await.is_err() {
                // The pools were dropped without a drain.
                pending::<()>().await;
            }
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { announced: watch::Sender::new(false) }
    }
}
