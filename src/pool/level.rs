//! How many workers of a pool are awake at once: as many as keep the cores busy, and one more for each that blocks.
//!
//! Threads that compute gain nothing by being more than the cores: they take turns, keep the server's own threads
//! waiting for theirs, and each switch costs. Threads that block are needed in any number. Which of the two a job does is
//! not known beforehand, so every pool begins with all the workers it may have. While more of them are awake than there
//! are cores, it is looked now and then which of them the system says are running, and which wait for something. A
//! worker that is too many lies down when its job has ended.
//!
//! Windows' completion ports release another thread when one blocks; Go's `sysmon` looks for blocked threads in
//! intervals that double; .NET's pool adds a thread when nothing was taken for a while. This is the three together, in
//! what an ordinary process can see.

use std::time::Duration;

/// The time between two looks: the short one after a change, then twice as long each time.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(10);

/// When no job was taken for so long though some wait, one more worker is let in: a short job must not wait for the end
/// of long ones.
const STALL: Duration = Duration::from_millis(50);

/// After so long without need nobody looks any more, and all workers may be awake again.
const CALM: Duration = Duration::from_millis(100);

/// How many looks in a row must find a core without work before more workers are let in: the first may have come
/// between two jobs.
const STARVED: u32 = 2;

/// How many workers may be awake.
#[derive(Debug)]
pub(super) struct Level {
    cores: usize,
    most: usize,
    current: usize,
    interval: Duration,
    calm: Duration,
    stalled: Duration,
    starved: u32,
}

/// What was seen of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Workers that are not asleep.
    pub(super) awake: usize,
    /// Those of them that the system runs or would run.
    pub(super) running: usize,
    /// Whether a job waits for a worker.
    pub(super) waiting: bool,
    /// Whether a job was taken since the last look.
    pub(super) taken: bool,
}

impl Level {
    pub(super) const fn new(cores: usize, most: usize) -> Self {
        let zero = Duration::ZERO;
        Self { cores, most, current: most, interval: SHORT, calm: zero, stalled: zero, starved: 0 }
    }

    /// How many workers may be awake now: at least as many as there are cores, if there are so many.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// Whether it is to be looked which workers run, with so many awake.
    pub(super) const fn is_worth_a_look(&self, awake: usize) -> bool {
        awake > self.cores
    }

    /// Draws the consequence of a look; when to look again. `None`: not before it is worth one.
    pub(super) fn learn(&mut self, look: Look) -> Option<Duration> {
        let Look { awake, running, waiting, taken } = look;
        let spent = self.interval;
        let add_while = |sum: Duration, holds: bool| if holds { sum + spent } else { Duration::ZERO };
        self.calm = add_while(self.calm, awake <= self.cores && !waiting);
        self.stalled = add_while(self.stalled, waiting && !taken);
        self.starved = if waiting && running < self.cores { self.starved + 1 } else { 0 };
        if self.calm >= CALM {
            *self = Self::new(self.cores, self.most);
            return None;
        }
        let before = self.current;
        if self.starved >= STARVED {
            self.let_in(awake.max(before) * 2);
        } else if self.stalled >= STALL {
            self.stalled = Duration::ZERO;
            self.let_in(awake.max(before) + 1);
        } else if running > self.cores && taken {
            self.let_in(awake - running + self.cores);
        }
        let changing = self.current != before || (self.starved > 0 && self.current < self.most);
        self.interval = if changing { SHORT } else { (self.interval * 2).min(LONG) };
        Some(self.interval)
    }

    fn let_in(&mut self, workers: usize) {
        self.current = workers.clamp(self.cores.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CORES: usize = 2;
    const MOST: usize = 30;

    /// All that are awake run, jobs wait, and some are taken.
    fn computing(awake: usize) -> Look {
        Look { awake, running: awake, waiting: true, taken: true }
    }

    fn blocked(awake: usize, running: usize) -> Look {
        Look { awake, running, waiting: true, taken: false }
    }

    #[test]
    fn all_workers_may_be_awake_until_they_are_seen_to_compute() {
        let mut level = Level::new(CORES, MOST);
        assert_eq!(level.current(), MOST);
        assert!(!level.is_worth_a_look(CORES) && level.is_worth_a_look(CORES + 1));
        assert_eq!(level.learn(computing(MOST)), Some(SHORT));
        assert_eq!(level.current(), CORES);
    }

    #[test]
    fn each_worker_that_blocks_has_one_in_its_place() {
        let mut level = Level::new(CORES, MOST);
        level.learn(Look { awake: 12, running: 5, waiting: true, taken: true });
        assert_eq!(level.current(), 7 + CORES);
    }

    #[test]
    fn workers_are_let_in_by_doubling_while_a_core_has_nothing_to_do() {
        let mut level = Level::new(CORES, MOST);
        level.learn(computing(MOST));
        let levels: Vec<_> = (0..6)
            .map(|_| {
                level.learn(blocked(level.current(), 0));
                level.current()
            })
            .collect();
        assert_eq!(levels, [2, 4, 8, 16, 30, 30], "one look alone may have come between two jobs");
    }

    #[test]
    fn one_more_is_let_in_when_no_job_was_taken_for_a_while_though_all_compute() {
        let mut level = Level::new(CORES, MOST);
        level.learn(computing(MOST));
        let mut time = Duration::ZERO;
        while level.current() == CORES {
            time += level.learn(blocked(CORES, CORES)).expect("jobs wait");
        }
        assert_eq!(level.current(), CORES + 1);
        assert!(time >= STALL && time < STALL + 2 * LONG, "{time:?}");
        level.learn(computing(CORES + 1));
        assert_eq!(level.current(), CORES);
    }

    #[test]
    fn what_was_learned_is_forgotten_after_a_calm_while() {
        let mut level = Level::new(CORES, MOST);
        level.learn(computing(MOST));
        let calm = Look { awake: 1, running: 0, waiting: false, taken: false };
        let mut time = Duration::ZERO;
        while let Some(interval) = level.learn(calm) {
            time += interval;
        }
        assert!(time >= CALM && time < CALM + 2 * LONG, "{time:?}");
        assert_eq!(level.current(), MOST);
    }

    proptest! {
        #[test]
        fn there_is_always_a_worker_for_each_core_and_never_one_too_many(
            cores in 1..64_usize,
            most in 1..64_usize,
            looks in proptest::collection::vec((0..64_usize, 0..64_usize, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut level = Level::new(cores, most);
            for (awake, running, waiting, taken) in looks {
                level.learn(Look { awake, running: running.min(awake), waiting, taken });
                prop_assert!(level.current() <= most && level.current() >= cores.min(most));
            }
        }

        /// However it got there: while a job waits and a core is without work, every worker is let in before long.
        #[test]
        fn nothing_waits_for_ever_for_workers_that_block(
            cores in 1..64_usize,
            most in 1..500_usize,
            looks in proptest::collection::vec((0..64_usize, 0..64_usize, any::<bool>(), any::<bool>()), 0..50),
        ) {
            let mut level = Level::new(cores, most);
            for (awake, running, waiting, taken) in looks {
                level.learn(Look { awake, running: running.min(awake), waiting, taken });
            }
            let mut time = Duration::ZERO;
            while level.current() < most {
                let awake = level.current();
                time += level.learn(blocked(awake, 0)).expect("a job waits");
            }
            prop_assert!(time <= Duration::from_millis(30), "{time:?}");
        }
    }
}
