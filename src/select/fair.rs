//! Callers for fair queueing, found by a closure.

use std::any::Any;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::{Select, Selection};
use crate::terms::Caller;

/// A selector, with a function that finds the caller of each request; made by
/// [`PoolLayer::fair_by`](crate::PoolLayer::fair_by).
pub struct FairBy<W, F> {
    selector: W,
    function: Arc<F>,
}

impl<W, F> FairBy<W, F> {
    pub(crate) fn new(selector: W, function: F) -> Self {
        Self { selector, function: Arc::new(function) }
    }
}

impl<W, F, Req, K> Select<Req> for FairBy<W, F>
where
    W: Select<Req>,
    F: Fn(&Req) -> Option<K> + Send + Sync + 'static,
    K: Hash + 'static,
{
    fn select(&self, request: &Req) -> Selection {
        let selection = self.selector.select(request);
        if selection.is_inline() {
            return selection;
        }
        let caller = (self.function)(request).map(|key| caller_of(&key)).or(selection.caller);
        selection.caller(caller)
    }
}

/// The caller of a key. A key that is a [`Caller`] is used as it is.
fn caller_of<K: Hash + 'static>(key: &K) -> Caller {
    (key as &dyn Any).downcast_ref().copied().unwrap_or_else(|| Caller::of(key))
}

/// The clone shares the function.
impl<W: Clone, F> Clone for FairBy<W, F> {
    fn clone(&self) -> Self {
        Self { selector: self.selector.clone(), function: Arc::clone(&self.function) }
    }
}

impl<W: fmt::Debug, F> fmt::Debug for FairBy<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairBy").field("selector", &self.selector).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_a_caller_is_that_caller() {
        let caller = Caller::of("tenant-7");
        assert_eq!(caller_of(&caller), caller);
        assert_eq!(caller_of(&"tenant-7".to_owned()), caller);
        assert_ne!(caller_of(&"tenant-8"), caller);
    }
}
