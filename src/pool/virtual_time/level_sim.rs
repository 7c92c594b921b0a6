//! A machine in virtual time on which the level is tried: cores that threads share, and jobs that compute or sleep.

use std::time::Duration;

use crate::admission::Timestamp as Moment;
use crate::pool::level::{Level, Seen};

const CORES: usize = 2;
const MOST: usize = 30;

/// One step of the machine. All that run have the cores in equal parts.
const TICK: Duration = Duration::from_micros(500);

/// What a job does first, and then: computes or sleeps for so many milliseconds.
#[derive(Clone, Copy, Debug)]
enum Job {
    Computes(f64),
    Sleeps(f64),
}

struct Worker {
    job: Job,
    since: Moment,
}

struct Machine {
    level: Level,
    now: Moment,
    workers: Vec<Worker>,
    /// Who looks, and when next.
    looks_at: Option<Moment>,
    next: Box<dyn FnMut() -> Job>,
    /// How many ended that computed, and that slept.
    ended: (usize, usize),
}

impl Machine {
    /// Jobs of these kinds, in turn, always wait.
    fn new(mut kinds: Vec<Job>) -> Self {
        Self::fed_by(move || {
            kinds.rotate_left(1);
            kinds[0]
        })
    }

    fn fed_by(next: impl FnMut() -> Job + 'static) -> Self {
        let level = Level::new(CORES, MOST);
        let now = Moment::default();
        Self { level, now, workers: Vec::new(), looks_at: None, next: Box::new(next), ended: (0, 0) }
    }

    /// With all workers awake whatever they do: what the level is compared with.
    fn without_level(kinds: Vec<Job>) -> Self {
        Self { level: Level::new(MOST, MOST), ..Self::new(kinds) }
    }

    fn start(&mut self, job: Job) {
        self.workers.push(Worker { job, since: self.now });
    }

    fn run(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
        self
    }

    fn step(&mut self) {
        // One after the other arrives, as in a pool.
        if self.workers.len() < self.level.current() {
            let job = (self.next)();
            self.start(job);
        }
        let running = self.running() as f64;
        let sleeps = TICK.as_secs_f64() * 1e3;
        let computes = sleeps * (CORES as f64 / running).min(1.0);
        self.now = self.now + TICK;
        for at in (0..self.workers.len()).rev() {
            let left = match &mut self.workers[at].job {
                Job::Computes(left) => {
                    *left -= computes;
                    *left
                }
                Job::Sleeps(left) => {
                    *left -= sleeps;
                    *left
                }
            };
            if left <= 0.0 {
                self.end(at);
            }
        }
        self.look();
    }

    fn end(&mut self, at: usize) {
        let worker = self.workers.swap_remove(at);
        match worker.job {
            Job::Computes(_) => self.ended.0 += 1,
            Job::Sleeps(_) => self.ended.1 += 1,
        }
        self.level.polled(self.now.since(worker.since));
        if self.workers.len() < self.level.current() {
            let job = (self.next)();
            self.start(job);
        }
    }

    fn look(&mut self) {
        let awake = self.workers.len();
        if self.looks_at.is_none() && self.level.is_worth_a_look(awake, true) {
            self.looks_at = Some(self.now + Duration::from_millis(1));
        }
        if self.looks_at.is_some_and(|at| at <= self.now) {
            let seen =
                |worker: &Worker| Seen { runs: matches!(worker.job, Job::Computes(_)), since: Some(worker.since) };
            let seen: Vec<_> = self.workers.iter().map(seen).collect();
            self.looks_at = self.level.learn(self.now, &seen, awake, true).map(|next| self.now + next);
        }
    }

    fn running(&self) -> usize {
        self.workers.iter().filter(|worker| matches!(worker.job, Job::Computes(_))).count()
    }

    /// How many ended of each kind in so long.
    fn measure(&mut self, time: Duration) -> (usize, usize) {
        self.ended = (0, 0);
        self.run(time).ended
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOG: Job = Job::Computes(1e9);

#[test]
fn jobs_that_compute_have_as_many_workers_as_cores_and_lose_nothing() {
    for length in [1.0, 20.0, 200.0] {
        let mut machine = Machine::new(vec![Job::Computes(length)]);
        machine.run(10 * SECOND);
        assert_eq!(machine.level.current(), CORES, "{length} ms");
        let (ended, _) = machine.measure(10 * SECOND);
        let (most, _) = Machine::without_level(vec![Job::Computes(length)]).run(10 * SECOND).measure(10 * SECOND);
        assert!(ended * 100 >= most * 97, "{ended} of {most} with {length} ms");
    }
}

#[test]
fn jobs_that_block_have_all_workers() {
    let mut machine = Machine::new(vec![Job::Sleeps(100.0)]);
    let (_, ended) = machine.run(SECOND).measure(10 * SECOND);
    assert!(ended >= 2950, "{ended} of 3,000");
}

/// As many or more long jobs than cores keep all cores busy, so that nobody can tell from the cores that others wait.
#[test]
fn long_jobs_on_every_core_do_not_keep_out_those_that_block() {
    for hogs in [1, 2, 3, 10] {
        let mut machine = Machine::new(vec![Job::Sleeps(100.0)]);
        (0..hogs).for_each(|_| machine.start(HOG));
        let (_, ended) = machine.run(2 * SECOND).measure(10 * SECOND);
        let most = (MOST - hogs) * 100;
        assert!(ended * 100 >= most * 90, "{ended} of {most} beside {hogs}");
    }
}

/// The same when the pool has learned before that its jobs compute.
#[test]
fn long_jobs_on_every_core_do_not_keep_out_those_that_block_where_short_ones_ran_before() {
    for hogs in [1, 2, 3, 10] {
        let mut jobs = 0;
        let mut machine = Machine::fed_by(move || {
            jobs += 1;
            match jobs {
                0..1000 => Job::Computes(2.0),
                _ if jobs < 1000 + hogs => HOG,
                _ => Job::Sleeps(100.0),
            }
        });
        let (_, ended) = machine.run(5 * SECOND).measure(10 * SECOND);
        let most = (MOST - hogs) * 100;
        assert!(ended * 100 >= most * 90, "{ended} of {most} beside {hogs}");
    }
}

#[test]
fn short_jobs_that_compute_have_a_share_of_the_cores_beside_long_ones() {
    for hogs in [2, 3, 10] {
        let mut machine = Machine::new(vec![Job::Computes(1.0)]);
        (0..hogs).for_each(|_| machine.start(HOG));
        let (ended, _) = machine.run(SECOND).measure(10 * SECOND);
        // As many workers as cores are theirs.
        let fair = 10_000 * CORES * CORES / (hogs + CORES);
        assert!(ended * 100 >= fair * 80, "{ended} of {fair} beside {hogs}");
    }
}

#[test]
fn a_mix_of_jobs_that_compute_and_that_block_keeps_the_cores_busy() {
    for (computes, sleeps) in [(10.0, 100.0), (1.0, 10.0), (20.0, 20.0), (5.0, 200.0)] {
        // Of exponential length, taken evenly from the whole distribution.
        let mix = || {
            let mut jobs = 0.0_f64;
            move || {
                jobs += 1.0;
                let length = -(1.0 - (jobs * 0.618_033_988_749_895).fract()).ln();
                if jobs % 2.0 == 0.0 { Job::Computes(computes * length) } else { Job::Sleeps(sleeps * length) }
            }
        };
        let (ended, slept) = Machine::fed_by(mix()).run(2 * SECOND).measure(20 * SECOND);
        let unbounded =
            Machine { level: Level::new(MOST, MOST), ..Machine::fed_by(mix()) }.run(2 * SECOND).measure(20 * SECOND);
        assert!(ended * 100 >= unbounded.0 * 95, "{ended} of {unbounded:?}, {computes} ms beside {sleeps} ms");
        assert!(slept.abs_diff(ended) <= 2 * MOST, "{slept} and {ended}: in turn");
    }
}

#[test]
fn a_pool_whose_jobs_begin_to_block_has_its_workers_within_milliseconds() {
    let mut jobs = 0;
    let mut machine = Machine::fed_by(move || {
        jobs += 1;
        if jobs < 1000 { Job::Computes(2.0) } else { Job::Sleeps(1000.0) }
    });
    while machine.ended.0 < 997 {
        machine.step();
    }
    let begun = machine.now;
    while machine.level.current() < MOST {
        machine.step();
        assert!(machine.now.since(begun) < Duration::from_millis(50), "{:?}", machine.level);
    }
}
