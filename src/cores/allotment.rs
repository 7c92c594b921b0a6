//! The messages between a pool and the budget of cores, and the pool's end of that exchange.
//!
//! Both messages carry absolute numbers and a sequence number, so each may arrive late, twice, or after a newer one:
//! the receiver applies it only if it is newer than the last. A core that the budget takes away stays *held* until the
//! pool has reported that it no longer uses it.

/// The number of a pool in the budget. Numbers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(super) u64);

/// From the budget to a pool: this many of its workers may be runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allot {
    pub(crate) member: MemberId,
    pub(crate) cores: usize,
    /// Of two messages the one with the greater number is valid.
    pub(crate) seq: u64,
    /// The budget waits for cores that were taken away: the pool reports whether it still uses them.
    pub(crate) acknowledge: bool,
}

/// From a pool to the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The pool's own sequence number. Of two reports the one with the greater number is valid.
    pub(crate) seq: u64,
    /// The sequence number of the allotment that the pool has applied last.
    pub(crate) applied: u64,
    /// The number of its runnable workers, which can be more than its cores: blocked workers resume without asking.
    pub(crate) in_use: usize,
    /// The number of cores that the pool could use: its runnable workers, and the tasks that wait for a core.
    pub(crate) wanted: usize,
    /// The number of cores that the pool uses or may use: its allotment, and what it has not yet given back.
    pub(crate) held: usize,
}

/// The cores of one pool. It lives under the pool's lock.
#[derive(Debug, Default)]
pub(super) struct Allotment {
    cores: usize,
    /// Cores that were taken away while workers were runnable on them.
    unreturned: usize,
    /// The `wanted` of the last report.
    wanted: usize,
    applied: u64,
    reports: u64,
}

impl Allotment {
    /// An allotment that no budget changes.
    #[cfg(test)]
    pub(super) fn fixed(cores: usize) -> Self {
        Self { cores, ..Self::default() }
    }

    pub(super) const fn cores(&self) -> usize {
        self.cores
    }

    pub(super) const fn held(&self) -> usize {
        self.cores + self.unreturned
    }

    /// Applies an allotment; false if a newer one was applied before.
    pub(super) fn apply(&mut self, allot: Allot) -> bool {
        let newer = allot.seq > self.applied;
        if newer {
            self.unreturned = (self.cores + self.unreturned).saturating_sub(allot.cores);
            self.cores = allot.cores;
            self.applied = allot.seq;
        }
        newer
    }

    /// Keeps at most `excess` cores beyond the allotment. Whether that gives any back.
    pub(super) fn give_back_all_but(&mut self, excess: usize) -> bool {
        let before = self.unreturned;
        self.unreturned = before.min(excess);
        self.unreturned < before
    }

    /// Whether the pool should report that it wants this many cores: they are more than it has, and the last report did
    /// not ask for more than it has.
    pub(super) const fn lacks(&self, wanted: usize) -> bool {
        wanted > self.cores && self.wanted <= self.cores
    }

    /// Whether the last report asked for cores.
    pub(super) const fn has_asked(&self) -> bool {
        self.wanted > 0
    }

    pub(super) fn report(&mut self, in_use: usize, wanted: usize) -> Report {
        self.wanted = wanted;
        self.reports += 1;
        Report { seq: self.reports, applied: self.applied, in_use, wanted, held: self.held() }
    }
}
