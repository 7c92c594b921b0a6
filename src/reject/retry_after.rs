//! The headers that say when to try again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::Rejection;

/// The header in which a gRPC server says when to try again: gRFC A6.
pub(super) const GRPC_PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Rejection {
    /// The value of a `Retry-After` header: [`retry_after`](Self::retry_after) in whole seconds, with jitter.
    ///
    /// Each call returns a random value between the time, rounded up, and a quarter more, but at least one second more.
    /// Otherwise callers that were rejected at the same moment would all return in the same second.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after().map(seconds)
    }
}

/// The value of a `Retry-After` header for this time, with jitter.
pub(super) fn seconds(wait: Duration) -> u64 {
    spread_seconds(wait, RandomState::new().hash_one(()))
}

/// Whole seconds that are not less than `wait`; `random` chooses among them.
fn spread_seconds(wait: Duration, random: u64) -> u64 {
    let least = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    least + random % (least / 4).max(1).saturating_add(1)
}

/// The value of a `grpc-retry-pushback-ms` header for this time: rounded up, because 0 tells clients to retry at once.
pub(super) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::error::Reason;
    use crate::workload::Workload;

    #[test]
    fn retry_after_is_spread_over_whole_seconds_that_are_not_too_few() {
        for (wait, least, most) in
            [(0, 1, 2), (1, 1, 2), (1000, 1, 2), (1001, 2, 3), (2000, 2, 3), (12_000, 12, 15), (59_500, 60, 75)]
        {
            let told: BTreeSet<_> =
                (0..100).map(|random| spread_seconds(Duration::from_millis(wait), random)).collect();
            assert_eq!(told, (least..=most).collect(), "{wait} ms");
        }
    }

    #[test]
    fn rejections_of_one_moment_are_told_different_seconds() {
        for wait in [0, 20, 1000, 1500, 60_000] {
            let rejection = Rejection::new(Workload::CPU, Reason::QueueFull, Some(Duration::from_millis(wait)));
            let told: BTreeSet<_> = (0..67).map(|_| rejection.retry_after_seconds()).collect();
            assert!(told.len() >= 2, "{wait} ms: {told:?}");
        }
    }

    #[test]
    fn grpc_clients_are_told_milliseconds_that_are_not_too_few() {
        assert_eq!(millis(Duration::from_micros(2_500_001)), 2501);
        assert_eq!(millis(Duration::from_millis(2500)), 2500);
        assert_eq!(millis(Duration::from_micros(20)), 1, "0 would be a retry at once");
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
