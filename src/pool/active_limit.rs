//! How many workers of a pool may be awake at once, that is, not parked: one for each core of its allotment, and one more
//! for each that is blocked.
//!
//! Computing threads gain nothing by outnumbering the cores: they take turns, they delay the server's own threads, and
//! each switch costs. Blocked threads are needed in any number. Whether a task computes or blocks is not known
//! beforehand, so every pool starts with all of its workers allowed. While more workers are awake than the pool has
//! cores, a sampler periodically reads each worker's kernel thread state to see which are runnable and which are
//! blocked. A worker above the limit parks when its poll has ended.
//!
//! A worker whose poll runs far longer than polls usually do in its pool counts as blocked: short tasks must not wait
//! for long ones to end.
//!
//! Windows' completion ports release another thread when one blocks; Go's `sysmon` looks for blocked threads at
//! intervals that double; .NET's pool adds a thread when nothing was taken for a while. This limit combines the three
//! with what an ordinary process can observe.

use std::time::Duration;

use super::allotment::{Allot, Allotment, Report};
use crate::admission::Timestamp;

/// The time between two samples: the shorter one after a change, then twice as long each time.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(10);

/// The longest time between two samples while all workers may be awake anyway.
const LONGEST: Duration = Duration::from_millis(100);

/// Sampling ends when there was no need for it for this long.
const CALM: Duration = Duration::from_millis(100);

/// How many samples in a row must find a core without work before the limit is doubled: the first may have come between
/// two tasks.
const STARVED: u32 = 2;

/// The same in a pool without a core. It is likely to get one first, and a worker that turns out to compute has none.
const STARVED_WITHOUT_CORE: u32 = 10;

/// The weight of one sample in the mean number of blocked workers.
const WEIGHT: f64 = 0.25;

/// A poll is far longer than usual above this many times the mean, and above the least. Of polls whose length is
/// distributed exponentially, two in a hundred are.
const UNUSUAL: u64 = 4;
const UNUSUAL_LEAST: Duration = Duration::from_millis(50);

/// The latest poll counts as one part in this many in the mean length of polls.
const MEMORY: u64 = 16;

/// How many workers of one pool may be awake. It lives under the pool's lock.
#[derive(Debug)]
pub(super) struct ActiveLimit {
    allotment: Allotment,
    /// The pool's number of workers.
    most: usize,
    current: usize,
    /// How many awake workers are blocked, in the mean; none before the first sample.
    blocked: Option<f64>,
    /// How many were blocked in the last sample.
    blocked_last: usize,
    /// How long a poll usually takes, in nanoseconds.
    usual: u64,
    interval: Duration,
    calm: Duration,
    starved: u32,
}

/// A worker that is awake, as the sampler saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    pub(super) runnable: bool,
    /// The moment at which the worker began to poll its task.
    pub(super) since: Option<Timestamp>,
}

/// How many of the awake workers are runnable, by those that were sampled.
pub(super) fn runnable(sample: &[Sampled], awake: usize) -> usize {
    scale(sample.iter().filter(|worker| worker.runnable).count(), sample, awake)
}

/// Takes the workers that were not sampled to be like the others.
fn scale(count: usize, sample: &[Sampled], awake: usize) -> usize {
    (count * awake + sample.len() / 2).checked_div(sample.len()).unwrap_or(0)
}

impl ActiveLimit {
    /// The limit of a pool with at most `most` workers. It has no core until the budget allots it one.
    pub(super) fn new(most: usize) -> Self {
        let zero = Duration::ZERO;
        Self {
            allotment: Allotment::default(),
            most,
            current: most,
            blocked: None,
            blocked_last: 0,
            usual: 0,
            interval: SHORT,
            calm: zero,
            starved: 0,
        }
    }

    /// The pool's cores.
    pub(super) const fn cores(&self) -> usize {
        self.allotment.cores()
    }

    /// The number of cores from here on, for a pool without a budget.
    #[cfg(test)]
    pub(super) fn set_cores(&mut self, cores: usize) {
        self.allotment = Allotment::fixed(cores);
        self.adjust();
    }

    /// How many workers may be awake now: at least one for each of the pool's cores, if it has enough workers.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// Applies the budget's message, unless a newer one was applied before. The caller passes the result to the budget.
    /// `awake`: the number of workers that are not parked. `waiting`: the number of tasks that a further worker could take.
    pub(super) fn apply(&mut self, allot: Allot, awake: usize, waiting: usize) -> Option<Report> {
        if !self.allotment.apply(allot) {
            return None;
        }
        self.adjust();
        let report = self.report(awake, waiting);
        report.or_else(|| allot.acknowledge.then(|| self.status(awake, waiting)))
    }

    /// A report, if there is something that the budget must learn. It is cheap enough to ask before each release of the pool's lock.
    pub(super) fn report(&mut self, awake: usize, waiting: usize) -> Option<Report> {
        let returns = self.give_back(awake);
        let lacks = self.allotment.lacks(self.wanted(awake, waiting));
        let idle = awake == 0 && waiting == 0 && self.allotment.has_asked();
        (returns || lacks || idle).then(|| self.status(awake, waiting))
    }

    /// The report for a tick of the budget.
    pub(super) fn status(&mut self, awake: usize, waiting: usize) -> Report {
        self.give_back(awake);
        self.allotment.report(self.in_use(awake), self.wanted(awake, waiting))
    }

    /// Gives back the cores beyond the allotment that no runnable worker uses; whether there are any.
    fn give_back(&mut self, awake: usize) -> bool {
        let above = awake.saturating_sub(self.current);
        let in_use = self.in_use(awake).saturating_sub(self.allotment.cores());
        self.allotment.give_back_all_but(above.min(in_use))
    }

    /// How many workers are runnable, with polls of the usual length.
    const fn in_use(&self, awake: usize) -> usize {
        awake.saturating_sub(self.blocked_last)
    }

    /// How many cores the pool could use. A task needs one only if the pool has a worker for it, and it is the limit that
    /// keeps this worker parked.
    fn wanted(&self, awake: usize, waiting: usize) -> usize {
        let held_up = if awake >= self.current { waiting.min(self.most.saturating_sub(awake)) } else { 0 };
        self.in_use(awake) + held_up
    }

    /// Whether the sampler should run with this number of awake workers.
    pub(super) const fn is_worth_sampling(&self, awake: usize, waiting: usize) -> bool {
        let held_up = waiting > 0 && awake >= self.current && self.current < self.most;
        awake > 0 && (awake > self.allotment.cores() || held_up)
    }

    /// Whether the sampler should look at the workers before a tick: they may be blocked while others wait for a core.
    pub(super) const fn may_hold_unused_cores(&self, awake: usize) -> bool {
        awake > 0 && self.allotment.held() > 0
    }

    /// How long a poll usually takes.
    pub(super) const fn usual(&self) -> Duration {
        Duration::from_nanos(self.usual)
    }

    /// A poll has ended that took so long.
    pub(super) fn polled(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.usual = self.usual - self.usual / MEMORY + time / MEMORY;
    }

    /// Learns from a sample of the awake workers. `sharing`: how many runnable workers there are for each core, as
    /// [`CoreBudget::sampled`](super::core_budget::CoreBudget::sampled) says. The result is the time until the next
    /// sample; `None` if none is needed until it [is worth it](Self::is_worth_sampling) again.
    pub(super) fn learn(
        &mut self,
        now: Timestamp,
        sample: &[Sampled],
        awake: usize,
        waiting: usize,
        sharing: usize,
    ) -> Option<Duration> {
        let worth = self.is_worth_sampling(awake, waiting);
        self.calm = if worth { Duration::ZERO } else { self.calm + self.interval };
        if self.calm >= CALM {
            (self.calm, self.starved, self.interval) = (Duration::ZERO, 0, SHORT);
            return None;
        }
        let cores = self.allotment.cores();
        let computing = self.computing(now, sample, awake, sharing);
        self.blocked_last = awake.saturating_sub(computing);
        // Only at the limit does it show how many workers are needed.
        let held_up = waiting > 0 && awake > 0 && awake >= self.current;
        // A pool without a core cannot know of one without work; but if all its workers are blocked, more are needed.
        self.starved = if held_up && computing < cores.max(1) { self.starved + 1 } else { 0 };
        let before = self.current;
        if self.starved >= if cores == 0 { STARVED_WITHOUT_CORE } else { STARVED } {
            self.let_in(self.current.saturating_mul(2).max(awake + 1));
            self.blocked = Some(self.current.saturating_sub(cores) as f64);
        } else if held_up || computing > cores {
            let blocked = self.blocked_last as f64;
            self.blocked = Some(self.blocked.map_or(blocked, |mean| mean + (blocked - mean) * WEIGHT));
            self.adjust();
        }
        let longest = if self.current == self.most { LONGEST } else { LONG };
        let changing = self.current != before || (self.starved > 0 && self.current < self.most);
        self.interval = if changing { SHORT } else { (self.interval * 2).min(longest) };
        Some(self.interval)
    }

    /// Sets the limit by what was learned, if anything was.
    fn adjust(&mut self) {
        let Some(mean) = self.blocked else { return };
        // How many workers block varies with the root of their mean number: the square-root staffing of queueing theory
        // (Halfin and Whitt, 1981). A pool without a core has none to keep in use.
        let cores = self.allotment.cores();
        let spare = if cores == 0 { 0.0 } else { mean.min(mean.sqrt()) };
        self.let_in(cores + (mean + spare).round() as usize);
    }

    /// How many awake workers are runnable with polls of the usual length, by those that were sampled.
    fn computing(&self, now: Timestamp, sample: &[Sampled], awake: usize, sharing: usize) -> usize {
        // If workers share the cores, all polls take longer.
        let sharing = u32::try_from(sharing).unwrap_or(u32::MAX).max(1);
        let unusual =
            Duration::from_nanos(self.usual.saturating_mul(UNUSUAL)).max(UNUSUAL_LEAST).saturating_mul(sharing);
        let is_usual =
            |worker: &&Sampled| worker.runnable && worker.since.is_none_or(|since| now.since(since) < unusual);
        scale(sample.iter().filter(is_usual).count(), sample, awake)
    }

    /// The cores that the pool uses or may use.
    #[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
    pub(super) const fn held(&self) -> usize {
        self.allotment.held()
    }

    fn let_in(&mut self, workers: usize) {
        self.current = workers.clamp(self.allotment.cores().min(self.most), self.most);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::allotment::MemberId;

    const CORES: usize = 2;
    const MOST: usize = 30;
    const NOW: Timestamp = Timestamp::from_nanos(0);

    fn limit(cores: usize, most: usize) -> ActiveLimit {
        let mut limit = ActiveLimit::new(most);
        limit.set_cores(cores);
        limit
    }

    /// A limit whose pool was seen to compute.
    fn lowered(cores: usize, most: usize) -> ActiveLimit {
        let mut limit = limit(cores, most);
        limit.learn(NOW, &workers(most, 0), most, 1, 1);
        assert_eq!(limit.current(), cores.min(most));
        limit
    }

    /// A sample of `runnable` runnable workers and `blocked` blocked ones.
    fn workers(runnable: usize, blocked: usize) -> Vec<Sampled> {
        (0..runnable + blocked).map(|worker| Sampled { runnable: worker < runnable, since: Some(NOW) }).collect()
    }

    /// Learns from a sample of all awake workers while tasks wait.
    fn sample(limit: &mut ActiveLimit, awake: usize, runnable: usize) -> Option<Duration> {
        limit.learn(NOW, &workers(runnable, awake - runnable), awake, 1, 1)
    }

    #[test]
    fn all_workers_may_be_awake_until_they_are_seen_to_compute() {
        for cores in [0, CORES] {
            let mut limit = limit(cores, MOST);
            assert_eq!(limit.current(), MOST);
            assert!(!limit.is_worth_sampling(cores, 1) && limit.is_worth_sampling(cores + 1, 0));
            assert_eq!(sample(&mut limit, MOST, MOST), Some(SHORT));
            assert_eq!(limit.current(), cores);
        }
    }

    #[test]
    fn at_the_limit_a_pool_is_sampled_only_if_tasks_wait() {
        let limit = lowered(CORES, MOST);
        assert!(limit.is_worth_sampling(CORES, 1) && !limit.is_worth_sampling(CORES, 0));
    }

    #[test]
    fn a_pool_without_a_worker_awake_is_not_sampled_though_its_tasks_wait_for_a_core() {
        assert!(!lowered(0, MOST).is_worth_sampling(0, 1));
    }

    #[test]
    fn a_pool_of_no_more_workers_than_cores_is_not_sampled() {
        for most in 1..=CORES {
            assert!(!limit(CORES, most).is_worth_sampling(most, 1));
        }
    }

    #[test]
    fn each_blocked_worker_is_replaced_by_one_more() {
        for cores in [0, 1, CORES] {
            let mut limit = limit(cores, MOST);
            sample(&mut limit, 16, 7);
            let spare = if cores == 0 { 0 } else { 3 };
            assert_eq!(limit.current(), cores + 9 + spare, "nine are blocked, and that may vary by three");
        }
    }

    #[test]
    fn the_limit_follows_the_allotment_at_once_and_keeps_what_was_learned() {
        let mut limit = limit(CORES, MOST);
        sample(&mut limit, 16, 7);
        for cores in [0, 1, 4, 0] {
            limit.set_cores(cores);
            assert_eq!(limit.current(), if cores == 0 { 9 } else { cores + 9 + 3 });
        }
    }

    #[test]
    fn one_sample_that_differs_moves_the_limit_little() {
        let mut limit = limit(CORES, MOST);
        sample(&mut limit, 20, 4);
        assert_eq!(limit.current(), CORES + 16 + 4);
        sample(&mut limit, 20, 12);
        assert_eq!(limit.current(), CORES + 14 + 4);
    }

    #[test]
    fn the_limit_doubles_while_a_core_has_nothing_to_do() {
        let mut limit = lowered(CORES, MOST);
        let limits: Vec<_> = (0..6)
            .map(|_| {
                let awake = limit.current();
                sample(&mut limit, awake, 0);
                limit.current()
            })
            .collect();
        assert_eq!(limits, [3, 6, 12, 24, 30, 30], "one sample alone may have come between two tasks");
    }

    #[test]
    fn a_pool_without_a_core_lets_more_workers_in_while_all_are_blocked_and_none_while_one_computes() {
        let mut limit = lowered(0, MOST);
        for _ in 0..10 {
            sample(&mut limit, 1, 1);
            assert_eq!(limit.current(), 0);
        }
        let limits = [(); 17].map(|()| {
            let awake = limit.current().max(1);
            sample(&mut limit, awake, 0);
            limit.current()
        });
        assert_eq!(limits[..10], [0, 0, 1, 1, 1, 1, 1, 1, 1, 2], "one by one as they are seen");
        assert_eq!(limits[10..], [4, 8, 16, 30, 30, 30, 30]);
    }

    #[test]
    fn the_limit_does_not_rise_for_tasks_that_are_not_there_nor_fall_for_cores_that_are_just_enough() {
        let mut low = lowered(CORES, MOST);
        for _ in 0..10 {
            low.learn(NOW, &workers(0, CORES), CORES, 0, 1);
        }
        assert_eq!(low.current(), CORES);
        let mut high = limit(CORES, MOST);
        high.learn(NOW, &workers(CORES, 1), CORES + 1, 0, 1);
        assert_eq!(high.current(), MOST);
    }

    #[test]
    fn the_next_sample_comes_soon_while_a_core_seems_without_work_and_there_is_another_worker() {
        let mut short = limit(CORES, MOST);
        let samples = [(MOST, MOST), (CORES + 1, CORES), (CORES + 1, 1)].map(|(awake, runnable)| {
            let next = sample(&mut short, awake, runnable);
            (next, short.current())
        });
        assert_eq!(samples, [CORES, CORES + 1, CORES + 1].map(|current| (Some(SHORT), current)));
        let mut full = limit(CORES, MOST);
        let samples = [(); 9].map(|()| sample(&mut full, MOST, 0).expect("tasks wait").as_millis());
        assert_eq!(samples, [2, 4, 8, 16, 32, 64, 100, 100, 100]);
    }

    #[test]
    fn workers_that_were_not_sampled_are_taken_to_be_like_the_others() {
        let mut limit = limit(CORES, MOST);
        limit.learn(NOW, &workers(1, 3), 10, 1, 1);
        assert_eq!(limit.current(), CORES + 7 + 3, "two and a half compute");
    }

    #[test]
    fn a_worker_whose_poll_is_far_longer_than_usual_counts_as_blocked() {
        for cores in [1, CORES] {
            let mut limit = lowered(cores, MOST);
            (0..100).for_each(|_| limit.polled(Duration::from_millis(20)));
            let at = |millis| NOW + Duration::from_millis(millis);
            for _ in 0..10 {
                limit.learn(at(79), &workers(cores, 0), cores, 1, 1);
            }
            assert_eq!(limit.current(), cores, "not four times the usual");
            limit.learn(at(81), &workers(cores, 0), cores, 1, 2);
            assert_eq!(limit.current(), cores, "two share each core");
            limit.learn(at(81), &workers(cores, 0), cores, 1, 1);
            assert_eq!(limit.current(), cores + 1, "as if one of them blocked now and then");
        }
    }

    #[test]
    fn what_was_learned_outlives_a_calm_while() {
        let mut limit = lowered(CORES, MOST);
        let calm = [Sampled { runnable: false, since: None }];
        let mut time = Duration::ZERO;
        while let Some(interval) = limit.learn(NOW, &calm, 1, 0, 1) {
            time += interval;
        }
        assert!(time >= CALM && time < CALM + 2 * LONG, "{time:?}");
        assert_eq!(limit.current(), CORES);
    }

    #[test]
    fn the_usual_length_of_a_poll_follows_the_latest_ones() {
        let mut limit = limit(CORES, MOST);
        (0..100).for_each(|_| limit.polled(Duration::from_millis(20)));
        assert!(limit.usual().abs_diff(Duration::from_millis(20)) < Duration::from_millis(1), "{:?}", limit.usual());
        (0..100).for_each(|_| limit.polled(Duration::MAX));
        (0..1000).for_each(|_| limit.polled(Duration::ZERO));
        assert!(limit.usual() < Duration::from_micros(1), "{:?}", limit.usual());
    }

    fn allot(seq: u64, cores: usize) -> Allot {
        Allot { member: MemberId(0), cores, seq, acknowledge: false }
    }

    #[test]
    fn a_pool_asks_once_when_it_runs_out_of_cores_and_again_when_it_has_what_it_asked_for() {
        let mut limit = lowered(0, MOST);
        let first = limit.report(0, 3).expect("a task waits for a core");
        assert_eq!((first.seq, first.wanted, first.held), (1, 3, 0));
        assert_eq!(limit.report(0, 9), None, "the budget knows that the pool waits");
        assert_eq!(limit.apply(allot(1, 1), 0, 9), None, "it has not all that it asked for");
        assert_eq!(limit.report(1, 8), None);
        let third = limit.apply(allot(2, 3), 3, 9).expect("more tasks wait");
        assert_eq!((third.seq, third.applied, third.wanted, third.held), (2, 2, 12, 3));
        assert_eq!(limit.report(2, 0), None);
        let idle = limit.report(0, 0).expect("it has become idle");
        assert_eq!((idle.wanted, idle.held), (0, 3), "it keeps its cores until others need them");
        assert_eq!(limit.report(0, 0), None);
        assert_eq!(limit.report(3, 0), None, "and works on them without a word");
    }

    #[test]
    fn a_core_that_was_taken_away_is_given_back_when_a_worker_parks() {
        let mut limit = lowered(3, MOST);
        limit.status(3, 9);
        let taken = Allot { acknowledge: true, ..allot(1, 1) };
        let report = limit.apply(taken, 3, 9).expect("it acknowledges");
        assert_eq!((report.applied, report.held), (1, 3));
        assert_eq!(limit.report(3, 9), None);
        assert_eq!(limit.report(2, 9).map(|report| report.held), Some(2));
        assert_eq!(limit.report(1, 9).map(|report| report.held), Some(1));
        assert_eq!(limit.report(0, 9), None);
    }

    #[test]
    fn an_allotment_older_than_the_last_is_not_applied() {
        let mut limit = lowered(0, MOST);
        limit.apply(allot(7, 2), 0, 0);
        for older in [6, 7] {
            assert_eq!(limit.apply(Allot { acknowledge: true, ..allot(older, 5) }, 0, 0), None);
        }
        assert_eq!(limit.current(), 2);
    }

    #[test]
    fn blocked_workers_want_no_core_and_a_pool_whose_workers_are_all_awake_wants_none_for_waiting_tasks() {
        let mut limit = limit(0, 8);
        limit.learn(NOW, &workers(1, 7), 8, 5, 1);
        assert_eq!(limit.status(8, 5).wanted, 1);
    }

    proptest! {
        #[test]
        fn the_limit_lies_between_the_cores_and_the_workers(
            most in 1..64_usize,
            samples in proptest::collection::vec((0..64_usize, 0..64_usize, 0..64_usize, 0..2_usize, 0..u64::MAX), 0..200),
        ) {
            let mut limit = ActiveLimit::new(most);
            for (cores, awake, runnable, waiting, nanos) in samples {
                limit.set_cores(cores);
                limit.polled(Duration::from_nanos(nanos));
                let sample = workers(runnable.min(awake), awake.saturating_sub(runnable));
                limit.learn(Timestamp::from_nanos(nanos), &sample, awake, waiting, cores);
                prop_assert!(limit.current() <= most && limit.current() >= cores.min(most));
            }
        }

        /// However it got there, and whatever the allotment: while a task waits and no worker computes, every worker is
        /// let in before long.
        #[test]
        fn nothing_waits_for_ever_for_workers_that_block(
            cores in 0..64_usize,
            most in 1..500_usize,
            samples in proptest::collection::vec((0..64_usize, 0..64_usize), 0..50),
        ) {
            let mut limit = limit(cores, most);
            for (awake, runnable) in samples {
                sample(&mut limit, awake, runnable.min(awake));
            }
            let mut time = Duration::ZERO;
            while limit.current() < most {
                let awake = limit.current().max(1);
                time += sample(&mut limit, awake, 0).expect("a task waits");
            }
            prop_assert!(time <= Duration::from_millis(30), "{time:?}");
        }
    }
}
