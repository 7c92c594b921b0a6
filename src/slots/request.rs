//! A swap as its caller and the loader see it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot::Sender;

use super::loader::Context;
use super::recipe::Make;
use crate::error::{MakeError, SlotError};
use crate::shield::shielded;

/// The result of a swap that took effect: every value that is made from now on is of the new version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Swapped {
    /// The new version's number.
    pub generation: u64,
    /// Values of earlier versions that were replaced.
    pub replaced: usize,
    /// Values of earlier versions that still serve: a later value could not be made, another swap has begun, or the
    /// pool drains.
    pub outdated: usize,
    /// Why a later value of the new version could not be made. The attempt is repeated, after 1 s at first and then
    /// after twice as long each time, up to a minute, until it succeeds.
    pub error: Option<MakeError>,
}

impl Swapped {
    /// Whether no value of an earlier version serves any more.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.outdated == 0
    }
}

/// A swap that has not begun.
pub(super) struct Request<T> {
    pub(super) make: Arc<Make<T>>,
    pub(super) context: Context,
    pub(super) caller: Sender<Result<Swapped, SlotError>>,
}

/// A swap that has taken effect, and whose values replace the earlier ones.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) generation: u64,
    pub(super) replaced: usize,
    pub(super) context: Context,
    /// `None` once the caller has its result.
    caller: Option<Sender<Result<Swapped, SlotError>>>,
}

/// The result of a swap, on its way to the caller.
#[must_use]
pub(super) struct Report {
    caller: Option<Sender<Result<Swapped, SlotError>>>,
    swapped: Swapped,
}

impl<T> Request<T> {
    /// Gives the caller an error, and drops the function of the application.
    pub(super) fn fail(self, error: SlotError) {
        let Self { make, context, caller } = self;
        // The caller may have left.
        shielded(|| drop(caller.send(Err(error))));
        shielded(|| drop(make));
        shielded(|| drop(context));
    }

    /// Drops the swap of a caller that has left.
    pub(super) fn give_up(self) {
        shielded(|| drop(self));
    }

    pub(super) fn has_left(&self) -> bool {
        self.caller.is_closed()
    }

    /// Also the function of the application, to be dropped without the lock.
    pub(super) fn take_effect(self, generation: u64) -> (Rollout, Arc<Make<T>>) {
        let Self { make, context, caller } = self;
        (Rollout { generation, replaced: 0, context, caller: Some(caller) }, make)
    }
}

impl Rollout {
    /// The result, for the caller that has none yet. It is sent without the lock.
    pub(super) fn report(&mut self, outdated: usize) -> Report {
        let Self { generation, replaced, .. } = *self;
        Report { caller: self.caller.take(), swapped: Swapped { generation, replaced, outdated, error: None } }
    }
}

impl Report {
    pub(super) fn send(self, error: Option<MakeError>) {
        let Self { caller, swapped } = self;
        if let Some(caller) = caller {
            shielded(|| drop(caller.send(Ok(Swapped { error, ..swapped }))));
        }
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("has_left", &self.has_left()).finish_non_exhaustive()
    }
}
