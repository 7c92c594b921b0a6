//! Selectors that also say how urgent a request is, or on whose behalf it comes.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, LazyLock};

use super::choice::Choice;
use super::{Select, Target};
use crate::terms::Priority;

/// A selector with the priority that a function gives each request; made by
/// [`PoolLayer::priority_by`](crate::PoolLayer::priority_by).
pub struct PriorityBy<W, F> {
    choice: Arc<Choice<W>>,
    function: F,
}

/// A selector with the caller that a function finds in each request; made by
/// [`PoolLayer::fair_by`](crate::PoolLayer::fair_by).
pub struct FairBy<W, F> {
    choice: Arc<Choice<W>>,
    function: F,
}

/// Seeded by chance, so that nobody can choose names that collide; once, so that a caller who comes through several
/// layers is the same in each.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl<W, F> PriorityBy<W, F> {
    pub(crate) const fn new(choice: Arc<Choice<W>>, function: F) -> Self {
        Self { choice, function }
    }
}

impl<W, F> FairBy<W, F> {
    pub(crate) const fn new(choice: Arc<Choice<W>>, function: F) -> Self {
        Self { choice, function }
    }
}

impl<W, F, Req> Select<Req> for PriorityBy<W, F>
where
    W: Select<Req>,
    F: Fn(&Req) -> Option<Priority>,
{
    fn select(&self, request: &Req, _own: &Target) -> Target {
        self.choice.select(request)
    }

    fn priority(&self, request: &Req) -> Option<Priority> {
        (self.function)(request).or_else(|| self.choice.selector.priority(request))
    }

    fn caller(&self, request: &Req) -> Option<u64> {
        self.choice.selector.caller(request)
    }
}

impl<W, F, Req, K> Select<Req> for FairBy<W, F>
where
    W: Select<Req>,
    F: Fn(&Req) -> Option<K>,
    K: Hash,
{
    fn select(&self, request: &Req, _own: &Target) -> Target {
        self.choice.select(request)
    }

    fn priority(&self, request: &Req) -> Option<Priority> {
        self.choice.selector.priority(request)
    }

    fn caller(&self, request: &Req) -> Option<u64> {
        (self.function)(request).map(|key| HASHER.hash_one(key))
    }
}

impl<W: fmt::Debug, F> fmt::Debug for PriorityBy<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityBy").field("selector", &self.choice.selector).finish_non_exhaustive()
    }
}

impl<W: fmt::Debug, F> fmt::Debug for FairBy<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairBy").field("selector", &self.choice.selector).finish_non_exhaustive()
    }
}
