//! A machine in virtual time on which the budget of cores is tried: cores that threads share, and pools whose tasks
//! compute or sleep.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use crate::admission::Timestamp;
use crate::cores::allotment::MemberId;
use crate::cores::core_budget::{CoreBudget, TICK};
use crate::cores::{Allot, AwakeLimit, Report, Sampled, runnable};

/// One step of the machine. All runnable threads have the cores in equal parts.
const STEP: Duration = Duration::from_micros(100);
const SECOND: Duration = Duration::from_secs(1);

/// A task computes first, then sleeps; both in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Task {
    computes: f64,
    sleeps: f64,
}

const fn computes(millis: f64) -> Task {
    Task { computes: millis, sleeps: 0.0 }
}

const fn sleeps(millis: f64) -> Task {
    Task { computes: 0.0, sleeps: millis }
}

/// A function from the time to the tasks that arrive since it was last called. `full`: whether enough tasks wait.
type Arrivals = Box<dyn FnMut(Duration, bool) -> Vec<Task>>;

/// Tasks of these kinds in turn always wait.
fn saturated(kinds: &[Task]) -> Arrivals {
    let mut kinds = kinds.to_vec();
    Box::new(move |_, full| {
        if full {
            return Vec::new();
        }
        kinds.rotate_left(1);
        vec![kinds[0]]
    })
}

/// A task arrives each `period`.
fn every(period: Duration, task: Task) -> Arrivals {
    let mut next = period;
    Box::new(move |now, _| {
        if now < next {
            return Vec::new();
        }
        next += period;
        vec![task]
    })
}

/// As [`saturated`], in every second interval of this length.
fn on_and_off(interval: Duration, task: Task) -> Arrivals {
    Box::new(move |now, full| {
        let on = (now.as_nanos() / interval.as_nanos()).is_multiple_of(2);
        if on && !full { vec![task] } else { Vec::new() }
    })
}

struct Worker {
    task: Task,
    since: Timestamp,
}

struct Pool {
    member: MemberId,
    limit: AwakeLimit,
    most: usize,
    arrivals: Arrivals,
    queue: VecDeque<(Timestamp, Task)>,
    workers: Vec<Worker>,
    sample_at: Option<Timestamp>,
    ended: usize,
    /// The core time that its tasks had, in milliseconds.
    computed: f64,
    longest_wait: Duration,
}

struct Machine {
    cores: usize,
    budget: CoreBudget,
    pools: Vec<Pool>,
    now: Timestamp,
    tick_at: Option<Timestamp>,
    /// How long some core has been idle although a task waited.
    idle_beside_work: Duration,
    longest_idle: Duration,
    /// The time during which more computing workers were active than there are cores.
    crowded: Duration,
    /// The most cores that all pools held together.
    most_held: usize,
    reports: usize,
}

impl Pool {
    fn runnable(&self) -> usize {
        self.workers.iter().filter(|worker| worker.task.computes > 0.0).count()
    }

    /// Whether a task waits, and the limit keeps a worker from taking it.
    fn waits_for_a_core(&self) -> bool {
        let awake = self.workers.len();
        !self.queue.is_empty() && awake >= self.limit.current() && awake < self.most
    }

    /// An active worker takes the next task.
    fn take(&mut self, now: Timestamp) -> bool {
        if self.workers.len() >= self.limit.current() {
            return false;
        }
        let Some((arrived, task)) = self.queue.pop_front() else { return false };
        self.longest_wait = self.longest_wait.max(now.since(arrived));
        self.workers.push(Worker { task, since: now });
        true
    }

    fn arrive(&mut self, now: Timestamp) {
        loop {
            let full = self.queue.len() >= 100;
            let tasks = (self.arrivals)(now.since(Timestamp::default()), full);
            if tasks.is_empty() {
                return;
            }
            self.queue.extend(tasks.into_iter().map(|task| (now, task)));
        }
    }

    /// Every worker progresses: `computes` milliseconds of a core, `sleeps` of sleep.
    fn progress(&mut self, now: Timestamp, computes: f64, sleeps: f64) {
        for at in (0..self.workers.len()).rev() {
            let task = &mut self.workers[at].task;
            if task.computes > 0.0 {
                self.computed += computes.min(task.computes);
                task.computes -= computes;
            } else {
                task.sleeps -= sleeps;
            }
            if task.computes <= 1e-9 && task.sleeps <= 1e-9 {
                let worker = self.workers.swap_remove(at);
                self.ended += 1;
                self.limit.record_poll(now.since(worker.since));
                self.take(now);
            }
        }
    }

    fn report(&mut self) -> Option<Report> {
        self.limit.report(self.workers.len(), self.queue.len())
    }

    fn status(&mut self) -> Report {
        self.limit.status(self.workers.len(), self.queue.len())
    }

    fn sample(&mut self, now: Timestamp, budget: &mut CoreBudget) {
        let (active, waiting) = (self.workers.len(), self.queue.len());
        if self.sample_at.is_none() && self.limit.is_worth_sampling(active, waiting) {
            self.sample_at = Some(now + Duration::from_millis(1));
        }
        if self.sample_at.is_some_and(|at| at <= now) {
            let sampled = |worker: &Worker| Sampled { runnable: worker.task.computes > 0.0, since: Some(worker.since) };
            let sample: Vec<_> = self.workers.iter().map(sampled).collect();
            let sharing = budget.sampled(self.member, runnable(&sample, active));
            let next = self.limit.observe(now, &sample, active, waiting, sharing);
            if next.is_none() {
                budget.sampled(self.member, 0);
            }
            self.sample_at = next.map(|next| now + next);
        }
    }
}

impl Machine {
    fn new(cores: usize) -> Self {
        Self {
            cores,
            budget: CoreBudget::new(cores),
            pools: Vec::new(),
            now: Timestamp::default(),
            tick_at: None,
            idle_beside_work: Duration::ZERO,
            longest_idle: Duration::ZERO,
            crowded: Duration::ZERO,
            most_held: 0,
            reports: 0,
        }
    }

    fn pool(&mut self, share: u32, workers: usize, arrivals: Arrivals) -> &mut Self {
        self.pools.push(Pool {
            member: self.budget.add(share),
            limit: AwakeLimit::new(workers),
            most: workers,
            arrivals,
            queue: VecDeque::new(),
            workers: Vec::new(),
            sample_at: None,
            ended: 0,
            computed: 0.0,
            longest_wait: Duration::ZERO,
        });
        self
    }

    fn set_cores(&mut self, cores: usize) {
        self.cores = cores;
        let allots = self.budget.set_cores(cores, self.now);
        self.apply(allots);
    }

    fn apply(&mut self, allots: Vec<Allot>) {
        let mut allots = VecDeque::from(allots);
        while let Some(allot) = allots.pop_front() {
            let pool = self.pools.iter_mut().find(|pool| pool.member == allot.member).expect("no pool is removed");
            if let Some(report) = pool.limit.apply(allot, pool.workers.len(), pool.queue.len()) {
                self.reports += 1;
                allots.extend(self.budget.report(allot.member, report, self.now));
            }
        }
    }

    fn step(&mut self) {
        let runnable: usize = self.pools.iter().map(Pool::runnable).sum();
        let sleeps = STEP.as_secs_f64() * 1e3;
        let computes = sleeps * (self.cores as f64 / runnable as f64).min(1.0);
        self.now = self.now + STEP;
        for pool in &mut self.pools {
            pool.arrive(self.now);
            pool.progress(self.now, computes, sleeps);
            // One worker after the other wakes, as in a pool.
            pool.take(self.now);
            pool.sample(self.now, &mut self.budget);
        }
        // Until no pool has anything to report.
        for _ in 0..100 {
            let mut changed = false;
            for at in 0..self.pools.len() {
                if let Some(report) = self.pools[at].report() {
                    self.reports += 1;
                    let allots = self.budget.report(self.pools[at].member, report, self.now);
                    self.apply(allots);
                    changed = true;
                }
                if self.pools[at].workers.len() < self.cores {
                    self.pools[at].take(self.now);
                }
            }
            if !changed {
                break;
            }
        }
        self.tick();
        self.measure_step();
    }

    fn tick(&mut self) {
        if self.tick_at.is_some_and(|at| at <= self.now) {
            self.tick_at = None;
            for pool in &mut self.pools {
                if pool.limit.may_hold_unused_cores(pool.workers.len()) {
                    pool.sample_at = Some(self.now);
                    pool.sample(self.now, &mut self.budget);
                }
            }
            let reports: Vec<_> = self.pools.iter_mut().map(|pool| (pool.member, pool.status())).collect();
            let allots = self.budget.tick(&reports, self.now);
            self.apply(allots);
        }
        if self.tick_at.is_none() && self.budget.is_contended() {
            self.tick_at = Some(self.now + TICK);
        }
    }

    fn measure_step(&mut self) {
        let held: usize = self.pools.iter().map(|pool| pool.limit.held()).sum();
        self.most_held = self.most_held.max(held);
        let runnable: usize = self.pools.iter().map(Pool::runnable).sum();
        let waits = self.pools.iter().any(Pool::waits_for_a_core);
        let idle = runnable < self.cores && waits;
        self.idle_beside_work = if idle { self.idle_beside_work + STEP } else { Duration::ZERO };
        self.longest_idle = self.longest_idle.max(self.idle_beside_work);
        if runnable > self.cores {
            self.crowded += STEP;
        }
    }

    fn run(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
        self
    }

    /// The same, with everything measured from its beginning.
    fn measure(&mut self, time: Duration) -> &mut Self {
        for pool in &mut self.pools {
            (pool.ended, pool.computed, pool.longest_wait) = (0, 0.0, Duration::ZERO);
        }
        (self.longest_idle, self.idle_beside_work, self.crowded) = Default::default();
        (self.most_held, self.reports) = (0, 0);
        self.run(time)
    }

    /// The core time of each pool, in parts of all.
    fn parts(&self) -> Vec<f64> {
        let all: f64 = self.pools.iter().map(|pool| pool.computed).sum();
        self.pools.iter().map(|pool| pool.computed / all).collect()
    }

    fn utilization(&self, time: Duration) -> f64 {
        let all: f64 = self.pools.iter().map(|pool| pool.computed).sum();
        all / (time.as_secs_f64() * 1e3 * self.cores as f64)
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A machine of two cores with `pools` pools of 30 workers. Tasks that compute for `length` milliseconds always wait.
fn computing_pools(pools: usize, length: f64) -> Machine {
    let mut machine = Machine::new(2);
    for _ in 0..pools {
        machine.pool(1, 30, saturated(&[computes(length)]));
    }
    machine
}

/// The time that each pool had lies within 10% of its share.
fn assert_shared(machine: &Machine, shares: &[u32]) {
    let all: u32 = shares.iter().sum();
    for (part, &share) in machine.parts().iter().zip(shares) {
        let fair = f64::from(share) / f64::from(all);
        assert!((part - fair).abs() <= 0.1 * fair, "{:?} by {shares:?}", machine.parts());
    }
}

#[test]
fn five_saturated_pools_have_equal_parts_of_the_cores_and_no_more_runnable_workers_than_cores() {
    for length in [0.3, 1.0, 10.0, 20.0] {
        let mut machine = computing_pools(5, length);
        machine.run(2 * SECOND).measure(SECOND);
        assert_shared(&machine, &[1; 5]);
        assert_eq!((machine.crowded, machine.most_held), (Duration::ZERO, 2), "{length} ms");
        assert!(machine.utilization(SECOND) > 0.99, "{length} ms");
        assert!(machine.reports < 1000, "{} reports with {length} ms", machine.reports);
    }
}

#[test]
fn saturated_pools_have_the_cores_by_their_shares() {
    // A pool with a small share has few turns in a second.
    for (shares, time) in [([1, 2, 3], 1), ([100, 200, 300], 1), ([2, 9, 9], 2), ([1, 1, 10], 4)] {
        let time = time * SECOND;
        let mut machine = Machine::new(2);
        for share in shares {
            machine.pool(share, 30, saturated(&[computes(5.0)]));
        }
        machine.run(2 * SECOND).measure(time);
        assert_shared(&machine, &shares);
        assert!(machine.utilization(time) > 0.99);
    }
}

#[test]
fn long_and_short_tasks_of_equal_shares_have_equal_time() {
    for cores in [1, 2] {
        let mut machine = Machine::new(cores);
        for length in [1.0, 5.0, 40.0] {
            machine.pool(1, 30, saturated(&[computes(length)]));
        }
        machine.run(4 * SECOND).measure(4 * SECOND);
        assert_shared(&machine, &[1; 3]);
    }
    // With a single other pool, this one has the whole core between two long tasks.
    let mut machine = Machine::new(1);
    for length in [1.0, 40.0] {
        machine.pool(1, 30, saturated(&[computes(length)]));
    }
    machine.run(4 * SECOND).measure(4 * SECOND);
    assert_shared(&machine, &[1; 2]);
}

#[test]
fn a_pool_alone_has_all_cores_and_leaves_the_budget_in_peace() {
    for length in [1.0, 20.0, 200.0] {
        let mut machine = computing_pools(1, length);
        machine.pool(1, 30, Box::new(|_, _| Vec::new()));
        machine.run(10 * SECOND).measure(10 * SECOND);
        assert_eq!(machine.pools[0].limit.current(), 2, "{length} ms");
        assert!(machine.utilization(10 * SECOND) > 0.97, "{length} ms");
        assert_eq!((machine.reports, machine.budget.is_contended()), (0, false));
    }
}

#[test]
fn pools_that_need_no_more_than_the_cores_keep_their_allotments() {
    let mut machine = Machine::new(5);
    for _ in 0..2 {
        machine.pool(1, 2, saturated(&[computes(3.0)]));
    }
    machine.pool(1, 30, every(millis(5), computes(1.0)));
    machine.run(SECOND).measure(SECOND);
    let held: Vec<_> = machine.pools.iter().map(|pool| pool.limit.held()).collect();
    assert_eq!((held, machine.reports), (vec![2, 2, 1], 0));
}

#[test]
fn a_light_pool_waits_for_a_core_no_longer_than_one_poll_of_the_others_and_two_milliseconds() {
    for (length, pools) in [(0.3, 4), (1.0, 4), (10.0, 4), (10.0, 1), (30.0, 4)] {
        let mut machine = computing_pools(pools, length);
        machine.pool(1, 30, every(millis(7), computes(0.2)));
        machine.run(5 * SECOND).measure(2 * SECOND);
        let light = machine.pools.last().expect("it was added");
        let most = Duration::from_secs_f64(length / 1e3) + millis(2);
        assert!(light.longest_wait <= most, "{:?} beside polls of {length} ms", light.longest_wait);
        assert!(light.ended >= 270, "{} of 285", light.ended);
        assert!(machine.utilization(2 * SECOND) > 0.95, "{}", machine.utilization(2 * SECOND));
    }
}

#[test]
fn a_pool_that_blocks_is_not_held_up_beside_computing_pools() {
    for length in [1.0, 10.0, 50.0] {
        let mut machine = computing_pools(4, length);
        machine.pool(1, 50, saturated(&[sleeps(100.0)]));
        machine.run(2 * SECOND).measure(SECOND);
        assert!(machine.pools[4].ended >= 490, "{} of 500 beside {length} ms", machine.pools[4].ended);
        assert!(machine.utilization(SECOND) > 0.99, "its workers hold no core");
    }
}

#[test]
fn a_pool_whose_tasks_begin_to_block_has_its_workers_within_milliseconds_beside_computing_pools() {
    for pools in [0, 4] {
        let mut machine = computing_pools(pools, 5.0);
        let begins = 2 * SECOND;
        let arrivals = move |now: Duration, full: bool| match full {
            true => Vec::new(),
            false => vec![if now < begins { computes(2.0) } else { sleeps(1000.0) }],
        };
        machine.pool(1, 30, Box::new(arrivals));
        machine.run(begins);
        while machine.pools[pools].workers.len() < 30 {
            machine.step();
            // A hundred tasks that compute wait before.
            let late = machine.now.since(Timestamp::default()) - begins;
            let most = if pools == 0 { millis(200) } else { millis(800) };
            assert!(late < most, "{late:?} beside {pools} pools, {:?}", machine.pools[pools].limit);
        }
    }
}

#[test]
fn a_mix_of_tasks_that_compute_and_that_block_keeps_the_cores_busy_beside_computing_pools() {
    for (computing, blocked) in [(10.0, 100.0), (1.0, 10.0), (20.0, 20.0), (5.0, 200.0)] {
        for pools in [0, 3] {
            let mix = [Task { computes: computing, sleeps: blocked }, computes(computing), sleeps(blocked)];
            let mut machine = computing_pools(pools, 3.0);
            machine.pool(1, 30, saturated(&mix));
            machine.run(2 * SECOND).measure(10 * SECOND);
            // As many as 30 workers could do without any limit.
            let alone = 30.0 / (computing + blocked) / 2.0 * computing;
            let most = if pools == 0 { alone.min(1.0) } else { 1.0 };
            let used = machine.utilization(10 * SECOND);
            assert!(used >= 0.93 * most, "{used} of {most} with {computing} and {blocked} ms beside {pools} pools");
            let fair = (1.0 / (pools as f64 + 1.0)).min(alone);
            let part = machine.parts()[pools];
            assert!(part >= 0.85 * fair, "{part} of {fair} with {computing} and {blocked} ms beside {pools} pools");
        }
    }
}

#[test]
fn a_poll_of_ten_seconds_on_each_core_starves_no_other_pool() {
    for hogs in [1, 2, 3] {
        let mut machine = Machine::new(2);
        let mut left = hogs;
        let arrivals = move |now: Duration, _: bool| {
            let begins = now >= SECOND && left > 0;
            left -= usize::from(begins);
            if begins { vec![computes(10_000.0)] } else { Vec::new() }
        };
        machine.pool(1, 30, Box::new(arrivals));
        machine.pool(1, 30, every(millis(20), computes(1.0)));
        machine.pool(1, 30, saturated(&[computes(4.0)]));
        machine.run(SECOND).measure(5 * SECOND);
        let light = &machine.pools[1];
        assert!(light.ended >= 245, "{} of 250 beside {hogs}", light.ended);
        assert!(light.longest_wait < millis(120), "{:?} beside {hogs}", light.longest_wait);
        assert!(machine.pools[2].computed > 1000.0, "{:?} beside {hogs}", machine.parts());
    }
}

/// As many or more long tasks than cores keep all cores busy, so that the cores do not show that others wait.
#[test]
fn long_tasks_on_every_core_do_not_keep_out_those_of_their_pool_that_block() {
    for computed_before in [false, true] {
        for hogs in [1, 2, 3, 10] {
            let mut tasks = 0;
            let arrivals = move |_: Duration, full: bool| {
                if full {
                    return Vec::new();
                }
                tasks += 1;
                let before = if computed_before { 1000 } else { 0 };
                vec![match tasks {
                    _ if tasks <= before => computes(2.0),
                    _ if tasks <= before + hogs => computes(1e9),
                    _ => sleeps(100.0),
                }]
            };
            let mut machine = Machine::new(2);
            machine.pool(1, 30, Box::new(arrivals)).run(5 * SECOND).measure(10 * SECOND);
            let (ended, most) = (machine.pools[0].ended, (30 - hogs) * 100);
            assert!(ended * 100 >= most * 90, "{ended} of {most} beside {hogs}");
        }
    }
}

#[test]
fn short_tasks_have_a_part_of_the_cores_beside_long_ones_of_their_pool() {
    for hogs in [2, 3, 10] {
        let mut tasks = 0;
        let arrivals = move |_: Duration, full: bool| {
            tasks += usize::from(!full);
            if full { Vec::new() } else { vec![computes(if tasks <= hogs { 1e9 } else { 1.0 })] }
        };
        let mut machine = Machine::new(2);
        machine.pool(1, 30, Box::new(arrivals)).run(2 * SECOND).measure(10 * SECOND);
        let (ended, fair) = (machine.pools[0].ended, 10_000 * 4 / (hogs + 2));
        assert!(ended * 100 >= fair * 80, "{ended} of {fair} beside {hogs}");
    }
}

#[test]
fn pools_use_the_cores_that_the_machine_gains_and_leave_those_that_it_loses() {
    let mut machine = computing_pools(3, 4.0);
    machine.run(2 * SECOND);
    for cores in [1, 4, 2, 3] {
        machine.set_cores(cores);
        machine.run(millis(10)).measure(SECOND);
        assert_eq!((machine.most_held, machine.crowded), (cores, Duration::ZERO));
        assert!(machine.utilization(SECOND) > 0.98, "{} of {cores} cores", machine.utilization(SECOND));
        assert_shared(&machine, &[1; 3]);
    }
}

#[test]
fn a_pool_alone_has_a_new_core_at_once() {
    let mut machine = computing_pools(1, 4.0);
    machine.run(SECOND);
    machine.set_cores(4);
    machine.measure(SECOND);
    assert!(machine.utilization(SECOND) > 0.99);
}

#[test]
fn pools_that_come_and_go_have_cores_while_they_have_work() {
    let mut machine = Machine::new(2);
    for interval in [30, 50, 70] {
        machine.pool(1, 30, on_and_off(millis(interval), computes(2.0)));
    }
    machine.pool(1, 30, saturated(&[computes(2.0)]));
    machine.run(SECOND).measure(2 * SECOND);
    assert!(machine.utilization(2 * SECOND) > 0.99);
    assert!(machine.longest_idle < 2 * TICK + millis(2), "{:?}", machine.longest_idle);
    for part in machine.parts() {
        assert!(part > 0.15, "{:?}", machine.parts());
    }
}

fn arrivals() -> impl Strategy<Value = (u8, u64, f64, f64)> {
    (0..4_u8, 1..30_u64, 0.1..12.0_f64, 0.0..40.0_f64)
}

fn arrivals_of((kind, millis_between, computing, blocked): (u8, u64, f64, f64)) -> Arrivals {
    match kind {
        0 => saturated(&[computes(computing)]),
        1 => every(millis(millis_between), computes(computing)),
        2 => on_and_off(millis(millis_between), computes(computing)),
        _ => saturated(&[Task { computes: computing, sleeps: blocked }, sleeps(blocked)]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For any pools: no more cores are held than there are, no core is idle for long while a task waits for
    /// one, and each pool has its tasks done.
    #[test]
    fn cores_are_never_granted_twice_nor_left_idle(
        cores in 1..5_usize,
        pools in proptest::collection::vec((1..6_u32, 1..40_usize, arrivals()), 1..7),
    ) {
        let mut machine = Machine::new(cores);
        for &(share, workers, arrivals) in &pools {
            machine.pool(share, workers, arrivals_of(arrivals));
        }
        machine.run(millis(1500)).measure(millis(1500));
        prop_assert!(machine.most_held <= cores);
        let longest = pools.iter().map(|(_, _, (_, _, computing, _))| *computing).fold(0.0, f64::max);
        let most = Duration::from_secs_f64(longest / 1e3) + 2 * TICK;
        prop_assert!(machine.longest_idle <= most, "{:?} idle, {most:?} allowed", machine.longest_idle);
        for (pool, (share, ..)) in machine.pools.iter().zip(&pools) {
            prop_assert!(pool.ended > 0, "the pool with the share {share} has done nothing");
        }
    }
}
