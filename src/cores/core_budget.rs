//! One budget of cores for all pools of a [`Pools`](crate::Pools).
//!
//! # The rule
//! A core that becomes free goes to the waiting pool with the least *virtual time*: the time for which a pool has held
//! cores, or used more than it held, divided by its share and counted while any pool waits. While a pool waits, the
//! budget computes which pools the cores should belong to for the next [`QUANTUM`]: it hands them out one after the
//! other, each to the pool that would have the least virtual time at the end of that quantum. A pool that has the core
//! already counts as one quantum less, so a core moves only when its holder is ahead by a quantum. A pool that did not
//! wait starts at most two quanta behind the others: it gets the next core that is free, and accumulates no more credit
//! than that. This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with cores in place of packets. The
//! preference for the core's holder and the limit on the credit of a sleeper are those of Linux's completely fair
//! scheduler.
//!
//! No core is granted twice. The budget cannot interrupt a poll, so a core that it takes from a pool counts as held
//! until the pool reports that a worker has ended its poll and parked. If that takes longer than a [`TICK`], the budget
//! takes a core of another pool in its place. A pool keeps cores that it does not use as long as nobody asks for them.
//!
//! # When to call what
//! The budget has its own lock, which is never held together with a pool's. Each pool has an
//! [`AwakeLimit`](super::awake_limit::AwakeLimit) under its lock.
//!
//! 1. Before a pool's lock is released, `AwakeLimit::report` says whether the budget must know something: the pool has
//!    run out of cores with work left, it has parked a worker whose core was taken away, or it has become idle. Nearly
//!    always it returns `None`, and no other lock is taken.
//! 2. After the pool's lock is released, its report is passed to [`CoreBudget::report`]. The result is a list of
//!    allotments.
//! 3. After the budget's lock is released, each allotment is applied under its own pool's lock with
//!    `AwakeLimit::apply`, and workers are woken up to the new limit. If that returns a report, go to 2.
//! 4. While [`CoreBudget::is_contended`], the timer calls [`CoreBudget::tick`] every [`TICK`] with
//!    `AwakeLimit::status` of each pool, and continues with 3. Before, it samples each pool that
//!    `may_hold_unused_cores`, unless the sampler has to rest. Contention can begin at 2 and at 6.
//! 5. After each sample of a pool's workers, the sampler passes the number of runnable ones to [`CoreBudget::sampled`],
//!    and the result to `AwakeLimit::observe`. When `observe` returns `None`, it passes 0.
//! 6. When the number of cores of the machine has changed: [`CoreBudget::set_cores`], and 3.
//! 7. When all workers of a pool have ended: [`CoreBudget::remove`], and 3.

use std::time::Duration;

use super::allotment::{Allot, MemberId, Report};
use crate::admission::Timestamp;

/// The time between two ticks while a pool waits for a core.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// How far the holder of a core may be ahead of a pool that waits for it.
const QUANTUM: Duration = Duration::from_millis(5);

/// By how many quanta a pool that did not wait may be behind the pools that do.
const CREDIT: f64 = 2.0;

/// How far a pool can get ahead of the waiting pools. Usage beyond is forgotten.
const DEBT: Duration = Duration::from_millis(100);

/// The cores that the pools share.
#[derive(Debug)]
pub(crate) struct CoreBudget {
    cores: usize,
    members: Vec<Member>,
    /// The moment up to which virtual times are counted.
    counted: Timestamp,
    next_member: u64,
    next_seq: u64,
}

#[derive(Debug)]
struct Member {
    id: MemberId,
    share: f64,
    /// The allotment that was sent last, and its sequence number.
    granted: usize,
    seq: u64,
    /// The cores that the pool may be using. Never less than `granted`.
    held: usize,
    in_use: usize,
    wanted: usize,
    /// The number of runnable workers in the last sample; 0 while the pool is not sampled.
    runnable: usize,
    /// The sequence number of its last report.
    reported: u64,
    /// Nanoseconds of cores held or used, divided by the share.
    virtual_time: f64,
    /// The time since which the pool has held more than it was granted.
    revoked: Option<Timestamp>,
}

impl CoreBudget {
    /// A budget of this many cores without any pool.
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores, members: Vec::new(), counted: Timestamp::default(), next_member: 0, next_seq: 0 }
    }

    pub(crate) const fn cores(&self) -> usize {
        self.cores
    }

    /// Adds a pool, which has no core until it asks for one.
    pub(crate) fn add(&mut self, share: u32) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.members.push(Member::new(id, f64::from(share.max(1))));
        id
    }

    /// Removes a pool whose workers have ended.
    pub(crate) fn remove(&mut self, member: MemberId, now: Timestamp) -> Vec<Allot> {
        self.count(now);
        self.members.retain(|other| other.id != member);
        self.rebalance(now)
    }

    /// The number of the machine's cores has changed.
    pub(crate) fn set_cores(&mut self, cores: usize, now: Timestamp) -> Vec<Allot> {
        self.count(now);
        self.cores = cores;
        self.rebalance(now)
    }

    /// Applies a pool's report.
    pub(crate) fn report(&mut self, member: MemberId, report: Report, now: Timestamp) -> Vec<Allot> {
        self.tick(&[(member, report)], now)
    }

    /// Applies the reports of all pools after a [`TICK`].
    pub(crate) fn tick(&mut self, reports: &[(MemberId, Report)], now: Timestamp) -> Vec<Allot> {
        self.count(now);
        for &(member, report) in reports {
            self.absorb(member, report);
        }
        self.rebalance(now)
    }

    /// The sampler has found `runnable` runnable workers in a pool. The result is how many runnable workers of all
    /// pools there are for each core.
    pub(crate) fn sampled(&mut self, member: MemberId, runnable: usize) -> usize {
        if let Some(member) = self.members.iter_mut().find(|other| other.id == member) {
            member.runnable = runnable;
        }
        let all: usize = self.members.iter().map(|member| member.runnable).sum();
        all.div_ceil(self.cores.max(1)).max(1)
    }

    /// Whether a pool waits for a core.
    pub(crate) fn is_contended(&self) -> bool {
        self.members.iter().any(|member| member.waits(self.cores))
    }

    /// Adds the time since the last call to the virtual times, if a pool waits.
    fn count(&mut self, now: Timestamp) {
        let passed = now.since(self.counted).as_nanos() as f64;
        self.counted = self.counted.max(now);
        if self.is_contended() {
            // If more workers are runnable than there are cores, they share them.
            let runnable: usize = self.members.iter().map(|member| member.in_use).sum();
            let part = (self.cores as f64 / runnable as f64).min(1.0);
            for member in &mut self.members {
                let used = member.in_use as f64 * part;
                member.virtual_time += used.max(member.held as f64) * passed / member.share;
            }
        }
        self.limit_lag();
    }

    /// Bounds how far the virtual times of the pools lie apart.
    fn limit_lag(&mut self) {
        if !self.is_contended() {
            // No pool waits, so a new period begins, and the usage before it does not count.
            for member in &mut self.members {
                member.virtual_time = if member.granted == 0 { -CREDIT * member.quantum() } else { 0.0 };
            }
            return;
        }
        let backlogged = self.members.iter().filter(|member| member.is_backlogged());
        let least = backlogged.map(|member| member.virtual_time).fold(f64::INFINITY, f64::min);
        for member in &mut self.members {
            let most = least + nanos(DEBT) / member.share;
            member.virtual_time = member.virtual_time.min(most);
            // A pool that has what it wants saves up no more than its credit.
            if !member.is_backlogged() {
                member.virtual_time = member.virtual_time.max(least - CREDIT * member.quantum());
            }
        }
    }

    fn absorb(&mut self, member: MemberId, report: Report) {
        let Some(member) = self.members.iter_mut().find(|other| other.id == member) else { return };
        if report.seq <= member.reported {
            return;
        }
        member.reported = report.seq;
        (member.in_use, member.wanted) = (report.in_use, report.wanted);
        // Before the pool has applied the latest allotment it may still be about to apply an earlier, larger one.
        if report.applied == member.seq {
            member.set_held(member.granted.max(report.held), self.counted);
        }
    }

    /// Moves the allotments towards their targets, and returns those that changed.
    fn rebalance(&mut self, now: Timestamp) -> Vec<Allot> {
        let before: Vec<_> = self.members.iter().map(|member| member.granted).collect();
        let targets = self.targets(now);
        self.grant_free_cores(&targets, now);
        self.revoke(&targets, now);
        let mut changed = Vec::new();
        for (member, before) in self.members.iter_mut().zip(before) {
            if member.granted != before {
                self.next_seq += 1;
                member.seq = self.next_seq;
                let (cores, acknowledge) = (member.granted, member.held > member.granted);
                changed.push(Allot { member: member.id, cores, seq: member.seq, acknowledge });
            }
        }
        changed
    }

    /// The number of cores that each pool should have for the next quantum.
    fn targets(&self, now: Timestamp) -> Vec<usize> {
        let most = |member: &Member| member.wanted.min(self.cores);
        // If there are enough cores, each pool has what it can use.
        if self.members.iter().map(most).sum::<usize>() <= self.cores {
            return self.members.iter().map(most).collect();
        }
        let mut targets = vec![0; self.members.len()];
        let overdue: Vec<_> = self.members.iter().map(|member| member.overdue(now)).collect();
        for _ in overdue.iter().sum()..self.cores {
            let candidates = self.members.iter().enumerate();
            let candidates = candidates.filter(|&(at, member)| targets[at] + overdue[at] < most(member));
            let finish = candidates.map(|(at, member)| {
                let kept = if targets[at] < member.granted { 1.0 } else { 0.0 };
                let more = (targets[at] + overdue[at] + 1) as f64 - kept;
                (member.virtual_time + more * member.quantum(), targets[at] >= member.granted, at)
            });
            let least = finish.min_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            let Some((_, _, at)) = least else { break };
            targets[at] += 1;
        }
        targets
    }

    /// Grants the cores that nobody holds, to the pool with the least virtual time first.
    fn grant_free_cores(&mut self, targets: &[usize], now: Timestamp) {
        let held: usize = self.members.iter().map(|member| member.held).sum();
        let mut free = self.cores.saturating_sub(held);
        while free > 0 {
            let members = self.members.iter_mut().zip(targets);
            let lacking = members.filter(|(member, target)| member.granted < **target);
            let least = lacking.min_by(|(one, _), (other, _)| one.virtual_time.total_cmp(&other.virtual_time));
            let Some((member, _)) = least else { break };
            // A core that was taken away and not yet given back is simply kept.
            if member.granted == member.held {
                free -= 1;
            }
            member.granted += 1;
            member.set_held(member.held.max(member.granted), now);
        }
    }

    /// Takes as many cores from pools above their targets as other pools lack.
    fn revoke(&mut self, targets: &[usize], now: Timestamp) {
        loop {
            let pairs = || self.members.iter().zip(targets);
            let granted: usize = pairs().map(|(member, _)| member.granted).sum();
            let lacking: usize = pairs().map(|(member, target)| target.saturating_sub(member.granted)).sum();
            // The cores that were taken away before, and that their pools will give back.
            let coming: usize = pairs().map(|(member, _)| member.held - member.granted - member.overdue(now)).sum();
            let held: usize = pairs().map(|(member, _)| member.held).sum();
            let free = self.cores.saturating_sub(held);
            if lacking <= coming + free && granted <= self.cores {
                return;
            }
            let members = self.members.iter_mut().zip(targets);
            let holders = members.filter(|(member, target)| member.granted > **target).map(|(member, _)| member);
            let first = holders.max_by(|one, other| one.virtual_time.total_cmp(&other.virtual_time));
            let Some(member) = first else { return };
            member.granted -= 1;
            member.set_held(member.held, now);
        }
    }
}

// === impl Member ===

impl Member {
    fn new(id: MemberId, share: f64) -> Self {
        Self {
            id,
            share,
            granted: 0,
            seq: 0,
            held: 0,
            in_use: 0,
            wanted: 0,
            runnable: 0,
            reported: 0,
            virtual_time: 0.0,
            revoked: None,
        }
    }

    /// A quantum in this pool's virtual time.
    fn quantum(&self) -> f64 {
        nanos(QUANTUM) / self.share
    }

    /// Whether the pool lacks a core that the budget has.
    fn waits(&self, cores: usize) -> bool {
        self.granted < self.wanted.min(cores)
    }

    /// Whether the pool could use more cores than it has, and perhaps more than there are.
    const fn is_backlogged(&self) -> bool {
        self.granted < self.wanted
    }

    /// The number of cores that were taken away more than a tick ago, and are still held.
    fn overdue(&self, now: Timestamp) -> usize {
        let overdue = self.revoked.is_some_and(|revoked| now.since(revoked) >= TICK);
        if overdue { self.held - self.granted } else { 0 }
    }

    fn set_held(&mut self, held: usize, now: Timestamp) {
        self.held = held;
        self.revoked = if held > self.granted { self.revoked.or(Some(now)) } else { None };
    }
}

fn nanos(span: Duration) -> f64 {
    span.as_nanos() as f64
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
