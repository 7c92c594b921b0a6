//! The waiting tasks by level, each level in order of arrival, and whose turn it is.

use super::codel::Lateness;
use super::fair_queue::Shares;
use super::slab::{Chain, List, NONE, Slab, UNSHARED};
use super::timestamp::Timestamp;
use crate::terms::Priority;

/// A level that was passed over this many times while it waited has its turn. So a flood of a lower level costs those
/// above it at most one start in 33, and each lower level has at least that.
pub(super) const MAX_SKIPS: u32 = 32;

#[derive(Debug)]
pub(super) struct PriorityQueue {
    levels: [Level; Priority::ALL.len()],
    /// One bit for each level that has a task, the most important lowest.
    waiting: u8,
}

#[derive(Debug)]
pub(super) struct Level {
    tasks: List,
    /// The patient ones. They are outside of the virtual queues.
    patient: List,
    passed: u32,
    pub(super) late: Lateness,
    shares: Option<Box<Shares>>,
}

// === impl PriorityQueue ===

impl PriorityQueue {
    pub(super) fn new() -> Self {
        Self { levels: std::array::from_fn(|_| Level::new()), waiting: 0 }
    }

    pub(super) fn get(&mut self, level: usize) -> &mut Level {
        &mut self.levels[level]
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let level = usize::from(slab.at(index).level);
        self.levels[level].push(slab, index, caller, run);
        self.waiting |= 1 << level;
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32, now: Timestamp) {
        let level = usize::from(slab.at(index).level);
        let queue = &mut self.levels[level];
        queue.unlink(slab, index);
        if queue.is_empty() {
            queue.passed = 0;
            queue.late.clear(now);
            self.waiting &= !(1 << level);
        }
    }

    /// The level whose turn it is: the highest that waits, or one below it that has been passed over long enough.
    pub(super) fn turn(&self) -> Option<usize> {
        let first = self.first()?;
        if self.waiting.is_power_of_two() {
            return Some(first);
        }
        // Only a level that waits was passed over.
        let mut below = first + 1..self.levels.len();
        Some(below.find(|&level| self.levels[level].passed >= MAX_SKIPS).unwrap_or(first))
    }

    /// Notes that a task of this level was taken, and which levels were passed over for it.
    pub(super) fn took(&mut self, level: usize) {
        self.levels[level].passed = 0;
        if self.waiting >> level > 1 {
            for below in level + 1..self.levels.len() {
                self.levels[below].passed += u32::from(self.waiting & (1 << below) != 0);
            }
        }
    }

    /// The task that makes room for one of this level: of the lowest level that waits below it, the newest.
    pub(super) fn least_below(&self, level: usize) -> Option<u32> {
        self.levels[level + 1..].iter().rev().find_map(Level::last)
    }

    /// A task that waits.
    pub(super) fn any(&self) -> Option<u32> {
        self.levels.iter().find_map(|level| level.tasks.oldest().or(level.patient.oldest()))
    }

    /// The oldest task of each level, the patient ones left out.
    pub(super) fn oldest(&self) -> impl Iterator<Item = u32> {
        let first = self.first().unwrap_or(self.levels.len());
        (first..self.levels.len()).filter_map(|level| self.levels[level].tasks.oldest())
    }

    fn first(&self) -> Option<usize> {
        (self.waiting != 0).then(|| self.waiting.trailing_zeros() as usize)
    }
}

// === impl Level ===

impl Level {
    fn new() -> Self {
        let list = List::new(Chain::Arrival);
        Self { tasks: list, patient: list, passed: 0, late: Lateness::default(), shares: None }
    }

    fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        if slab.at(index).patient {
            return self.patient.push(slab, index);
        }
        if let Some(shares) = self.shares(slab, caller, run) {
            shares.push(slab, index, caller, run);
        }
        self.tasks.push(slab, index);
    }

    /// The virtual queues, which there are from the first caller that is named on.
    pub(super) fn shares<T>(&mut self, slab: &mut Slab<T>, caller: Option<u64>, run: f64) -> Option<&mut Shares> {
        if caller.is_some() && self.shares.is_none() {
            self.share_out(slab, run);
        }
        self.shares.as_deref_mut()
    }

    /// Notes that a task starts without having waited; answers the virtual queue it is counted to.
    pub(super) fn start<T>(&mut self, slab: &mut Slab<T>, caller: Option<u64>, run: f64) -> u8 {
        let Some(shares) = self.shares(slab, caller, run) else { return UNSHARED };
        let share = shares.join(caller, run);
        shares.started(share, run);
        share
    }

    fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        if slab.at(index).patient {
            return self.patient.unlink(slab, index);
        }
        self.tasks.unlink(slab, index);
        if let Some(shares) = &mut self.shares {
            shares.unlink(slab, index);
        }
    }

    /// Puts the tasks that wait already, none of which has a caller, into virtual queues.
    fn share_out<T>(&mut self, slab: &mut Slab<T>, run: f64) {
        let mut shares = Box::new(Shares::new());
        let mut index = self.tasks.oldest().unwrap_or(NONE);
        while index != NONE {
            shares.push(slab, index, None, run);
            index = self.tasks.after(slab, index);
        }
        self.shares = Some(shares);
    }

    pub(super) const fn oldest(&self) -> Option<u32> {
        self.tasks.oldest()
    }

    /// Notes that a task of this virtual queue starts.
    pub(super) fn started(&mut self, share: u8, run: f64) {
        if let (Some(shares), true) = (&mut self.shares, share != UNSHARED) {
            shares.started(share, run);
        }
    }

    /// Notes that a task of this virtual queue ended.
    pub(super) fn ended(&mut self, share: u8, ran: f64) {
        if let (Some(shares), true) = (&mut self.shares, share != UNSHARED) {
            shares.ended(share, ran);
        }
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.patient.is_empty()
    }

    /// The next task to start. A patient one has its turn when it is the oldest of all.
    pub(super) fn next<T>(&self, slab: &Slab<T>, run: f64, newest_first: bool) -> Option<u32> {
        let oldest = self.tasks.oldest().map(|index| slab.at(index).since);
        let is_oldest = |index: &u32| oldest.is_none_or(|oldest| slab.at(*index).since < oldest);
        if let Some(patient) = self.patient.oldest().filter(is_oldest) {
            return Some(patient);
        }
        match &self.shares {
            Some(shares) => shares.next(run, newest_first),
            None if newest_first => self.tasks.newest(),
            None => self.tasks.oldest(),
        }
    }

    /// The task that is missed least: the newest of all, or of the caller that has most.
    fn last(&self) -> Option<u32> {
        match &self.shares {
            Some(shares) => shares.longest(),
            None => self.tasks.newest(),
        }
    }

    /// The task that makes room for one of this caller: the newest of a caller that has at least two more.
    pub(super) fn least_beside(&self, caller: Option<u64>) -> Option<u32> {
        self.shares.as_ref()?.longer_than(caller)
    }
}
