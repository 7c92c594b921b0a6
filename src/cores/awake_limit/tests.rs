//! Unit tests of the awake limit.

use proptest::prelude::*;

use super::*;
use crate::cores::allotment::MemberId;

const CORES: usize = 2;
const MOST: usize = 30;
const NOW: Timestamp = Timestamp::from_nanos(0);

fn limit(cores: usize, most: usize) -> AwakeLimit {
    let mut limit = AwakeLimit::new(most);
    limit.set_cores(cores);
    limit
}

/// A limit whose pool was seen to compute.
fn lowered(cores: usize, most: usize) -> AwakeLimit {
    let mut limit = limit(cores, most);
    limit.observe(NOW, &workers(most, 0), most, 1, 1);
    assert_eq!(limit.current(), cores.min(most));
    limit
}

/// A sample of `runnable` runnable workers and `blocked` blocked ones.
fn workers(runnable: usize, blocked: usize) -> Vec<Sampled> {
    (0..runnable + blocked).map(|worker| Sampled { runnable: worker < runnable, since: Some(NOW) }).collect()
}

/// Learns from a sample of all awake workers while tasks wait.
fn sample(limit: &mut AwakeLimit, awake: usize, runnable: usize) -> Option<Duration> {
    limit.observe(NOW, &workers(runnable, awake - runnable), awake, 1, 1)
}

#[test]
fn all_workers_may_be_awake_until_they_are_seen_to_compute() {
    for cores in [0, CORES] {
        let mut limit = limit(cores, MOST);
        assert_eq!(limit.current(), MOST);
        assert!(!limit.is_worth_sampling(cores, 1) && limit.is_worth_sampling(cores + 1, 0));
        assert_eq!(sample(&mut limit, MOST, MOST), Some(MIN_INTERVAL));
        assert_eq!(limit.current(), cores);
    }
}

#[test]
fn at_the_limit_a_pool_is_sampled_only_if_tasks_wait() {
    let limit = lowered(CORES, MOST);
    assert!(limit.is_worth_sampling(CORES, 1) && !limit.is_worth_sampling(CORES, 0));
}

#[test]
fn a_pool_without_a_worker_awake_is_not_sampled_though_its_tasks_wait_for_a_core() {
    assert!(!lowered(0, MOST).is_worth_sampling(0, 1));
}

#[test]
fn a_pool_of_no_more_workers_than_cores_is_not_sampled() {
    for most in 1..=CORES {
        assert!(!limit(CORES, most).is_worth_sampling(most, 1));
    }
}

#[test]
fn each_blocked_worker_is_replaced_by_one_more() {
    for cores in [0, 1, CORES] {
        let mut limit = limit(cores, MOST);
        sample(&mut limit, 16, 7);
        let spare = if cores == 0 { 0 } else { 3 };
        assert_eq!(limit.current(), cores + 9 + spare, "nine are blocked, and that may vary by three");
    }
}

#[test]
fn the_limit_follows_the_allotment_at_once_and_keeps_what_was_learned() {
    let mut limit = limit(CORES, MOST);
    sample(&mut limit, 16, 7);
    for cores in [0, 1, 4, 0] {
        limit.set_cores(cores);
        assert_eq!(limit.current(), if cores == 0 { 9 } else { cores + 9 + 3 });
    }
}

#[test]
fn one_sample_that_differs_moves_the_limit_little() {
    let mut limit = limit(CORES, MOST);
    sample(&mut limit, 20, 4);
    assert_eq!(limit.current(), CORES + 16 + 4);
    sample(&mut limit, 20, 12);
    assert_eq!(limit.current(), CORES + 14 + 4);
}

#[test]
fn the_limit_doubles_while_a_core_has_nothing_to_do() {
    let mut limit = lowered(CORES, MOST);
    let limits: Vec<_> = (0..6)
        .map(|_| {
            let awake = limit.current();
            sample(&mut limit, awake, 0);
            limit.current()
        })
        .collect();
    assert_eq!(limits, [3, 6, 12, 24, 30, 30], "one sample alone may have come between two tasks");
}

#[test]
fn a_pool_without_a_core_lets_more_workers_in_while_all_are_blocked_and_none_while_one_computes() {
    let mut limit = lowered(0, MOST);
    for _ in 0..10 {
        sample(&mut limit, 1, 1);
        assert_eq!(limit.current(), 0);
    }
    let limits = [(); 17].map(|()| {
        let awake = limit.current().max(1);
        sample(&mut limit, awake, 0);
        limit.current()
    });
    assert_eq!(limits[..10], [0, 0, 1, 1, 1, 1, 1, 1, 1, 2], "one by one as they are seen");
    assert_eq!(limits[10..], [4, 8, 16, 30, 30, 30, 30]);
}

#[test]
fn the_limit_does_not_rise_for_tasks_that_are_not_there_nor_fall_for_cores_that_are_just_enough() {
    let mut low = lowered(CORES, MOST);
    for _ in 0..10 {
        low.observe(NOW, &workers(0, CORES), CORES, 0, 1);
    }
    assert_eq!(low.current(), CORES);
    let mut high = limit(CORES, MOST);
    high.observe(NOW, &workers(CORES, 1), CORES + 1, 0, 1);
    assert_eq!(high.current(), MOST);
}

#[test]
fn the_next_sample_comes_soon_while_a_core_seems_without_work_and_there_is_another_worker() {
    let mut short = limit(CORES, MOST);
    let samples = [(MOST, MOST), (CORES + 1, CORES), (CORES + 1, 1)].map(|(awake, runnable)| {
        let next = sample(&mut short, awake, runnable);
        (next, short.current())
    });
    assert_eq!(samples, [CORES, CORES + 1, CORES + 1].map(|current| (Some(MIN_INTERVAL), current)));
    let mut full = limit(CORES, MOST);
    let samples = [(); 9].map(|()| sample(&mut full, MOST, 0).expect("tasks wait").as_millis());
    assert_eq!(samples, [2, 4, 8, 16, 32, 64, 100, 100, 100]);
}

#[test]
fn workers_that_were_not_sampled_are_taken_to_be_like_the_others() {
    let mut limit = limit(CORES, MOST);
    limit.observe(NOW, &workers(1, 3), 10, 1, 1);
    assert_eq!(limit.current(), CORES + 7 + 3, "two and a half compute");
}

#[test]
fn a_worker_whose_poll_is_far_longer_than_usual_counts_as_blocked() {
    for cores in [1, CORES] {
        let mut limit = lowered(cores, MOST);
        (0..100).for_each(|_| limit.record_poll(Duration::from_millis(20)));
        let at = |millis| NOW + Duration::from_millis(millis);
        for _ in 0..10 {
            limit.observe(at(79), &workers(cores, 0), cores, 1, 1);
        }
        assert_eq!(limit.current(), cores, "not four times the usual");
        limit.observe(at(81), &workers(cores, 0), cores, 1, 2);
        assert_eq!(limit.current(), cores, "two share each core");
        limit.observe(at(81), &workers(cores, 0), cores, 1, 1);
        assert_eq!(limit.current(), cores + 1, "as if one of them blocked now and then");
    }
}

#[test]
fn what_was_learned_outlives_a_calm_while() {
    let mut limit = lowered(CORES, MOST);
    let calm = [Sampled { runnable: false, since: None }];
    let mut time = Duration::ZERO;
    while let Some(interval) = limit.observe(NOW, &calm, 1, 0, 1) {
        time += interval;
    }
    assert!(time >= QUIET_PERIOD && time < QUIET_PERIOD + 2 * MAX_INTERVAL, "{time:?}");
    assert_eq!(limit.current(), CORES);
}

#[test]
fn the_usual_length_of_a_poll_follows_the_latest_ones() {
    let mut limit = limit(CORES, MOST);
    (0..100).for_each(|_| limit.record_poll(Duration::from_millis(20)));
    assert!(
        limit.mean_poll_time().abs_diff(Duration::from_millis(20)) < Duration::from_millis(1),
        "{:?}",
        limit.mean_poll_time()
    );
    (0..100).for_each(|_| limit.record_poll(Duration::MAX));
    (0..1000).for_each(|_| limit.record_poll(Duration::ZERO));
    assert!(limit.mean_poll_time() < Duration::from_micros(1), "{:?}", limit.mean_poll_time());
}

fn allot(seq: u64, cores: usize) -> Allot {
    Allot { member: MemberId(0), cores, seq, acknowledge: false }
}

#[test]
fn a_pool_asks_once_when_it_runs_out_of_cores_and_again_when_it_has_what_it_asked_for() {
    let mut limit = lowered(0, MOST);
    let first = limit.report(0, 3).expect("a task waits for a core");
    assert_eq!((first.seq, first.wanted, first.held), (1, 3, 0));
    assert_eq!(limit.report(0, 9), None, "the budget knows that the pool waits");
    assert_eq!(limit.apply(allot(1, 1), 0, 9), None, "it has not all that it asked for");
    assert_eq!(limit.report(1, 8), None);
    let third = limit.apply(allot(2, 3), 3, 9).expect("more tasks wait");
    assert_eq!((third.seq, third.applied, third.wanted, third.held), (2, 2, 12, 3));
    assert_eq!(limit.report(2, 0), None);
    let idle = limit.report(0, 0).expect("it has become idle");
    assert_eq!((idle.wanted, idle.held), (0, 3), "it keeps its cores until others need them");
    assert_eq!(limit.report(0, 0), None);
    assert_eq!(limit.report(3, 0), None, "and works on them without a word");
}

#[test]
fn a_core_that_was_taken_away_is_given_back_when_a_worker_parks() {
    let mut limit = lowered(3, MOST);
    limit.status(3, 9);
    let taken = Allot { acknowledge: true, ..allot(1, 1) };
    let report = limit.apply(taken, 3, 9).expect("it acknowledges");
    assert_eq!((report.applied, report.held), (1, 3));
    assert_eq!(limit.report(3, 9), None);
    assert_eq!(limit.report(2, 9).map(|report| report.held), Some(2));
    assert_eq!(limit.report(1, 9).map(|report| report.held), Some(1));
    assert_eq!(limit.report(0, 9), None);
}

#[test]
fn an_allotment_older_than_the_last_is_not_applied() {
    let mut limit = lowered(0, MOST);
    limit.apply(allot(7, 2), 0, 0);
    for older in [6, 7] {
        assert_eq!(limit.apply(Allot { acknowledge: true, ..allot(older, 5) }, 0, 0), None);
    }
    assert_eq!(limit.current(), 2);
}

#[test]
fn blocked_workers_want_no_core_and_a_pool_whose_workers_are_all_awake_wants_none_for_waiting_tasks() {
    let mut limit = limit(0, 8);
    limit.observe(NOW, &workers(1, 7), 8, 5, 1);
    assert_eq!(limit.status(8, 5).wanted, 1);
}

proptest! {
    #[test]
    fn the_limit_lies_between_the_cores_and_the_workers(
        most in 1..64_usize,
        samples in proptest::collection::vec((0..64_usize, 0..64_usize, 0..64_usize, 0..2_usize, 0..u64::MAX), 0..200),
    ) {
        let mut limit = AwakeLimit::new(most);
        for (cores, awake, runnable, waiting, nanos) in samples {
            limit.set_cores(cores);
            limit.record_poll(Duration::from_nanos(nanos));
            let sample = workers(runnable.min(awake), awake.saturating_sub(runnable));
            limit.observe(Timestamp::from_nanos(nanos), &sample, awake, waiting, cores);
            prop_assert!(limit.current() <= most && limit.current() >= cores.min(most));
        }
    }

    /// However it got there, and whatever the allotment: while a task waits and no worker computes, every worker is
    /// let in before long.
    #[test]
    fn nothing_waits_for_ever_for_workers_that_block(
        cores in 0..64_usize,
        most in 1..500_usize,
        samples in proptest::collection::vec((0..64_usize, 0..64_usize), 0..50),
    ) {
        let mut limit = limit(cores, most);
        for (awake, runnable) in samples {
            sample(&mut limit, awake, runnable.min(awake));
        }
        let mut time = Duration::ZERO;
        while limit.current() < most {
            let awake = limit.current().max(1);
            time += sample(&mut limit, awake, 0).expect("a task waits");
        }
        prop_assert!(time <= Duration::from_millis(30), "{time:?}");
    }
}
