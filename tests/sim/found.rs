//! Scenarios in which a search once found harm, each with the right numbers. Loads are of the capacity; all times are
//! those of the scenario. Most use the default queue: 1,000 places and 30 s.

use std::time::Duration;

use tower_offload::admission::{Discipline, Limit, Priority, Settings};

use crate::laws::Work;
use crate::policy::Ours;
use crate::random::Random;
use crate::replay::{Fate, Replay, Request, merged, replay, steady};
use crate::seeds;
use crate::world::{MS, SECOND};

const HOUR: Duration = Duration::from_secs(3600);

fn run(requests: &[Request], settings: Settings, seed: u64) -> Replay {
    replay(requests, &mut Ours::new(settings, seed))
}

/// Ours and FIFO.
fn both(requests: &[Request], settings: Settings, seed: u64) -> [Replay; 2] {
    [Discipline::Adaptive, Discipline::Fifo].map(|discipline| run(requests, Settings { discipline, ..settings }, seed))
}

/// Traffic of this load: this many tasks in the mean.
fn loaded(load: f64, limit: usize, work: Work, count: f64, seed: u64) -> Vec<Request> {
    let rate = load * limit as f64 * SECOND / work.mean();
    steady(0.0, count / rate, rate, work, &mut Random::new(seed))
}

/// The same requests by this caller.
fn by(caller: u64, mut requests: Vec<Request>) -> Vec<Request> {
    requests.iter_mut().for_each(|request| request.caller = Some(caller));
    requests
}

fn at_level(level: Priority, mut requests: Vec<Request>) -> Vec<Request> {
    requests.iter_mut().for_each(|request| request.level = level);
    requests
}

fn burst(at: f64, count: usize, work: f64) -> Vec<Request> {
    vec![Request { at: (at * SECOND) as u64, work: work as u64, ..Request::default() }; count]
}

#[test]
fn nobody_is_rejected_because_one_client_left_the_queue() {
    for seed in seeds(1) {
        let mut requests = loaded(0.7, 4, Work::Exponential(100.0 * MS), 10_000.0, seed);
        requests[1000].patience = Some((20.0 * MS) as u64);
        let [ours, fifo] = both(&requests, Settings::fixed(4), seed);
        assert_eq!((ours.rejected(), fifo.rejected()), (0, 0));
    }
}

#[test]
fn nobody_is_rejected_because_a_few_others_had_short_deadlines() {
    for seed in seeds(1) {
        let mut requests = loaded(0.7, 4, Work::Exponential(100.0 * MS), 10_000.0, seed);
        requests.iter_mut().step_by(1000).for_each(|request| request.deadline = Some((20.0 * MS) as u64));
        let [ours, fifo] = both(&requests, Settings::fixed(4), seed);
        assert_eq!(ours.fates, fifo.fates, "seed {seed}");
        assert!(fifo.rejected() > 0, "some expired");
    }
}

#[test]
fn long_tasks_are_not_shed_below_capacity() {
    let settings = |limit| Settings { timeout: 10 * HOUR, ..Settings::fixed(limit) };
    for seed in seeds(1) {
        for (seconds, limit, load) in [(10.0, 1, 0.5), (60.0, 2, 0.5), (60.0, 4, 0.7), (300.0, 4, 0.6)] {
            let requests = loaded(load, limit, Work::Constant(seconds * SECOND), 2_000.0, seed);
            let [ours, fifo] = both(&requests, settings(limit), seed);
            assert_eq!((ours.rejected(), fifo.rejected()), (0, 0), "{seconds} s, seed {seed}");
            let shown = ours.overloaded as f64 / ours.span as f64;
            assert!(shown < 0.01, "nor does the pool show itself as overloaded: {shown:.3} of the time");
        }
        let requests = loaded(0.8, 4, Work::Constant(5.0 * SECOND), 20_000.0, seed);
        let [ours, fifo] = both(&requests, Settings::fixed(4), seed);
        assert_eq!(ours.rejected(), fifo.rejected(), "the default timeout is six of them, seed {seed}");
    }
}

#[test]
fn a_small_pool_with_a_short_queue_shows_its_overload_and_none_below_capacity() {
    for seed in seeds(1) {
        for (limit, capacity) in [(1, 1), (2, 4), (4, 8)] {
            let settings = Settings::fixed(limit).with_capacity(capacity);
            let shown = |load: f64| {
                let requests = loaded(load, limit, Work::Exponential(20.0 * MS), 10_000.0, seed);
                let [ours, _] = both(&requests, settings, seed);
                ours.overloaded as f64 / ours.span as f64
            };
            let (four, low) = (shown(4.0), shown(0.5));
            assert!(four > 0.95, "at a load of 4, {limit} permits, a queue of {capacity}: {four:.3} of the time");
            assert!(low < 0.02, "at a load of 0.5, {limit} permits, a queue of {capacity}: {low:.3} of the time");
        }
    }
}

#[test]
fn ten_long_tasks_at_once_are_all_served_within_an_hour() {
    let settings = Settings { timeout: HOUR, ..Settings::fixed(2) };
    let [ours, _] = both(&burst(0.0, 10, 60.0 * SECOND), settings, 1);
    assert_eq!(ours.served(), 10);
}

#[test]
fn a_burst_on_an_idle_pool_is_worked_off() {
    for limit in [1, 4] {
        let [ours, _] = both(&burst(1.0, 1000, MS), Settings::fixed(limit), 1);
        assert_eq!((ours.served(), ours.rejected()), (1000, 0), "all are done within a second, limit {limit}");
    }
}

#[test]
fn small_pools_with_ordinary_traffic_do_what_a_fifo_queue_does() {
    let mix = Work::Bimodal(MS, 500.0 * MS, 0.01);
    let exponential = Work::Exponential(10.0 * MS);
    for seed in seeds(1) {
        for (work, limit, load) in
            [(mix, 1, 0.9), (mix, 8, 0.7), (exponential, 1, 0.8), (exponential, 1, 0.9), (exponential, 2, 0.9)]
        {
            let requests = loaded(load, limit, work, 10_000.0, seed);
            let [ours, fifo] = both(&requests, Settings::fixed(limit), seed);
            assert_eq!(ours.fates, fifo.fates, "{work:?} at {load} of {limit}, seed {seed}");
        }
    }
}

#[test]
fn a_stall_of_all_workers_sheds_nobody() {
    for seed in seeds(1) {
        let ordinary = loaded(0.5, 8, Work::Exponential(10.0 * MS), 20_000.0, seed);
        let requests = merged([ordinary, burst(10.0, 8, 2.0 * SECOND)]);
        let [ours, fifo] = both(&requests, Settings::fixed(8), seed);
        assert_eq!((ours.rejected(), fifo.rejected()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_low_flood_of_long_tasks_does_not_take_the_pool_from_critical_ones() {
    for seed in seeds(1) {
        for (rate, low_share) in [(1.0, 0.3), (3.0, 0.55), (8.0, 0.55)] {
            let random = &mut Random::new(seed);
            let critical = steady(0.0, 300.0, 200.0, Work::Exponential(10.0 * MS), random);
            let low = steady(0.0, 300.0, rate, Work::Constant(SECOND), random);
            let requests = merged([at_level(Priority::Critical, critical), at_level(Priority::Low, low)]);
            let [ours, _] = both(&requests, Settings::fixed(4), seed);
            let of = |level, fate| ours.count(|at, had| requests[at].level == level && had == fate);
            let asked = requests.iter().filter(|request| request.level == Priority::Critical).count();
            assert_eq!(of(Priority::Critical, Fate::Served), asked, "{rate} low ones a second, seed {seed}");
            let worked = ours.worked[Priority::Low as usize] as f64 / (4.0 * ours.span as f64);
            assert!(worked <= low_share, "{worked:.3} of the workers' time at {rate}, seed {seed}");
            assert!(of(Priority::Low, Fate::Served) as f64 > 0.9 * rate.min(2.0) * 300.0, "low still moves");
        }
    }
}

/// Critical ones alone are one and a half times what the pool can do.
#[test]
fn what_is_low_has_a_thirty_third_of_the_workers_time_beside_what_always_waits() {
    let random = &mut Random::new(1);
    let critical = steady(0.0, 200.0, 600.0, Work::Exponential(10.0 * MS), random);
    let low = steady(0.0, 200.0, 8.0, Work::Constant(SECOND), random);
    let requests = merged([at_level(Priority::Critical, critical), at_level(Priority::Low, low)]);
    let ours = run(&requests, Settings::fixed(4), 1);
    let share = ours.worked[Priority::Low as usize] as f64 / (4.0 * 200.0 * SECOND);
    assert!((0.02..0.08).contains(&share), "{share:.3}");
}

#[test]
fn a_caller_has_no_debt_from_when_nobody_else_wanted_the_pool() {
    for seed in seeds(1) {
        for (count, seconds, pause) in [(0, 0.0, 0.0), (8, 60.0, 3600.0), (8, 10.0, 3600.0), (8, 5.0, 0.0)] {
            let random = &mut Random::new(seed);
            // One after the other, an hour before; or at once, just before.
            let alone = (0..count).map(|number| {
                let at = if pause > 0.0 { f64::from(number) * seconds } else { 4790.0 };
                burst(at, 1, seconds * SECOND)
            });
            let from = if pause > 0.0 { 480.0 + pause } else { 4800.0 };
            let few = steady(from, from + 30.0, 20.0, Work::Constant(10.0 * MS), random);
            let many = steady(from, from + 30.0, 800.0, Work::Constant(10.0 * MS), random);
            let requests = merged([by(1, merged(alone)), by(1, few.clone()), by(2, many)]);
            let ours = run(&requests, Settings::fixed(4), seed);
            let served = ours.count(|at, fate| {
                requests[at].caller == Some(1) && requests[at].at >= few[0].at && fate == Fate::Served
            });
            assert_eq!(served, few.len(), "{count} of {seconds} s before, seed {seed}");
        }
    }
}

#[test]
fn a_caller_below_its_share_is_not_rejected_beside_a_flood() {
    for seed in seeds(1) {
        let random = &mut Random::new(seed);
        let flood = by(2, steady(0.0, 60.0, 1600.0, Work::Constant(10.0 * MS), random));
        let few = (0..).map(|number| f64::from(number) / 3.0).take_while(|at| *at < 60.0);
        let bursts = by(1, merged(few.map(|at| burst(at, 40, 10.0 * MS))));
        let requests = merged([flood, bursts]);
        let ours = run(&requests, Settings::fixed(4), seed);
        let rejected = ours.count(|at, fate| requests[at].caller == Some(1) && fate == Fate::Rejected);
        assert_eq!(rejected, 0, "seed {seed}");
    }
}

/// The light caller asks for a twentieth of the pool, its share is a ninth, and there are eight that ask for half of it
/// each.
#[test]
fn a_light_caller_among_heavy_ones_is_not_rejected() {
    for capacity in [1000, 32] {
        let mut rejected = Vec::new();
        for id in seeds(5).map(|seed| seed + 100) {
            let random = &mut Random::new(id + 1);
            let heavy =
                (0..8).map(|heavy| by(1000 + heavy, steady(0.0, 15.0, 200.0, Work::Constant(10.0 * MS), random)));
            let heavy = merged(heavy.collect::<Vec<_>>());
            let light = steady(0.0, 15.0, 20.0, Work::Constant(10.0 * MS), random);
            let requests = merged([heavy, by(id, light)]);
            let ours = run(&requests, Settings::fixed(4).with_capacity(capacity), id);
            let of_light = |fate: fn(Fate) -> bool| ours.count(|at, had| requests[at].caller == Some(id) && fate(had));
            rejected.push(of_light(|fate| fate == Fate::Rejected) as f64 / of_light(|_| true) as f64);
        }
        rejected.sort_by(f64::total_cmp);
        // In 32 places the share of each is four, which a light caller too reaches now and then.
        let (median, worst) = if capacity == 32 { (0.01, 0.06) } else { (0.0, 0.0) };
        assert!(
            rejected[rejected.len() / 2] <= median && rejected[rejected.len() - 1] <= worst,
            "of {capacity} places: {rejected:.3?}"
        );
    }
}

#[test]
fn a_small_queue_is_fair_at_the_door() {
    for seed in seeds(1) {
        let random = &mut Random::new(seed);
        let heavy = by(2, steady(0.0, 60.0, 1600.0, Work::Constant(10.0 * MS), random));
        let light = by(1, steady(0.0, 60.0, 20.0, Work::Constant(10.0 * MS), random));
        let requests = merged([heavy, light]);
        let ours = run(&requests, Settings::fixed(4).with_capacity(4), seed);
        let rejected = ours.count(|at, fate| requests[at].caller == Some(1) && fate == Fate::Rejected);
        assert!(rejected <= 1, "{rejected}, seed {seed}");
    }
}

fn adaptive(max: usize) -> Settings {
    Settings { limit: Limit::Adaptive { min: 1, max }, ..Settings::default() }
}

#[test]
fn long_tasks_that_hold_permits_do_not_freeze_an_adaptive_limit() {
    for seed in seeds(1) {
        for (long, seconds, light) in
            [(8, 600.0, 0.0), (8, 600.0, 60.0), (8, 60.0, 0.0), (7, 600.0, 60.0), (40, 600.0, 60.0)]
        {
            let random = &mut Random::new(seed);
            let short = steady(0.0, light + seconds, 50.0, Work::Constant(MS), random);
            let requests = merged([short, burst(light, long, seconds * SECOND)]);
            let ours = run(&requests, adaptive(64), seed);
            assert_eq!(ours.served(), requests.len(), "{long} of {seconds} s, seed {seed}");
        }
        // In the mean 61 ms, which is a load of 0.3.
        let mix = Work::Bimodal(MS, 60.0 * SECOND, 0.001);
        let requests = loaded(0.3, 64, mix, 30_000.0, seed);
        let ours = run(&requests, adaptive(64), seed);
        assert_eq!(ours.rejected(), 0, "seed {seed}");
    }
}

#[test]
fn an_adaptive_limit_begins_as_a_fixed_one_at_its_maximum() {
    for seed in seeds(1) {
        for work in [Work::Exponential(SECOND), Work::Bimodal(MS, 500.0 * MS, 0.02)] {
            let requests = loaded(0.5, 64, work, 20_000.0, seed);
            let fixed = run(&requests, Settings::fixed(64), seed);
            let ours = run(&requests, adaptive(64), seed);
            let most = fixed.rejected() as f64 + 0.01 * requests.len() as f64;
            assert!((ours.rejected() as f64) <= most, "{} and {}, seed {seed}", ours.rejected(), fixed.rejected());
        }
    }
}

#[test]
fn one_long_task_does_not_change_what_rejected_callers_are_told() {
    for seed in seeds(1) {
        let random = &mut Random::new(seed);
        let flood = steady(0.0, 650.0, 45.0, Work::Constant(100.0 * MS), random);
        let requests = merged([flood, burst(1.0, 1, 600.0 * SECOND)]);
        let ours = run(&requests, Settings::fixed(4).with_capacity(100), seed);
        let told = ours.retry_after.iter().filter(|(at, _)| *at as f64 > 590.0 * SECOND);
        let told: Vec<_> = told.map(|(at, told)| (*at as f64 / SECOND, told.as_secs_f64())).collect();
        // Three of four permits until it ends: 101 tasks take 3.4 s, and 2.5 s after that.
        assert!(told.iter().all(|(_, told)| (2.3..5.5).contains(told)), "seed {seed}: {told:?}");
    }
}

/// Four times the capacity, from clients that wait for 20 run times, for half a second.
fn overload(limit: usize, random: &mut Random) -> Vec<Request> {
    let mut requests = steady(0.5, 1.0, 4000.0 * limit as f64, Work::Exponential(MS), random);
    requests.iter_mut().for_each(|request| request.patience = Some((20.0 * MS) as u64));
    requests
}

/// When its free permits have made up for four run times each: after `4 / (1 - load)` of them in the mean.
#[test]
fn after_an_overload_nobody_is_rejected_later_than_its_free_permits_allow() {
    for seed in seeds(1) {
        for limit in [1, 8] {
            for (load, runs) in [(0.3, 30.0), (0.5, 40.0), (0.8, 100.0), (0.9, 200.0)] {
                let random = &mut Random::new(seed);
                let before = overload(limit, random);
                let rate = load * 1000.0 * limit as f64;
                let mut after = steady(1.0, 2.0, rate, Work::Exponential(MS), random);
                after.iter_mut().for_each(|request| request.patience = Some((20.0 * MS) as u64));
                let requests = merged([before, after]);
                let ours = run(&requests, Settings::fixed(limit), seed);
                let late = SECOND + runs * MS;
                let rejected = ours.count(|at, fate| fate == Fate::Rejected && requests[at].at as f64 > late);
                let early = ours.count(|at, fate| fate == Fate::Rejected && requests[at].at as f64 <= late);
                assert!(rejected == 0 && early > 0, "{rejected} at {load} of {limit}, seed {seed}");
            }
        }
    }
}

/// A limit that was found for other tasks, debts, run times and what is known of callers are all forgotten.
#[test]
fn what_happened_before_an_idle_hour_changes_nothing() {
    let hour = 3600.0 * SECOND;
    for seed in seeds(1) {
        for limit in [Limit::Fixed(8), Limit::Adaptive { min: 1, max: 16 }] {
            let settings = Settings { limit, ..Settings::default() };
            let random = &mut Random::new(seed);
            let before = merged([overload(8, random), by(3, overload(4, random))]);
            let mut after = [
                steady(0.0, 1.0, 3000.0, Work::Exponential(MS), random),
                by(3, steady(0.0, 1.0, 3000.0, Work::Exponential(MS), random)),
                at_level(Priority::Low, steady(0.0, 1.0, 1000.0, Work::Exponential(10.0 * MS), random)),
            ];
            let alone = run(&merged(after.clone()), settings, seed);
            after.iter_mut().flatten().for_each(|request| request.at += hour as u64);
            let requests = merged([before.clone(), merged(after)]);
            let ours = run(&requests, settings, seed);
            assert_eq!(ours.fates[before.len()..], alone.fates, "{limit:?}, seed {seed}");
        }
    }
}

/// Most work is in vain then, but there is room for it: the clients that stay lose nothing.
#[test]
fn below_capacity_clients_that_mostly_leave_at_once_do_not_harm_those_that_stay() {
    for seed in seeds(3) {
        for (limit, load) in [(1, 0.7), (4, 0.8), (16, 0.9)] {
            let mut requests = loaded(load, limit, Work::Exponential(10.0 * MS), 10_000.0, seed);
            let random = &mut Random::new(seed);
            for request in &mut requests {
                let leaves = random.fraction() < 0.7;
                request.patience = leaves.then(|| (10.0 * MS * random.fraction()) as u64 + 1);
            }
            let [ours, fifo] = both(&requests, Settings::fixed(limit), seed);
            assert!(ours.harmed(&fifo) <= requests.len() / 1000, "{} at {load} of {limit}", ours.harmed(&fifo));
        }
    }
}
