//! Whether serving in order has become useless work, and then: which tasks are.
//!
//! First in, first out is right as long as those who are served are still there. Under lasting overload they are not:
//! everybody waits for just as long as callers do, and the work is done for nobody. A pool changes its order only when
//! two things are known of a level, both since the level last lost nothing:
//!
//! 1. **More work was lost than there was room for.** Each task that left the queue unserved, because its caller did,
//!    its time was up or the queue was full, adds one mean execution time to the *lost work*. Each permit that is free
//!    while nothing waits takes off the time that it is free. Below capacity the free permits make up for whatever is
//!    lost, however many callers are impatient; so lost work of [`ENOUGH`] execution times for each permit says that the
//!    *offered load*, lost tasks included, is above the capacity. (In queueing terms it is the backlog of a pool whose
//!    callers all stay, less the backlog there is.)
//! 2. **Most of what is done is in vain.** Of the last [`MEMORY`] tasks that ended, more than half ended after their
//!    caller had left or their deadline had passed. While this is not so, the order does no harm, and a full queue, the
//!    queue timeout and deadlines refuse what is too much.
//!
//! Then the newest task of the level is next, because its caller will still be there ("adaptive LIFO", Maurer, "Fail at
//! Scale", ACM Queue 2015), and tasks are shed that have waited for half of the time for which callers really did wait
//! (Breakwater, OSDI 2020, drops at two fifths of what clients allow). It ends when free permits have made up for the
//! lost work, and nothing is remembered.

use super::mean::Mean;

/// Execution times for each permit: ten times what one more arrival could do.
const ENOUGH: f64 = 10.0;

/// How many tasks say whether work is in vain.
const MEMORY: u32 = 32;

/// So much of it.
const MOST: f64 = 0.5;

/// A task is useless when it has waited for this part of the time that callers wait.
const USELESS: f64 = 0.5;

/// What is known of one level.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    /// Nanoseconds of work.
    lost: f64,
    /// The share of the latest tasks that were in vain.
    in_vain: f64,
    /// For how long callers waited that left.
    patience: Mean,
    acts: bool,
}

impl Overload {
    pub(super) const fn new() -> Self {
        Self { lost: 0.0, in_vain: 0.0, patience: Mean::new(MEMORY), acts: false }
    }

    /// Permits were free for so many nanoseconds in all while nothing waited.
    pub(super) fn made_up(&mut self, free: f64) {
        if self.lost > 0.0 {
            self.lost -= free;
            if self.lost <= 0.0 {
                *self = Self::new();
            }
        }
    }

    /// A task was lost; one takes `run` nanoseconds.
    pub(super) fn lost(&mut self, run: f64, limit: usize) {
        self.lost = (self.lost + run).min(ENOUGH * run * limit as f64);
    }

    /// A task was lost whose caller waits no longer than this. Callers whose tasks are shed early say nothing of others.
    pub(super) fn left(&mut self, waited: f64) {
        if !self.acts {
            self.patience.add(waited);
        }
    }

    /// A task ended that had been started.
    pub(super) fn ended(&mut self, in_vain: bool, run: f64, limit: usize) {
        if self.lost > 0.0 {
            self.in_vain += (f64::from(u8::from(in_vain)) - self.in_vain) / f64::from(MEMORY);
            self.acts |= self.in_vain > MOST && self.lost >= ENOUGH * run * limit as f64;
        }
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
