//! The limiter for an adaptive limit, step by step.

use super::*;

/// The mean execution time.
const RUN: Duration = Duration::from_millis(1);

fn adaptive(min: usize, max: usize) -> Limiter {
    Limiter::new(Limit::Adaptive { min, max })
}

/// Rests until this many run times after the beginning.
fn rests_until(runs: u32) -> Kind {
    Kind::Rest(START + runs * RUN)
}

/// A limiter between these bounds that is at their geometric mean.
fn resting(min: usize, max: usize) -> Limiter {
    let limit = (min as f64 * max as f64).sqrt().round() as usize;
    Limiter { limit, current: limit, experiment: 127, ..adaptive(min, max) }
}

const START: Timestamp = Timestamp::from_nanos(0);

/// Starts this many tasks at once, this many run times after the beginning; the marks of the tasks.
fn start(limiter: &mut Limiter, runs: u32, tasks: usize, full: bool) -> Vec<u8> {
    (0..tasks).map(|_| limiter.started(START + runs * RUN, full, nanos(RUN), || true)).collect()
}

/// A limiter that has just begun its first experiment: between 5 and 12, at a limit of 8.
fn experiment(begin: u32) -> Limiter {
    let mut limiter = resting(1, 64);
    start(&mut limiter, begin, 1, true);
    assert_eq!((limiter.phase.kind, limiter.current), (Kind::Compare(0), 5));
    limiter
}

#[test]
fn an_experiment_begins_after_the_rest_as_soon_as_a_task_starts_while_others_wait() {
    let mut limiter = resting(1, 64);
    limiter.pause(START, nanos(RUN), 3);
    start(&mut limiter, 17, 100, true);
    assert_eq!((limiter.phase.kind, limiter.current), (rests_until(18), 8), "three times six run times");
    start(&mut limiter, 18, 100, false);
    assert_eq!((limiter.phase.kind, limiter.current), (rests_until(18), 8));
    start(&mut limiter, 18, 1, true);
    assert_eq!((limiter.phase.kind, limiter.current), (Kind::Compare(0), 5));
}

/// So many that each of the limit's places has had one.
#[test]
fn a_phase_at_a_high_limit_wants_as_many_tasks_as_the_limit() {
    let mut limiter = Limiter { limit: 64, ..resting(1, 64) };
    start(&mut limiter, 50, 1, true);
    assert_eq!((limiter.phase.kind, limiter.current), (Kind::Compare(0), 45));
    start(&mut limiter, 60, 44, true);
    assert_eq!(limiter.phase.kind, Kind::Compare(0));
    start(&mut limiter, 60, 1, true);
    assert_eq!((limiter.phase.kind, limiter.current), (Kind::Compare(1), 64));
}

#[test]
fn a_fixed_limit_is_not_put_to_the_test() {
    let mut limiter = Limiter::new(Limit::Fixed(8));
    assert_eq!(start(&mut limiter, 50, 100, true), [0; 100]);
    assert_eq!((limiter.current, limiter.waits_until(START, nanos(RUN))), (8, None));
}

#[test]
fn an_experiment_compares_two_limits_however_near_they_are() {
    for (min, max, limit, compared) in [(1, 2, 1, [1, 2]), (1, 2, 2, [1, 2]), (5, 9, 7, [5, 9])] {
        let mut limiter = Limiter { limit, ..resting(min, max) };
        limiter.begin(START, nanos(RUN));
        assert_eq!(limiter.arms.map(|arm| arm.limit), compared, "{limit} of {min} to {max}");
    }
}

#[test]
fn the_phases_of_an_experiment_are_low_high_high_low() {
    let mut limiter = experiment(10);
    let mut limits = Vec::new();
    for phase in 0..5 {
        limits.push(limiter.current);
        let end = 10 + (phase + 1) * 6;
        let wanted = PHASE_TASKS.max(limiter.current as u32) as usize;
        start(&mut limiter, end - 1, wanted, true);
        assert_eq!(limiter.phase.kind, Kind::Compare(phase), "not before its time");
        start(&mut limiter, end, 1, false);
        assert_eq!(limiter.phase.kind, Kind::Compare(phase + 1));
    }
    assert_eq!(limits, [5, 12, 12, 5, 5]);
}

#[test]
fn tasks_that_start_in_the_first_part_of_a_phase_are_compared() {
    let mut limiter = experiment(10);
    let mark = limiter.experiment << 1;
    assert_eq!(start(&mut limiter, 10, 2, false), [0, 0], "none waits");
    assert_eq!(start(&mut limiter, 13, 20, true), [mark; 20]);
    assert_eq!(start(&mut limiter, 14, 2, true), [0, 0], "they might run on into the next phase");
    start(&mut limiter, 16, 1, true);
    assert_eq!((limiter.phase.kind, limiter.current), (Kind::Compare(1), 12));
    assert_eq!(start(&mut limiter, 17, 2, true), [mark | 1; 2]);
}

/// If few tasks start, late ones count too.
#[test]
fn tasks_that_start_late_in_a_phase_are_compared_until_there_are_enough() {
    let mut limiter = experiment(10);
    let mark = limiter.experiment << 1;
    assert_eq!(start(&mut limiter, 20, PHASE_TASKS as usize - 1, true), [mark; PHASE_TASKS as usize - 1]);
    start(&mut limiter, 20, 1, true);
    assert_eq!(limiter.phase.kind, Kind::Compare(1), "enough have started");
}

#[test]
fn only_tasks_of_this_experiment_are_compared() {
    let mut limiter = experiment(10);
    let mark = limiter.experiment << 1;
    for other in [0, 1, mark + 2, mark + 3] {
        limiter.ended(other, Outcome::Ok, RUN);
    }
    limiter.ended(mark, Outcome::Ok, RUN);
    limiter.ended(mark | 1, Outcome::Cancelled, RUN);
    limiter.ended(mark | 1, Outcome::Ok, RUN);
    let [low, high] = limiter.arms.map(|arm| (arm.tasks, arm.lost));
    assert_eq!((low, high), ((1.0, 0.0), (2.0, 1.0)));
    limiter.pause(START, nanos(RUN), 1);
    limiter.ended(mark, Outcome::Ok, RUN);
    assert!(limiter.arms[0].tasks < 2.0, "it is over");
}

/// Runs one experiment in which tasks of the higher limit are slower by this factor.
fn limit_after(slower: f64) -> usize {
    let mut limiter = experiment(10);
    let mut runs = 10;
    while matches!(limiter.phase.kind, Kind::Compare(_)) {
        let tasks = PHASE_TASKS.max(limiter.current as u32) as usize;
        for mark in start(&mut limiter, runs + 1, tasks, true) {
            let factor = if mark & 1 == 1 { slower } else { 1.0 };
            limiter.ended(mark, Outcome::Ok, RUN.mul_f64(factor));
        }
        runs += 6;
        start(&mut limiter, runs, 1, false);
    }
    limiter.limit
}

#[test]
fn the_limit_goes_where_the_throughput_is() {
    assert_eq!(limit_after(1.0), 12, "2.4 times as many were as fast: all of it is gained");
    assert_eq!(limit_after(1.55), 12, "half of it is gained");
    assert_eq!(limit_after(1.93), 8, "between the two it stays");
    assert_eq!(limit_after(2.4), 5, "nothing is gained");
    assert_eq!(limit_after(4.8), 5, "it does harm");
}

/// Tasks of a mean run times a factor, half of them longer and half shorter, by this logarithm.
fn noisy(tasks: usize, factor: f64, spread: f64) -> impl Iterator<Item = Duration> {
    (0..tasks).map(move |task| {
        let off = if task % 2 == 0 { spread } else { -spread };
        RUN.mul_f64(factor * off.exp())
    })
}

/// An experiment between 4 and 16, to reckon with, in which tasks of the higher limit were slower by this factor.
fn compared(slower: f64, spread: f64) -> Limiter {
    let mut limiter = experiment(10);
    (limiter.arms[LOW].limit, limiter.arms[HIGH].limit) = (4, 16);
    for (arm, factor) in [(0, 1.0), (1, slower)] {
        noisy(PHASE_TASKS as usize, factor, spread).for_each(|ran| limiter.arms[arm].add(Outcome::Ok, ran));
    }
    limiter
}

/// The standard error of a slope is 0.295 times the spread here: 24 tasks, and limits that are a factor of 4 apart.
#[test]
fn a_difference_that_may_be_chance_is_no_verdict() {
    let after = |slower, spread| {
        let mut limiter = compared(slower, spread);
        limiter.next_phase(START, nanos(RUN), 2);
        (limiter.limit, matches!(limiter.phase.kind, Kind::Compare(_)))
    };
    assert_eq!(after(2.0, 0.2), (16, false), "0.5 and 0.12 are below 0.65");
    assert_eq!(after(2.0, 0.4), (8, true), "0.5 and 0.24 are not");
    assert_eq!(after(4.0, 0.2), (4, false), "1 less 0.12 is above 0.85");
    assert_eq!(after(4.0, 0.4), (8, true), "1 less 0.24 is not");
    assert_eq!(after(2.83, 0.16), (8, false), "the gap between the two is 0.2");
    assert_eq!(after(2.83, 0.18), (8, true));
    let mut limiter = experiment(10);
    limiter.next_phase(START, nanos(RUN), 2);
    assert_eq!(limiter.phase.kind, Kind::Compare(2), "nothing is known");
}

/// A drift would otherwise fall on one of the two.
#[test]
fn the_two_limits_are_compared_after_as_many_phases_of_each() {
    let mut limiter = compared(1.0, 0.0);
    for (number, limit) in [(1, 8), (2, 16)] {
        limiter.next_phase(START, nanos(RUN), number);
        assert_eq!(limiter.limit, limit, "after {number}");
    }
}

#[test]
fn an_experiment_ends_when_it_is_settled_and_in_doubt_after_so_many_rounds() {
    let phase = |spread, number| {
        let mut limiter = compared(2.83, spread);
        limiter.next_phase(START, nanos(RUN), number);
        limiter.phase.kind
    };
    assert!(matches!(phase(0.0, 2), Kind::Rest(_)));
    for number in [2, 4, 62] {
        assert_eq!(phase(0.5, number), Kind::Compare(number));
    }
    assert!(matches!(phase(0.5, 64), Kind::Rest(_)));
}

#[test]
fn no_task_is_taken_for_one_of_another_experiment() {
    let mut limiter = resting(1, 64);
    let mut before = 0;
    for _ in 0..300 {
        limiter.begin(START, nanos(RUN));
        assert!(limiter.experiment != before && (1..=127).contains(&limiter.experiment));
        before = limiter.experiment;
    }
}

#[test]
fn a_limit_that_stays_rests_twice_as_long_each_time() {
    let mut limiter = resting(1, 64);
    let mut rest = |phases| {
        limiter.rest_longer(START, nanos(RUN), phases);
        limiter.phase.kind
    };
    for phases in [8, 16, 32, 64, 64] {
        assert_eq!(rest(4), rests_until(6 * phases), "sixteen times its four phases at most");
    }
    assert_eq!(rest(16), rests_until(6 * MOST_PHASES));
}

#[test]
fn moves_in_one_direction_follow_each_other_and_one_back_rests() {
    let mut limiter = Limiter { rest: 16, ..resting(1, 1000) };
    for _ in 0..2 {
        limiter.begin(START, nanos(RUN));
        let high = limiter.arms[HIGH].limit;
        limiter.move_to(START, nanos(RUN), HIGH, 2);
        assert_eq!((limiter.limit, limiter.current, limiter.phase.kind), (high, high, rests_until(6)));
    }
    limiter.begin(START, nanos(RUN));
    let low = limiter.arms[LOW].limit;
    limiter.move_to(START, nanos(RUN), LOW, 2);
    assert_eq!((limiter.limit, limiter.phase.kind), (low, rests_until(24)));
}

#[test]
fn a_limit_does_not_move_beyond_its_bounds() {
    for (limit, arm, arms) in [(1, LOW, [1, 2]), (64, HIGH, [45, 64])] {
        let mut limiter = Limiter { limit, ..resting(1, 64) };
        limiter.begin(START, nanos(RUN));
        assert_eq!(limiter.arms.map(|arm| arm.limit), arms);
        limiter.move_to(START, nanos(RUN), arm, 2);
        assert_eq!((limiter.limit, limiter.current, limiter.rest), (limit, limit, 2));
    }
}

#[test]
fn tasks_whose_callers_left_count_as_no_throughput() {
    let mut arm = Arm::default();
    (0..100).for_each(|_| arm.add(Outcome::Ok, RUN));
    let (all, _) = arm.slowness().expect("there are enough");
    let mut half = Arm::default();
    (0..50).for_each(|_| half.add(Outcome::Ok, RUN));
    (0..50).for_each(|_| half.add(Outcome::Cancelled, RUN));
    let (lost, variance) = half.slowness().expect("there are enough");
    let kept = |tasks: f64| ((tasks + 0.5) / 101.0).ln();
    let slower = kept(100.0) - kept(50.0);
    assert!((lost - all - slower).abs() < 1e-6, "as if each took twice as long: {lost} and {all}");
    assert!((variance.sqrt() - 0.1).abs() < 1e-3, "of a hundred, half may be 40 or 60 within two of these: {variance}");
}

#[test]
fn an_estimate_is_as_sure_as_its_tasks_are_many_and_alike() {
    let of = |tasks: u32, spread: f64| {
        let mut arm = Arm::default();
        for task in 0..tasks {
            let factor = if task % 2 == 0 { spread } else { 1.0 / spread };
            arm.add(Outcome::Ok, RUN.mul_f64(factor));
        }
        arm.slowness()
    };
    assert!(of(PHASE_TASKS - 1, 1.0).is_none(), "too few");
    let error = |tasks, spread| of(tasks, spread).expect("there are enough").1.sqrt();
    assert!(error(100, 1.0) < 1e-3);
    // The logarithm is `ln 2` off the mean, up or down.
    assert!((error(100, 2.0) - 2.0_f64.ln() / 10.0).abs() < 1e-3);
    assert!((error(400, 2.0) - 2.0_f64.ln() / 20.0).abs() < 1e-3);
}

#[test]
fn a_limiter_begins_at_its_upper_bound() {
    assert_eq!(adaptive(2, 64).current, 64);
}

#[test]
fn while_tasks_wait_and_none_starts_an_experiment_is_given_up_and_then_the_limit_doubles() {
    let run = nanos(RUN);
    let at_runs = |runs: u32| START + runs * RUN;
    let mut limiter = experiment(10);
    let mut limits = Vec::new();
    for step in 1..=6 {
        let due = limiter.waits_until(START, run);
        assert_eq!(due.is_some(), limiter.current < 64);
        limiter.waits(at_runs(10 + step * 100), START, run);
        limits.push(limiter.current);
    }
    assert_eq!(limits, [8, 16, 32, 64, 64, 64]);
    limiter.limit = 8;
    limiter.pause(START, nanos(RUN), 1);
    limiter.waits(at_runs(700), at_runs(601), run);
    assert_eq!(limiter.current, 8, "one has started");
}

#[test]
fn no_experiment_begins_below_capacity() {
    let mut limiter = resting(1, 64);
    (0..100).for_each(|_| _ = limiter.started(START + 50 * RUN, true, nanos(RUN), || false));
    assert_eq!((limiter.phase.kind, limiter.current), (rests_until(0), 8));
    start(&mut limiter, 50, 1, true);
    assert_eq!(limiter.phase.kind, Kind::Compare(0));
}

#[test]
fn the_first_experiment_begins_as_soon_as_the_load_is_above_capacity_and_at_the_geometric_mean() {
    let mut limiter = adaptive(1, 64);
    _ = limiter.started(START, true, nanos(RUN), || false);
    _ = limiter.started(START, false, nanos(RUN), || true);
    assert_eq!(limiter.current, 64);
    _ = limiter.started(START, true, nanos(RUN), || true);
    assert_eq!((limiter.limit, limiter.current, limiter.phase.kind), (8, 5, Kind::Compare(0)));
}
