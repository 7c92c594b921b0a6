//! Permits by number: of the free numbers each task takes the lowest, so a numbered slot can own a value.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug, Default)]
pub(super) struct Permits {
    /// Every number from this one on is free.
    unused: u32,
    /// The free numbers below it.
    free: BinaryHeap<Reverse<u32>>,
}

impl Permits {
    pub(super) fn in_use(&self) -> usize {
        self.unused as usize - self.free.len()
    }

    pub(super) fn take(&mut self) -> u32 {
        if let Some(Reverse(lowest)) = self.free.pop() {
            return lowest;
        }
        self.unused += 1;
        self.unused - 1
    }

    pub(super) fn release(&mut self, number: u32) {
        if self.in_use() == 1 {
            // Nothing is in use any more: the next is number zero, and the heap starts anew.
            self.unused = 0;
            return self.free.clear();
        }
        self.free.push(Reverse(number));
    }
}
