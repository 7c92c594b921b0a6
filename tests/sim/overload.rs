//! Queue disciplines under overload: what each makes of the same traffic.

use tower_offload::admission::{Discipline, Priority, Settings};

use crate::laws::{Crowding, Work};
use crate::policy::{Ours, Policy};
use crate::reference_queues::{Breakwater, Dagor, FollyCodel, NoControl, Reference};
use crate::score::{Score, important};
use crate::world::{MS, SECOND, Stream, World};
use crate::{seeds, slow_seeds};

const WORKERS: usize = 8;

/// How many mean execution times clients wait.
const PATIENCE: f64 = 20.0;

/// How many mean execution times a scenario lasts in the tables, and in the tests.
const LONG: f64 = 6000.0;
const SHORT: f64 = 3000.0;

fn pool(discipline: Discipline, seed: u64) -> Ours {
    Ours::new(Settings { discipline, ..Settings::fixed(WORKERS) }, seed)
}

fn ours(seed: u64) -> Ours {
    pool(Discipline::Adaptive, seed)
}

/// Every discipline that is compared, by name.
fn disciplines(work: Work, seed: u64) -> Vec<(&'static str, Box<dyn Policy>)> {
    let breakwater = Breakwater::new(PATIENCE * work.mean(), WORKERS, work.mean());
    vec![
        ("no control", Box::new(Reference::new(NoControl, WORKERS, usize::MAX))),
        ("FIFO and timeout", Box::new(pool(Discipline::Fifo, seed))),
        ("folly Codel", Box::new(Reference::new(FollyCodel::default(), WORKERS, 1000))),
        ("DAGOR", Box::new(Reference::new(Dagor::default(), WORKERS, 1000))),
        ("Breakwater-like", Box::new(Reference::new(breakwater, WORKERS, 1000))),
        ("ours", Box::new(ours(seed))),
    ]
}

fn capacity(work: Work) -> f64 {
    Crowding::None.throughput(WORKERS, work)
}

/// Steady traffic of a multiple of the capacity, for this many execution times, of which the first thousand do not count.
fn steady(work: Work, factor: f64, runs: f64) -> World {
    let mean = work.mean();
    let mut world = World::new(work, Crowding::None, PATIENCE * mean, runs * mean);
    world.warm_up = 1000.0 * mean;
    world.with(Stream::steady(Priority::Normal, factor * capacity(work)))
}

/// 0.8 of the capacity, 1.4 for 500 execution times, and 0.8 again. The spike ends at the second number.
fn spike(work: Work) -> (World, f64, f64) {
    let mean = work.mean();
    let (from, until) = (1000.0 * mean, 1500.0 * mean);
    let world = World::new(work, Crowding::None, PATIENCE * mean, 3000.0 * mean);
    let rates = [(0.0, 0.8), (from, 1.4), (until, 0.8)].map(|(at, factor)| (at, factor * capacity(work)));
    let stream = Stream { rates: rates.to_vec(), ..Stream::steady(Priority::Normal, 0.0) };
    (world.with(stream), from, until)
}

/// 0.8 of the capacity in what matters, and a flood of twelve times the capacity in what does not.
fn flood(work: Work, runs: f64) -> World {
    let mean = work.mean();
    let mut world = World::new(work, Crowding::None, PATIENCE * mean, runs * mean);
    world.warm_up = 1000.0 * mean;
    let stream = |level, factor| Stream::steady(level, factor * capacity(work));
    let important = world.with(stream(Priority::Normal, 0.7)).with(stream(Priority::High, 0.05));
    important.with(stream(Priority::Critical, 0.05)).with(stream(Priority::Low, 12.0))
}

fn laws(mean: f64) -> [(&'static str, Work); 4] {
    [
        ("constant", Work::Constant(mean)),
        ("exponential", Work::Exponential(mean)),
        ("heavy tail", Work::HeavyTail(mean)),
        ("1 to 500", Work::Bimodal(mean / 11.0, 500.0 * mean / 11.0, 10.0 / 499.0)),
    ]
}

#[test]
fn at_four_times_the_load_goodput_stays_near_the_capacity() {
    for seed in seeds(1) {
        for mean in [MS, 20.0 * MS, 3.0 * SECOND] {
            let work = Work::Exponential(mean);
            let goodput = steady(work, 4.0, SHORT).run(&mut ours(seed), seed).goodput() / capacity(work);
            assert!(goodput > 0.95, "{goodput:.3} with tasks of {} ms, seed {seed}", mean / MS);
        }
    }
}

#[test]
fn a_fifo_queue_under_the_same_load_serves_hardly_anyone_in_time() {
    let work = Work::Exponential(MS);
    let goodput = steady(work, 4.0, SHORT).run(&mut pool(Discipline::Fifo, 1), 1).goodput() / capacity(work);
    assert!(goodput < 0.1, "{goodput:.3}");
}

#[test]
fn any_law_of_execution_times_keeps_its_goodput_under_overload() {
    for seed in seeds(1) {
        for factor in [1.4, 2.0] {
            for (name, work) in laws(MS) {
                let goodput = steady(work, factor, SHORT).run(&mut ours(seed), seed).goodput() / capacity(work);
                let least = if name == "1 to 500" { 0.75 } else { 0.95 };
                assert!(goodput > least, "{goodput:.3} at {factor} with {name}, seed {seed}");
            }
        }
    }
}

#[test]
fn after_a_spike_waits_are_short_again_within_a_hundred_execution_times() {
    for seed in seeds(2) {
        for mean in [MS, 20.0 * MS, SECOND] {
            let (world, _, until) = spike(Work::Exponential(mean));
            let recovery = world.run(&mut ours(seed), seed).recovery(until, 25.0 * mean) / mean;
            assert!(recovery <= 100.0, "{recovery:.0} execution times of {} ms, seed {seed}", mean / MS);
        }
    }
}

#[test]
fn a_flood_of_low_priority_does_not_hurt_those_above() {
    for seed in seeds(1) {
        let score = flood(Work::Exponential(MS), SHORT).run(&mut ours(seed), seed);
        let share = important(&score).share();
        assert!(share >= 0.999, "{share:.5}, seed {seed}");
        assert!(score.levels[Priority::Low as usize].good > 0, "low is slow, not starved");
    }
}

#[test]
fn clients_that_retry_do_not_bring_the_pool_down() {
    for seed in seeds(1) {
        let work = Work::Exponential(MS);
        let mut world = steady(work, 2.0, SHORT);
        world.retries = 3;
        let goodput = world.run(&mut ours(seed), seed).goodput() / capacity(work);
        assert!(goodput > 0.95, "{goodput:.3}, seed {seed}");
    }
}

#[test]
fn clients_that_send_their_deadline_need_not_leave_to_be_forgotten() {
    for seed in seeds(1) {
        let work = Work::Exponential(MS);
        let mut world = steady(work, 4.0, SHORT);
        (world.deadlines, world.tells) = (true, false);
        let goodput = world.run(&mut ours(seed), seed).goodput() / capacity(work);
        assert!(goodput > 0.95, "{goodput:.3}, seed {seed}");
    }
}

#[test]
#[ignore = "prints the tables of README.md"]
fn tables() {
    for factor in [0.8, 1.4, 2.0, 4.0] {
        println!("\n### {factor} of the capacity\n");
        println!("| discipline | goodput of capacity | p50 ms | p99 ms | rejected |\n|---|---|---|---|---|");
        let work = Work::Exponential(MS);
        for (name, mut policy) in disciplines(work, 1) {
            row(name, &told(steady(work, factor, LONG), name).run(&mut *policy, 1), capacity(work));
        }
    }
    println!("\n### A spike of 1.4, and a flood of 12 in low priority\n");
    println!(
        "| discipline | late for, from the start of the spike, ms | from its end, ms | in time during the flood |"
    );
    println!("|---|---|---|---|");
    let work = Work::Exponential(MS);
    for ((name, mut policy), (_, mut other)) in disciplines(work, 1).into_iter().zip(disciplines(work, 1)) {
        let (world, from, until) = spike(work);
        let score = told(world, name).run(&mut *policy, 1);
        let (start, end) = (score.recovery(from, 25.0 * MS) / MS, score.recovery(until, 25.0 * MS) / MS);
        let share = 100.0 * important(&told(flood(work, LONG), name).run(&mut *other, 1)).share();
        println!("| {name} | {start:.0} | {end:.0} | {share:.2}% |");
    }
    println!("\n### Ours, by law and length of tasks: goodput of capacity, worst of {} seeds\n", slow_seeds().count());
    println!("| tasks | 1.4 | 2 | 4 |\n|---|---|---|---|");
    for mean in [MS, 20.0 * MS, 3.0 * SECOND] {
        for (name, work) in laws(mean) {
            let cells = [1.4, 2.0, 4.0].map(|factor| {
                let goodputs = slow_seeds().map(|seed| steady(work, factor, LONG).run(&mut ours(seed), seed).goodput());
                format!("{:.1}%", 100.0 * goodputs.fold(f64::INFINITY, f64::min) / capacity(work))
            });
            println!("| {name}, {} ms | {} |", mean / MS, cells.join(" | "));
        }
    }
}

/// Nobody tells a server without control that a client left.
fn told(mut world: World, name: &str) -> World {
    world.tells = name != "no control";
    world
}

fn row(name: &str, score: &Score, capacity: f64) {
    let total = score.total();
    println!(
        "| {name} | {:.1}% | {:.1} | {:.1} | {:.1}% |",
        100.0 * score.goodput() / capacity,
        score.percentile(0.5) / MS,
        score.percentile(0.99) / MS,
        100.0 * total.rejected as f64 / total.asked.max(1) as f64,
    );
}
