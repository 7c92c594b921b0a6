//! A point in time, counted from an origin that the caller chose.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since an origin that the caller chose: for a pool, its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The end of time.
    pub(super) const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The same in nanoseconds.
    pub(super) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A span in nanoseconds. The way over `as_nanos` converts 128 bits, which takes fifty times the instructions.
pub(super) fn nanos(span: Duration) -> f64 {
    span.as_secs() as f64 * 1e9 + f64::from(span.subsec_nanos())
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        // Not by way of `as_nanos`, which has 128 bits.
        let nanos = span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }
}
