//! A swap as its caller and the loader see it.

use std::fmt;

use tokio::sync::oneshot::Sender;

use super::loader::Context;
use super::recipe::Make;
use crate::error::{MakeError, SlotError};
use std::sync::Arc;

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

impl<T> Request<T> {
    pub(super) fn fail(self, error: SlotError) {
        // The caller may have left.
        let _ = self.caller.send(Err(error));
    }

    pub(super) fn has_left(&self) -> bool {
        self.caller.is_closed()
    }

    pub(super) fn take_effect(self, generation: u64) -> Rollout {
        Rollout { generation, replaced: 0, context: self.context, caller: Some(self.caller) }
    }
}

impl Rollout {
    /// Gives the caller its result, unless it has one.
    pub(super) fn report(&mut self, outdated: usize, error: Option<MakeError>) {
        if let Some(caller) = self.caller.take() {
            let Self { generation, replaced, .. } = *self;
            let _ = caller.send(Ok(Swapped { generation, replaced, outdated, error }));
        }
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("has_left", &self.has_left()).finish_non_exhaustive()
    }
}
