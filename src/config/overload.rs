//! The settings of one pool that matter under overload: its concurrency limit, its queue, and its target for queue
//! waits.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration;
use super::rules;

/// How many tasks of a pool may be in flight at once.
///
/// A limit above the number of workers suits handlers that mostly await: a task that awaits is in flight, but occupies
/// no worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// The number of workers. In YAML: leave the key out.
    #[default]
    Workers,
    /// This many. In YAML: `40`.
    Fixed(usize),
    /// The pool adapts the limit to its tasks' run times, within these bounds. In YAML: `{min: 2, max: 64}`. If `min`
    /// is left out it is 1; if `max` is left out it is the number of workers; `adaptive` leaves out both.
    Adaptive {
        /// The lowest limit.
        min: usize,
        /// The highest limit.
        max: usize,
    },
}

/// The order in which a pool starts its queued tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Queue {
    /// The oldest task is next. Under lasting overload every task waits almost the whole queue timeout. In YAML:
    /// `fifo`.
    Fifo,
    /// The oldest task is next, as with `fifo`, unless the pool is overloaded: it loses more work than it has room for,
    /// and most of what it does is for callers that have left. Then the newest task is next, and the pool sheds tasks
    /// that have waited half as long as callers usually wait. So some callers are rejected early, and the others are
    /// served in time. In YAML: `adaptive`.
    #[default]
    Adaptive,
}

/// The queue wait that a pool should not exceed: 5 times the mean run time of its tasks, within these bounds.
///
/// A pool whose waits have all exceeded it for a whole interval reports itself as overloaded. So does a pool that loses
/// more work than it has room for, whatever the target is. In YAML:
/// `{min: 5ms, max: 5s}`, or one time, such as `20ms`, for both bounds. A bound that is left out keeps its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueTarget {
    /// The lowest target, for the shortest tasks; 5 ms by default.
    pub min: Duration,
    /// The highest target, for the longest tasks; 5 s by default.
    pub max: Duration,
}

// === impl Concurrency ===

impl Concurrency {
    /// The bounds of an adaptive limit that gives none: from 1 to the number of workers.
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
    rules::check_order(min, max, duration::in_words)
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
