//! Selection by a request's extension: earlier middleware named the pool.

use std::fmt;

use http::Request;

use super::{Select, Selection, Target};
use crate::pools::Pools;
use crate::workload::Workload;

/// Selects by the [`Workload`] among a request's extensions. A request without one runs inline; a name that
/// no pool has is a rejection with a status of 500.
#[derive(Clone)]
pub struct ByExtension {
    pools: Pools,
}

impl ByExtension {
    pub(crate) const fn new(pools: Pools) -> Self {
        Self { pools }
    }
}

impl<B> Select<Request<B>> for ByExtension {
    fn select(&self, request: &Request<B>) -> Selection {
        let name = request.extensions().get::<Workload>();
        name.map_or_else(Selection::inline, |name| Selection::new(Target::resolve(&self.pools, name)))
    }
}

impl fmt::Debug for ByExtension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByExtension").finish_non_exhaustive()
    }
}
