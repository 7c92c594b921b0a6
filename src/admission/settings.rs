//! The settings of one pool's admission, and the properties of a task.

use std::time::Duration;

use super::timestamp::{Timestamp, nanos};
use crate::terms::Priority;

/// The settings of one pool's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many tasks may be in flight.
    pub limit: Limit,
    /// How many tasks may wait.
    pub capacity: usize,
    /// How long a task may wait.
    pub timeout: Duration,
    /// The order in which waiting tasks start.
    pub discipline: Discipline,
    /// The bounds of the wait that counts as late, which follows the execution time. It decides what the pool shows.
    pub target: Bounds,
    /// The bounds of the time for which every wait must be late before the pool shows itself as overloaded.
    pub interval: Bounds,
}

/// How many tasks may be in flight at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// So many.
    Fixed(usize),
    /// As many as add to the throughput, found by the pool itself.
    Adaptive {
        /// Never fewer than this.
        min: usize,
        /// Never more than this.
        max: usize,
    },
}

/// The order in which waiting tasks start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discipline {
    /// The oldest, always.
    Fifo,
    /// The oldest; while that is useless work the newest, and tasks that waited too long are shed.
    #[default]
    Adaptive,
}

/// The least and the most that a duration may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub min: Duration,
    /// The most.
    pub max: Duration,
}

/// The properties of a task that is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The moment after which the task is of no use to its caller.
    pub deadline: Option<Timestamp>,
    /// How important it is.
    pub level: Priority,
    /// A hash of the caller: the key for fair queueing.
    pub caller: Option<u64>,
    /// Whether it waits however long it takes: it is never shed, makes room for no other, and has no queue timeout. Its
    /// own deadline holds.
    pub patient: bool,
    /// Whether it belongs to a request that was accepted before: a drain does not reject it.
    pub accepted: bool,
    /// Whether its submitter runs it in place if the queue is full; see
    /// [`offer_riding`](super::Admission::offer_riding).
    pub may_ride: bool,
}

// === impl Offer ===

impl Offer {
    /// Whether a task that finds the queue full is offered again, and so is not counted as rejected.
    pub(super) const fn is_offered_again(self) -> bool {
        self.patient || self.may_ride
    }
}

// === impl Settings ===

impl Settings {
    /// A fixed limit, and the defaults of the rest.
    #[must_use]
    pub fn fixed(limit: usize) -> Self {
        Self { limit: Limit::Fixed(limit), ..Self::default() }
    }

    /// The same with this queue capacity.
    #[must_use]
    pub const fn with_capacity(self, capacity: usize) -> Self {
        Self { capacity, ..self }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limit: Limit::Fixed(1),
            capacity: 1000,
            timeout: Duration::from_secs(30),
            discipline: Discipline::default(),
            target: Bounds { min: Duration::from_millis(5), max: Duration::from_secs(5) },
            interval: Bounds { min: Duration::from_millis(100), max: Duration::from_secs(30) },
        }
    }
}

// === impl Limit ===

impl Limit {
    /// The most that it can ever be.
    #[must_use]
    pub const fn most(self) -> usize {
        match self {
            Self::Fixed(limit) => limit,
            Self::Adaptive { max, .. } => max,
        }
    }
}

// === impl Bounds ===

impl Bounds {
    /// This many nanoseconds, limited to the bounds.
    pub(super) fn clamp(self, span: f64) -> f64 {
        span.min(nanos(self.max)).max(nanos(self.min))
    }
}
