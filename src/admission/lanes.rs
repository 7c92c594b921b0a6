//! The waiting jobs by level, each level in order of arrival, and whose turn it is.

use super::moment::Moment;
use super::pace::Lateness;
use super::shares::{Shares, UNSHARED};
use super::slab::{Chain, List, NONE, Slab};
use crate::terms::Priority;

/// A level that was passed over this many times while it waited has its turn. So a flood of a lower level costs those
/// above it at most one start in 33, and each lower level has at least that.
pub(super) const PATIENCE: u32 = 32;

#[derive(Debug)]
pub(super) struct Lanes {
    lanes: [Lane; Priority::ALL.len()],
    /// One bit for each level that has a job, the most important lowest.
    waiting: u8,
}

#[derive(Debug)]
pub(super) struct Lane {
    jobs: List,
    passed: u32,
    pub(super) late: Lateness,
    shares: Option<Box<Shares>>,
}

// === impl Lanes ===

impl Lanes {
    pub(super) fn new() -> Self {
        Self { lanes: std::array::from_fn(|_| Lane::new()), waiting: 0 }
    }

    pub(super) fn get(&mut self, level: usize) -> &mut Lane {
        &mut self.lanes[level]
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let level = usize::from(slab.at(index).level);
        self.lanes[level].push(slab, index, caller, run);
        self.waiting |= 1 << level;
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32, now: Moment) {
        let level = usize::from(slab.at(index).level);
        let lane = &mut self.lanes[level];
        lane.unlink(slab, index);
        if lane.jobs.is_empty() {
            lane.passed = 0;
            lane.late.clear(now);
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
        let mut below = first + 1..self.lanes.len();
        Some(below.find(|&level| self.lanes[level].passed >= PATIENCE).unwrap_or(first))
    }

    /// Notes that a job of this level was taken, and which levels were passed over for it.
    pub(super) fn took(&mut self, level: usize) {
        self.lanes[level].passed = 0;
        if self.waiting >> level > 1 {
            for below in level + 1..self.lanes.len() {
                self.lanes[below].passed += u32::from(self.waiting & (1 << below) != 0);
            }
        }
    }

    /// The job that makes room for one of this level: of the lowest level that waits below it, the newest.
    pub(super) fn least_below(&self, level: usize) -> Option<u32> {
        let lowest = self.waiting.checked_ilog2()? as usize;
        (lowest > level).then(|| self.lanes[lowest].last())?
    }

    /// The oldest job of each level that waits.
    pub(super) fn oldest(&self) -> impl Iterator<Item = u32> {
        let first = self.first().unwrap_or(self.lanes.len());
        (first..self.lanes.len()).filter_map(|level| self.lanes[level].jobs.oldest())
    }

    fn first(&self) -> Option<usize> {
        (self.waiting != 0).then(|| self.waiting.trailing_zeros() as usize)
    }
}

// === impl Lane ===

impl Lane {
    fn new() -> Self {
        Self { jobs: List::new(Chain::Arrival), passed: 0, late: Lateness::default(), shares: None }
    }

    fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        if let Some(shares) = self.shares(slab, caller, run) {
            shares.push(slab, index, caller, run);
        }
        self.jobs.push(slab, index);
    }

    /// The virtual queues, which there are from the first caller that is named on.
    pub(super) fn shares<T>(&mut self, slab: &mut Slab<T>, caller: Option<u64>, run: f64) -> Option<&mut Shares> {
        if caller.is_some() && self.shares.is_none() {
            self.share_out(slab, run);
        }
        self.shares.as_deref_mut()
    }

    /// Notes that a job starts without having waited; answers the virtual queue it is counted to.
    pub(super) fn start<T>(&mut self, slab: &mut Slab<T>, caller: Option<u64>, run: f64) -> u8 {
        let Some(shares) = self.shares(slab, caller, run) else { return UNSHARED };
        let share = shares.join(caller, run);
        shares.started(share, run);
        share
    }

    fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        self.jobs.unlink(slab, index);
        if let Some(shares) = &mut self.shares {
            shares.unlink(slab, index);
        }
    }

    /// Puts the jobs that wait already, none of which has a caller, into virtual queues.
    fn share_out<T>(&mut self, slab: &mut Slab<T>, run: f64) {
        let mut shares = Box::new(Shares::new());
        let mut index = self.jobs.oldest().unwrap_or(NONE);
        while index != NONE {
            shares.push(slab, index, None, run);
            index = self.jobs.after(slab, index);
        }
        self.shares = Some(shares);
    }

    pub(super) const fn oldest(&self) -> Option<u32> {
        self.jobs.oldest()
    }

    /// Notes that a job of this virtual queue starts.
    pub(super) fn started(&mut self, share: u8, run: f64) {
        if let (Some(shares), true) = (&mut self.shares, share != UNSHARED) {
            shares.started(share, run);
        }
    }

    /// Notes that a job of this virtual queue ended.
    pub(super) fn ended(&mut self, share: u8, ran: f64) {
        if let (Some(shares), true) = (&mut self.shares, share != UNSHARED) {
            shares.ended(share, ran);
        }
    }

    /// The next job to start.
    pub(super) fn next(&self, run: f64, newest_first: bool) -> Option<u32> {
        match &self.shares {
            Some(shares) => shares.next(run, newest_first),
            None if newest_first => self.jobs.newest(),
            None => self.jobs.oldest(),
        }
    }

    /// The job that is missed least: the newest of all, or of the caller that has most.
    fn last(&self) -> Option<u32> {
        match &self.shares {
            Some(shares) => shares.longest(),
            None => self.jobs.newest(),
        }
    }

    /// The job that makes room for one of this caller: the newest of a caller that has at least two more.
    pub(super) fn least_beside(&self, caller: Option<u64>) -> Option<u32> {
        self.shares.as_ref()?.longer_than(caller)
    }
}
