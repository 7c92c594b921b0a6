//! Unit tests of the budget of cores.

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
