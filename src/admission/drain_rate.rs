//! How fast the queue drains now, and so when a rejected caller should come again.
//!
//! The answer is the number of tasks ahead times the mean time between two starts (Little's law), and up to half of that on
//! top: without jitter, callers that were rejected together come back together (Brooker, "Exponential Backoff And Jitter",
//! AWS Architecture Blog, 2015). It is what HTTP sends as `Retry-After` (RFC 9110, section 10.2.3).

use std::time::Duration;

use super::mean::Mean;
use super::random::Random;
use super::timestamp::Timestamp;

/// How many starts say how fast tasks start.
const MEMORY: u32 = 32;

/// The answer before any task has ended.
const UNKNOWN: f64 = 1e9;

/// The longest answer, before jitter is added.
const LONGEST: f64 = 60e9;

/// The time between two starts while tasks wait. It depends on what the pool does now, and not on how long the tasks
/// run that have ended: a single long task holds one permit and no more.
#[derive(Clone, Debug)]
pub(super) struct DrainRate {
    gap: Mean,
    /// When a task last started while others waited and have waited since.
    last: Option<Timestamp>,
}

impl DrainRate {
    pub(super) const fn new() -> Self {
        Self { gap: Mean::new(MEMORY), last: None }
    }

    /// A task was taken from the queue; `waiting` says whether it left others behind.
    pub(super) fn started(&mut self, now: Timestamp, waiting: bool) {
        if let Some(last) = self.last {
            self.gap.add(now.nanos_since(last) as f64);
        }
        self.last = waiting.then_some(now);
    }

    /// Nothing waits.
    pub(super) const fn clear(&mut self) {
        self.last = None;
    }

    /// How long `ahead` tasks take to start, and up to half of that on top, so that callers rejected together do not
    /// come back together. `run` is the mean execution time, if one is known.
    pub(super) fn retry_after(
        &self,
        now: Timestamp,
        ahead: usize,
        run: Option<f64>,
        limit: usize,
        random: &mut Random,
    ) -> Duration {
        let between = run.map(|run| run / limit.max(1) as f64);
        let wait = self.gap(now).or(between).map_or(UNKNOWN, |gap| gap * ahead as f64);
        Duration::from_nanos((wait.min(LONGEST) * (1.0 + random.fraction() / 2.0)) as u64)
    }

    /// The mean time between two starts, as if one started now that is overdue.
    fn gap(&self, now: Timestamp) -> Option<f64> {
        let mut gap = self.gap;
        let since = self.last.map_or(0.0, |last| now.nanos_since(last) as f64);
        if since > gap.value() && gap.known().is_some() {
            gap.add(since);
        }
        gap.known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * MS)
    }

    /// The answers are this many milliseconds, and up to half of that on top.
    fn assert_told(rate: &DrainRate, now: u64, ahead: usize, run: Option<f64>, wait: f64) {
        let mut random = Random::new(1);
        let told = (0..1000).map(|_| rate.retry_after(at(now), ahead, run, 4, &mut random).as_secs_f64() * 1e3);
        let (least, most) =
            told.fold((f64::INFINITY, 0.0_f64), |(least, most), told| (least.min(told), most.max(told)));
        assert!(least >= wait && least < wait * 1.01, "{least} for {wait}");
        assert!(most > wait * 1.49 && most < wait * 1.5, "{most} for {wait}");
    }

    #[test]
    fn callers_are_told_how_long_those_ahead_take_to_start_and_up_to_half_of_that_on_top() {
        let mut rate = DrainRate::new();
        assert_told(&rate, 0, 6, None, 1_000.0); // nothing is known
        assert_told(&rate, 0, 6, Some(100e6), 150.0); // four run at a time
        (0..10).for_each(|step| rate.started(at(step * 10), true));
        assert_told(&rate, 90, 6, Some(100e6), 60.0); // one starts each 10 ms
    }

    #[test]
    fn starts_with_a_lull_between_them_say_nothing() {
        let mut rate = DrainRate::new();
        (0..10).for_each(|step| rate.started(at(step * 10), true));
        rate.clear();
        rate.started(at(1_000_000), true);
        assert_told(&rate, 1_000_000, 6, None, 60.0);
    }

    #[test]
    fn a_pool_in_which_nothing_starts_is_slow() {
        let mut rate = DrainRate::new();
        (0..100).for_each(|step| rate.started(at(step * 10), true));
        assert_told(&rate, 990 + 330, 6, None, 120.0); // one of 32 took 330 ms
    }

    #[test]
    fn callers_at_the_cap_do_not_come_back_together() {
        let mut rate = DrainRate::new();
        (0..10).for_each(|step| rate.started(at(step * 10), true));
        assert_told(&rate, 90, 1_000_000, None, 60_000.0);
    }
}
