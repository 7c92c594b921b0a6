//! The search for an adaptive limit, step by step.

use super::*;

/// The mean execution time.
const RUN: Duration = Duration::from_millis(1);

/// A search between these bounds that is at their geometric mean.
fn resting(min: usize, max: usize) -> Search {
    let limit = (min as f64 * max as f64).sqrt().round() as usize;
    Search { limit, current: limit, experiment: 127, ..Search::new(min, max) }
}

const START: Timestamp = Timestamp::from_nanos(0);

/// Starts this many tasks at once, this many run times after the beginning; the marks of the tasks.
fn start(search: &mut Search, runs: u32, tasks: usize, full: bool) -> Vec<u8> {
    (0..tasks).map(|_| search.started(START + runs * RUN, full, nanos(RUN), || true)).collect()
}

/// A search that has just begun its first experiment: between 4 and 16, at a limit of 8.
fn experiment(begin: u32) -> Search {
    let mut search = resting(1, 64);
    start(&mut search, begin, PHASE_TASKS as usize, true);
    assert_eq!((search.phase.kind, search.current), (Kind::Compare(0), 4));
    search
}

#[test]
fn an_experiment_begins_once_enough_tasks_started_while_others_waited() {
    let mut search = resting(1, 64);
    start(&mut search, 50, 100, false);
    start(&mut search, 50, PHASE_TASKS as usize - 1, true);
    start(&mut search, 50, 1, false);
    assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
    start(&mut search, 50, 1, true);
    assert_eq!((search.phase.kind, search.current), (Kind::Compare(0), 4));
}

#[test]
fn an_experiment_does_not_begin_before_its_time() {
    let mut search = resting(1, 64);
    start(&mut search, 5, 100, true);
    assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
    start(&mut search, 6, 1, true);
    assert_eq!(search.phase.kind, Kind::Compare(0));
}

#[test]
fn a_longer_rest_is_longer_in_time_and_in_tasks() {
    let mut search = resting(1, 64);
    search.pause(START, 3);
    start(&mut search, 17, 100, true);
    assert_eq!(search.phase.kind, Kind::Rest(3), "three times six run times");
    search.pause(START, 3);
    start(&mut search, 18, 3 * PHASE_TASKS as usize - 1, true);
    assert_eq!(search.phase.kind, Kind::Rest(3), "three times twelve tasks");
    start(&mut search, 18, 1, true);
    assert_eq!(search.phase.kind, Kind::Compare(0));
}

/// So many that each of the limit's places has had one.
#[test]
fn a_phase_at_a_high_limit_wants_as_many_tasks_as_the_limit() {
    let mut search = resting(64, 64);
    start(&mut search, 50, 63, true);
    assert_eq!(search.phase.started, 63);
    start(&mut search, 50, 1, true);
    assert_eq!(search.phase.kind, Kind::Rest(MOST_PHASES), "there is nothing to compare with");
}

#[test]
fn an_experiment_compares_two_limits_however_near_they_are() {
    for (min, max, limit, compared) in [(1, 2, 1, [1, 2]), (1, 2, 2, [1, 2]), (5, 9, 7, [6, 8])] {
        let mut search = Search { limit, width: NARROWEST, ..resting(min, max) };
        search.begin(START);
        assert_eq!(search.arms.map(|arm| arm.limit), compared, "{limit} of {min} to {max}");
    }
}

#[test]
fn the_phases_of_an_experiment_are_low_high_high_low() {
    let mut search = experiment(10);
    let mut limits = Vec::new();
    for phase in 0..5 {
        limits.push(search.current);
        let end = 10 + (phase + 1) * 6;
        let wanted = PHASE_TASKS.max(search.current as u32) as usize;
        start(&mut search, end - 1, wanted, true);
        assert_eq!(search.phase.kind, Kind::Compare(phase), "not before its time");
        start(&mut search, end, 1, false);
        assert_eq!(search.phase.kind, Kind::Compare(phase + 1));
    }
    assert_eq!(limits, [4, 16, 16, 4, 4]);
}

#[test]
fn tasks_that_start_in_the_first_part_of_a_phase_are_compared() {
    let mut search = experiment(10);
    let mark = search.experiment << 1;
    assert_eq!(start(&mut search, 10, 2, false), [0, 0], "none waits");
    assert_eq!(start(&mut search, 13, 20, true), [mark; 20]);
    assert_eq!(start(&mut search, 14, 2, true), [0, 0], "they might run on into the next phase");
    start(&mut search, 16, 1, true);
    assert_eq!((search.phase.kind, search.current), (Kind::Compare(1), 16));
    assert_eq!(start(&mut search, 17, 2, true), [mark | 1; 2]);
}

/// If few tasks start, late ones count too.
#[test]
fn tasks_that_start_late_in_a_phase_are_compared_until_there_are_enough() {
    let mut search = experiment(10);
    let mark = search.experiment << 1;
    assert_eq!(start(&mut search, 20, PHASE_TASKS as usize - 1, true), [mark; PHASE_TASKS as usize - 1]);
    start(&mut search, 20, 1, true);
    assert_eq!(search.phase.kind, Kind::Compare(1), "enough have started");
}

#[test]
fn an_experiment_is_given_up_if_too_few_tasks_start_while_others_wait() {
    let mut search = experiment(10);
    start(&mut search, 10, PHASE_TASKS as usize - 1, true);
    start(&mut search, 10 + 95, 1, false);
    assert_eq!(search.phase.kind, Kind::Compare(0));
    start(&mut search, 10 + 96, 1, false);
    assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
    let mut search = experiment(10);
    start(&mut search, 10, PHASE_TASKS as usize - 1, true);
    start(&mut search, 10 + 96, 1, true);
    assert_eq!(search.phase.kind, Kind::Compare(1), "these are just enough");
}

#[test]
fn only_tasks_of_this_experiment_are_compared() {
    let mut search = experiment(10);
    let mark = search.experiment << 1;
    for other in [0, 1, mark + 2, mark + 3] {
        search.ended(START, other, Outcome::Ok, RUN);
    }
    search.ended(START, mark, Outcome::Ok, RUN);
    search.ended(START, mark | 1, Outcome::Cancelled, RUN);
    search.ended(START, mark | 1, Outcome::Ok, RUN);
    let [low, high] = search.arms.map(|arm| (arm.tasks, arm.lost));
    assert_eq!((low, high), ((1.0, 0.0), (2.0, 1.0)));
    search.pause(START, 1);
    search.ended(START, mark, Outcome::Ok, RUN);
    assert!(search.arms[0].tasks < 2.0, "it is over");
}

/// Runs one experiment in which tasks of the higher limit are slower by this factor.
fn limit_after(slower: f64) -> usize {
    let mut search = experiment(10);
    let mut runs = 10;
    while matches!(search.phase.kind, Kind::Compare(_)) {
        let tasks = PHASE_TASKS.max(search.current as u32) as usize;
        for mark in start(&mut search, runs + 1, tasks, true) {
            let factor = if mark & 1 == 1 { slower } else { 1.0 };
            search.ended(START, mark, Outcome::Ok, RUN.mul_f64(factor));
        }
        runs += 6;
        start(&mut search, runs, 1, false);
    }
    search.limit
}

#[test]
fn the_limit_goes_where_the_throughput_is() {
    assert_eq!(limit_after(1.0), 16, "four times as many were as fast: all of it is gained");
    assert_eq!(limit_after(2.0), 16, "half as fast each: twice the throughput");
    assert_eq!(limit_after(2.83), 8, "between the two it stays");
    assert_eq!(limit_after(4.0), 4, "nothing is gained");
    assert_eq!(limit_after(8.0), 4, "it does harm");
}

/// Tasks of a mean run times a factor, half of them longer and half shorter, by this logarithm.
fn noisy(tasks: usize, factor: f64, spread: f64) -> impl Iterator<Item = Duration> {
    (0..tasks).map(move |task| {
        let off = if task % 2 == 0 { spread } else { -spread };
        RUN.mul_f64(factor * off.exp())
    })
}

/// An experiment between 4 and 16 in which tasks of the higher limit were slower by this factor.
fn compared(slower: f64, spread: f64) -> Search {
    let mut search = experiment(10);
    for (arm, factor) in [(0, 1.0), (1, slower)] {
        noisy(PHASE_TASKS as usize, factor, spread).for_each(|ran| search.arms[arm].add(Outcome::Ok, ran));
    }
    search
}

/// The standard error of a slope is 0.295 times the spread here: 24 tasks, and limits that are a factor of 4 apart.
#[test]
fn a_difference_that_may_be_chance_is_no_verdict() {
    let verdict = |slower, spread| compared(slower, spread).verdict();
    assert_eq!(verdict(2.0, 0.2), Some(Direction::Up), "0.5 and 0.12 are below 0.65");
    assert_eq!(verdict(2.0, 0.4), None, "0.5 and 0.24 are not");
    assert_eq!(verdict(4.0, 0.2), Some(Direction::Down), "1 less 0.12 is above 0.85");
    assert_eq!(verdict(4.0, 0.4), None, "1 less 0.24 is not");
    let settled = |spread| compared(2.83, spread).is_settled();
    assert!(settled(0.16) && !settled(0.18), "the gap between the two is 0.2");
    assert!(!experiment(10).is_settled(), "nothing is known");
}

/// A drift would otherwise fall on one of the two.
#[test]
fn the_two_limits_are_compared_after_as_many_phases_of_each() {
    let mut search = compared(1.0, 0.0);
    for (number, limit) in [(1, 8), (2, 16)] {
        search.next_phase(START, number);
        assert_eq!(search.limit, limit, "after {number}");
    }
}

#[test]
fn an_experiment_ends_when_it_is_settled_and_in_doubt_after_so_many_rounds() {
    let phase = |spread, number| {
        let mut search = compared(2.83, spread);
        search.next_phase(START, number);
        search.phase.kind
    };
    assert!(matches!(phase(0.0, 2), Kind::Rest(_)));
    for number in [2, 4, 62] {
        assert_eq!(phase(0.5, number), Kind::Compare(number));
    }
    assert!(matches!(phase(0.5, 64), Kind::Rest(_)));
}

#[test]
fn no_task_is_taken_for_one_of_another_experiment() {
    let mut search = resting(1, 64);
    let mut before = 0;
    for _ in 0..300 {
        search.begin(START);
        assert!(search.experiment != before && (1..=127).contains(&search.experiment));
        before = search.experiment;
    }
}

#[test]
fn a_limit_that_stays_rests_twice_as_long_each_time() {
    let mut search = resting(1, 64);
    let rests: Vec<_> = (0..6)
        .map(|_| {
            search.phase.kind = Kind::Compare(3);
            search.rest_longer(START);
            search.phase.kind
        })
        .collect();
    assert_eq!(rests, [8, 16, 32, 64, 64, 64].map(Kind::Rest), "sixteen times its four phases at most");
    search.phase.kind = Kind::Compare(15);
    search.rest_longer(START);
    assert_eq!(search.phase.kind, Kind::Rest(MOST_PHASES));
}

#[test]
fn an_experiment_becomes_as_wide_as_the_noise_asks_for() {
    let width = |spread: f64| {
        let mut search = Search { width: 2.0, ..compared(2.83, spread) };
        search.stay(START);
        search.width
    };
    let near = |width: f64, expected: f64| assert!((width - expected).abs() < 1e-6, "{width} for {expected}");
    near(width(0.3), 2.0_f64.sqrt());
    near(width(0.4), 2.0);
    near(width(0.65), 2.0);
    near(width(0.7), 2.0_f64.powf(1.5));
    let bounds = |width: f64, spread: f64| {
        let mut search = Search { width, ..compared(2.83, spread) };
        search.stay(START);
        search.width
    };
    near(bounds(1.3, 0.0), NARROWEST);
    near(bounds(3.9, 1.0), WIDEST);
    let mut unknown = Search { width: 2.0, ..experiment(10) };
    unknown.stay(START);
    near(unknown.width, 2.0_f64.powf(1.5));
}

#[test]
fn moves_in_one_direction_follow_each_other_and_one_back_rests() {
    let mut search = resting(1, 1000);
    for _ in 0..2 {
        search.begin(START);
        let high = search.arms[1].limit;
        search.move_limit(START, Direction::Up);
        assert_eq!((search.limit, search.current, search.phase.kind), (high, high, Kind::Rest(1)));
    }
    search.begin(START);
    let low = search.arms[0].limit;
    search.move_limit(START, Direction::Down);
    assert_eq!((search.limit, search.phase.kind), (low, Kind::Rest(2)));
}

#[test]
fn a_limit_does_not_move_beyond_its_bounds() {
    for (limit, direction) in [(1, Direction::Down), (64, Direction::Up)] {
        let mut search = Search { limit, ..resting(1, 64) };
        search.begin(START);
        search.move_limit(START, direction);
        assert_eq!((search.limit, search.current, search.rest), (limit, limit, 2));
    }
    let mut search = Search { limit: 64, ..resting(1, 64) };
    search.begin(START);
    assert_eq!(search.arms.map(|arm| arm.limit), [32, 64]);
}

/// The width of the next experiment when a block of tasks was slower than the previous one by this factor.
fn width_after(factor: f64, spread: f64, tasks: usize) -> f64 {
    let mut search = Search { width: NARROWEST, ..resting(1, 64) };
    for ran in noisy(BLOCK as usize, 1.0, spread).chain(noisy(tasks, factor, spread)) {
        search.ended(START, 0, Outcome::Ok, ran);
    }
    search.width
}

/// A factor of two, and of another 1.25 that an experiment of this width can make.
#[test]
#[expect(clippy::float_cmp, reason = "they are constants")]
fn a_workload_that_changes_calls_for_a_wide_experiment() {
    let block = BLOCK as usize;
    for (factor, spread, width) in [
        (2.4, 0.0, NARROWEST),
        (2.6, 0.0, WIDEST),
        (1.0 / 2.4, 0.0, NARROWEST),
        (1.0 / 2.6, 0.0, WIDEST),
        // Two standard errors are a quarter here.
        (2.9, 1.0, NARROWEST),
        (3.5, 1.0, WIDEST),
    ] {
        assert_eq!(width_after(factor, spread, block), width, "{factor} times as long");
    }
    assert_eq!(width_after(3.0, 0.0, block - 1), NARROWEST, "a block is not full");
}

#[test]
fn tasks_whose_callers_left_count_as_no_throughput() {
    let mut arm = Arm::default();
    (0..100).for_each(|_| arm.add(Outcome::Ok, RUN));
    let all = arm.slowness().expect("there are enough").value;
    let mut half = Arm::default();
    (0..50).for_each(|_| half.add(Outcome::Ok, RUN));
    (0..50).for_each(|_| half.add(Outcome::Cancelled, RUN));
    let lost = half.slowness().expect("there are enough");
    let kept = |tasks: f64| ((tasks + 0.5) / 101.0).ln();
    let slower = kept(100.0) - kept(50.0);
    assert!((lost.value - all - slower).abs() < 1e-6, "as if each took twice as long: {lost:?} and {all}");
    assert!((lost.doubt() - 0.2).abs() < 1e-3, "of a hundred, half may be 40 or 60: {lost:?}");
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
    let doubt = |tasks, spread| of(tasks, spread).expect("there are enough").doubt();
    assert!(doubt(100, 1.0) < 1e-3);
    // The logarithm is `ln 2` off the mean, up or down.
    assert!((doubt(100, 2.0) - 2.0 * 2.0_f64.ln() / 10.0).abs() < 1e-3);
    assert!((doubt(400, 2.0) - 2.0 * 2.0_f64.ln() / 20.0).abs() < 1e-3);
}

#[test]
fn a_search_begins_at_its_upper_bound() {
    assert_eq!(Search::new(2, 64).current, 64);
}

#[test]
fn while_tasks_wait_and_none_starts_an_experiment_is_given_up_and_then_the_limit_doubles() {
    let run = nanos(RUN);
    let at_runs = |runs: u32| START + runs * RUN;
    let mut search = experiment(10);
    let mut limits = Vec::new();
    for step in 1..=6 {
        let due = search.waits_until(START, run);
        assert_eq!(due.is_some(), search.current < 64);
        search.waits(at_runs(10 + step * 100), START, run);
        limits.push(search.current);
    }
    assert_eq!(limits, [8, 16, 32, 64, 64, 64]);
    search.limit = 8;
    search.pause(START, 1);
    search.waits(at_runs(700), at_runs(601), run);
    assert_eq!(search.current, 8, "one has started");
}

#[test]
fn no_experiment_begins_below_capacity() {
    let mut search = resting(1, 64);
    (0..100).for_each(|_| _ = search.started(START + 50 * RUN, true, nanos(RUN), || false));
    assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
    start(&mut search, 50, 1, true);
    assert_eq!(search.phase.kind, Kind::Compare(0));
}

#[test]
fn the_first_experiment_begins_as_soon_as_the_load_is_above_capacity_and_at_the_geometric_mean() {
    let mut search = Search::new(1, 64);
    _ = search.started(START, true, nanos(RUN), || false);
    _ = search.started(START, false, nanos(RUN), || true);
    assert_eq!(search.current, 64);
    _ = search.started(START, true, nanos(RUN), || true);
    assert_eq!((search.limit, search.current, search.phase.kind), (8, 4, Kind::Compare(0)));
}
