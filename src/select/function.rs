//! Selection by a closure of the application.

use std::fmt;
use std::sync::Arc;

use super::{Select, Selection, Target};
use crate::pools::Pools;
use crate::workload::PoolName;

/// Selects by a function of the request. A request for which it returns `None` runs inline; a name that
/// no pool has is a rejection with a status of 500.
pub struct ByFn<F> {
    pools: Pools,
    function: Arc<F>,
}

impl<F> ByFn<F> {
    pub(crate) fn new(pools: Pools, function: F) -> Self {
        Self { pools, function: Arc::new(function) }
    }
}

impl<F, Req, N> Select<Req> for ByFn<F>
where
    F: Fn(&Req) -> Option<N> + Send + Sync + 'static,
    N: PoolName,
{
    fn select(&self, request: &Req) -> Selection {
        let name = (self.function)(request);
        name.map_or_else(Selection::inline, |name| Selection::new(Target::resolve(&self.pools, name)))
    }
}

/// The clone shares the function.
impl<F> Clone for ByFn<F> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), function: Arc::clone(&self.function) }
    }
}

impl<F> fmt::Debug for ByFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByFn").field("function", &std::any::type_name::<F>()).finish_non_exhaustive()
    }
}
