//! Pauses of the process: SIGSTOP, `docker pause`, the snapshot of a virtual machine, or no time on a core.
//!
//! During a pause the clock of a timeout runs, and nothing that a client does is noticed. A timer that fires late tells of
//! the pause, and its timeout then begins anew.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::timer::{Sleep, sleep_until};

/// A timer that fires later than this was held up by a pause. The runtime notices within this time what clients did
/// meanwhile.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Whether the process was paused, if a timer that was set to `at` fires `now`.
pub(crate) fn was_paused(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) > PAUSE
}

/// The timer of a timeout.
pub(super) struct Timeout {
    at: Instant,
    sleep: Sleep,
}

impl Timeout {
    pub(super) fn at(at: Instant) -> Self {
        Self { at, sleep: sleep_until(at) }
    }

    /// Completes at its time. The result is the time at which the timeout begins anew, after a pause.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let now = Instant::now();
        Poll::Ready(was_paused(self.at, now).then_some(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_held_up_by_an_ordinary_delay_tells_of_no_pause() {
        let at = Instant::now();
        for (late, paused) in [(Duration::ZERO, false), (PAUSE, false), (PAUSE + Duration::from_millis(1), true)] {
            assert_eq!(was_paused(at, at + late), paused, "{late:?}");
        }
        assert!(!was_paused(at + PAUSE, at));
    }
}
