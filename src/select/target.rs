//! The target of a request: a pool, or inline.

use crate::pool::Pool;
use crate::pools::Pools;
use crate::workload::{PoolName, Workload};

/// The target of a request: a pool, or inline. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Target {
    /// The request runs inline: no pool was chosen.
    Inline,
    /// The request runs in this pool.
    Pool(Pool),
    /// No pool has this name: the request is answered with a status of 500.
    Unknown(Workload),
}

impl Target {
    pub(crate) fn resolve(pools: &Pools, name: impl PoolName) -> Self {
        if pools.is_disabled() {
            return Self::Inline;
        }
        match pools.find(name.pool_name()) {
            Some(pool) => Self::Pool(pool.clone()),
            None => Self::Unknown(name.to_workload()),
        }
    }
}
