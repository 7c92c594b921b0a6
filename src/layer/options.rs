//! The options of a layer.

use crate::terms::Deadline;
use crate::timer::{self, Sleep};

pub(super) use crate::select::Options;

impl Options {
    /// Whether the layer, or one that `or` has combined, has a policy for bodies.
    pub(super) const fn has_policy(&self) -> bool {
        self.body.is_some() || self.policy_in_branch
    }

    /// A timer that ends at the request's deadline, if its handler is cancelled then.
    pub(super) fn late_after(&self, deadline: Option<Deadline>) -> Option<Sleep> {
        deadline.filter(|_| self.cancel_late).map(|deadline| timer::sleep_until(deadline.moment()))
    }
}
