//! One selector after the other.

use std::sync::Arc;

use super::choice::Choice;
use super::{Select, Target};
use crate::terms::Priority;

/// Asks the first selector, and the second where the first chose no pool.
#[derive(Debug)]
pub struct Or<A, B> {
    first: Arc<Choice<A>>,
    second: Arc<Choice<B>>,
}

impl<A, B> Or<A, B> {
    pub(crate) const fn new(first: Arc<Choice<A>>, second: Arc<Choice<B>>) -> Self {
        Self { first, second }
    }
}

impl<A, B, Req> Select<Req> for Or<A, B>
where
    A: Select<Req>,
    B: Select<Req>,
{
    fn select(&self, request: &Req, _own: &Target) -> Target {
        match self.first.select(request) {
            Target::Inline => self.second.select(request),
            chosen => chosen,
        }
    }

    fn priority(&self, request: &Req) -> Option<Priority> {
        self.first.selector.priority(request).or_else(|| self.second.selector.priority(request))
    }

    fn caller(&self, request: &Req) -> Option<u64> {
        self.first.selector.caller(request).or_else(|| self.second.selector.caller(request))
    }
}

impl<A, B> Clone for Or<A, B> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), second: self.second.clone() }
    }
}
