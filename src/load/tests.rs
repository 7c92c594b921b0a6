//! The load of pools in virtual time: admission is the real one, and arrivals and tasks are as regular as clockwork, so
//! that the right load is known.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::window::{Capacity, Measured, Sums, Window};
use super::{PoolLoad, Scale};
use crate::admission::{Admission, Admitted, Key, Offer, Outcome, Settings, Timestamp};
use crate::workload::Workload;

/// A pool and its tasks. Each task computes and then waits for something else.
#[derive(Clone, Copy, Debug)]
struct Pool {
    limit: usize,
    cores: usize,
    capacity: usize,
    computes: Duration,
    waits: Duration,
}

/// An event of the pool, in the order of time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrival,
    /// The task gives up its core, and continues to wait.
    Computed(Key),
    End(Key),
}

struct World {
    pool: Pool,
    admission: Admission<()>,
    window: Window,
    computing: usize,
    cpu_time: Duration,
    events: BTreeMap<(Timestamp, u64), Event>,
    number: u64,
    now: Timestamp,
}

impl World {
    fn new(pool: Pool) -> Self {
        Self {
            pool,
            admission: Admission::new(Settings::fixed(pool.limit).with_capacity(pool.capacity), 1),
            window: Window::new(Timestamp::default()),
            computing: 0,
            cpu_time: Duration::ZERO,
            events: BTreeMap::new(),
            number: 0,
            now: Timestamp::default(),
        }
    }

    fn at(&mut self, time: Timestamp, event: Event) {
        self.number += 1;
        self.events.insert((time, self.number), event);
    }

    /// Lets tasks arrive at even intervals for `seconds`, and returns the load at the end.
    fn run(&mut self, arrivals_per_second: f64, seconds: u64) -> Measured {
        let (begin, end) = (self.now, self.now + Duration::from_secs(seconds));
        let mut arrived = 0;
        loop {
            let arrival = begin + Duration::from_secs_f64(f64::from(arrived) / arrivals_per_second.max(1e-9));
            let next = self.events.first_key_value().map(|((at, _), _)| *at);
            let at = next.unwrap_or(arrival).min(arrival).min(end);
            while self.window.next_due() <= at {
                self.read();
            }
            self.now = at;
            if at == end {
                return self.window.measure();
            }
            if next.is_some_and(|next| next <= at) {
                let (_, event) = self.events.pop_first().expect("there is one");
                self.happen(event);
            } else {
                arrived += 1;
                self.happen(Event::Arrival);
            }
        }
    }

    /// The load after so many seconds in which nothing arrives.
    fn window_after_rest(&mut self, seconds: u64) -> Measured {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            while self.window.next_due() <= at {
                self.read();
            }
            self.now = at;
            self.happen(event);
        }
        while self.window.next_due() <= end {
            self.read();
        }
        self.now = end;
        self.window.measure()
    }

    fn read(&mut self) {
        let at = self.window.next_due();
        let sums = Sums { demand: self.admission.demand(at), cpu_time: self.cpu_time };
        self.window.add(at, sums, Capacity { permits: self.pool.limit, cores: self.pool.cores });
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrival => {
                let free = self.computing < self.pool.cores;
                let offer = Offer::default();
                let admitted = if free {
                    self.admission.offer(now, offer, &mut Vec::new())
                } else {
                    self.admission.offer_to_wait(now, offer, &mut Vec::new())
                };
                match admitted {
                    Ok(Admitted::InFlight(key)) => self.start(key),
                    Ok(Admitted::Queued(key)) => self.admission.store(key, ()),
                    Err(_) => {}
                }
            }
            Event::Computed(key) => {
                self.computing -= 1;
                self.cpu_time += self.pool.computes;
                self.at(now + self.pool.waits, Event::End(key));
            }
            Event::End(key) => {
                let ran = self.pool.computes + self.pool.waits;
                self.admission.finish(now, key, Outcome::Ok, Some(ran));
            }
        }
        while self.computing < self.pool.cores
            && let Some(started) = self.admission.take(now, &mut Vec::new())
        {
            self.start(started.key);
        }
    }

    fn start(&mut self, key: Key) {
        self.computing += 1;
        self.at(self.now + self.pool.computes, Event::Computed(key));
    }
}

impl Pool {
    /// Arrivals a second at which the load is 1.
    fn most(&self) -> f64 {
        let each = (self.computes + self.waits).as_secs_f64();
        let computing = self.cores as f64 / self.computes.as_secs_f64();
        computing.min(self.limit as f64 / each)
    }

    fn load(self, load: f64) -> f64 {
        World::new(self).run(load * self.most(), 40).ratio()
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pool(limit: usize, computes: Duration, waits: Duration) -> Pool {
    Pool { limit, cores: 2, capacity: 100, computes, waits }
}

fn assert_near(found: f64, right: f64) {
    assert!((found / right - 1.0).abs() <= 0.05, "{found} is not {right}");
}

#[test]
fn a_pool_that_can_do_no_more_work_has_a_load_of_one_although_few_of_its_workers_compute() {
    assert_near(pool(30, millis(50), millis(0)).load(1.0), 1.0);
}

#[test]
fn a_pool_that_mostly_awaits_is_as_loaded_as_its_permits() {
    let pool = pool(30, millis(1), millis(99));
    for load in [0.1, 0.5, 1.0, 3.0, 10.0] {
        assert_near(pool.load(load), load);
    }
}

#[test]
fn a_pool_that_mixes_is_as_loaded_as_what_it_has_least_of() {
    // Two cores compute 200 tasks a second; eight permits let 100 through.
    let by_permits = pool(8, millis(10), millis(70));
    // Two cores compute 100 tasks a second; 30 permits would let 375 through.
    let by_cores = pool(30, millis(20), millis(60));
    for load in [0.1, 0.7, 1.0, 2.0, 10.0] {
        assert_near(by_permits.load(load), load);
        assert_near(by_cores.load(load), load);
    }
}

#[test]
fn an_idle_pool_has_no_load_at_all() {
    let idle = pool(30, millis(10), millis(10));
    assert_eq!(Window::new(Timestamp::default()).measure(), Measured::default());
    let mut world = World::new(idle);
    world.run(idle.most(), 20);
    assert!(world.window.measure().ratio() > 0.9);
    // The last tasks have to end, and the window ends with a reading.
    assert_eq!(world.window_after_rest(17), Measured::default());
    assert!(world.window.is_at_rest(&world.admission.demand(world.now)));
}

#[test]
fn a_pool_that_rejects_every_task_is_full() {
    // Two tasks that never end hold the permits, and every other one is rejected.
    let hung = Pool { limit: 2, capacity: 0, ..pool(2, millis(1), Duration::from_secs(86_400)) };
    assert_eq!(World::new(hung).run(50.0, 400).ratio(), 1.0);
    // The pool drains.
    let mut world = World::new(pool(2, millis(10), millis(10)));
    world.admission.drain();
    assert_eq!(world.run(50.0, 20).ratio(), 1.0);
}

#[test]
fn a_pool_that_works_off_its_queue_is_full_although_nothing_arrives() {
    let pool = Pool { capacity: 100_000, ..pool(4, millis(10), millis(30)) };
    let mut world = World::new(pool);
    world.run(pool.most() * 10.0, 10);
    assert_near(world.window_after_rest(15).ratio(), 1.0);
}

#[test]
fn the_load_is_that_of_the_last_fifteen_seconds() {
    let pool = pool(30, millis(20), millis(0));
    let mut world = World::new(pool);
    world.run(pool.most() * 0.2, 60);
    assert_near(world.run(pool.most() * 0.8, 5).ratio(), 0.4);
    assert_near(world.run(pool.most() * 0.8, 10).ratio(), 0.8);
}

#[test]
fn a_pool_whose_tasks_take_longer_than_the_window_still_shows_how_much_too_much_comes() {
    // A task of 30 s, and room for two of them: four a minute is all that can be done.
    let slow = Pool { limit: 2, capacity: 0, ..pool(2, millis(1), Duration::from_secs(30)) };
    let found = World::new(slow).run(slow.most() * 5.0, 400).ratio();
    // Ten tasks that were started cannot say it more exactly.
    assert!((4.0..=6.0).contains(&found), "{found}");
    assert_near(World::new(slow).run(slow.most() * 0.5, 400).ratio(), 0.5);
}

#[test]
fn counters_that_rested_do_not_count_until_they_change_again() {
    let capacity = Capacity { permits: 10, cores: 2 };
    let start = Timestamp::default();
    let mut window = Window::new(start);
    let (rested, work) = (Duration::from_secs(3600), Duration::from_secs(1));
    window.resume(start + rested);
    let demand = crate::admission::Demand { arrived: 150, started: 150, failed: 15, permit_time: work * 5, limit: 10 };
    window.add(start + rested + work, Sums { demand, cpu_time: work }, capacity);
    let Measured { permits, cpu, arrivals_per_second, failures_per_second, .. } = window.measure();
    assert_near(arrivals_per_second, 10.0);
    assert_near(failures_per_second, 1.0);
    assert_near(permits, 0.5 / 15.0);
    assert_near(cpu, 0.5 / 15.0);
}

fn of(name: &'static str, permits: f64, cpu: f64) -> PoolLoad {
    let measured = Measured { permits, cpu, ..Measured::default() };
    PoolLoad::new(Workload::from_static(name), measured)
}

#[test]
fn pools_that_compute_are_added_up_and_pools_that_wait_are_not() {
    let pools = || vec![of("io", 0.6, 0.25), of("cpu", 0.1, 0.25), of("db", 0.2, 0.25)];
    let load = Scale { by: Vec::new(), target: 0.5 }.load(pools());
    assert_eq!((load.ratio, load.cpu, load.bound_by, load.pools.len()), (0.75, 0.75, None, 3));
    let load = Scale { by: vec!["io".into(), "db".into()], target: 0.5 }.load(pools());
    assert_eq!((load.ratio, load.factor(), load.cpu), (0.6, 1.2, 0.5));
    assert_eq!((load.bound_by.as_ref().map(Workload::as_str), load.pools.len()), (Some("io"), 3));
}

#[test]
fn no_pool_and_idle_pools_are_no_load() {
    for pools in [vec![], vec![of("io", 0.0, 0.0)]] {
        let load = Scale::default().load(pools);
        assert_eq!((load.ratio, load.factor(), load.bound_by), (0.0, 0.0, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_constant_load_from_a_tenth_to_ten_is_right_within_five_percent(
        limit in 1_usize..64,
        cores in 1_usize..8,
        capacity in 0_usize..200,
        computes in 1_u64..50,
        waits in 0_u64..200,
        load in 0.1_f64..10.0,
    ) {
        let pool = Pool { limit, cores, capacity, computes: millis(computes), waits: millis(waits) };
        let found = pool.load(load);
        prop_assert!((found / load - 1.0).abs() <= 0.05, "{found} is not {load}");
    }

    #[test]
    fn whatever_counters_do_the_load_is_a_number(
        readings in proptest::collection::vec((0_u64..5000, 0_u64..1000, 0_u64..1000, 0_u64..10_000, 0_u64..10_000, 0_usize..3), 0..60),
    ) {
        let (mut now, mut sums) = (Timestamp::default(), Sums::default());
        let mut window = Window::new(now);
        for (passed, arrived, started, permits, cpu, capacity) in readings {
            now = now + millis(passed);
            sums.demand.arrived += arrived;
            sums.demand.started = (sums.demand.started + started).min(sums.demand.arrived);
            sums.demand.permit_time += millis(permits);
            sums.cpu_time += millis(cpu);
            if window.is_due(now) {
                window.add(now, sums, Capacity { permits: capacity, cores: capacity });
            }
            let measured = window.measure();
            let all = [measured.permits, measured.cpu, measured.arrivals_per_second, measured.ratio()];
            prop_assert!(all.iter().all(|value| value.is_finite() && *value >= 0.0), "{measured:?}");
        }
    }
}
