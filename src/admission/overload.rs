//! Whether serving in the order of arrival has become useless work, and if so, which tasks are useless.
//!
//! First in, first out is right as long as the callers that are served are still there. Under lasting overload they are
//! not: every task waits for about as long as callers do, and its caller has left when it ends. A pool changes the
//! order of a level only when two things are known of it, both since its lost work was last zero:
//!
//! 1. **More work was lost than there was room for.** Each task that left the queue unserved, because its caller did,
//!    its time was up or the queue was full, adds one mean execution time to the *lost work*. Each permit that is free
//!    while nothing waits takes off the time that it is free. Below capacity the free permits make up for whatever is
//!    lost, however many callers are impatient; so lost work of [`ENOUGH`] execution times for each permit says that
//!    the *offered load*, lost tasks included, is above the capacity. (In queueing terms it is the backlog of a pool
//!    whose callers all stay, less the backlog there is.)
//! 2. **Most of what is done is in vain.** Of the last [`MEMORY`] tasks that ended, more than half ended after their
//!    caller had left or their deadline had passed, or in a batch that a deadline kept from growing. While this is not
//!    so, the order does no harm, and a full queue, the queue timeout and deadlines reject what is too much.
//!
//! Then the newest task of the level is next, because its caller will still be there ("adaptive LIFO", Maurer, "Fail at
//! Scale", ACM Queue 2015), and tasks are shed that have waited for half of the time for which callers really did wait
//! (Breakwater, OSDI 2020, drops at two fifths of what clients allow). At most [`KEPT`] execution times for each permit
//! are then counted as lost work, so that this ends soon after the overload does: when free permits have made up for
//! them, which at a load of 0.8 takes 20 execution times in the mean. Nothing is remembered of it.

use super::mean::Mean;

/// Execution times for each permit. Below capacity chance seldom adds up to this much lost work.
const ENOUGH: f64 = 10.0;

/// The same once the order is another: tried in `tests/sim`, where fewer end it too soon at a load of 1.1, and more go
/// on for too long after an overload.
const KEPT: f64 = 4.0;

/// Of the most that is counted: the execution time and the limit change meanwhile.
const CLOSE: f64 = 0.8;

/// How many tasks say whether work is in vain.
const MEMORY: u32 = 32;

/// The order changes above this share of work in vain.
const MOST: f64 = 0.5;

/// A task is useless when it has waited for this part of the time that callers wait.
const USELESS: f64 = 0.5;

/// The evidence of one level.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    /// Nanoseconds of work.
    lost: f64,
    /// The share of the latest tasks that were in vain.
    in_vain: f64,
    /// The mean wait of the callers that left.
    patience: Mean,
    /// Whether the lost work was more than there was room for.
    exceeded: bool,
    acts: bool,
}

impl Overload {
    pub(super) const fn new() -> Self {
        Self { lost: 0.0, in_vain: 0.0, patience: Mean::new(MEMORY), exceeded: false, acts: false }
    }

    /// Reduces the lost work by the time, in nanoseconds over all permits, that permits were free while nothing was queued.
    pub(super) fn recover(&mut self, free: f64) {
        if self.lost > 0.0 {
            self.lost -= free;
            if self.lost <= 0.0 {
                *self = Self::new();
            }
        }
    }

    /// A task was lost; one is `work` nanoseconds of work, and a permit executes for `run`.
    pub(super) fn lost(&mut self, work: f64, run: f64, limit: usize) {
        self.lost = (self.lost + work).min(self.most(run, limit));
        self.exceeded |= self.exceeds(run, limit);
    }

    /// A task was lost whose caller waits no longer than this. Callers whose tasks are shed early say nothing of
    /// others.
    pub(super) fn left(&mut self, waited: f64) {
        if !self.acts {
            self.patience.add(waited);
        }
    }

    /// A task ended that had been started.
    pub(super) fn ended(&mut self, in_vain: bool, run: f64, limit: usize) {
        if self.lost > 0.0 {
            self.in_vain += (f64::from(u8::from(in_vain)) - self.in_vain) / f64::from(MEMORY);
            self.acts |= self.in_vain > MOST && self.lost >= CLOSE * self.most(run, limit);
        }
    }

    /// Whether the offered load is above the capacity: the first of the two conditions.
    pub(super) fn exceeds(&self, run: f64, limit: usize) -> bool {
        self.lost > 0.0 && self.lost >= CLOSE * self.most(run, limit)
    }

    /// Whether it was, since the lost work was last zero. `free` is what [`recover`](Self::recover) was not told yet.
    pub(super) fn exceeded(&self, free: f64) -> bool {
        self.exceeded && self.lost > free
    }

    /// How much lost work is counted.
    fn most(&self, run: f64, limit: usize) -> f64 {
        if self.acts { KEPT * run * limit as f64 } else { ENOUGH * run * limit as f64 }
    }

    /// Whether the newest task is next.
    pub(super) const fn acts(&self) -> bool {
        self.acts
    }

    /// The wait above which a task is useless, if there is one.
    pub(super) fn useless(&self) -> Option<u64> {
        self.patience.known().filter(|_| self.acts).map(|patience| (patience * USELESS) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: f64 = 1e6;

    /// A level of a pool with two permits. `in_vain` of every four tasks that ended were in vain.
    fn after(lost: usize, ended: usize, in_vain: usize) -> Overload {
        let mut overload = Overload::new();
        for _ in 0..lost {
            overload.lost(RUN, RUN, 2);
            overload.left(8.0 * RUN);
        }
        (0..ended).for_each(|task| overload.ended(task % 4 < in_vain, RUN, 2));
        overload
    }

    #[test]
    fn the_order_changes_when_much_was_lost_and_most_was_in_vain() {
        assert!(after(20, 100, 3).acts());
        assert!(!after(15, 100, 4).acts(), "the pool may have had room for these");
        assert!(!after(1000, 1000, 1).acts(), "most are still there");
        assert!(!after(20, 20, 4).acts(), "these may be chance");
        assert_eq!((after(20, 100, 4).useless(), after(20, 100, 1).useless()), (Some(4_000_000), None));
    }

    #[test]
    fn what_ends_while_nothing_was_lost_says_nothing() {
        assert!(!after(0, 1000, 4).acts());
    }

    #[test]
    fn free_permits_make_up_for_what_was_lost_and_then_nothing_is_remembered() {
        let mut overload = after(20, 100, 4);
        (0..100).for_each(|_| overload.lost(RUN, RUN, 2));
        overload.recover(7.9 * RUN);
        assert!(overload.acts());
        overload.recover(0.2 * RUN);
        assert!(!overload.acts() && overload.useless().is_none());
        (0..100).for_each(|_| overload.ended(true, RUN, 2));
        (0..20).for_each(|_| overload.lost(RUN, RUN, 2));
        overload.ended(true, RUN, 2);
        assert!(!overload.acts(), "one is no majority");
    }

    #[test]
    fn callers_whose_tasks_are_shed_early_do_not_make_others_look_impatient() {
        let mut overload = after(20, 100, 4);
        (0..100).for_each(|_| overload.left(RUN));
        assert_eq!(overload.useless(), Some(4_000_000));
    }
}
