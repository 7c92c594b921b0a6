//! The concurrency limit: fixed, or found by experiment.
//!
//! An adaptive limit asks one question, over and over: *does more concurrency give more throughput?* It runs the pool
//! at two limits in turn, a lower and a higher one, in the order low, high, high, low, and compares the execution times
//! of the jobs that started under each. Throughput is concurrency divided by execution time. So if going from `low` to
//! `high` makes jobs slower by the whole factor `high / low`, nothing is gained, and if it leaves them as they were, all
//! of it is. The *slope* is the logarithm of how much slower they became over that of `high / low`: 0 is free, 1 is in
//! vain, more is harmful.
//!
//! What follows from that:
//! - There is no baseline that could be wrong or drift, and nothing has to be emptied or pinned to measure one.
//! - Logarithms make a job of 1 ms and one of 500 ms count alike: what is measured is a factor, not a sum. Both limits
//!   see the same mix, and what changes over time falls on both alike.
//! - The limit moves when the difference is beyond chance (two standard errors), so clear cases are decided after a few
//!   dozen jobs, and doubtful ones, where it does not matter, not at all.
//! - Jobs that start while none waits tell nothing about the limit and are not looked at: no growth without need.
//! - Jobs whose callers left while they ran count as no throughput.
//!
//! After an experiment that changes nothing the limit rests, for twice as many jobs each time.

use std::time::Duration;

use super::counts::Outcome;
use super::moment::{Moment, nanos};
use super::settings::Limit;

/// Grow below this slope: at least 35% of the added concurrency became throughput.
const GROW: f64 = 0.65;

/// Shrink above this slope. The gap to [`GROW`] keeps the limit from moving to and fro.
const SHRINK: f64 = 0.85;

/// Standard errors that a difference must have.
const CERTAIN: f64 = 2.0;

/// The widest and the narrowest experiment, as `high / low`.
const WIDEST: f64 = 4.0;
const NARROWEST: f64 = 1.25;

/// A phase lasts at least this many mean execution times,
const PHASE_RUNS: f64 = 6.0;

/// of which the last ones are for those who started earlier to end in: only few may run on into the next phase,
const LAST_RUNS: f64 = 2.0;

/// and at least for the start of this many jobs.
const PHASE_JOBS: u32 = 12;

/// A phase that cannot be filled within this many times its length is given up: the limit is not what holds jobs back.
const STARVED: f64 = 16.0;

/// Experiments end undecided after this many rounds of four phases.
const ROUNDS: u32 = 16;

/// An experiment whose slope is in doubt by more than the one is too narrow for the noise, and by less than the other
/// wider than it need be.
const DOUBTFUL: f64 = 0.4;
const CLEAR: f64 = 0.2;

/// The longest rest, in lengths of the experiment before it, and in phases.
const LONGEST_REST: u32 = 16;
const MOST_PHASES: u32 = 96;

/// When jobs become this many times slower or faster while the limit rests, the workload is another one.
const CHANGED: f64 = 2.0;

/// How many jobs are looked at together to see that.
const BLOCK: f64 = 128.0;

/// So many moves in one direction mean that the goal is far.
const STREAK: u32 = 3;

#[derive(Debug)]
pub(super) enum Limiter {
    Fixed(usize),
    Adaptive(Box<Search>),
}

/// The search for an adaptive limit.
#[derive(Debug)]
pub(super) struct Search {
    min: usize,
    max: usize,
    /// What the experiments so far say.
    limit: usize,
    /// What holds right now: the limit, or one of the two it is compared with.
    current: usize,
    /// How far apart the two are, as a factor.
    width: f64,
    last: Option<Direction>,
    /// How many moves in that direction.
    streak: u32,
    /// How long to rest when nothing changes.
    rest: u32,
    /// How jobs fared under this limit at first, and how the latest do.
    known: Arm,
    recent: Arm,
    phase: Phase,
    /// Which experiment this is, from 1 to 127, so that a job of an earlier one is not taken for one of this.
    experiment: u8,
    arms: [Arm; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A stretch of time under one limit.
#[derive(Clone, Copy, Debug)]
struct Phase {
    kind: Kind,
    since: Moment,
    /// How many jobs started while others waited.
    started: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// At the limit, for the length of so many phases.
    Rest(u32),
    /// The phase of an experiment that has this number.
    Compare(u32),
}

/// What became of the jobs that started under one of the two limits.
#[derive(Clone, Copy, Debug, Default)]
struct Arm {
    limit: usize,
    jobs: f64,
    lost: f64,
    sum: f64,
    squares: f64,
}

/// A value and the square of its standard error.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    value: f64,
    variance: f64,
}

// === impl Limiter ===

impl Limiter {
    pub(super) fn new(limit: Limit) -> Self {
        match limit {
            Limit::Fixed(limit) => Self::Fixed(limit),
            Limit::Adaptive { min, max } => Self::Adaptive(Box::new(Search::new(min.max(1), max.max(min).max(1)))),
        }
    }

    #[inline]
    pub(super) fn current(&self) -> usize {
        match self {
            Self::Fixed(limit) => *limit,
            Self::Adaptive(search) => search.current,
        }
    }

    /// Notes that a job starts; `full` if the limit is in use and others wait. The answer is wanted back at its end.
    #[inline]
    pub(super) fn started(&mut self, now: Moment, full: bool, run: f64) -> u8 {
        match self {
            Self::Fixed(_) => 0,
            Self::Adaptive(search) => search.started(now, full, run),
        }
    }

    /// Notes that a job ended that had this mark when it started.
    #[inline]
    pub(super) fn ended(&mut self, now: Moment, mark: u8, outcome: Outcome, ran: Duration) {
        if let Self::Adaptive(search) = self {
            search.ended(now, mark, outcome, ran);
        }
    }
}

// === impl Search ===

impl Search {
    fn new(min: usize, max: usize) -> Self {
        let limit = (min as f64 * max as f64).sqrt().round() as usize;
        Self {
            min,
            max,
            limit,
            current: limit,
            width: WIDEST,
            last: None,
            streak: 0,
            rest: 1,
            known: Arm::default(),
            recent: Arm::default(),
            phase: Phase { kind: Kind::Rest(1), since: Moment::default(), started: 0 },
            experiment: 0,
            arms: [Arm::default(); 2],
        }
    }

    fn started(&mut self, now: Moment, full: bool, run: f64) -> u8 {
        self.phase.started += u32::from(full);
        let Phase { kind, since, started } = self.phase;
        let runs = nanos(now.since(since)) / run.max(1.0);
        let wanted = PHASE_JOBS.max(self.current as u32);
        match kind {
            Kind::Rest(phases) if full && runs >= f64::from(phases) * PHASE_RUNS && started >= phases * wanted => {
                self.begin(now);
            }
            Kind::Compare(_) if runs >= STARVED * PHASE_RUNS && started < wanted => self.pause(now, 1),
            Kind::Compare(number) if runs >= PHASE_RUNS && started >= wanted => self.next_phase(now, number + 1),
            Kind::Compare(number) if full && (runs < PHASE_RUNS - LAST_RUNS || started <= wanted) => {
                return self.experiment << 1 | Self::arm(number) as u8;
            }
            _ => {}
        }
        0
    }

    /// Low, high, high, low: what drifts falls on both alike.
    const fn arm(number: u32) -> usize {
        matches!(number % 4, 1 | 2) as usize
    }

    fn ended(&mut self, now: Moment, mark: u8, outcome: Outcome, ran: Duration) {
        if mark >> 1 == self.experiment && matches!(self.phase.kind, Kind::Compare(_)) {
            self.arms[usize::from(mark & 1)].add(outcome, ran);
        }
        self.recent.add(outcome, ran);
        if self.recent.jobs >= BLOCK {
            self.look_for_change(now);
        }
    }

    /// A change of the workload calls for a wide experiment, now. What an experiment of this width can do is not one.
    fn look_for_change(&mut self, at: Moment) {
        let recent = std::mem::take(&mut self.recent);
        let (Some(now), Some(before)) = (recent.slowness(), self.known.slowness()) else {
            self.known = recent;
            return;
        };
        let change = Estimate { value: now.value - before.value, variance: now.variance + before.variance };
        if change.value.abs() > CHANGED.ln() + self.width.ln() + change.doubt() {
            (self.width, self.rest, self.streak, self.last, self.known) = (WIDEST, 1, 0, None, recent);
            self.pause(at, 1);
        }
    }

    fn begin(&mut self, now: Moment) {
        let half = self.width.sqrt();
        let limit = self.limit as f64;
        let mut high = ((limit * half).round() as usize).min(self.max);
        let mut low = ((limit / half).round() as usize).max(self.min);
        if high == low && high < self.max {
            high += 1;
        } else if high == low && low > self.min {
            low -= 1;
        }
        if high == low {
            return self.pause(now, MOST_PHASES);
        }
        self.arms = [low, high].map(|limit| Arm { limit, ..Arm::default() });
        self.experiment = self.experiment % 127 + 1;
        self.next_phase(now, 0);
    }

    fn next_phase(&mut self, now: Moment, number: u32) {
        // At the beginning nothing is known yet.
        if number.is_multiple_of(2) {
            match self.verdict() {
                Some(direction) => return self.move_limit(now, direction),
                None if self.is_settled() || number >= 4 * ROUNDS => return self.stay(now),
                None => {}
            }
        }
        self.current = self.arms[Self::arm(number)].limit;
        self.phase = Phase { kind: Kind::Compare(number), since: now, started: 0 };
    }

    /// Where the limit should go, if that is beyond chance.
    fn verdict(&self) -> Option<Direction> {
        let slope = self.slope()?;
        let doubt = slope.doubt();
        if slope.value + doubt < GROW {
            Some(Direction::Up)
        } else if slope.value - doubt > SHRINK {
            Some(Direction::Down)
        } else {
            None
        }
    }

    /// Whether it is known well enough that the limit should stay.
    fn is_settled(&self) -> bool {
        let gap = (SHRINK - GROW) / 2.0;
        self.slope().is_some_and(|slope| slope.doubt() < gap)
    }

    /// How much slower jobs are at the higher limit, over how much higher it is, both as logarithms.
    fn slope(&self) -> Option<Estimate> {
        let [low, high] = &self.arms;
        let (slow, fast) = (high.slowness()?, low.slowness()?);
        let width = (high.limit as f64 / low.limit as f64).ln();
        Some(Estimate {
            value: (slow.value - fast.value) / width,
            variance: (slow.variance + fast.variance) / (width * width),
        })
    }

    fn move_limit(&mut self, now: Moment, direction: Direction) {
        let at_the_end = match direction {
            Direction::Up => self.limit == self.max,
            Direction::Down => self.limit == self.min,
        };
        if at_the_end {
            return self.rest_longer(now);
        }
        self.limit = self.arms[usize::from(direction == Direction::Up)].limit;
        self.known = Arm::default();
        if self.last.replace(direction).is_some_and(|last| last != direction) {
            self.streak = 1;
            return self.stay(now);
        }
        self.streak += 1;
        self.rest = 1;
        if self.streak >= STREAK {
            self.width = (self.width * self.width).min(WIDEST);
        }
        self.pause(now, 1);
    }

    /// The limit is about right: look less often, and as closely as the noise allows.
    fn stay(&mut self, now: Moment) {
        let doubt = self.slope().map_or(f64::INFINITY, Estimate::doubt);
        if doubt > DOUBTFUL {
            self.width = self.width.powf(1.5).min(WIDEST);
        } else if doubt < CLEAR {
            self.width = self.width.sqrt().max(NARROWEST);
        }
        self.rest_longer(now);
    }

    /// Rests for so many times what the experiment took.
    fn rest_longer(&mut self, now: Moment) {
        let phases = match self.phase.kind {
            Kind::Compare(number) => number + 1,
            Kind::Rest(_) => 1,
        };
        self.rest = (self.rest * 2).min(LONGEST_REST);
        self.pause(now, (self.rest * phases).min(MOST_PHASES));
    }

    fn pause(&mut self, now: Moment, phases: u32) {
        self.current = self.limit;
        self.recent = Arm::default();
        self.phase = Phase { kind: Kind::Rest(phases), since: now, started: 0 };
    }
}

// === impl Estimate ===

impl Estimate {
    fn doubt(self) -> f64 {
        CERTAIN * self.variance.sqrt()
    }
}

// === impl Arm ===

impl Arm {
    fn add(&mut self, outcome: Outcome, ran: Duration) {
        let slowness = (ran.as_nanos().max(1) as f64).ln();
        self.jobs += 1.0;
        self.lost += f64::from(u8::from(outcome == Outcome::Cancelled));
        self.sum += slowness;
        self.squares += slowness * slowness;
    }

    /// The mean logarithm of the execution time, made worse by the share of jobs that were in vain.
    fn slowness(&self) -> Option<Estimate> {
        if self.jobs < f64::from(PHASE_JOBS) {
            return None;
        }
        let mean = self.sum / self.jobs;
        let variance = (self.squares / self.jobs - mean * mean).max(0.0) / self.jobs;
        // Half a job on either side keeps the logarithm finite when all or none were lost.
        let (kept, lost) = (self.jobs - self.lost + 0.5, self.lost + 0.5);
        let share = kept / (kept + lost);
        let loss = if self.lost > 0.0 { (1.0 - share) / (share * self.jobs) } else { 0.0 };
        Some(Estimate { value: mean - share.ln(), variance: variance + loss })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean execution time.
    const RUN: Duration = Duration::from_millis(1);

    const START: Moment = Moment::from_nanos(0);

    /// So many starts at once, so many run times after the beginning; the marks of the jobs.
    fn start(search: &mut Search, runs: u32, jobs: usize, full: bool) -> Vec<u8> {
        (0..jobs).map(|_| search.started(START + runs * RUN, full, nanos(RUN))).collect()
    }

    /// A search that has just begun its first experiment: between 4 and 16, at a limit of 8.
    fn experiment(begin: u32) -> Search {
        let mut search = Search::new(1, 64);
        start(&mut search, begin, PHASE_JOBS as usize, true);
        assert_eq!((search.phase.kind, search.current), (Kind::Compare(0), 4));
        search
    }

    #[test]
    fn an_experiment_begins_once_enough_jobs_started_while_others_waited() {
        let mut search = Search::new(1, 64);
        start(&mut search, 50, 100, false);
        start(&mut search, 50, PHASE_JOBS as usize - 1, true);
        start(&mut search, 50, 1, false);
        assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
        start(&mut search, 50, 1, true);
        assert_eq!((search.phase.kind, search.current), (Kind::Compare(0), 4));
    }

    #[test]
    fn an_experiment_does_not_begin_before_its_time() {
        let mut search = Search::new(1, 64);
        start(&mut search, 5, 100, true);
        assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
        start(&mut search, 6, 1, true);
        assert_eq!(search.phase.kind, Kind::Compare(0));
    }

    #[test]
    fn a_longer_rest_is_longer_in_time_and_in_jobs() {
        let mut search = Search::new(1, 64);
        search.pause(START, 3);
        start(&mut search, 17, 100, true);
        assert_eq!(search.phase.kind, Kind::Rest(3), "three times six run times");
        search.pause(START, 3);
        start(&mut search, 18, 3 * PHASE_JOBS as usize - 1, true);
        assert_eq!(search.phase.kind, Kind::Rest(3), "three times twelve jobs");
        start(&mut search, 18, 1, true);
        assert_eq!(search.phase.kind, Kind::Compare(0));
    }

    /// So many that each of the limit's places has had one.
    #[test]
    fn a_phase_at_a_high_limit_wants_as_many_jobs_as_the_limit() {
        let mut search = Search::new(64, 64);
        start(&mut search, 50, 63, true);
        assert_eq!(search.phase.started, 63);
        start(&mut search, 50, 1, true);
        assert_eq!(search.phase.kind, Kind::Rest(MOST_PHASES), "there is nothing to compare with");
    }

    #[test]
    fn an_experiment_compares_two_limits_however_near_they_are() {
        for (min, max, limit, compared) in [(1, 2, 1, [1, 2]), (1, 2, 2, [1, 2]), (5, 9, 7, [6, 8])] {
            let mut search = Search { limit, width: NARROWEST, ..Search::new(min, max) };
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
            let wanted = PHASE_JOBS.max(search.current as u32) as usize;
            start(&mut search, end - 1, wanted, true);
            assert_eq!(search.phase.kind, Kind::Compare(phase), "not before its time");
            start(&mut search, end, 1, false);
            assert_eq!(search.phase.kind, Kind::Compare(phase + 1));
        }
        assert_eq!(limits, [4, 16, 16, 4, 4]);
    }

    #[test]
    fn jobs_that_start_in_the_first_part_of_a_phase_are_compared() {
        let mut search = experiment(10);
        let mark = search.experiment << 1;
        assert_eq!(start(&mut search, 10, 2, false), [0, 0], "none waits");
        assert_eq!(start(&mut search, 13, 20, true), [mark; 20]);
        assert_eq!(start(&mut search, 14, 2, true), [0, 0], "they might run on into the next phase");
        start(&mut search, 16, 1, true);
        assert_eq!((search.phase.kind, search.current), (Kind::Compare(1), 16));
        assert_eq!(start(&mut search, 17, 2, true), [mark | 1; 2]);
    }

    /// Where few start, those are needed which come late.
    #[test]
    fn jobs_that_start_late_in_a_phase_are_compared_until_there_are_enough() {
        let mut search = experiment(10);
        let mark = search.experiment << 1;
        assert_eq!(start(&mut search, 20, PHASE_JOBS as usize - 1, true), [mark; PHASE_JOBS as usize - 1]);
        start(&mut search, 20, 1, true);
        assert_eq!(search.phase.kind, Kind::Compare(1), "enough have started");
    }

    #[test]
    fn an_experiment_is_given_up_if_too_few_jobs_start_while_others_wait() {
        let mut search = experiment(10);
        start(&mut search, 10, PHASE_JOBS as usize - 1, true);
        start(&mut search, 10 + 95, 1, false);
        assert_eq!(search.phase.kind, Kind::Compare(0));
        start(&mut search, 10 + 96, 1, false);
        assert_eq!((search.phase.kind, search.current), (Kind::Rest(1), 8));
        let mut search = experiment(10);
        start(&mut search, 10, PHASE_JOBS as usize - 1, true);
        start(&mut search, 10 + 96, 1, true);
        assert_eq!(search.phase.kind, Kind::Compare(1), "these are just enough");
    }

    #[test]
    fn only_jobs_of_this_experiment_are_compared() {
        let mut search = experiment(10);
        let mark = search.experiment << 1;
        for other in [0, 1, mark + 2, mark + 3] {
            search.ended(START, other, Outcome::Ok, RUN);
        }
        search.ended(START, mark, Outcome::Ok, RUN);
        search.ended(START, mark | 1, Outcome::Cancelled, RUN);
        search.ended(START, mark | 1, Outcome::Ok, RUN);
        let [low, high] = search.arms.map(|arm| (arm.jobs, arm.lost));
        assert_eq!((low, high), ((1.0, 0.0), (2.0, 1.0)));
        search.pause(START, 1);
        search.ended(START, mark, Outcome::Ok, RUN);
        assert!(search.arms[0].jobs < 2.0, "it is over");
    }

    /// Runs one experiment in which jobs of the higher limit take so many times as long.
    fn limit_after(slower: f64) -> usize {
        let mut search = experiment(10);
        let mut runs = 10;
        while matches!(search.phase.kind, Kind::Compare(_)) {
            let jobs = PHASE_JOBS.max(search.current as u32) as usize;
            for mark in start(&mut search, runs + 1, jobs, true) {
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

    /// Jobs that take so many times a run, half of them longer and half shorter, by this logarithm.
    fn noisy(jobs: usize, factor: f64, spread: f64) -> impl Iterator<Item = Duration> {
        (0..jobs).map(move |job| {
            let off = if job % 2 == 0 { spread } else { -spread };
            RUN.mul_f64(factor * off.exp())
        })
    }

    /// An experiment between 4 and 16 in which those of the higher limit took so many times as long.
    fn compared(slower: f64, spread: f64) -> Search {
        let mut search = experiment(10);
        for (arm, factor) in [(0, 1.0), (1, slower)] {
            noisy(PHASE_JOBS as usize, factor, spread).for_each(|ran| search.arms[arm].add(Outcome::Ok, ran));
        }
        search
    }

    /// The standard error of a slope is 0.295 times the spread here: 24 jobs, and limits that are a factor of 4 apart.
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

    /// What drifts would otherwise fall on one of the two.
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
    fn no_job_is_taken_for_one_of_another_experiment() {
        let mut search = Search::new(1, 64);
        let mut before = 0;
        for _ in 0..300 {
            search.begin(START);
            assert!(search.experiment != before && (1..=127).contains(&search.experiment));
            before = search.experiment;
        }
    }

    #[test]
    fn a_limit_that_stays_rests_twice_as_long_each_time() {
        let mut search = Search::new(1, 64);
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
    fn many_moves_in_one_direction_become_wider_and_one_back_rests() {
        let mut search = Search { width: 1.5, ..Search::new(1, 1000) };
        for streak in 1..=2 {
            search.begin(START);
            let high = search.arms[1].limit;
            search.move_limit(START, Direction::Up);
            assert_eq!((search.limit, search.current, search.streak), (high, high, streak));
            assert_eq!((search.width, search.phase.kind), (1.5, Kind::Rest(1)));
        }
        search.begin(START);
        search.move_limit(START, Direction::Up);
        assert_eq!((search.width, search.streak), (2.25, 3));
        search.begin(START);
        let low = search.arms[0].limit;
        search.move_limit(START, Direction::Down);
        assert_eq!((search.limit, search.streak, search.phase.kind), (low, 1, Kind::Rest(2)));
    }

    #[test]
    fn a_limit_does_not_move_beyond_its_bounds() {
        for (limit, direction) in [(1, Direction::Down), (64, Direction::Up)] {
            let mut search = Search { limit, ..Search::new(1, 64) };
            search.begin(START);
            search.move_limit(START, direction);
            assert_eq!((search.limit, search.current, search.streak, search.rest), (limit, limit, 0, 2));
        }
        let mut search = Search { limit: 64, ..Search::new(1, 64) };
        search.begin(START);
        assert_eq!(search.arms.map(|arm| arm.limit), [32, 64]);
    }

    /// How wide the next experiment is when a block of jobs took so many times as long as the one before.
    fn width_after(factor: f64, spread: f64, jobs: usize) -> f64 {
        let mut search = Search { width: NARROWEST, ..Search::new(1, 64) };
        for ran in noisy(BLOCK as usize, 1.0, spread).chain(noisy(jobs, factor, spread)) {
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
    fn jobs_whose_callers_left_count_as_no_throughput() {
        let mut arm = Arm::default();
        (0..100).for_each(|_| arm.add(Outcome::Ok, RUN));
        let all = arm.slowness().expect("there are enough").value;
        let mut half = Arm::default();
        (0..50).for_each(|_| half.add(Outcome::Ok, RUN));
        (0..50).for_each(|_| half.add(Outcome::Cancelled, RUN));
        let lost = half.slowness().expect("there are enough");
        let kept = |jobs: f64| ((jobs + 0.5) / 101.0).ln();
        let slower = kept(100.0) - kept(50.0);
        assert!((lost.value - all - slower).abs() < 1e-6, "as if each took twice as long: {lost:?} and {all}");
        assert!((lost.doubt() - 0.2).abs() < 1e-3, "of a hundred, half may be 40 or 60: {lost:?}");
    }

    #[test]
    fn an_estimate_is_as_sure_as_its_jobs_are_many_and_alike() {
        let of = |jobs: u32, spread: f64| {
            let mut arm = Arm::default();
            for job in 0..jobs {
                let factor = if job % 2 == 0 { spread } else { 1.0 / spread };
                arm.add(Outcome::Ok, RUN.mul_f64(factor));
            }
            arm.slowness()
        };
        assert!(of(PHASE_JOBS - 1, 1.0).is_none(), "too few");
        let doubt = |jobs, spread| of(jobs, spread).expect("there are enough").doubt();
        assert!(doubt(100, 1.0) < 1e-3);
        // The logarithm is `ln 2` off the mean, up or down.
        assert!((doubt(100, 2.0) - 2.0 * 2.0_f64.ln() / 10.0).abs() < 1e-3);
        assert!((doubt(400, 2.0) - 2.0 * 2.0_f64.ln() / 20.0).abs() < 1e-3);
    }
}
