//! The readings of a dashboard in addition to a pool's numbers: waits by length, and the states of its workers' threads.

use super::submit::Pool;
use crate::metrics::waits::WaitCounts;
use crate::thread_state;

impl Pool {
    /// The times for which started tasks were queued.
    pub(crate) fn waits(&self) -> WaitCounts {
        self.shared().waits.total()
    }

    /// How many of the workers that poll a task are runnable; `None` if the kernel does not show that.
    pub(crate) fn runnable_workers(&self) -> Option<usize> {
        let threads = || self.shared().dispatch.polling_threads();
        thread_state::IS_KNOWN.then(|| threads().into_iter().filter(|thread| thread_state::runs(*thread)).count())
    }
}
