//! What remains to be done when a pool's lock has been released.

use std::task::Waker;

use super::allotment::Report;
use super::workers::Wake;
use crate::admission::{Evicted, Timestamp};

/// Work that is put off until the pool's lock is released: it calls code of the application, or may take long.
#[must_use]
#[derive(Debug)]
pub(crate) struct Effects<T> {
    pub(crate) wake: Wake,
    /// Queued tasks that ended without starting: their callers are to be told why.
    pub(crate) evicted: Vec<Evicted<T>>,
    /// Tasks that have ended, and only hold values of the application.
    pub(crate) garbage: Vec<T>,
    /// Callers of a drain: nothing is queued or in flight.
    pub(crate) idle: Vec<Waker>,
    /// [`Dispatch::expire`](super::dispatch::Dispatch::expire) is to be called at this time.
    pub(crate) expire_at: Option<Timestamp>,
    /// The sampler is to start.
    pub(crate) sample: bool,
    /// What the budget of cores must learn.
    pub(crate) report: Option<Report>,
    /// A task that waits outside of the queue would be admitted.
    pub(crate) room: bool,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            wake: Wake::Nobody,
            evicted: Vec::new(),
            garbage: Vec::new(),
            idle: Vec::new(),
            expire_at: None,
            sample: false,
            report: None,
            room: false,
        }
    }
}

impl<T> Effects<T> {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { wake, evicted, garbage, idle, expire_at, sample, report, room } = self;
        matches!(wake, Wake::Nobody)
            && evicted.is_empty()
            && garbage.is_empty()
            && idle.is_empty()
            && expire_at.is_none()
            && !sample
            && report.is_none()
            && !room
    }
}
