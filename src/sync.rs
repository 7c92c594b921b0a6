//! The synchronization primitives of workers: those of `std`, or those of loom and shuttle in the models.

#[cfg(not(any(tower_offload_loom, tower_offload_shuttle)))]
mod imp {
    pub(crate) use std::sync::atomic::AtomicU32;
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread::{Thread, current, park_timeout};
}

#[cfg(tower_offload_loom)]
mod imp {
    pub(crate) use loom::sync::atomic::AtomicU32;
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::{Thread, current};

    /// Models have no clock: a parked worker waits until it is unparked.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        loom::thread::park();
    }

    /// Primitives for the models only.
    #[cfg(test)]
    pub(crate) mod checked {
        pub(crate) use loom::sync::Notify;
        pub(crate) use loom::thread::{JoinHandle, spawn};
    }
}

#[cfg(tower_offload_shuttle)]
mod imp {
    pub(crate) use shuttle::sync::atomic::AtomicU32;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use shuttle::thread::{Thread, current};

    /// Models have no clock: a parked worker waits until it is unparked.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        shuttle::thread::park();
    }

    #[cfg(test)]
    pub(crate) mod checked {
        pub(crate) use shuttle::thread::{JoinHandle, spawn};

        /// The counterpart of loom's `Notify`, which shuttle lacks: one `notify` lets one `wait` return.
        #[derive(Debug, Default)]
        pub(crate) struct Notify {
            told: shuttle::sync::Mutex<bool>,
            tell: shuttle::sync::Condvar,
        }

        impl Notify {
            pub(crate) fn new() -> Self {
                Self::default()
            }

            pub(crate) fn notify(&self) {
                *crate::sync::lock(&self.told) = true;
                self.tell.notify_one();
            }

            pub(crate) fn wait(&self) {
                let mut told = crate::sync::lock(&self.told);
                while !std::mem::take(&mut *told) {
                    told = self.tell.wait(told).unwrap_or_else(std::sync::PoisonError::into_inner);
                }
            }
        }
    }
}

pub(crate) use self::imp::*;

/// Locks a mutex, and ignores poisoning: what the mutex protects is whole whenever code of the application may panic under
/// it. Under the lock of a pool no such code runs.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The same for a mutex of the standard library, which the models do not check.
pub(crate) fn lock_std<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
