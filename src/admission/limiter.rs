//! The concurrency limit: fixed, or found by experiment.
//!
//! An adaptive limit asks one question, over and over: *does more concurrency give more throughput?* It runs the pool
//! at two limits in turn, a lower and a higher one, in the order low, high, high, low, and compares the execution times
//! of the tasks that started under each. Throughput is concurrency divided by execution time (Little's law). So if going
//! from `low` to `high` makes tasks slower by the whole factor `high / low`, nothing is gained, and if it leaves them as
//! they were, all of it is. The *slope* is the logarithm of how much slower they became over that of `high / low`: 0 is
//! free, 1 is in vain, more is harmful. It is a crossover trial, as clinical studies have it. Limits that compare with a
//! remembered best time (Netflix's Gradient2, Vegas, Envoy's gradient controller) have a baseline that can be wrong or
//! drift; `tests/sim/README.md` has the comparison.
//!
//! It follows that:
//! - Logarithms make a task of 1 ms and one of 500 ms count alike: what is measured is a factor, not a sum. Both limits
//!   see the same mix, and what changes over time falls on both alike.
//! - The limit moves when the difference is beyond chance (two standard errors), so clear cases are decided after a few
//!   dozen tasks. An experiment that is still in doubt after [`ROUNDS`] changes nothing.
//! - Tasks that start while none waits tell nothing about the limit and are not looked at: no growth without need.
//! - Tasks whose callers left while they ran count as no throughput.
//!
//! The limit begins at the upper bound, where it rejects nobody that a fixed limit there would not. It is put to the
//! test only while the offered load is above the capacity, the first time at the geometric mean of its bounds: an
//! experiment has its price, and below capacity it buys nothing. After an experiment that changes nothing the limit
//! rests, twice as long each time. While tasks wait and none starts, the limit moves by time.

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

/// `high / low`.
const WIDTH: f64 = 2.0;

/// A phase lasts at least this many mean execution times,
const PHASE_RUNS: f64 = 6.0;

/// and its last part is for earlier tasks to end in: only few may run on into the next phase,
const LAST_RUNS: f64 = 2.0;

/// and at least for the start of this many tasks.
const PHASE_TASKS: u32 = 12;

/// The two limits under comparison.
const LOW: usize = 0;
const HIGH: usize = 1;

/// When tasks wait and none has started for this many mean execution times, long tasks hold the permits.
const STALLED: f64 = 100.0;

/// But not less than this, however short tasks are.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// Experiments end undecided after this many rounds of four phases.
const ROUNDS: u32 = 16;

/// The longest rest, in lengths of the experiment before it, and in phases.
const LONGEST_REST: u32 = 16;
const MOST_PHASES: u32 = 96;

/// A fixed limit is one whose bounds are equal.
#[derive(Debug)]
pub(super) struct Limiter {
    min: usize,
    max: usize,
    /// The result of the experiments so far.
    limit: usize,
    /// The limit in force: the result, or one of the two limits under comparison.
    current: usize,
    /// The arm to which it moved last.
    last: Option<usize>,
    /// The length of the next rest, in lengths of the experiment before it.
    rest: u32,
    phase: Phase,
    /// The number of the experiment, from 1 to 127: tasks of an earlier one do not count in this one.
    experiment: u8,
    arms: [Arm; 2],
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
    /// At the limit, until this time.
    Rest(Timestamp),
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

// === impl Limiter ===

impl Limiter {
    pub(super) fn new(limit: Limit) -> Self {
        let (min, max) = match limit {
            Limit::Fixed(limit) => (limit, limit),
            Limit::Adaptive { min, max } => (min.max(1), max.max(min).max(1)),
        };
        Self {
            min,
            max,
            limit: max,
            current: max,
            last: None,
            rest: 1,
            phase: Phase { kind: Kind::Rest(Timestamp::default()), since: Timestamp::default(), started: 0 },
            experiment: 0,
            arms: [Arm::default(); 2],
        }
    }

    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// Notes that a task starts; `full` if the limit is in use and others wait, `exceeds` if the offered load is above
    /// the capacity. The answer is wanted back at its end.
    pub(super) fn started(&mut self, now: Timestamp, full: bool, run: f64, exceeds: impl Fn() -> bool) -> u8 {
        if self.min == self.max {
            return 0;
        }
        self.phase.started += u32::from(full);
        let Phase { kind, since, started } = self.phase;
        let runs = nanos(now.since(since)) / run.max(1.0);
        let wanted = PHASE_TASKS.max(self.current as u32);
        match kind {
            Kind::Rest(until) if full && now >= until && exceeds() => self.begin(now, run),
            Kind::Compare(number) if runs >= PHASE_RUNS && started >= wanted => self.next_phase(now, run, number + 1),
            Kind::Compare(number) if full && (runs < PHASE_RUNS - LAST_RUNS || started <= wanted) => {
                return self.experiment << 1 | Self::arm(number) as u8;
            }
            _ => {}
        }
        0
    }

    /// Tasks wait, every permit is in use, and none has started since `started`. Nothing is learned while nothing
    /// starts, so the permits are held by tasks that are far longer than the mean. Those that wait are let past them: an
    /// experiment is given up, and then the limit doubles.
    pub(super) fn waits(&mut self, now: Timestamp, started: Timestamp, run: f64) {
        if self.waits_until(started, run).is_none_or(|until| now < until) {
            return;
        }
        if matches!(self.phase.kind, Kind::Rest(_)) {
            self.limit = self.limit.saturating_mul(2).min(self.max);
        }
        self.pause(now, run, 1);
    }

    /// When that has been so for so long that the limit moves.
    pub(super) fn waits_until(&self, started: Timestamp, run: f64) -> Option<Timestamp> {
        let since = started.max(self.phase.since);
        let wait = Duration::from_nanos((STALLED * run) as u64).max(LEAST_WAIT);
        (self.current < self.max).then(|| since + wait)
    }

    /// Low, high, high, low: what drifts falls on both alike.
    const fn arm(number: u32) -> usize {
        if matches!(number % 4, 1 | 2) { HIGH } else { LOW }
    }

    /// Notes that a task ended that had this mark when it started.
    pub(super) fn ended(&mut self, mark: u8, outcome: Outcome, ran: Duration) {
        if mark >> 1 == self.experiment && matches!(self.phase.kind, Kind::Compare(_)) {
            self.arms[usize::from(mark & 1)].add(outcome, ran);
        }
    }

    fn begin(&mut self, now: Timestamp, run: f64) {
        if self.experiment == 0 {
            // Nothing is known yet, but that the upper bound is too high or not enough.
            self.limit = (self.min as f64 * self.max as f64).sqrt().round() as usize;
        }
        let half = WIDTH.sqrt();
        let limit = self.limit as f64;
        // However near the bounds are, the two differ.
        let high = ((limit * half).ceil() as usize).min(self.max);
        let low = ((limit / half).floor() as usize).max(self.min);
        self.arms = [low, high].map(|limit| Arm { limit, ..Arm::default() });
        self.experiment = self.experiment % 127 + 1;
        self.next_phase(now, run, 0);
    }

    fn next_phase(&mut self, now: Timestamp, run: f64, number: u32) {
        // At the beginning nothing is known yet.
        if number.is_multiple_of(2)
            && let Some((slope, doubt)) = self.slope()
        {
            if slope + doubt < GROW {
                return self.move_to(now, run, HIGH, number);
            } else if slope - doubt > SHRINK {
                return self.move_to(now, run, LOW, number);
            } else if doubt < (SHRINK - GROW) / 2.0 {
                return self.rest_longer(now, run, number);
            }
        }
        if number >= 4 * ROUNDS {
            return self.rest_longer(now, run, number);
        }
        self.current = self.arms[Self::arm(number)].limit;
        self.phase = Phase { kind: Kind::Compare(number), since: now, started: 0 };
    }

    /// How much slower tasks are at the higher limit, over how much higher it is, both as logarithms; and the doubt.
    fn slope(&self) -> Option<(f64, f64)> {
        let [low, high] = &self.arms;
        let ((fast, certain), (slow, less_certain)) = (low.slowness()?, high.slowness()?);
        let width = (high.limit as f64 / low.limit as f64).ln();
        Some(((slow - fast) / width, CERTAIN * (certain + less_certain).sqrt() / width))
    }

    /// A limit that turns round is about right.
    fn move_to(&mut self, now: Timestamp, run: f64, arm: usize, phases: u32) {
        let turns = self.last.replace(arm).is_some_and(|last| last != arm);
        let before = std::mem::replace(&mut self.limit, self.arms[arm].limit);
        if self.limit == before {
            return self.rest_longer(now, run, phases);
        }
        self.rest = 1;
        if turns { self.rest_longer(now, run, phases) } else { self.pause(now, run, 1) }
    }

    /// Rests for a multiple of the length of the experiment, which had this many phases.
    fn rest_longer(&mut self, now: Timestamp, run: f64, phases: u32) {
        self.rest = (self.rest * 2).min(LONGEST_REST);
        self.pause(now, run, (self.rest * phases).min(MOST_PHASES));
    }

    /// Rests for the length of this many phases, as long as tasks take now.
    fn pause(&mut self, now: Timestamp, run: f64, phases: u32) {
        self.current = self.limit;
        let until = now + Duration::from_nanos((f64::from(phases) * PHASE_RUNS * run) as u64);
        self.phase = Phase { kind: Kind::Rest(until), since: now, started: 0 };
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

    /// The mean logarithm of the execution time, made worse by the share of tasks that were in vain; and the square of
    /// its standard error.
    fn slowness(&self) -> Option<(f64, f64)> {
        if self.tasks < f64::from(PHASE_TASKS) {
            return None;
        }
        let mean = self.sum / self.tasks;
        let variance = (self.squares / self.tasks - mean * mean).max(0.0) / self.tasks;
        // Half a task on either side keeps the logarithm finite when all or none were lost.
        let (kept, lost) = (self.tasks - self.lost + 0.5, self.lost + 0.5);
        let share = kept / (kept + lost);
        let loss = if self.lost > 0.0 { (1.0 - share) / (share * self.tasks) } else { 0.0 };
        Some((mean - share.ln(), variance + loss))
    }
}

#[cfg(test)]
mod tests;
