//! The settings of one pool for when there is more work than it can do: its limit, its queue, and when it is late.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::rules;
use super::span;

/// How many tasks of a pool may be in flight at once.
///
/// More tasks than workers serve handlers that mostly await: a task that awaits is in flight but holds no worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// As many as there are workers. In YAML: the key is left out.
    #[default]
    Workers,
    /// This many. In YAML: `40`.
    Fixed(usize),
    /// As many as the pool finds best by how long its tasks run, within these bounds. In YAML: `{min: 2, max: 64}`. A
    /// `min` that is left out is 1, a `max` that is left out is the number of workers; `adaptive` leaves out both.
    Adaptive {
        /// Never fewer than this.
        min: usize,
        /// Never more than this.
        max: usize,
    },
}

/// Which of a pool's queued tasks is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queue {
    /// The oldest, always. Under lasting overload every task then waits almost the whole queue timeout. In YAML: `fifo`.
    Fifo,
    /// The oldest. While more work is lost than the pool has room for, and most of what it does is for callers that have
    /// left, the newest, and tasks are shed that have waited for half as long as callers do: some callers are told to
    /// come back later, and the others are served in time. Below capacity it is `fifo`. In YAML: `adaptive`.
    #[default]
    Adaptive,
}

/// The wait above which a pool counts as late: 5 times the mean run time of its own tasks, within these bounds.
///
/// When every wait of a while is late, the pool shows itself as overloaded. In YAML: `{min: 5ms, max: 5s}`, or one time, such as `20ms`, for both bounds; a bound
/// that is left out keeps its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueTarget {
    /// No wait up to this is late, however short the tasks are; 5 ms by default.
    pub min: Duration,
    /// Every wait above this is late, however long the tasks are; 5 s by default.
    pub max: Duration,
}

// === impl Concurrency ===

impl Concurrency {
    /// Where an adaptive limit lies if nothing is said: from 1 to the number of workers.
    #[cfg(feature = "config")]
    pub(super) const fn default_bounds(workers: usize) -> (usize, usize) {
        (1, workers)
    }

    pub(super) fn check(self, note: &mut impl FnMut(&str, Result<(), String>)) {
        match self {
            Self::Workers => {}
            Self::Fixed(limit) => note("concurrency", rules::CONCURRENCY.check(limit as i128)),
            Self::Adaptive { min, max } => {
                note("concurrency", check_limits(min, max));
                note("concurrency.min", rules::CONCURRENCY_BOUND.check(min as i128));
                note("concurrency.max", rules::CONCURRENCY_BOUND.check(max as i128));
            }
        }
    }
}

pub(super) fn check_limits(min: usize, max: usize) -> Result<(), String> {
    rules::check_order(min, max, |limit| limit.to_string())
}

impl From<usize> for Concurrency {
    fn from(limit: usize) -> Self {
        Self::Fixed(limit)
    }
}

impl From<RangeInclusive<usize>> for Concurrency {
    fn from(bounds: RangeInclusive<usize>) -> Self {
        Self::Adaptive { min: *bounds.start(), max: *bounds.end() }
    }
}

// === impl QueueTarget ===

impl QueueTarget {
    pub(super) const DEFAULT: Self = Self { min: Duration::from_millis(5), max: Duration::from_secs(5) };

    pub(super) fn check(self, note: &mut impl FnMut(&str, Result<(), String>)) {
        note("queue_target", check_targets(self.min, self.max));
        note("queue_target.min", rules::check_time(self.min));
        note("queue_target.max", rules::check_time(self.max));
    }
}

pub(super) fn check_targets(min: Duration, max: Duration) -> Result<(), String> {
    rules::check_order(min, max, span::in_words)
}

impl Default for QueueTarget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl From<RangeInclusive<Duration>> for QueueTarget {
    fn from(bounds: RangeInclusive<Duration>) -> Self {
        Self { min: *bounds.start(), max: *bounds.end() }
    }
}
