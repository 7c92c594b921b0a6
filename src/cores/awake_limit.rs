//! The awake limit: how many workers of a pool may be awake, that is, not parked. It is one worker for each core of
//! the pool's allotment, and one more for each worker that is blocked.
//!
//! More computing threads than cores gain nothing: they take turns, they delay the server's own threads, and each
//! context switch costs. A pool may need any number of blocked threads. It does not know beforehand whether a task
//! computes or blocks, so at first it allows all of its workers. While more workers are awake than the pool has cores,
//! a sampler periodically reads each worker's kernel thread state to see which are runnable and which are blocked. A
//! worker above the limit parks when its poll has ended.
//!
//! A worker whose poll takes far longer than the mean of its pool counts as blocked, so that short tasks do not wait
//! for long ones to end.
//!
//! Windows' completion ports release another thread when one blocks; Go's `sysmon` looks for blocked threads at
//! intervals that double; .NET's pool adds a thread when nothing was taken for a while. This limit combines the three
//! with what an ordinary process can observe.

use std::time::Duration;

use super::allotment::{Allot, Allotment, Report};
use crate::admission::Timestamp;

/// The time between two samples: the minimum after a change, then twice as long each time up to the maximum.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_millis(10);

/// The maximum while all workers may be awake anyway.
const MAX_INTERVAL_UNLIMITED: Duration = Duration::from_millis(100);

/// Sampling ends when it was not worth it for this long.
const QUIET_PERIOD: Duration = Duration::from_millis(100);

/// How many samples in a row must find a core idle before the limit is doubled: a single one may have come between two
/// tasks.
const IDLE_CORE_SAMPLES: u32 = 2;

/// How many samples in a row must find all workers blocked before the limit of a pool without a core is doubled. More
/// than above, because the pool is likely to get a core first, and has none for a worker that turns out to compute.
const ALL_BLOCKED_SAMPLES: u32 = 10;

/// The weight of one sample in the mean number of blocked workers.
const SAMPLE_WEIGHT: f64 = 0.25;

/// A poll is *long* above this multiple of the mean, and above the minimum. If lengths are distributed exponentially,
/// two polls in a hundred are.
const LONG_POLL_FACTOR: u64 = 4;
const MIN_LONG_POLL: Duration = Duration::from_millis(50);

/// The weight of the latest poll in the mean length of polls is one part in this many.
const POLL_TIME_WINDOW: u64 = 16;

/// How many workers of one pool may be awake. It lives under the pool's lock.
#[derive(Debug)]
pub(crate) struct AwakeLimit {
    allotment: Allotment,
    /// The pool's number of workers.
    most: usize,
    current: usize,
    /// The mean number of blocked workers; `None` before the first sample.
    mean_blocked: Option<f64>,
    /// The number of blocked workers in the last sample.
    last_blocked: usize,
    /// The mean length of a poll, in nanoseconds.
    mean_poll_nanos: u64,
    interval: Duration,
    quiet: Duration,
    idle_core_samples: u32,
}

/// A worker that is awake, as the sampler saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampled {
    pub(crate) runnable: bool,
    /// The time at which the worker began to poll its task.
    pub(crate) since: Option<Timestamp>,
}

/// Estimates from a sample how many of the awake workers are runnable.
pub(crate) fn runnable(sample: &[Sampled], awake: usize) -> usize {
    scale(sample.iter().filter(|worker| worker.runnable).count(), sample, awake)
}

/// Scales a count of sampled workers to all awake workers.
fn scale(count: usize, sample: &[Sampled], awake: usize) -> usize {
    (count * awake + sample.len() / 2).checked_div(sample.len()).unwrap_or(0)
}

impl AwakeLimit {
    /// The limit of a pool with at most `most` workers. It has no core until the budget allots it one.
    pub(crate) fn new(most: usize) -> Self {
        let zero = Duration::ZERO;
        Self {
            allotment: Allotment::default(),
            most,
            current: most,
            mean_blocked: None,
            last_blocked: 0,
            mean_poll_nanos: 0,
            interval: MIN_INTERVAL,
            quiet: zero,
            idle_core_samples: 0,
        }
    }

    /// The pool's cores.
    pub(crate) const fn cores(&self) -> usize {
        self.allotment.cores()
    }

    /// Sets the number of cores of a pool without a budget.
    #[cfg(test)]
    pub(crate) fn set_cores(&mut self, cores: usize) {
        self.allotment = Allotment::fixed(cores);
        self.adjust();
    }

    /// The limit: at least one worker for each of the pool's cores, if it has that many workers.
    pub(crate) const fn current(&self) -> usize {
        self.current
    }

    /// Applies the budget's message, unless a newer one was applied before. The caller passes the result to the budget.
    /// `awake` is the number of workers that are not parked, `waiting` the number of tasks that another worker could
    /// take.
    pub(crate) fn apply(&mut self, allot: Allot, awake: usize, waiting: usize) -> Option<Report> {
        if !self.allotment.apply(allot) {
            return None;
        }
        self.adjust();
        let report = self.report(awake, waiting);
        report.or_else(|| allot.acknowledge.then(|| self.status(awake, waiting)))
    }

    /// A report, if there is something that the budget must know. This is cheap enough to be called before each release
    /// of the pool's lock.
    pub(crate) fn report(&mut self, awake: usize, waiting: usize) -> Option<Report> {
        let returns = self.give_back(awake);
        let lacks = self.allotment.lacks(self.wanted(awake, waiting));
        let idle = awake == 0 && waiting == 0 && self.allotment.has_asked();
        (returns || lacks || idle).then(|| self.status(awake, waiting))
    }

    /// The report for a tick of the budget.
    pub(crate) fn status(&mut self, awake: usize, waiting: usize) -> Report {
        self.give_back(awake);
        self.allotment.report(self.in_use(awake), self.wanted(awake, waiting))
    }

    /// Gives back the cores beyond the allotment that no runnable worker uses. Whether there were any.
    fn give_back(&mut self, awake: usize) -> bool {
        let above = awake.saturating_sub(self.current);
        let in_use = self.in_use(awake).saturating_sub(self.allotment.cores());
        self.allotment.give_back_all_but(above.min(in_use))
    }

    /// How many workers are runnable, and their polls not long.
    const fn in_use(&self, awake: usize) -> usize {
        awake.saturating_sub(self.last_blocked)
    }

    /// How many cores the pool could use. A waiting task needs a core only if the limit alone keeps a worker for it
    /// parked.
    fn wanted(&self, awake: usize, waiting: usize) -> usize {
        let kept_waiting = if awake >= self.current { waiting.min(self.most.saturating_sub(awake)) } else { 0 };
        self.in_use(awake) + kept_waiting
    }

    /// Whether the sampler should run with this number of awake workers.
    pub(crate) const fn is_worth_sampling(&self, awake: usize, waiting: usize) -> bool {
        let waits_at_limit = waiting > 0 && awake >= self.current && self.current < self.most;
        awake > 0 && (awake > self.allotment.cores() || waits_at_limit)
    }

    /// Whether the sampler should sample the workers before a tick: they may be blocked on cores for which other pools
    /// wait.
    pub(crate) const fn may_hold_unused_cores(&self, awake: usize) -> bool {
        awake > 0 && self.allotment.held() > 0
    }

    /// The mean length of a poll.
    pub(crate) const fn mean_poll_time(&self) -> Duration {
        Duration::from_nanos(self.mean_poll_nanos)
    }

    /// Records the length of a poll that has ended.
    pub(crate) fn record_poll(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.mean_poll_nanos = self.mean_poll_nanos - self.mean_poll_nanos / POLL_TIME_WINDOW + time / POLL_TIME_WINDOW;
    }

    /// Adjusts the limit to a sample of the awake workers. `runnable_per_core` is the number of runnable workers of all pools for
    /// each core, as [`CoreBudget::sampled`](super::core_budget::CoreBudget::sampled) returns it. The result is the
    /// time until the next sample, or `None` if none is needed until sampling [is worth it](Self::is_worth_sampling)
    /// again.
    pub(crate) fn observe(
        &mut self,
        now: Timestamp,
        sample: &[Sampled],
        awake: usize,
        waiting: usize,
        runnable_per_core: usize,
    ) -> Option<Duration> {
        let worth = self.is_worth_sampling(awake, waiting);
        self.quiet = if worth { Duration::ZERO } else { self.quiet + self.interval };
        if self.quiet >= QUIET_PERIOD {
            (self.quiet, self.idle_core_samples, self.interval) = (Duration::ZERO, 0, MIN_INTERVAL);
            return None;
        }
        let cores = self.allotment.cores();
        let computing = self.computing(now, sample, awake, runnable_per_core);
        self.last_blocked = awake.saturating_sub(computing);
        // Samples show how many workers are needed only while tasks wait because of the limit.
        let waits_at_limit = waiting > 0 && awake > 0 && awake >= self.current;
        // A pool without a core has no core that could be idle, but needs more workers if all of them are blocked.
        self.idle_core_samples =
            if waits_at_limit && computing < cores.max(1) { self.idle_core_samples + 1 } else { 0 };
        let before = self.current;
        if self.idle_core_samples >= if cores == 0 { ALL_BLOCKED_SAMPLES } else { IDLE_CORE_SAMPLES } {
            self.set_limit(self.current.saturating_mul(2).max(awake + 1));
            self.mean_blocked = Some(self.current.saturating_sub(cores) as f64);
        } else if waits_at_limit || computing > cores {
            let blocked = self.last_blocked as f64;
            self.mean_blocked = Some(self.mean_blocked.map_or(blocked, |mean| mean + (blocked - mean) * SAMPLE_WEIGHT));
            self.adjust();
        }
        let longest = if self.current == self.most { MAX_INTERVAL_UNLIMITED } else { MAX_INTERVAL };
        let changing = self.current != before || (self.idle_core_samples > 0 && self.current < self.most);
        self.interval = if changing { MIN_INTERVAL } else { (self.interval * 2).min(longest) };
        Some(self.interval)
    }

    /// Sets the limit from the mean number of blocked workers, if there was a sample.
    fn adjust(&mut self) {
        let Some(mean) = self.mean_blocked else { return };
        // The number of blocked workers varies by the square root of its mean, so as many workers more keep the cores
        // in use: the square-root staffing of queueing theory (Halfin and Whitt, 1981). A pool without a core needs
        // none.
        let cores = self.allotment.cores();
        let spare = if cores == 0 { 0.0 } else { mean.min(mean.sqrt()) };
        self.set_limit(cores + (mean + spare).round() as usize);
    }

    /// Estimates from a sample how many awake workers are runnable, and their polls not long.
    fn computing(&self, now: Timestamp, sample: &[Sampled], awake: usize, runnable_per_core: usize) -> usize {
        // Polls take longer if several workers share each core.
        let sharing = u32::try_from(runnable_per_core).unwrap_or(u32::MAX).max(1);
        let long = Duration::from_nanos(self.mean_poll_nanos.saturating_mul(LONG_POLL_FACTOR))
            .max(MIN_LONG_POLL)
            .saturating_mul(sharing);
        let is_computing =
            |worker: &&Sampled| worker.runnable && worker.since.is_none_or(|since| now.since(since) < long);
        scale(sample.iter().filter(is_computing).count(), sample, awake)
    }

    /// The cores that the pool uses or may use.
    #[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
    pub(crate) const fn held(&self) -> usize {
        self.allotment.held()
    }

    fn set_limit(&mut self, workers: usize) {
        self.current = workers.clamp(self.allotment.cores().min(self.most), self.most);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
