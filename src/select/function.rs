//! By closure: a request runs in the pool that the user's function names.

use std::fmt;

use super::{Select, Target};
use crate::pools::Pools;
use crate::workload::PoolName;

/// Selects by a function of the request; where it names no pool, the request runs inline.
#[derive(Clone)]
pub struct ByFn<F> {
    pools: Pools,
    function: F,
}

impl<F> ByFn<F> {
    pub(crate) const fn new(pools: Pools, function: F) -> Self {
        Self { pools, function }
    }
}

impl<F, Req, N> Select<Req> for ByFn<F>
where
    F: Fn(&Req) -> Option<N>,
    N: PoolName,
{
    fn select(&self, request: &Req, _own: &Target) -> Target {
        (self.function)(request).map_or(Target::Inline, |name| Target::resolve(&self.pools, name))
    }
}

impl<F> fmt::Debug for ByFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByFn").field("function", &std::any::type_name::<F>()).finish_non_exhaustive()
    }
}
