//! How a task gets a value: the one that was used last, or a new one.

use std::sync::Arc;

use super::guard::SlotGuard;
use super::inner::discard;
use super::lender::{Lender, Open};
use super::recipe::Version;
use super::stack::{Slot, Taken};
use crate::error::{MakeError, SlotError};
use crate::shield::shielded;

/// What a task needs to make a value.
struct Making<T> {
    /// The error of the last attempt, if it is too early for the next one.
    paused: Option<MakeError>,
    current: Option<Arc<Version<T>>>,
    /// While a swap lasts, the version before can stand in, unless it has failed too a moment ago.
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
                let making = matches!(taken, Taken::Make).then(|| {
                    let (paused, all_fail) = state.paused();
                    let previous = if all_fail { None } else { state.previous.clone() };
                    Making { paused, current: state.current.clone(), previous }
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
                    let failure = inner.change(|state, _| {
                        state.stack.made(task, slot.generation);
                        // A value of the version before says nothing about this one.
                        if slot.generation == state.stack.generation() { state.failure.take() } else { None }
                    });
                    // The error is dropped without the lock.
                    shielded(|| drop(failure));
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
        self.warn_of_excess();
        let Open { inner, hooks, .. } = &*self.0;
        let error = match paused {
            Some(error) => error,
            None => match current.expect("slots that lend a value are open").produce(hooks) {
                Ok(slot) => return Ok(slot),
                Err(error) => inner.failed(error),
            },
        };
        let Some(previous) = previous else { return Err(error) };
        previous.produce(hooks).map_err(|_of_the_version_before| {
            inner.stand_in_failed();
            error
        })
    }
}
