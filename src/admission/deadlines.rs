//! The queued tasks with a deadline, soonest first: a heap that knows where each task stands in it.
//!
//! Only tasks whose deadline comes before the queue timeout are here; the others end in order of arrival. Leaving costs
//! log4 of their number and leaves nothing behind.

use super::slab::{NONE, Slab};
use super::timestamp::Timestamp;

/// Children of a node: four share a cache line and halve the depth of a binary heap.
const WIDTH: usize = 4;

/// An empty heap keeps the memory for this many tasks.
const KEPT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: Vec<(Timestamp, u32)>,
}

impl Deadlines {
    /// The soonest deadline and the task that it ends.
    pub(super) fn first(&self) -> Option<(Timestamp, u32)> {
        self.heap.first().copied()
    }

    pub(super) fn insert<T>(&mut self, slab: &mut Slab<T>, deadline: Timestamp, index: u32) {
        self.heap.push((deadline, index));
        self.rise(slab, self.heap.len() - 1);
    }

    /// Takes a task out, if it is here.
    pub(super) fn remove<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let position = std::mem::replace(&mut slab.at_mut(index).place, NONE);
        if position == NONE {
            return;
        }
        let position = position as usize;
        self.heap.swap_remove(position);
        if self.heap.is_empty() && self.heap.capacity() > KEPT {
            self.heap = Vec::new();
        }
        if position < self.heap.len() {
            let position = self.rise(slab, position);
            self.sink(slab, position);
        }
    }

    fn rise<T>(&mut self, slab: &mut Slab<T>, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / WIDTH;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.swap(slab, parent, position);
            position = parent;
        }
        self.settle(slab, position)
    }

    fn sink<T>(&mut self, slab: &mut Slab<T>, mut position: usize) {
        while let Some(child) = self.soonest_child(position) {
            if self.heap[position].0 <= self.heap[child].0 {
                break;
            }
            self.swap(slab, position, child);
            position = child;
        }
        self.settle(slab, position);
    }

    fn soonest_child(&self, position: usize) -> Option<usize> {
        let first = position * WIDTH + 1;
        (first..self.heap.len().min(first + WIDTH)).min_by_key(|&child| self.heap[child].0)
    }

    fn swap<T>(&mut self, slab: &mut Slab<T>, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(slab, a);
        self.settle(slab, b);
    }

    fn settle<T>(&self, slab: &mut Slab<T>, position: usize) -> usize {
        slab.at_mut(self.heap[position].1).place = u32::try_from(position).expect("a slab index is a u32");
        position
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::State;
    use super::*;

    #[test]
    fn the_memory_of_a_burst_is_given_back_and_that_of_a_few_is_kept() {
        for (tasks, kept) in [(KEPT, KEPT), (KEPT + 1, 0)] {
            let (mut deadlines, mut slab) = (Deadlines::default(), Slab::<()>::new());
            let indices: Vec<_> = (0..tasks as u64)
                .map(|task| {
                    let index = slab.insert(State::Queued, Timestamp::default(), 0).index();
                    deadlines.insert(&mut slab, Timestamp::from_nanos(task), index);
                    index
                })
                .collect();
            for (task, index) in indices.into_iter().enumerate() {
                assert_eq!(deadlines.first(), Some((Timestamp::from_nanos(task as u64), index)));
                deadlines.remove(&mut slab, index);
            }
            assert_eq!((deadlines.first(), deadlines.heap.capacity()), (None, kept));
        }
    }
}
