//! A selector with the pool that its layer was made for.

use super::{Select, Target};

/// How the pool of a request is chosen.
#[derive(Debug)]
pub(crate) struct Choice<W> {
    pub(crate) selector: W,
    /// The pool that the layer was made for.
    pub(crate) own: Target,
}

impl<W> Choice<W> {
    pub(crate) fn select<Req>(&self, request: &Req) -> Target
    where
        W: Select<Req>,
    {
        self.selector.select(request, &self.own)
    }
}
