//! The state of a pool's admission, to be read: depths, counts, and the time after which to retry.

use std::time::Duration;

use super::super::counts::{Counts, Snapshot};
use super::super::occupancy::Demand;
use super::super::slab::{Key, State};
use super::super::timestamp::Timestamp;
use super::Admission;

impl<T> Admission<T> {
    /// Whether a task can be queued, whatever its priority is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_full()
    }

    /// Whether a task is queued and a permit is free.
    #[must_use]
    pub fn has_takeable(&self) -> bool {
        self.queued > 0 && self.permits < self.limiter.current()
    }

    /// How many queued tasks a free permit is there for.
    #[must_use]
    pub fn takeable(&self) -> usize {
        self.free_permits().min(self.queued)
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queued == 0 && self.in_flight() == 0
    }

    /// Whether more work was lost than free permits have made up for since; or even the best served tasks wait too long, or
    /// did within the last interval, or would if any were started.
    #[must_use]
    pub fn is_overloaded(&self, now: Timestamp) -> bool {
        let stuck = |index| now.nanos_since(self.slab.at(index).since.max(self.started));
        self.codel.is_overloaded(now, self.levels.oldest().next().map_or(0, stuck))
            || self.levels.exceeded(self.free_since_last_call(now))
    }

    /// How long the oldest queued task has waited.
    #[must_use]
    pub fn oldest_wait(&self, now: Timestamp) -> Duration {
        let waits = self.levels.oldest_of_all().map(|index| now.since(self.slab.at(index).since));
        waits.max().unwrap_or_default()
    }

    /// The mean time that the latest tasks executed; `None` before the first end.
    #[must_use]
    pub fn mean_run(&self) -> Option<Duration> {
        self.run.known().map(|nanos| Duration::from_nanos(nanos as u64))
    }

    /// When a caller that was rejected now should come again: how long the tasks that wait take to start at the present
    /// rate, and up to half of that on top.
    pub fn retry_after(&mut self, now: Timestamp) -> Duration {
        let (ahead, limit) = (self.queued + 1, self.limiter.current());
        self.drain_rate.retry_after(now, ahead, self.run.known(), limit, &mut self.random)
    }

    /// Whether every further offer is rejected.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// How many tasks were ever offered.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.counts.submitted
    }

    /// How many permits there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limiter.current()
    }

    /// How many tasks are in flight, including those that run inside the permit of another task.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.permits + self.without_permit
    }

    /// How many tasks are queued.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// The numbers of this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            limit: self.limiter.current(),
            in_flight: self.in_flight(),
            permits: self.permits,
            queued: self.queued,
            capacity: self.settings.capacity,
            counts: self.counts,
            overloaded: self.is_overloaded(self.clock),
        }
    }

    /// The demand for permits, and the time for which they were used, until `now`.
    #[must_use]
    pub fn demand(&self, now: Timestamp) -> Demand {
        let used = self.permits + self.takeable();
        let Counts { error, panicked, shed, expired, rejected, .. } = self.counts;
        Demand {
            failed: error + panicked + shed + expired + rejected,
            arrived: self.counts.submitted,
            started: self.counts.submitted - self.occupancy.unstarted - (self.queued - self.takeable()) as u64,
            permit_time: self.occupancy.permit_time(now, used),
            limit: self.limiter.current(),
        }
    }

    /// Whether the queue is full. Queued tasks that have a free permit, and only wait for a worker, do not count.
    pub(super) fn is_full(&self) -> bool {
        self.queued >= self.settings.capacity.saturating_add(self.free_permits())
    }

    pub(super) fn free_permits(&self) -> usize {
        self.limiter.current().saturating_sub(self.permits)
    }

    /// The time, in nanoseconds over all permits, that permits were free while nothing waited, since the last call that
    /// changed something.
    pub(super) fn free_since_last_call(&self, now: Timestamp) -> f64 {
        if self.queued > 0 { 0.0 } else { now.nanos_since(self.clock) as f64 * self.free_permits() as f64 }
    }

    /// Whether the task was started and has not ended.
    #[must_use]
    pub fn is_in_flight(&self, key: Key) -> bool {
        self.slab.find(key, State::InFlight).is_some()
    }

    /// Whether the task is in flight with its own permit.
    #[must_use]
    pub fn has_permit(&self, key: Key) -> bool {
        self.slab.find(key, State::InFlight).is_some_and(|index| self.slab.at(index).has_permit)
    }
}
