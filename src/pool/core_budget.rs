//! One budget of cores for all pools of a [`Pools`](crate::Pools).
//!
//! # The rule
//! A core that becomes free goes to the waiting pool with the least *virtual time*: the time for which a pool has held
//! cores, or used more than it held, divided by its share and counted while any pool waits. While a pool waits, the
//! budget computes which pools the cores should belong to for the next [`QUANTUM`]: it hands them out one after the
//! other, each to the pool that would have the least virtual time at the end of that quantum. A pool that has the core
//! already counts as one quantum less, so a core moves only when its holder is ahead by a quantum. A pool that did not
//! wait starts at most two quanta behind the others: it gets the next core that is free, and saves up no more than that.
//! This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with cores in place of packets. The preference for the
//! core's holder and the limit on the credit of a sleeper are those of Linux's completely fair scheduler.
//!
//! No core is granted twice. The budget cannot interrupt a poll, so a core that it takes from a pool counts as held
//! until the pool reports that a worker has ended its poll and parked. If that takes longer than a [`TICK`], the budget
//! takes a core of another pool in its place. A pool keeps cores that it does not use as long as nobody asks for them.
//!
//! # When to call what
//! The budget has its own lock, which is never held together with a pool's. Each pool has an
//! [`ActiveLimit`](super::active_limit::ActiveLimit) under its lock.
//!
//! 1. Before a pool's lock is released, `ActiveLimit::report` says whether the budget must learn something: the pool has
//!    run out of cores with work left, it has parked a worker whose core was taken away, or it has become idle. Nearly
//!    always it returns `None`, and no other lock is taken.
//! 2. After the pool's lock is released, its report is passed to [`CoreBudget::report`]. The result is a list of
//!    allotments.
//! 3. After the budget's lock is released, each allotment is applied under its own pool's lock with `ActiveLimit::apply`,
//!    and workers are called up to the new limit. If that returns a report, go to 2.
//! 4. While [`CoreBudget::is_contended`], the sampler calls [`CoreBudget::tick`] every [`TICK`] with
//!    `ActiveLimit::status` of each pool, and continues with 3. Before, it samples each pool that
//!    `may_hold_unused_cores`, unless the sampler has to rest. Contention can begin at 2 and at 6.
//! 5. After each sample of a pool's workers, the sampler passes the number of runnable ones to
//!    [`CoreBudget::sampled`], and the result to `ActiveLimit::learn`. When `learn` returns `None`, it passes 0.
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
    /// The cores that the pool may be using: at least `granted`.
    held: usize,
    in_use: usize,
    wanted: usize,
    /// In the last sample; 0 while it is not sampled.
    runnable: usize,
    /// The sequence number of its last report.
    reported: u64,
    /// Nanoseconds of cores held or used, divided by the share.
    virtual_time: f64,
    /// Since when the pool has held more than it was granted.
    revoked: Option<Timestamp>,
}

impl CoreBudget {
    /// A budget of this many cores without any pool.
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores, members: Vec::new(), counted: Timestamp::default(), next_member: 0, next_seq: 0 }
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

    /// The machine has this many cores from here on.
    pub(crate) fn set_cores(&mut self, cores: usize, now: Timestamp) -> Vec<Allot> {
        self.count(now);
        self.cores = cores;
        self.rebalance(now)
    }

    /// A pool has something to report.
    pub(crate) fn report(&mut self, member: MemberId, report: Report, now: Timestamp) -> Vec<Allot> {
        self.count(now);
        self.absorb(member, report);
        self.rebalance(now)
    }

    /// A [`TICK`] has passed, and this is what the pools say now.
    pub(crate) fn tick(&mut self, reports: &[(MemberId, Report)], now: Timestamp) -> Vec<Allot> {
        self.count(now);
        for &(member, report) in reports {
            self.absorb(member, report);
        }
        self.rebalance(now)
    }

    /// The sampler has found `runnable` runnable workers in a pool. The result is how many runnable workers of all pools
    /// there are for each core.
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

    /// Counts the cores that were held up to now, if any pool waited meanwhile.
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

    /// Brings the allotments closer to what they should be. The result is what changed.
    fn rebalance(&mut self, now: Timestamp) -> Vec<Allot> {
        let before: Vec<_> = self.members.iter().map(|member| member.granted).collect();
        let targets = self.targets(now);
        self.grant_free_cores(&targets);
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

    /// How many cores each pool should have for the next quantum.
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
    fn grant_free_cores(&mut self, targets: &[usize]) {
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
            member.grant(member.granted + 1);
        }
    }

    /// Takes cores from pools that have more than they should, as many as others lack.
    fn revoke(&mut self, targets: &[usize], now: Timestamp) {
        loop {
            let pairs = || self.members.iter().zip(targets);
            let granted: usize = pairs().map(|(member, _)| member.granted).sum();
            let lacking: usize = pairs().map(|(member, target)| target.saturating_sub(member.granted)).sum();
            // Those that were taken away before, and are on their way.
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

    /// The cores that were taken away more than a tick ago, and are still held.
    fn overdue(&self, now: Timestamp) -> usize {
        let overdue = self.revoked.is_some_and(|revoked| now.since(revoked) >= TICK);
        if overdue { self.held - self.granted } else { 0 }
    }

    fn grant(&mut self, cores: usize) {
        self.granted = cores;
        self.held = self.held.max(cores);
        if self.held == self.granted {
            self.revoked = None;
        }
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
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(0);

    fn at(millis: u64) -> Timestamp {
        NOW + Duration::from_millis(millis)
    }

    /// A pool that applies each message at once, and uses all of its cores.
    #[derive(Debug)]
    struct Pool {
        member: MemberId,
        report: Report,
        cores: usize,
        /// It gives back no core while it polls.
        polls: bool,
    }

    impl Pool {
        fn new(budget: &mut CoreBudget, share: u32) -> Self {
            Self { member: budget.add(share), report: Report::default(), cores: 0, polls: false }
        }

        fn report(&mut self, wanted: usize) -> Report {
            let held = if self.polls { self.report.held.max(self.cores) } else { self.cores };
            let seq = self.report.seq + 1;
            self.report = Report { seq, wanted, held, in_use: held.min(wanted), ..self.report };
            self.report
        }
    }

    /// Passes a report to the budget, and all messages that follow from it.
    fn report(budget: &mut CoreBudget, pools: &mut [Pool], at: usize, wanted: usize, now: Timestamp) {
        let report = pools[at].report(wanted);
        let allots = budget.report(pools[at].member, report, now);
        apply(budget, pools, allots, now);
    }

    fn apply(budget: &mut CoreBudget, pools: &mut [Pool], mut allots: Vec<Allot>, now: Timestamp) {
        while let Some(allot) = allots.pop() {
            let pool = pools.iter_mut().find(|pool| pool.member == allot.member).expect("it is there");
            pool.report.held = pool.report.held.max(pool.cores);
            (pool.cores, pool.report.applied) = (allot.cores, allot.seq);
            if allot.acknowledge {
                let report = pool.report(pool.report.wanted);
                allots.extend(budget.report(allot.member, report, now));
            }
        }
    }

    fn tick(budget: &mut CoreBudget, pools: &mut [Pool], now: Timestamp) {
        let reports: Vec<_> = pools.iter_mut().map(|pool| (pool.member, pool.report(pool.report.wanted))).collect();
        let allots = budget.tick(&reports, now);
        apply(budget, pools, allots, now);
    }

    fn cores(pools: &[Pool]) -> Vec<usize> {
        pools.iter().map(|pool| pool.cores).collect()
    }

    fn pools<const POOLS: usize>(budget: &mut CoreBudget) -> [Pool; POOLS] {
        [(); POOLS].map(|()| Pool::new(budget, 1))
    }

    #[test]
    fn a_pool_alone_has_the_cores_that_it_asks_for_and_no_more_than_there_are() {
        let mut budget = CoreBudget::new(3);
        let mut pools = pools::<2>(&mut budget);
        for (wanted, expected) in [(1, 1), (2, 2), (9, 3)] {
            report(&mut budget, &mut pools, 0, wanted, NOW);
            assert_eq!((cores(&pools), budget.is_contended()), (vec![expected, 0], false));
        }
    }

    #[test]
    fn an_idle_pool_keeps_its_cores_until_another_asks_for_them() {
        let mut budget = CoreBudget::new(2);
        let mut pools = pools::<3>(&mut budget);
        report(&mut budget, &mut pools, 0, 2, NOW);
        report(&mut budget, &mut pools, 0, 0, NOW);
        assert_eq!(cores(&pools), [2, 0, 0]);
        report(&mut budget, &mut pools, 1, 1, NOW);
        assert_eq!(cores(&pools), [1, 1, 0]);
        report(&mut budget, &mut pools, 2, 1, NOW);
        assert_eq!((cores(&pools), budget.is_contended()), (vec![0, 1, 1], false));
    }

    #[test]
    fn a_core_that_is_taken_away_is_granted_only_when_it_was_given_back() {
        let mut budget = CoreBudget::new(2);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        pools[0].polls = true;
        report(&mut budget, &mut pools, 1, 1, NOW);
        assert_eq!((cores(&pools), budget.is_contended()), (vec![1, 0], true));
        pools[0].polls = false;
        report(&mut budget, &mut pools, 0, 9, NOW);
        assert_eq!(cores(&pools), [1, 1]);
    }

    #[test]
    fn if_a_poll_lasts_longer_than_a_tick_another_pool_gives_its_core() {
        let mut budget = CoreBudget::new(2);
        let mut pools = pools::<3>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        report(&mut budget, &mut pools, 1, 9, NOW);
        pools.iter_mut().for_each(|pool| pool.polls = true);
        tick(&mut budget, &mut pools, at(20));
        report(&mut budget, &mut pools, 2, 1, at(20));
        let first = cores(&pools).iter().position(|&cores| cores == 0).expect("a core was taken away");
        pools[1 - first].polls = false;
        tick(&mut budget, &mut pools, at(21));
        assert_eq!((pools[1 - first].cores, pools[2].cores), (1, 0), "the first may give it back yet");
        tick(&mut budget, &mut pools, at(22));
        assert_eq!((pools[1 - first].cores, pools[2].cores), (0, 1));
    }

    #[test]
    fn a_core_moves_when_its_pool_has_got_a_quantum_ahead() {
        let mut budget = CoreBudget::new(1);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        report(&mut budget, &mut pools, 1, 9, NOW);
        assert_eq!(cores(&pools), [0, 1], "it did not wait before, and has the next core");
        let mut turns = Vec::new();
        for millis in 1..=200 {
            tick(&mut budget, &mut pools, at(millis));
            turns.push(pools[0].cores);
        }
        let changes: Vec<_> = (1..200).filter(|&turn| turns[turn] != turns[turn - 1]).collect();
        assert!(changes.windows(2).all(|pair| (10..=14).contains(&(pair[1] - pair[0]))), "{changes:?}");
        assert!((85..=115).contains(&turns.iter().sum::<usize>()), "{turns:?}");
    }

    #[test]
    fn the_pool_with_the_least_virtual_time_gets_the_first_core_that_is_free() {
        let mut budget = CoreBudget::new(2);
        // The credit of a pool, in virtual time, is the smaller the greater its share is.
        let mut pools = [1, 2, 1].map(|share| Pool::new(&mut budget, share));
        report(&mut budget, &mut pools, 0, 9, NOW);
        pools[0].polls = true;
        report(&mut budget, &mut pools, 1, 1, NOW);
        report(&mut budget, &mut pools, 2, 1, NOW);
        assert_eq!(cores(&pools), [0, 0, 0], "both workers poll");
        let one_parks = Report { held: 1, seq: 9, ..pools[0].report };
        let allots = budget.report(pools[0].member, one_parks, at(1));
        apply(&mut budget, &mut pools, allots, at(1));
        assert_eq!(cores(&pools), [0, 0, 1]);
    }

    #[test]
    fn a_poll_of_ten_seconds_costs_its_pool_no_more_than_a_tenth_of_a_second() {
        let mut budget = CoreBudget::new(1);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        pools[0].polls = true;
        report(&mut budget, &mut pools, 1, 9, NOW);
        (0..5000).for_each(|turn| tick(&mut budget, &mut pools, at(2 * turn)));
        pools[0].polls = false;
        let waits = (5000..6000).position(|turn| {
            tick(&mut budget, &mut pools, at(2 * turn));
            turn > 5000 && pools[0].cores == 1
        });
        let waits = 2 * waits.expect("it has its turn again");
        assert!((80..=140).contains(&waits), "{waits} ms");
    }

    /// Blocked workers resume without asking, and share the core with the worker that holds it.
    #[test]
    fn a_pool_that_computes_on_more_cores_than_it_holds_pays_for_them() {
        let mut budget = CoreBudget::new(1);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        report(&mut budget, &mut pools, 1, 9, NOW);
        let mut turns = [0, 0];
        for millis in 1..=300 {
            let reports: Vec<_> = pools
                .iter_mut()
                .enumerate()
                .map(|(at, pool)| {
                    let in_use = if at == 0 { pool.cores } else { 3 };
                    (pool.member, Report { in_use, ..pool.report(9) })
                })
                .collect();
            let allots = budget.tick(&reports, at(millis));
            apply(&mut budget, &mut pools, allots, at(millis));
            turns = [0, 1].map(|at| turns[at] + pools[at].cores);
        }
        assert!(turns[0] > 2 * turns[1], "{turns:?}");
    }

    #[test]
    fn cores_that_the_machine_loses_are_taken_away_and_those_that_it_gains_are_granted() {
        let mut budget = CoreBudget::new(4);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 2, NOW);
        report(&mut budget, &mut pools, 1, 2, NOW);
        for (available, expected) in [(1, 1), (3, 3), (8, 4)] {
            let allots = budget.set_cores(available, NOW);
            apply(&mut budget, &mut pools, allots, NOW);
            assert_eq!(cores(&pools).iter().sum::<usize>(), expected, "{available} cores");
        }
    }

    #[test]
    fn a_pool_that_is_removed_leaves_its_cores_to_others() {
        let mut budget = CoreBudget::new(2);
        let mut pools = pools::<2>(&mut budget);
        report(&mut budget, &mut pools, 0, 9, NOW);
        pools[0].polls = true;
        report(&mut budget, &mut pools, 1, 9, NOW);
        let allots = budget.remove(pools[0].member, NOW);
        apply(&mut budget, &mut pools, allots, NOW);
        assert_eq!(pools[1].cores, 2);
        assert_ne!(budget.add(1), pools[0].member);
    }

    #[test]
    fn a_report_that_comes_after_a_newer_one_is_ignored() {
        let mut budget = CoreBudget::new(1);
        let mut pools = pools::<1>(&mut budget);
        let older = pools[0].report(1);
        let newer = pools[0].report(0);
        assert!(budget.report(pools[0].member, newer, NOW).is_empty());
        assert!(budget.report(pools[0].member, older, NOW).is_empty());
    }

    #[test]
    fn runnable_workers_of_all_pools_share_the_cores() {
        let mut budget = CoreBudget::new(2);
        let pools = pools::<2>(&mut budget);
        let sampled =
            [(0, 1), (0, 3), (1, 4), (0, 0), (1, 0)].map(|(at, runnable)| budget.sampled(pools[at].member, runnable));
        assert_eq!(sampled, [1, 2, 4, 2, 1]);
    }
}
