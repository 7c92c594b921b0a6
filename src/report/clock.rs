//! A clock that costs little to read for each response, and may be some milliseconds late.

#[cfg(target_os = "linux")]
pub(super) use self::coarse::Clock;
#[cfg(not(target_os = "linux"))]
pub(super) use self::exact::Clock;

/// The kernel's clock of its last tick, which comes at least every 10 ms. It is read in a quarter of the time that the exact
/// one takes.
#[cfg(target_os = "linux")]
mod coarse {
    use rustix::time::{ClockId, clock_gettime};

    #[derive(Debug)]
    pub(in crate::report) struct Clock;

    impl Clock {
        pub(in crate::report) const fn start() -> Self {
            Self
        }

        /// Nanoseconds since some moment in the past.
        #[expect(clippy::cast_sign_loss, reason = "this clock begins with the system, at 0")]
        pub(in crate::report) fn nanos(&self) -> u64 {
            let now = clock_gettime(ClockId::MonotonicCoarse);
            (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
        }
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod exact {
    use std::time::Instant;

    #[derive(Debug)]
    pub(in crate::report) struct Clock(Instant);

    impl Clock {
        pub(in crate::report) fn start() -> Self {
            Self(Instant::now())
        }

        /// Nanoseconds since the start.
        pub(in crate::report) fn nanos(&self) -> u64 {
            u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Clock, exact};

    #[test]
    fn both_clocks_run_at_the_speed_of_time() {
        let (clock, exact, before) = (Clock::start(), exact::Clock::start(), Instant::now());
        let first = [clock.nanos(), exact.nanos()];
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            std::thread::yield_now();
        }
        let passed = [clock.nanos() - first[0], exact.nanos() - first[1]].map(Duration::from_nanos);
        let longest = before.elapsed();
        for passed in passed {
            assert!(passed + Duration::from_millis(20) >= Duration::from_millis(100), "{passed:?}");
            assert!(passed <= longest + Duration::from_millis(20), "{passed:?} of {longest:?}");
        }
    }
}
