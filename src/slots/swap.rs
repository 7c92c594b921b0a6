//! `Slots::swap`: replaces the values while the pool serves.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::inner::Loader;
use super::lender::Open;
use super::loader::{self, Context};
use super::recipe::BoxError;
use super::request::{Request, Swapped};
use super::rollout::Rollouts;
use super::slots::Slots;
use crate::error::{MakeError, SlotError};

impl<T: Send + 'static> Slots<T> {
    /// Replaces all values by values of a new version, while the pool serves.
    ///
    /// A thread of its own, with a low priority, calls `make` and the warm-up of the slots. Until the first value is
    /// ready, nothing changes; if it cannot be made, nothing has changed. Then this version takes effect: it makes all
    /// further values. Each value of an earlier version serves until one of the new version is ready to replace it.
    /// There is at most one value more than the pool's limit.
    ///
    /// The future ends when the last value is replaced, or earlier, if a later value cannot be made, another swap takes
    /// effect, or the pool drains: [`Swapped::outdated`] is the number of earlier values that are left. No task fails
    /// because of a swap: while it lasts, a task that needs a further value gets one of the version before, if the new
    /// version fails.
    ///
    /// # Several swaps
    ///
    /// They take effect one after the other, in the order of their first poll. A swap does not wait until the one before
    /// has replaced every value: it replaces what is left of all earlier versions.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped before the version took effect, nothing changes: a value that is being made is dropped.
    /// Later, the replacement continues without it.
    ///
    /// # Errors
    ///
    /// If the first value cannot be made or warmed up, the pool drains, or no thread can be started.
    pub fn swap<F, E>(&self, make: F) -> impl Future<Output = Result<Swapped, SlotError>> + Send + use<T, F, E>
    where
        F: Fn() -> Result<T, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        let (slots, context) = (self.clone(), Context::capture());
        let make = Arc::new(move || make().map_err(Into::into));
        async move {
            let (caller, result) = oneshot::channel();
            slots.request(Request { make, context, caller })?;
            // The slots stay open while their swap is awaited.
            let result = result.await.unwrap_or(Err(SlotError::Closed));
            drop(slots);
            result
        }
    }

    /// Hands a swap to the loader, and starts the loader if there is none.
    fn request(&self, request: Request<T>) -> Result<(), SlotError> {
        let Open { inner, hooks, bounds, nice, .. } = &*self.lender.0;
        if !inner.add_request(request) {
            return Ok(());
        }
        let rollouts = Rollouts { inner: inner.clone(), hooks: hooks.clone(), bounds: bounds.clone() };
        loader::start(*nice, move || rollouts.run()).map_err(|error| {
            let mut state = inner.lock();
            state.loader = Loader::None;
            let requests = std::mem::take(&mut state.requests);
            drop(state);
            let error = MakeError::new(error);
            // The swap of this caller is among them, and those that were asked for meanwhile.
            requests.into_iter().for_each(|request| request.fail(error.clone().into()));
            SlotError::Make(error)
        })
    }
}
