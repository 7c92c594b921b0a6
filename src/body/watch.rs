//! The watch for a reader that stalls: it takes nothing for the stall timeout, although bytes wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::timer::Earliest;

/// Since when the reader is behind. This is a part of the state that the reader and the timer lock.
#[derive(Debug, Default)]
pub(super) struct Watch {
    since: Option<Instant>,
    /// Whether the timer will look.
    set: bool,
}

/// The result of a look of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The reader is not late. The time is that of the next look, if one is needed.
    Later(Option<Instant>),
    /// The reader has stalled.
    Stalled,
}

impl Watch {
    /// The reader is behind from now on. The result is the time of a look that has to be [set](look_at).
    pub(super) fn begin(&mut self, timeout: Duration) -> Option<Instant> {
        let now = Instant::now();
        self.since = Some(now);
        // Models have no clock.
        let at = now.checked_add(timeout).filter(|_| !self.set && !cfg!(tower_offload_loom));
        self.set |= at.is_some();
        at
    }

    /// The reader has taken something, and is still behind.
    pub(super) fn restart(&mut self) {
        self.since = Some(Instant::now());
    }

    /// The reader is not behind any more. The result is since when it was.
    pub(super) const fn end(&mut self) -> Option<Instant> {
        self.since.take()
    }

    /// Looks for a stall.
    pub(super) fn look(&mut self, timeout: Duration) -> Look {
        let due = self.since.and_then(|since| since.checked_add(timeout));
        self.set = due.is_some();
        match due {
            Some(due) if due <= Instant::now() => Look::Stalled,
            due => Look::Later(due),
        }
    }
}

/// The owner of a [`Watch`].
pub(super) trait Watched: Send + Sync + 'static {
    /// The timer of the next look. Dropping it cancels the look.
    fn timer(&self) -> &Earliest;

    /// Looks for a stall. The result is the time of the next look, if one is needed.
    fn look(&self) -> Option<Instant>;
}

/// Lets the timer look at this time, and at each time that a look returns.
pub(super) fn look_at<T: Watched>(at: Option<Instant>, watched: &Arc<T>) {
    let Some(at) = at else { return };
    let this = Arc::downgrade(watched);
    watched.timer().set(at, move || {
        if let Some(watched) = this.upgrade() {
            look_at(watched.look(), &watched);
        }
    });
}
