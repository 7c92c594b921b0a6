//! How values are made, warmed up and checked: the functions of the application.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::stack::Slot;
use crate::error::{MakeError, Panic};
use crate::shield::shielded;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Make<T> = dyn Fn() -> Result<T, BoxError> + Send + Sync;
pub(super) type WarmUp<T> = dyn Fn(&mut T) -> Result<(), BoxError> + Send + Sync;
pub(super) type Recycle<T> = dyn Fn(&mut T) -> bool + Send + Sync;

/// A version of the values.
pub(super) struct Version<T> {
    pub(super) generation: u64,
    pub(super) make: Arc<Make<T>>,
}

/// The settings that all versions share.
pub(super) struct Hooks<T> {
    pub(super) warm_up: Option<Box<WarmUp<T>>>,
    pub(super) recycle: Option<Box<Recycle<T>>>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) max_lifetime: Option<Duration>,
    pub(super) keep_on_panic: bool,
}

impl<T> Version<T> {
    /// Makes a value and warms it up. This calls code of the application, whose panic becomes an error.
    pub(super) fn produce(&self, hooks: &Hooks<T>) -> Result<Box<Slot<T>>, MakeError> {
        let mut value = guarded(|| (self.make)())?;
        if let Some(warm_up) = &hooks.warm_up
            && let Err(error) = guarded(|| warm_up(&mut value))
        {
            shielded(|| drop(value));
            return Err(error);
        }
        Ok(Box::new(Slot { value, generation: self.generation, expires: hooks.expiry() }))
    }
}

/// Calls a function of the application. A panic becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, BoxError>) -> Result<T, MakeError> {
    caught(|| call().map_err(MakeError::new))
}

/// Calls code of the application. A panic becomes an error.
pub(super) fn caught<T>(call: impl FnOnce() -> Result<T, MakeError>) -> Result<T, MakeError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(MakeError::new(Panic::new(payload))))
}

impl<T> Hooks<T> {
    /// Whether values have a `keep_alive` or a lifetime, so that the time matters.
    pub(super) const fn is_timed(&self) -> bool {
        self.keep_alive.is_some() || self.max_lifetime.is_some()
    }

    /// The time, if it matters.
    pub(super) fn now(&self) -> Option<Instant> {
        self.is_timed().then(Instant::now)
    }

    /// Whether a value can be used again. This calls code of the application; after a panic the value cannot.
    pub(super) fn is_usable(&self, value: &mut T) -> bool {
        self.recycle.as_ref().is_none_or(|recycle| shielded(|| recycle(value)).unwrap_or(false))
    }

    /// The end of the lifetime of a value that is made now: up to a tenth earlier than the setting, so that values that
    /// were made at once do not end at once.
    fn expiry(&self) -> Option<Instant> {
        let lifetime = self.max_lifetime?;
        Instant::now().checked_add(lifetime.mul_f64(1.0 - jitter() / 10.0))
    }
}

/// A number from 0 to 1. The golden ratio's multiples are spread evenly, however many are taken.
fn jitter() -> f64 {
    static TAKEN: AtomicU64 = AtomicU64::new(1);
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let number = TAKEN.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN);
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

impl<T> fmt::Debug for Hooks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("keep_alive", &self.keep_alive).finish_non_exhaustive()
    }
}
