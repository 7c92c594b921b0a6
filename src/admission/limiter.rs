//! The concurrency limit: fixed, or found by experiment.
//!
//! An adaptive limit asks one question, over and over: *does more concurrency give more throughput?* It runs the pool
//! at two limits in turn, a lower and a higher one, in the order low, high, high, low, and compares the execution times
//! of the tasks that started under each. Throughput is concurrency divided by execution time. So if going from `low` to
//! `high` makes tasks slower by the whole factor `high / low`, nothing is gained, and if it leaves them as they were, all
//! of it is. The *slope* is the logarithm of how much slower they became over that of `high / low`: 0 is free, 1 is in
//! vain, more is harmful.
//!
//! It follows that:
//! - There is no baseline that could be wrong or drift, and nothing has to be emptied or pinned to measure one.
//! - Logarithms make a task of 1 ms and one of 500 ms count alike: what is measured is a factor, not a sum. Both limits
//!   see the same mix, and what changes over time falls on both alike.
//! - The limit moves when the difference is beyond chance (two standard errors), so clear cases are decided after a few
//!   dozen tasks, and doubtful ones, where it does not matter, not at all.
//! - Tasks that start while none waits tell nothing about the limit and are not looked at: no growth without need.
//! - Tasks whose callers left while they ran count as no throughput.
//!
//! It begins at the upper bound, where it refuses nobody that a fixed limit there would not. It is put to the test only
//! while the offered load is above the capacity, the first time at the geometric mean of its bounds: an experiment has
//! its price, and below capacity it buys nothing. While tasks wait and none starts, the limit moves by time.
//!
//! After an experiment that changes nothing the limit rests, for twice as many tasks each time.

use std::time::Duration;

use super::counts::Outcome;
use super::settings::Limit;
use super::timestamp::{Timestamp, nanos};

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

/// and its last part is for earlier tasks to end in: only few may run on into the next phase,
const LAST_RUNS: f64 = 2.0;

/// and at least for the start of this many tasks.
const PHASE_TASKS: u32 = 12;

/// A phase that cannot be filled within this many times its length is given up: the limit is not what holds tasks back.
const STARVED: f64 = 16.0;

/// When tasks wait and none has started for this many mean execution times, long tasks hold the permits.
const STALLED: f64 = 100.0;

/// But not less than this, however short tasks are.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Experiments end undecided after this many rounds of four phases.
const ROUNDS: u32 = 16;

/// An experiment whose slope is in doubt by more than the one is too narrow for the noise, and by less than the other
/// wider than it need be.
const DOUBTFUL: f64 = 0.4;
const CLEAR: f64 = 0.2;

/// The longest rest, in lengths of the experiment before it, and in phases.
const LONGEST_REST: u32 = 16;
const MOST_PHASES: u32 = 96;

/// When tasks become this many times slower or faster while the limit rests, the workload is another one.
const CHANGED: f64 = 2.0;

/// How many tasks are looked at together to see that.
const BLOCK: f64 = 128.0;

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
    /// The result of the experiments so far.
    limit: usize,
    /// The limit in force: the result, or one of the two limits under comparison.
    current: usize,
    /// How far apart the two are, as a factor.
    width: f64,
    last: Option<Direction>,
    /// How long to rest when nothing changes.
    rest: u32,
    /// How tasks fared under this limit at first, and how the latest do.
    known: Arm,
    recent: Arm,
    phase: Phase,
    /// The number of the experiment, from 1 to 127: tasks of an earlier one do not count in this one.
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
    since: Timestamp,
    /// How many tasks started while others waited.
    started: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// At the limit, for the length of this many phases.
    Rest(u32),
    /// The phase of an experiment that has this number.
    Compare(u32),
}

/// The outcomes of the tasks that started under one of the two limits.
#[derive(Clone, Copy, Debug, Default)]
struct Arm {
    limit: usize,
    tasks: f64,
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

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        if let Self::Adaptive(search) = self {
            **search = Search::new(search.min, search.max);
        }
    }

    /// Notes that a task starts; `full` if the limit is in use and others wait, `exceeds` if the offered load is above
    /// the capacity. The answer is wanted back at its end.
    #[inline]
    pub(super) fn started(&mut self, now: Timestamp, full: bool, run: f64, exceeds: impl Fn() -> bool) -> u8 {
        match self {
            Self::Fixed(_) => 0,
            Self::Adaptive(search) => search.started(now, full, run, exceeds),
        }
    }

    /// Tasks wait, every permit is in use, and none has started since `started`.
    #[inline]
    pub(super) fn waits(&mut self, now: Timestamp, started: Timestamp, run: f64) {
        if let Self::Adaptive(search) = self {
            search.waits(now, started, run);
        }
    }

    /// When that has been so for so long that the limit moves.
    #[inline]
    pub(super) fn waits_until(&self, started: Timestamp, run: f64) -> Option<Timestamp> {
        match self {
            Self::Fixed(_) => None,
            Self::Adaptive(search) => search.waits_until(started, run),
        }
    }

    /// Notes that a task ended that had this mark when it started.
    #[inline]
    pub(super) fn ended(&mut self, now: Timestamp, mark: u8, outcome: Outcome, ran: Duration) {
        if let Self::Adaptive(search) = self {
            search.ended(now, mark, outcome, ran);
        }
    }
}

// === impl Search ===

impl Search {
    fn new(min: usize, max: usize) -> Self {
        Self {
            min,
            max,
            limit: max,
            current: max,
            width: WIDEST,
            last: None,
            rest: 1,
            known: Arm::default(),
            recent: Arm::default(),
            phase: Phase { kind: Kind::Rest(1), since: Timestamp::default(), started: 0 },
            experiment: 0,
            arms: [Arm::default(); 2],
        }
    }

    fn started(&mut self, now: Timestamp, full: bool, run: f64, exceeds: impl Fn() -> bool) -> u8 {
        self.phase.started += u32::from(full);
        let Phase { kind, since, started } = self.phase;
        let runs = nanos(now.since(since)) / run.max(1.0);
        let wanted = PHASE_TASKS.max(self.current as u32);
        match kind {
            // Nothing is known yet, but that the upper bound is too high or not enough.
            Kind::Rest(_) if self.experiment == 0 && full && exceeds() => {
                self.limit = (self.min as f64 * self.max as f64).sqrt().round() as usize;
                self.begin(now);
            }
            Kind::Rest(phases)
                if full && runs >= f64::from(phases) * PHASE_RUNS && started >= phases * wanted && exceeds() =>
            {
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

    /// Nothing is learned while nothing starts, so the permits are held by tasks that are far longer than the mean.
    /// Those that wait are let past them: an experiment is given up, and then the limit doubles.
    fn waits(&mut self, now: Timestamp, started: Timestamp, run: f64) {
        if self.waits_until(started, run).is_none_or(|until| now < until) {
            return;
        }
        if matches!(self.phase.kind, Kind::Rest(_)) {
            self.limit = self.limit.saturating_mul(2).min(self.max);
        }
        self.pause(now, 1);
    }

    fn waits_until(&self, started: Timestamp, run: f64) -> Option<Timestamp> {
        let since = started.max(self.phase.since);
        let wait = Duration::from_nanos((STALLED * run) as u64).max(LEAST_WAIT);
        (self.current < self.max).then(|| since + wait)
    }

    /// Low, high, high, low: what drifts falls on both alike.
    const fn arm(number: u32) -> usize {
        matches!(number % 4, 1 | 2) as usize
    }

    fn ended(&mut self, now: Timestamp, mark: u8, outcome: Outcome, ran: Duration) {
        if mark >> 1 == self.experiment && matches!(self.phase.kind, Kind::Compare(_)) {
            self.arms[usize::from(mark & 1)].add(outcome, ran);
        }
        self.recent.add(outcome, ran);
        if self.recent.tasks >= BLOCK {
            self.look_for_change(now);
        }
    }

    /// A change of the workload calls for a wide experiment, now. A change that an experiment of this width can cause
    /// does not count.
    fn look_for_change(&mut self, at: Timestamp) {
        let recent = std::mem::take(&mut self.recent);
        let (Some(now), Some(before)) = (recent.slowness(), self.known.slowness()) else {
            self.known = recent;
            return;
        };
        let change = Estimate { value: now.value - before.value, variance: now.variance + before.variance };
        if change.value.abs() > CHANGED.ln() + self.width.ln() + change.doubt() {
            (self.width, self.rest, self.last, self.known) = (WIDEST, 1, None, recent);
            self.pause(at, 1);
        }
    }

    fn begin(&mut self, now: Timestamp) {
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

    fn next_phase(&mut self, now: Timestamp, number: u32) {
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

    /// The direction in which the limit should move, if the difference is beyond chance.
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

    /// How much slower tasks are at the higher limit, over how much higher it is, both as logarithms.
    fn slope(&self) -> Option<Estimate> {
        let [low, high] = &self.arms;
        let (slow, fast) = (high.slowness()?, low.slowness()?);
        let width = (high.limit as f64 / low.limit as f64).ln();
        Some(Estimate {
            value: (slow.value - fast.value) / width,
            variance: (slow.variance + fast.variance) / (width * width),
        })
    }

    fn move_limit(&mut self, now: Timestamp, direction: Direction) {
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
            return self.stay(now);
        }
        self.rest = 1;
        self.pause(now, 1);
    }

    /// The limit is about right: look less often, and as closely as the noise allows.
    fn stay(&mut self, now: Timestamp) {
        let doubt = self.slope().map_or(f64::INFINITY, Estimate::doubt);
        if doubt > DOUBTFUL {
            self.width = self.width.powf(1.5).min(WIDEST);
        } else if doubt < CLEAR {
            self.width = self.width.sqrt().max(NARROWEST);
        }
        self.rest_longer(now);
    }

    /// Rests for a multiple of the length of the experiment.
    fn rest_longer(&mut self, now: Timestamp) {
        let phases = match self.phase.kind {
            Kind::Compare(number) => number + 1,
            Kind::Rest(_) => 1,
        };
        self.rest = (self.rest * 2).min(LONGEST_REST);
        self.pause(now, (self.rest * phases).min(MOST_PHASES));
    }

    fn pause(&mut self, now: Timestamp, phases: u32) {
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
        self.tasks += 1.0;
        self.lost += f64::from(u8::from(outcome == Outcome::Cancelled));
        self.sum += slowness;
        self.squares += slowness * slowness;
    }

    /// The mean logarithm of the execution time, made worse by the share of tasks that were in vain.
    fn slowness(&self) -> Option<Estimate> {
        if self.tasks < f64::from(PHASE_TASKS) {
            return None;
        }
        let mean = self.sum / self.tasks;
        let variance = (self.squares / self.tasks - mean * mean).max(0.0) / self.tasks;
        // Half a task on either side keeps the logarithm finite when all or none were lost.
        let (kept, lost) = (self.tasks - self.lost + 0.5, self.lost + 0.5);
        let share = kept / (kept + lost);
        let loss = if self.lost > 0.0 { (1.0 - share) / (share * self.tasks) } else { 0.0 };
        Some(Estimate { value: mean - share.ln(), variance: variance + loss })
    }
}

#[cfg(test)]
mod tests;
