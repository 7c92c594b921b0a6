//! A value that a task uses.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::thread;

use super::inner::TaskId;
use super::lender::Lender;
use super::stack::Slot;
use crate::current;
use crate::shield::shielded;

/// A value of [`Slots`](super::Slots) that a task uses. Dropping it puts the value back.
///
/// A future may hold it across awaits. It belongs to the permit of its task: code that moves it out of the task, such as
/// into the body of a response, must keep the permit for as long, with
/// [`BodyPolicy::hold`](crate::body::BodyPolicy::hold) or [`hold_permit`](crate::hold_permit). Otherwise the next task
/// with this permit makes one value more, which is let go afterwards, and a warning is logged.
#[must_use = "the value is put back when this is dropped"]
pub struct SlotGuard<T: Send + 'static> {
    /// `None` only while this is dropped.
    slot: Option<Box<Slot<T>>>,
    task: TaskId,
    slots: Lender<T>,
    spoiled: bool,
}

impl<T: Send + 'static> SlotGuard<T> {
    pub(super) const fn new(slot: Box<Slot<T>>, task: TaskId, slots: Lender<T>) -> Self {
        Self { slot: Some(slot), task, slots, spoiled: false }
    }

    /// The version of the value: 1 at first, and one more after each swap.
    ///
    /// This is called as `SlotGuard::generation(&guard)`: a method of this name is one of the value.
    #[must_use]
    pub fn generation(this: &Self) -> u64 {
        this.slot().generation
    }

    /// Drops the value in place of putting it back, because it is of no use any more. The next task makes a new one.
    ///
    /// This is called as `SlotGuard::discard(guard)`: a method of this name is one of the value.
    pub fn discard(mut this: Self) {
        this.spoiled = true;
    }

    fn slot(&self) -> &Slot<T> {
        self.slot.as_ref().expect("it is taken only by the drop")
    }
}

impl<T: Send + 'static> Deref for SlotGuard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.slot().value
    }
}

impl<T: Send + 'static> DerefMut for SlotGuard<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.slot.as_mut().expect("it is taken only by the drop").value
    }
}

impl<T: Send + 'static> Drop for SlotGuard<T> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // A future that has panicked is dropped later, when nothing panics any more.
        let panicked = thread::panicking() || current::has_panicked();
        if self.spoiled || (panicked && !self.slots.keeps_on_panic()) {
            let generation = slot.generation;
            shielded(|| drop(slot));
            self.slots.lost(self.task, Some(generation));
        } else {
            self.slots.put(self.task, slot);
        }
    }
}

impl<T: fmt::Debug + Send + 'static> fmt::Debug for SlotGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotGuard").field(&**self).finish()
    }
}
