//! The lock and the parking that workers use: from `std`, or from loom in the interleaving models.

#[cfg(not(tower_offload_loom))]
mod imp {
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::{Thread, current, park_timeout};
}

#[cfg(tower_offload_loom)]
mod imp {
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::{Thread, current};

    /// Models have no clock: a worker there is woken or waits for ever.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        loom::thread::park();
    }
}

pub(crate) use self::imp::*;

/// Locks, also after a panic under the lock: no user code runs under ours, so the value is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
