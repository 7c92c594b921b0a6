//! The values of one `Slots`: which are idle, which are in use, and which wait to replace another. It knows no lock and
//! no clock, and calls no code of the application.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A value, and what the slots must know of it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) value: T,
    /// The version that made it.
    pub(super) generation: u64,
    /// The end of its lifetime.
    pub(super) expires: Option<Instant>,
}

/// The values of one `Slots`. A value is idle, or it is in use; it is never in two places.
#[derive(Debug)]
pub(super) struct Stack<T, K> {
    /// The most recently used value is last.
    idle: VecDeque<Idle<T>>,
    holders: Vec<Holder<K>>,
    /// A value of the newest version that waits to replace one of an earlier version.
    staged: Option<Box<Slot<T>>>,
    /// Replaced values, for the loader to drop before it makes another one.
    replaced: Vec<Box<Slot<T>>>,
    generation: u64,
    keep_alive: Option<Duration>,
}

#[derive(Debug)]
struct Idle<T> {
    slot: Box<Slot<T>>,
    /// Set if there is a `keep_alive`.
    since: Option<Instant>,
}

/// A task that uses a value, or that makes one.
#[derive(Debug)]
struct Holder<K> {
    task: K,
    /// `None` while it makes its value.
    generation: Option<u64>,
}

/// What a task gets that asks for a value.
#[derive(Debug)]
pub(super) enum Taken<T> {
    /// A value that was used before.
    Used(Box<Slot<T>>),
    /// A value that no task has used yet.
    New(Box<Slot<T>>),
    /// The task makes a value. It counts as one that uses a value already.
    Make,
    /// A task that waits for this one has a value.
    Nested,
}

/// Values that are to be dropped without the lock.
pub(super) type Gone<T> = Vec<Box<Slot<T>>>;

impl<T, K: Copy + Eq> Stack<T, K> {
    pub(super) fn new(keep_alive: Option<Duration>) -> Self {
        Self {
            idle: VecDeque::new(),
            holders: Vec::new(),
            staged: None,
            replaced: Vec::new(),
            generation: 1,
            keep_alive,
        }
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Values that tasks use.
    pub(super) fn in_use(&self) -> usize {
        self.holders.iter().filter(|holder| holder.generation.is_some()).count()
    }

    /// Values that tasks make, and the one that waits to replace another.
    pub(super) fn making(&self) -> usize {
        self.holders.len() - self.in_use() + usize::from(self.staged.is_some())
    }

    /// Values that are idle, in use, or being made by a task.
    pub(super) fn live(&self) -> usize {
        self.idle.len() + self.holders.len()
    }

    /// Live values of an earlier version.
    pub(super) fn outdated(&self) -> usize {
        let is_outdated = |generation: u64| generation != self.generation;
        let idle = self.idle.iter().filter(|idle| is_outdated(idle.slot.generation)).count();
        idle + self.holders.iter().filter(|holder| holder.generation.is_some_and(is_outdated)).count()
    }

    pub(super) const fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    pub(super) fn holds(&self, task: K) -> bool {
        self.holders.iter().any(|holder| holder.task == task)
    }

    /// Takes the most recently used value for `task`. `waiting` are the tasks that wait for it in place. `now` is given
    /// if values have a `keep_alive` or a lifetime.
    pub(super) fn take(&mut self, task: K, waiting: &[K], now: Option<Instant>, gone: &mut Gone<T>) -> Taken<T> {
        if self.holds(task) || waiting.iter().any(|&task| self.holds(task)) {
            return Taken::Nested;
        }
        self.expire(now, gone);
        let (taken, generation) = if let Some(Idle { slot, .. }) = self.idle.pop_back() {
            let generation = slot.generation;
            (Taken::Used(slot), Some(generation))
        } else if let Some(slot) = self.staged.take() {
            let generation = slot.generation;
            (Taken::New(slot), Some(generation))
        } else {
            (Taken::Make, None)
        };
        self.holders.push(Holder { task, generation });
        taken
    }

    /// `task` has made its value.
    pub(super) fn made(&mut self, task: K, generation: u64) {
        let holder = self.holders.iter_mut().find(|holder| holder.task == task && holder.generation.is_none());
        holder.expect("the task makes a value").generation = Some(generation);
    }

    /// Puts a value back that `task` used. `limit` bounds the live values: the values that were used least recently go.
    pub(super) fn put(&mut self, task: K, slot: Box<Slot<T>>, limit: usize, now: Option<Instant>, gone: &mut Gone<T>) {
        self.release(task, Some(slot.generation));
        if now.is_some_and(|now| slot.expires.is_some_and(|expires| expires <= now)) {
            gone.push(slot);
        } else {
            self.idle.push_back(Idle { slot, since: now.filter(|_| self.keep_alive.is_some()) });
        }
        self.settle(limit);
        while self.live() > limit {
            let Some(Idle { slot, .. }) = self.idle.pop_front() else { break };
            gone.push(slot);
        }
    }

    /// `task` could not make its value (`generation` is `None`), or has dropped it.
    pub(super) fn lost(&mut self, task: K, generation: Option<u64>, limit: usize) {
        self.release(task, generation);
        self.settle(limit);
    }

    fn release(&mut self, task: K, generation: Option<u64>) {
        let place = self.holders.iter().rposition(|holder| holder.task == task && holder.generation == generation);
        self.holders.swap_remove(place.expect("the task has a value"));
    }

    /// Begins a version, whose first value is `slot`.
    pub(super) fn begin_version(&mut self, slot: Box<Slot<T>>, limit: usize) {
        self.generation = slot.generation;
        self.stage(slot, limit);
    }

    /// Lets a value of the newest version replace one of an earlier version, now or as soon as one is idle.
    pub(super) fn stage(&mut self, slot: Box<Slot<T>>, limit: usize) {
        debug_assert!(self.staged.is_none() && slot.generation == self.generation);
        self.staged = Some(slot);
        self.settle(limit);
    }

    /// Puts the staged value in the place of an idle one of an earlier version. If there is no such value any more, the
    /// staged one takes a free place; without one it is not needed.
    fn settle(&mut self, limit: usize) {
        let Some(slot) = self.staged.take() else { return };
        let outdated = |idle: &Idle<T>| idle.slot.generation != self.generation;
        if let Some(place) = self.idle.iter().position(outdated) {
            let old = std::mem::replace(&mut self.idle[place].slot, slot);
            self.replaced.push(old);
        } else if self.outdated() > 0 {
            self.staged = Some(slot);
        } else if self.live() < limit {
            self.idle.push_back(Idle { slot, since: None });
        } else {
            self.replaced.push(slot);
        }
    }

    /// The replaced values, for the loader to drop.
    pub(super) fn take_replaced(&mut self) -> Gone<T> {
        std::mem::take(&mut self.replaced)
    }

    /// Removes the idle values whose `keep_alive` or lifetime is over.
    pub(super) fn expire(&mut self, now: Option<Instant>, gone: &mut Gone<T>) {
        let Some(now) = now else { return };
        // Values without a time count as idle from now on.
        let keep_alive = self.keep_alive;
        let is_over = |idle: &mut Idle<T>| {
            let since = *idle.since.get_or_insert(now);
            let unused = keep_alive.is_some_and(|keep_alive| now.saturating_duration_since(since) >= keep_alive);
            unused || idle.slot.expires.is_some_and(|expires| expires <= now)
        };
        let mut place = 0;
        while let Some(idle) = self.idle.get_mut(place) {
            if is_over(idle) {
                gone.extend(self.idle.remove(place).map(|idle| idle.slot));
            } else {
                place += 1;
            }
        }
    }

    /// The time at which an idle value's `keep_alive` or lifetime is over next.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let of = |idle: &Idle<T>| {
            let kept = self.keep_alive.and_then(|keep_alive| idle.since.unwrap_or(now).checked_add(keep_alive));
            kept.into_iter().chain(idle.slot.expires).min()
        };
        self.idle.iter().filter_map(of).min()
    }

    /// Removes every value that no task uses.
    pub(super) fn clear(&mut self) -> Gone<T> {
        let idle = self.idle.drain(..).map(|idle| idle.slot);
        idle.chain(self.staged.take()).chain(self.replaced.drain(..)).collect()
    }
}
