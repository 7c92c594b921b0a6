//! Whether the queue is a *standing queue*: one of the two signs by which a pool reports overload.
//!
//! The other one is lost work ([`overload`](super::overload)): a short queue rejects what is too much, and its waits stay
//! short.
//!
//! A short burst drains again; a standing queue does not. The measure is one number: the wait of the oldest task, each
//! time a task is taken. A wait above the *target* is late. If every wait of an *interval* was late, the pool reports
//! overload until a wait is not late. This is CoDel's rule (Nichols and Jacobson, "Controlling
//! Queue Delay", ACM Queue 2012), with the numbers of folly's `Codel`, scaled with the pool's own execution time. It
//! decides nothing about any task: what the pool does about overload follows from [`overload`](super::overload).

use super::settings::Settings;
use super::timestamp::{Timestamp, nanos};

/// A wait is late above this many execution times: 5 ms for tasks of 1 ms, as folly's Codel and "Fail at Scale" (ACM
/// Queue 2015) have it for such work.
const TARGET: f64 = 5.0;

/// An interval is this many targets, CoDel's 100 ms for 5 ms, and never fewer execution times than that.
const INTERVAL: f64 = 20.0;

/// How many waits a target may fit into the queue timeout at most.
const PER_TIMEOUT: f64 = 4.0;

#[derive(Clone, Debug)]
pub(super) struct Codel {
    /// Target and interval in nanoseconds. They are updated at the end of each task.
    target: u64,
    interval: u64,
    /// Since when every wait has been late.
    since: Option<Timestamp>,
    stands: bool,
    /// When it last ended.
    ended: Option<Timestamp>,
}

impl Codel {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut codel = Self { target: 0, interval: 0, since: None, stands: false, ended: None };
        codel.adapt(settings, 0.0);
        codel
    }

    /// Sets target and interval from the execution time in nanoseconds that tasks have if as many run as the limit allows.
    /// A pool that is short of cores makes tasks wait for a core instead of sharing it.
    pub(super) fn adapt(&mut self, settings: &Settings, run: f64) {
        let target = settings.target.clamp(TARGET * run).min(nanos(settings.timeout) / PER_TIMEOUT);
        self.target = target as u64;
        self.interval = settings.interval.clamp(INTERVAL * target).max(INTERVAL * run) as u64;
    }

    /// Observes the wait of the oldest task, each time a task is taken.
    pub(super) fn observe(&mut self, now: Timestamp, wait: u64) {
        if wait <= self.target {
            return self.clear(now);
        }
        let since = *self.since.get_or_insert(now);
        self.stands |= now.nanos_since(since) >= self.interval;
    }

    /// Observes that a task starts without a wait, or that the queue is empty.
    pub(super) fn clear(&mut self, now: Timestamp) {
        self.since = None;
        if std::mem::take(&mut self.stands) {
            self.ended = Some(now);
        }
    }

    /// Whether there is a standing queue, or was within the last interval, or would be if a task were taken now. `stuck` is
    /// how long the oldest task has waited without any start.
    pub(super) fn is_overloaded(&self, now: Timestamp, stuck: u64) -> bool {
        let lasted = self.ended.is_some_and(|ended| now.nanos_since(ended) < self.interval);
        self.stands || lasted || stuck >= self.target.saturating_add(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::Bounds;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Target and interval, in milliseconds, where tasks take this long.
    fn spans(timeout: Duration, run: Duration) -> [u64; 2] {
        let wide = Bounds { min: MS, max: MS * 1_000_000 };
        let settings = Settings { timeout, target: wide, interval: wide, ..Settings::fixed(1) };
        let mut codel = Codel::new(&settings);
        codel.adapt(&settings, nanos(run));
        [codel.target, codel.interval].map(|nanos| nanos / 1_000_000)
    }

    #[test]
    fn target_and_interval_follow_the_execution_time() {
        assert_eq!(spans(MS * 60_000, Duration::ZERO), [1, 20], "the least, before any task has run");
        assert_eq!(spans(MS * 60_000, 20 * MS), [100, 2_000]);
        assert_eq!(spans(MS * 200, 20 * MS), [50, 1_000], "a fourth of the timeout");
    }

    #[test]
    fn bounds_do_not_make_the_interval_shorter_than_twenty_tasks() {
        let settings = Settings::fixed(1);
        let mut codel = Codel::new(&settings);
        codel.adapt(&settings, nanos(Duration::from_secs(60)));
        assert_eq!((codel.target, codel.interval), (5_000_000_000, 1_200_000_000_000));
    }

    #[test]
    fn a_queue_stands_when_every_wait_of_an_interval_was_late() {
        let mut codel = Codel::new(&Settings::fixed(1));
        let at = Timestamp::from_nanos;
        let (late, interval) = (codel.target + 1, codel.interval);
        codel.observe(at(0), late);
        codel.observe(at(interval - 1), late);
        assert!(!codel.is_overloaded(at(interval - 1), 0));
        codel.observe(at(interval - 1), late - 1);
        codel.observe(at(interval), late);
        assert!(!codel.is_overloaded(at(interval), 0), "one was not late");
        codel.observe(at(2 * interval), late);
        assert!(codel.is_overloaded(at(2 * interval), 0));
        codel.clear(at(3 * interval));
        assert!(codel.is_overloaded(at(4 * interval - 1), 0), "it stood within the last interval");
        assert!(!codel.is_overloaded(at(4 * interval), 0));
        assert!(codel.is_overloaded(at(4 * interval), late + interval), "nothing starts");
    }
}
