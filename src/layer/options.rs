//! The options of a layer.

use crate::terms::Deadline;
use crate::timer::{self, Sleep};

pub(super) use crate::select::Options;

impl Options {
    /// A timer that ends at the request's deadline, if its handler is cancelled then.
    pub(super) fn late_after(&self, deadline: Option<Deadline>) -> Option<Sleep> {
        deadline.filter(|_| self.cancel_late).map(|deadline| timer::sleep_until(deadline.moment()))
    }
}
