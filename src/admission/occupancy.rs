//! How long permits were used: the sums from which the load of a pool is computed.

use std::time::Duration;

use super::timestamp::Timestamp;

/// The sums of a pool's demand since its beginning. Two of them, taken at different times, say how much was asked of the
/// pool in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tasks that were submitted, rejected ones included.
    pub arrived: u64,
    /// Tasks that left the queue with a permit, or inside that of another task. A queued task that has a free permit, and
    /// only waits for a worker, counts as started.
    pub started: u64,
    /// Tasks that ended without a value, but not those whose callers left: they failed, or were rejected.
    pub failed: u64,
    /// The time for which permits were used, added up over all of them.
    pub permit_time: Duration,
    /// The concurrency limit at this moment.
    pub limit: usize,
}

/// The sums that admission keeps.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    /// Tasks that ended without having been started.
    pub(super) unstarted: u64,
    /// Nanoseconds of permits, added up over all of them, until `counted`.
    permit_nanos: u128,
    counted: Timestamp,
}

impl Occupancy {
    /// Adds the time since the last call, in which `used` permits were used. Threads may come with times that are out of
    /// order; no time is counted twice.
    pub(super) fn pass(&mut self, now: Timestamp, used: usize) {
        let passed = now.nanos_since(self.counted);
        self.permit_nanos += u128::from(passed) * used as u128;
        self.counted = self.counted.max(now);
    }

    pub(super) fn permit_time(&self, now: Timestamp, used: usize) -> Duration {
        let nanos = self.permit_nanos + u128::from(now.nanos_since(self.counted)) * used as u128;
        let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        Duration::new(seconds, (nanos % 1_000_000_000) as u32)
    }
}
