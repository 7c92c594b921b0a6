//! How many workers of a pool are awake at once: as many as keep the cores busy, and one more for each that blocks.
//!
//! Threads that compute gain nothing by being more than the cores: they take turns, keep the server's own threads
//! waiting for theirs, and each switch costs. Threads that block are needed in any number. Which of the two a job does is
//! not known beforehand, so every pool begins with all the workers it may have. While more of them are awake than there
//! are cores, it is looked now and then which of them the system says are running, and which wait for something. A
//! worker that is too many lies down when its job has ended.
//!
//! A worker whose job runs far longer than is usual in its pool counts like one that blocks: a short job must not wait
//! for the end of long ones.
//!
//! Windows' completion ports release another thread when one blocks; Go's `sysmon` looks for blocked threads in
//! intervals that double; .NET's pool adds a thread when nothing was taken for a while. This is the three together, in
//! what an ordinary process can see.

use std::time::Duration;

use crate::admission::Timestamp as Moment;

/// The time between two looks: the short one after a change, then twice as long each time.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(10);

/// The same while all workers may be awake anyway.
const LONGEST: Duration = Duration::from_millis(100);

/// After so long without need nobody looks any more.
const CALM: Duration = Duration::from_millis(100);

/// How many looks in a row must find a core without work before many more workers are let in: the first may have come
/// between two jobs.
const STARVED: u32 = 2;

/// How much one look counts in the mean of those that do not compute.
const WEIGHT: f64 = 0.25;

/// A poll is far longer than usual above so many times the mean, and above the least. Of polls of exponential length, two
/// in a hundred are.
const UNUSUAL: u64 = 4;
const UNUSUAL_LEAST: Duration = Duration::from_millis(50);

/// How much the latest poll counts in their mean: one part in so many.
const MEMORY: u64 = 16;

/// How many workers may be awake.
#[derive(Debug)]
pub(super) struct Level {
    cores: usize,
    most: usize,
    current: usize,
    /// How many of those that are awake do not compute, in the mean; none before the first look.
    others: Option<f64>,
    /// How long a poll usually takes, in nanoseconds.
    usual: u64,
    interval: Duration,
    calm: Duration,
    starved: u32,
}

/// A worker that is awake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Whether the system runs it, or would.
    pub(super) runs: bool,
    /// The moment at which it began to poll its job.
    pub(super) since: Option<Moment>,
}

impl Level {
    pub(super) const fn new(cores: usize, most: usize) -> Self {
        let zero = Duration::ZERO;
        Self { cores, most, current: most, others: None, usual: 0, interval: SHORT, calm: zero, starved: 0 }
    }

    /// How many workers may be awake now: at least as many as there are cores, if there are so many.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// Whether it is to be looked which workers run, with so many awake. `pressed`: there is a job for one more.
    pub(super) const fn is_worth_a_look(&self, awake: usize, pressed: bool) -> bool {
        awake > self.cores || (pressed && awake >= self.current && self.current < self.most)
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

    /// Draws the consequence of a look at some of so many workers that are awake; when to look again. `None`: not before
    /// it is worth one.
    pub(super) fn learn(&mut self, now: Moment, seen: &[Seen], awake: usize, pressed: bool) -> Option<Duration> {
        let worth = self.is_worth_a_look(awake, pressed);
        self.calm = if worth { Duration::ZERO } else { self.calm + self.interval };
        if self.calm >= CALM {
            (self.calm, self.starved, self.interval) = (Duration::ZERO, 0, SHORT);
            return None;
        }
        let computing = self.computing(now, seen, awake);
        // Only so it shows how many are needed.
        let pressed = pressed && awake >= self.current;
        self.starved = if pressed && computing < self.cores { self.starved + 1 } else { 0 };
        let before = self.current;
        if self.starved >= STARVED {
            self.let_in(self.current.saturating_mul(2));
            self.others = Some(self.current.saturating_sub(self.cores) as f64);
        } else if pressed || computing > self.cores {
            let others = awake.saturating_sub(computing) as f64;
            let mean = self.others.map_or(others, |mean| mean + (others - mean) * WEIGHT);
            self.others = Some(mean);
            // How many block varies with the root of how many there are in the mean: the square-root staffing of queueing
            // theory (Halfin and Whitt, 1981).
            let spare = mean.min(mean.sqrt());
            self.let_in(self.cores + (mean + spare).round() as usize);
        }
        let longest = if self.current == self.most { LONGEST } else { LONG };
        let changing = self.current != before || (self.starved > 0 && self.current < self.most);
        self.interval = if changing { SHORT } else { (self.interval * 2).min(longest) };
        Some(self.interval)
    }

    /// How many of those that are awake run jobs of the usual length, by those that were looked at.
    fn computing(&self, now: Moment, seen: &[Seen], awake: usize) -> usize {
        let share = |count: usize| (count * awake + seen.len() / 2).checked_div(seen.len()).unwrap_or(0);
        let running = share(seen.iter().filter(|seen| seen.runs).count());
        // Those who share the cores take longer, all of them.
        let sharing = running.div_ceil(self.cores.max(1)).max(1) as u32;
        let unusual = Duration::from_nanos(self.usual.saturating_mul(UNUSUAL)).max(UNUSUAL_LEAST) * sharing;
        let is_usual = |seen: &&Seen| seen.runs && seen.since.is_none_or(|since| now.since(since) < unusual);
        share(seen.iter().filter(is_usual).count())
    }

    #[cfg(test)]
    pub(super) fn lower(&mut self) {
        self.let_in(0);
    }

    fn let_in(&mut self, workers: usize) {
        self.current = workers.clamp(self.cores.min(self.most), self.most);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CORES: usize = 2;
    const MOST: usize = 30;
    const NOW: Moment = Moment::from_nanos(0);

    /// So many that are awake, of which so many run; jobs wait.
    fn look(level: &mut Level, awake: usize, running: usize) -> Option<Duration> {
        let seen: Vec<_> = (0..awake).map(|worker| Seen { runs: worker < running, since: Some(NOW) }).collect();
        level.learn(NOW, &seen, awake, true)
    }

    #[test]
    fn all_workers_may_be_awake_until_they_are_seen_to_compute() {
        let mut level = Level::new(CORES, MOST);
        assert_eq!(level.current(), MOST);
        assert!(!level.is_worth_a_look(CORES, true) && level.is_worth_a_look(CORES + 1, false));
        assert_eq!(look(&mut level, MOST, MOST), Some(SHORT));
        assert_eq!(level.current(), CORES);
        assert!(level.is_worth_a_look(CORES, true) && !level.is_worth_a_look(CORES, false));
    }

    #[test]
    fn a_pool_of_no_more_workers_than_cores_is_not_looked_at() {
        for most in 1..=CORES {
            assert!(!Level::new(CORES, most).is_worth_a_look(most, true));
        }
    }

    #[test]
    fn each_worker_that_blocks_has_one_in_its_place() {
        let mut level = Level::new(CORES, MOST);
        look(&mut level, 16, 7);
        assert_eq!(level.current(), CORES + 9 + 3, "nine block, and that may vary by three");
    }

    #[test]
    fn one_look_that_finds_other_numbers_moves_the_level_little() {
        let mut level = Level::new(CORES, MOST);
        look(&mut level, 20, 4);
        assert_eq!(level.current(), CORES + 16 + 4);
        look(&mut level, 20, 12);
        assert_eq!(level.current(), CORES + 14 + 4);
    }

    #[test]
    fn workers_are_let_in_by_doubling_while_a_core_has_nothing_to_do() {
        let mut level = Level::new(CORES, MOST);
        look(&mut level, MOST, MOST);
        let levels: Vec<_> = (0..6)
            .map(|_| {
                let awake = level.current();
                look(&mut level, awake, 0);
                level.current()
            })
            .collect();
        assert_eq!(levels, [3, 6, 12, 24, 30, 30], "one look alone may have come between two jobs");
    }

    #[test]
    fn nobody_is_let_in_for_jobs_that_are_not_there_and_nothing_is_learned_from_cores_that_are_just_enough() {
        let seen = |runs| [Seen { runs, since: Some(NOW) }; CORES];
        let mut low = Level::new(CORES, MOST);
        low.lower();
        for _ in 0..10 {
            low.learn(NOW, &seen(false), CORES, false);
        }
        assert_eq!(low.current(), CORES);
        let mut high = Level::new(CORES, MOST);
        high.learn(NOW, &[seen(true).as_slice(), &seen(false)[..1]].concat(), CORES + 1, false);
        assert_eq!(high.current(), MOST);
    }

    #[test]
    fn the_next_look_comes_soon_while_a_core_seems_without_work_and_there_is_another_worker() {
        let mut level = Level::new(CORES, MOST);
        let looks = [(MOST, MOST), (CORES + 1, CORES), (CORES + 1, 1)].map(|(awake, running)| {
            let next = look(&mut level, awake, running);
            (next, level.current())
        });
        assert_eq!(looks, [CORES, CORES + 1, CORES + 1].map(|current| (Some(SHORT), current)));
        let mut full = Level::new(CORES, MOST);
        let looks = [(); 9].map(|()| look(&mut full, MOST, 0).expect("jobs wait").as_millis());
        assert_eq!(looks, [2, 4, 8, 16, 32, 64, 100, 100, 100]);
    }

    #[test]
    fn those_that_were_not_looked_at_are_taken_to_be_like_the_others() {
        let mut level = Level::new(CORES, MOST);
        let seen = [true, false, false, false].map(|runs| Seen { runs, since: Some(NOW) });
        level.learn(NOW, &seen, 10, true);
        assert_eq!(level.current(), CORES + 7 + 3, "two and a half run");
    }

    #[test]
    fn a_worker_whose_job_is_far_longer_than_usual_counts_like_one_that_blocks() {
        let mut level = Level::new(CORES, MOST);
        look(&mut level, MOST, MOST);
        (0..100).for_each(|_| level.polled(Duration::from_millis(20)));
        let at = |millis| NOW + Duration::from_millis(millis);
        let seen = [Seen { runs: true, since: Some(NOW) }; CORES];
        for _ in 0..10 {
            level.learn(at(79), &seen, CORES, true);
        }
        assert_eq!(level.current(), CORES, "not four times the usual");
        level.learn(at(81), &seen, CORES, true);
        assert_eq!(level.current(), CORES + 1, "as if one of them blocked now and then");
    }

    #[test]
    fn what_was_learned_outlives_a_calm_while() {
        let mut level = Level::new(CORES, MOST);
        look(&mut level, MOST, MOST);
        let calm = [Seen { runs: false, since: None }];
        let mut time = Duration::ZERO;
        while let Some(interval) = level.learn(NOW, &calm, 1, false) {
            time += interval;
        }
        assert!(time >= CALM && time < CALM + 2 * LONG, "{time:?}");
        assert_eq!(level.current(), CORES);
    }

    proptest! {
        #[test]
        fn there_is_always_a_worker_for_each_core_and_never_one_too_many(
            cores in 1..64_usize,
            most in 1..64_usize,
            looks in proptest::collection::vec((0..64_usize, 0..64_usize, any::<bool>(), 0..u64::MAX), 0..200),
        ) {
            let mut level = Level::new(cores, most);
            for (awake, running, pressed, nanos) in looks {
                let seen: Vec<_> = (0..awake).map(|worker| Seen { runs: worker < running, since: Some(NOW) }).collect();
                level.polled(Duration::from_nanos(nanos));
                level.learn(Moment::from_nanos(nanos), &seen, awake, pressed);
                prop_assert!(level.current() <= most && level.current() >= cores.min(most));
            }
        }

        /// However it got there: while a job waits and a core is without work, every worker is let in before long.
        #[test]
        fn nothing_waits_for_ever_for_workers_that_block(
            cores in 1..64_usize,
            most in 1..500_usize,
            looks in proptest::collection::vec((0..64_usize, 0..64_usize), 0..50),
        ) {
            let mut level = Level::new(cores, most);
            for (awake, running) in looks {
                look(&mut level, awake, running.min(awake));
            }
            let mut time = Duration::ZERO;
            while level.current() < most {
                let awake = level.current();
                time += look(&mut level, awake, 0).expect("a job waits");
            }
            prop_assert!(time <= Duration::from_millis(30), "{time:?}");
        }
    }
}
