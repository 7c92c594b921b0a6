//! Selection by two selectors, the second of which is asked if the first chooses no pool.

use super::selection::Options;
use super::{Select, Selection};

/// Asks the first selector, and the second if the first chose no pool; made by
/// [`PoolLayer::or`](crate::PoolLayer::or).
///
/// A request has the pool, the priority, the caller and the options of the branch that chose it. If neither branch
/// chooses a pool, the request runs inline.
#[derive(Clone, Debug)]
pub struct Or<A, B> {
    first: Branch<A>,
    second: Branch<B>,
}

/// A selector, and what its layer does with the requests it chooses a pool for.
#[derive(Clone, Debug)]
pub(crate) struct Branch<W> {
    pub(crate) selector: W,
    pub(crate) options: Options,
}

impl<A, B> Or<A, B> {
    pub(crate) const fn new(first: Branch<A>, second: Branch<B>) -> Self {
        Self { first, second }
    }
}

impl<W> Branch<W> {
    fn select<Req>(&self, request: &Req) -> Selection
    where
        W: Select<Req>,
    {
        let selection = self.selector.select(request);
        let options = selection.options.clone().union(&self.options);
        Selection { options, ..selection }
    }
}

impl<A, B, Req> Select<Req> for Or<A, B>
where
    A: Select<Req>,
    B: Select<Req>,
{
    fn select(&self, request: &Req) -> Selection {
        let selection = self.first.select(request);
        if selection.is_inline() { self.second.select(request) } else { selection }
    }
}
