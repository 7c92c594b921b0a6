//! Priorities, found by a closure.

use std::fmt;
use std::sync::Arc;

use super::{Select, Selection};
use crate::terms::Priority;

/// A selector, with a function that gives each request its priority; made by
/// [`PoolLayer::priority_by`](crate::PoolLayer::priority_by).
pub struct PriorityBy<W, F> {
    selector: W,
    function: Arc<F>,
}

impl<W, F> PriorityBy<W, F> {
    pub(crate) fn new(selector: W, function: F) -> Self {
        Self { selector, function: Arc::new(function) }
    }
}

impl<W, F, Req> Select<Req> for PriorityBy<W, F>
where
    W: Select<Req>,
    F: Fn(&Req) -> Option<Priority> + Send + Sync + 'static,
{
    fn select(&self, request: &Req) -> Selection {
        let selection = self.selector.select(request);
        if selection.is_inline() {
            return selection;
        }
        let priority = (self.function)(request).or(selection.priority);
        selection.priority(priority)
    }
}

/// The clone shares the function.
impl<W: Clone, F> Clone for PriorityBy<W, F> {
    fn clone(&self) -> Self {
        Self { selector: self.selector.clone(), function: Arc::clone(&self.function) }
    }
}

impl<W: fmt::Debug, F> fmt::Debug for PriorityBy<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriorityBy").field("selector", &self.selector).finish_non_exhaustive()
    }
}
