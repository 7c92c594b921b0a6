//! The result of a selector.

use std::sync::Arc;

use super::Target;
use crate::config::BodyPolicy;
use crate::terms::{Caller, Priority};

/// The result of a selector: the target of a request, its priority and its caller.
///
/// ```
/// use tower_offload::select::Selection;
/// use tower_offload::{Caller, Pools, Priority};
///
/// let pools = Pools::default();
/// let selection = Selection::new(pools.target("db")?).priority(Priority::High).caller(Caller::of("tenant-7"));
/// # let _ = selection;
/// # Ok::<(), tower_offload::error::UnknownPool>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The pool, or inline.
    pub target: Target,
    /// How important the request is. `None` leaves that to the header that the pool trusts, or else to the
    /// [`Priority`] among the request's extensions.
    pub priority: Option<Priority>,
    /// The caller for fair queueing. `None` leaves that to the [`Caller`] among the request's extensions.
    pub caller: Option<Caller>,
    /// The options of the branch that chose the pool, in addition to those of the layer.
    pub(crate) options: Options,
}

/// The options of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A handler's panic continues in the response future.
    pub(crate) resume_panics: bool,
    /// A handler that is in flight at its request's deadline is cancelled.
    pub(crate) cancel_late: bool,
    /// A handler runs to its end although its client has left.
    pub(crate) detach: bool,
    /// Responses tell how long their requests were queued and ran.
    pub(crate) server_timing: bool,
    /// Requests have spans for their time in the queue and for their run.
    pub(crate) spans: bool,
    /// The policy for the bodies of responses, if it is not the pool's.
    pub(crate) body: Option<Arc<BodyPolicy>>,
    /// Responses keep their type, so no policy for their bodies has an effect.
    pub(crate) keeps_responses: bool,
    /// A layer that `or` has combined has a policy for bodies.
    pub(crate) policy_in_branch: bool,
}

impl Options {
    pub(crate) const NONE: Self = Self {
        resume_panics: false,
        cancel_late: false,
        detach: false,
        server_timing: false,
        spans: false,
        body: None,
        keeps_responses: false,
        policy_in_branch: false,
    };
}

impl Selection {
    /// A selection of this target.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self { target, priority: None, caller: None, options: Options::NONE }
    }

    /// No pool: the request runs inline.
    #[must_use]
    pub const fn inline() -> Self {
        Self::new(Target::Inline)
    }

    /// Sets how important the request is.
    #[must_use]
    pub fn priority(mut self, priority: impl Into<Option<Priority>>) -> Self {
        self.priority = priority.into();
        self
    }

    /// Sets the caller for fair queueing.
    #[must_use]
    pub fn caller(mut self, caller: impl Into<Option<Caller>>) -> Self {
        self.caller = caller.into();
        self
    }

    /// Whether no pool was chosen.
    #[must_use]
    pub const fn is_inline(&self) -> bool {
        matches!(self.target, Target::Inline)
    }
}

impl Options {
    /// Every option that is on in one of the two, and the first policy for bodies that is set.
    pub(crate) fn union(self, other: &Self) -> Self {
        Self {
            resume_panics: self.resume_panics || other.resume_panics,
            cancel_late: self.cancel_late || other.cancel_late,
            detach: self.detach || other.detach,
            server_timing: self.server_timing || other.server_timing,
            spans: self.spans || other.spans,
            body: self.body.or_else(|| other.body.clone()),
            keeps_responses: self.keeps_responses || other.keeps_responses,
            policy_in_branch: self.policy_in_branch || other.policy_in_branch,
        }
    }
}
