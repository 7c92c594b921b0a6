//! The watch for a reader that stalls: it takes nothing for the stall timeout, although bytes wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pause::was_paused;
use crate::timer::Earliest;

/// Since when the reader is behind. This is a part of the state that the reader and the timer lock.
#[derive(Debug, Default)]
pub(super) struct Watch {
    since: Option<Instant>,
    /// When the timer will look.
    set: Option<Instant>,
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
        let at = now.checked_add(timeout).filter(|_| self.set.is_none() && !cfg!(tower_offload_loom));
        self.set = self.set.or(at);
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
        self.look_at(timeout, Instant::now())
    }

    fn look_at(&mut self, timeout: Duration, now: Instant) -> Look {
        if self.since.is_some() && self.set.is_some_and(|at| was_paused(at, now)) {
            self.since = Some(now);
        }
        self.set = self.since.and_then(|since| since.checked_add(timeout));
        match self.set {
            Some(due) if due <= now => Look::Stalled,
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

#[cfg(test)]
#[cfg(not(tower_offload_loom))]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn a_reader_that_takes_nothing_until_the_look_has_stalled() {
        let mut watch = Watch::default();
        let at = watch.begin(TIMEOUT).expect("it has to be set");
        assert_eq!(watch.look_at(TIMEOUT, at), Look::Stalled);
    }

    #[test]
    fn after_a_pause_of_the_process_the_reader_has_its_time_again_and_no_more() {
        let mut watch = Watch::default();
        let paused = watch.begin(TIMEOUT).expect("it has to be set") + Duration::from_secs(5);
        assert_eq!(watch.look_at(TIMEOUT, paused), Look::Later(Some(paused + TIMEOUT)));
        assert_eq!(watch.look_at(TIMEOUT, paused + TIMEOUT), Look::Stalled);
    }

    #[test]
    fn a_look_that_is_late_finds_no_stall_of_a_reader_that_is_not_behind() {
        let mut watch = Watch::default();
        let at = watch.begin(TIMEOUT).expect("it has to be set");
        watch.end();
        assert_eq!(watch.look_at(TIMEOUT, at + TIMEOUT), Look::Later(None));
    }
}
