//! Effects: work that is deferred until a pool's lock has been released.

use std::task::Waker;

use super::workers::Wake;
use crate::admission::{Rejected, Timestamp};
use crate::cores::Report;

/// Work that is deferred until the pool's lock has been released, because it calls code of the application or may take
/// long.
#[must_use]
#[derive(Debug)]
pub(crate) struct Effects<T> {
    pub(crate) wake: Wake,
    /// Queued tasks that were rejected. Their callers get the reason.
    pub(crate) rejected: Vec<Rejected<T>>,
    /// Tasks that have ended, but still hold values of the application. A worker drops them.
    pub(crate) to_drop: Vec<T>,
    /// The wakers of drains that wait until the pool is idle, which it now is.
    pub(crate) idle: Vec<Waker>,
    /// The timer must call [`Dispatch::expire`](super::dispatch::Dispatch::expire) at this time.
    pub(crate) expire_at: Option<Timestamp>,
    /// The sampler must start.
    pub(crate) sample: bool,
    /// The report to the budget of cores.
    pub(crate) report: Option<Report>,
    /// The queue has room for a task that waits outside of it.
    pub(crate) has_room: bool,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            wake: Wake::Nobody,
            rejected: Vec::new(),
            to_drop: Vec::new(),
            idle: Vec::new(),
            expire_at: None,
            sample: false,
            report: None,
            has_room: false,
        }
    }
}

impl<T> Effects<T> {
    /// Whether a worker that performs this calls code of the application that may block.
    pub(super) fn detains(&self) -> bool {
        !self.rejected.is_empty() || !self.to_drop.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let Self { wake, rejected, to_drop, idle, expire_at, sample, report, has_room } = self;
        matches!(wake, Wake::Nobody)
            && rejected.is_empty()
            && to_drop.is_empty()
            && idle.is_empty()
            && expire_at.is_none()
            && !sample
            && report.is_none()
            && !has_room
    }
}
