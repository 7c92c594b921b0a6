//! How a task gets a value: the one that was used last, or a new one.

use std::sync::Arc;

use super::guard::SlotGuard;
use super::inner::discard;
use super::lender::{Lender, Open};
use super::recipe::Version;
use super::stack::{Slot, Taken};
use crate::error::{MakeError, SlotError};

/// What a task needs to make a value.
struct Making<T> {
    /// The error of the last attempt, if it is too early for the next one.
    paused: Option<MakeError>,
    current: Option<Arc<Version<T>>>,
    /// While a swap lasts, the version before can stand in.
    previous: Option<Arc<Version<T>>>,
}

impl<T: Send + 'static> Lender<T> {
    /// Calls a closure with a value. While a panic unwinds, the guard drops the value.
    pub(super) fn lend<R>(&self, call: impl FnOnce(&mut T) -> R) -> Result<R, SlotError> {
        let mut guard = self.take()?;
        Ok(call(&mut guard))
    }

    pub(super) fn take(&self) -> Result<SlotGuard<T>, SlotError> {
        let Open { inner, hooks, .. } = &*self.0;
        let (task, waiting) = self.task()?;
        loop {
            let now = hooks.now();
            let (taken, making) = inner.change(|state, gone| {
                let taken = state.stack.take(task, &waiting, now, gone);
                let making = matches!(taken, Taken::Make).then(|| Making {
                    paused: state.paused(),
                    current: state.current.clone(),
                    previous: state.previous.clone(),
                });
                (taken, making)
            });
            let mut slot = match (taken, making) {
                (Taken::Nested, _) => return Err(SlotError::Nested(self.0.bounds.name())),
                (Taken::New(slot), _) => return Ok(SlotGuard::new(slot, task, self.clone())),
                (Taken::Used(slot), _) => slot,
                (Taken::Make, making) => {
                    let making = making.expect("it is read for a task that makes its value");
                    let made = self.make(making);
                    if made.is_err() {
                        self.lost(task, None);
                    }
                    let slot = made?;
                    inner.change(|state, _| {
                        state.failure = None;
                        state.stack.made(task, slot.generation);
                    });
                    return Ok(SlotGuard::new(slot, task, self.clone()));
                }
            };
            if hooks.is_usable(&mut slot.value) {
                return Ok(SlotGuard::new(slot, task, self.clone()));
            }
            let generation = slot.generation;
            discard(vec![slot]);
            self.lost(task, Some(generation));
        }
    }

    fn make(&self, Making { paused, current, previous }: Making<T>) -> Result<Box<Slot<T>>, MakeError> {
        if let Some(error) = paused {
            return Err(error);
        }
        self.warn_of_excess();
        let Open { inner, hooks, .. } = &*self.0;
        let current = current.expect("slots that lend a value are open");
        current.produce(hooks).or_else(|error| {
            let stand_in = previous.and_then(|previous| previous.produce(hooks).ok());
            stand_in.ok_or_else(|| inner.lock().failed(error))
        })
    }
}
