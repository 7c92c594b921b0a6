//! What a layer does beside choosing the pool and answering rejections.

use crate::terms::Deadline;
use crate::timer::{self, Sleep};

/// What a layer does beside choosing the pool and answering rejections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// A handler's panic goes on in the response future.
    pub(super) resume_panics: bool,
    /// A handler that is in flight at its request's deadline is cancelled.
    pub(super) cancel_late: bool,
}

impl Options {
    /// The end of the time that a request has, if that is to end its handler.
    pub(super) fn late_after(self, deadline: Option<Deadline>) -> Option<Sleep> {
        deadline.filter(|_| self.cancel_late).map(|deadline| timer::sleep_until(deadline.moment()))
    }
}
