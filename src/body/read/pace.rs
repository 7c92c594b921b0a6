//! How fast a body must arrive.

use std::time::{Duration, Instant};

use super::error::ReadError;

/// How fast a body must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// The time within which all of it must arrive.
    pub(super) within: Duration,
    pub(super) rate: Rate,
}

/// The least number of bytes a second, once the grace period is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// Zero: there is no least rate.
    pub(super) bytes_per_second: u64,
    pub(super) grace: Duration,
}

impl Pace {
    /// The moment at which a body is too late that began to be read at `start`, unless more of it arrives. `None` if
    /// that moment is beyond the range of the clock.
    pub(super) fn due(&self, start: Instant, received: u64) -> Option<(Instant, ReadError)> {
        let Self { within, rate } = *self;
        let total = start.checked_add(within).map(|at| (at, ReadError::TooLate { within }));
        let slow = ReadError::TooSlow { bytes_per_second: rate.bytes_per_second };
        let slow = rate.span(received).and_then(|span| start.checked_add(span)).map(|at| (at, slow));
        total.into_iter().chain(slow).min_by_key(|(at, _)| *at)
    }
}

impl Rate {
    /// The longest time in which a client may send this number of bytes; `None` if there is no limit.
    pub(super) fn span(&self, received: u64) -> Option<Duration> {
        let nanos = (u128::from(received) * 1_000_000_000).checked_div(self.bytes_per_second.into())?;
        self.grace.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(within: Duration, bytes_per_second: u64) -> Pace {
        Pace { within, rate: Rate { bytes_per_second, grace: 5 * SECOND } }
    }

    #[test]
    fn each_second_that_a_body_has_earned_moves_its_time_up_to_the_limit() {
        let start = Instant::now();
        let due = |received| pace(30 * SECOND, 240).due(start, received).map(|(at, error)| (at - start, error));
        let slow = ReadError::TooSlow { bytes_per_second: 240 };
        let late = ReadError::TooLate { within: 30 * SECOND };
        assert_eq!(due(0), Some((5 * SECOND, slow)));
        assert_eq!(due(120), Some((5 * SECOND + SECOND / 2, slow)));
        assert_eq!(due(240 * 10), Some((15 * SECOND, slow)));
        assert_eq!(due(240 * 26), Some((30 * SECOND, late)));
        assert_eq!(due(u64::MAX), Some((30 * SECOND, late)));
    }

    #[test]
    fn without_a_least_rate_only_the_limit_counts_and_it_may_be_for_ever() {
        let start = Instant::now();
        let due = |pace: Pace, received| pace.due(start, received).map(|(at, _)| at - start);
        assert_eq!(due(pace(30 * SECOND, 0), 0), Some(30 * SECOND));
        assert_eq!(due(pace(Duration::MAX, 0), 0), None);
        assert_eq!(due(pace(Duration::MAX, 240), 240), Some(6 * SECOND));
        assert_eq!(due(pace(Duration::MAX, 1), u64::MAX), None);
    }
}
