//! The pool of slots, as they see it: how many values there may be, and whether it drains.

#[cfg(all(test, tower_offload_loom))]
use std::sync::Arc;

use crate::error::{Reason, Rejection};
use crate::pool::Pool;
use crate::workload::Workload;

/// The pool that bounds the values.
#[derive(Clone, Debug)]
pub(super) enum Bounds {
    Pool(Pool),
    /// The pools are disabled.
    None,
    /// A limit of the models.
    #[cfg(all(test, tower_offload_loom))]
    Model(Arc<loom::sync::atomic::AtomicUsize>),
}

impl Bounds {
    pub(super) const fn pool(&self) -> Option<&Pool> {
        match self {
            Self::Pool(pool) => Some(pool),
            _ => None,
        }
    }

    /// How many values there may be, now.
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Pool(pool) => pool.concurrency_limit(),
            Self::None => usize::MAX,
            #[cfg(all(test, tower_offload_loom))]
            Self::Model(limit) => limit.load(std::sync::atomic::Ordering::Relaxed),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.pool().is_some_and(Pool::is_draining)
    }

    pub(super) fn name(&self) -> Workload {
        self.pool().map_or_else(|| Workload::from("disabled"), |pool| pool.name().clone())
    }

    /// The rejection of what is asked for while the pool drains.
    pub(super) fn draining(&self) -> Rejection {
        Rejection::new(self.name(), Reason::Draining, None)
    }
}

impl From<Option<Pool>> for Bounds {
    fn from(pool: Option<Pool>) -> Self {
        pool.map_or(Self::None, Self::Pool)
    }
}
