//! Queue disciplines under overload.

use std::time::Duration;

use tower_offload::admission::{Discipline, Level, Settings};

use crate::laws::{Crowding, Work};
use crate::policy::{Ours, Policy};
use crate::reference_queues::{Breakwater, Dagor, FollyCodel, NoControl, Reference};
use crate::score::{Score, important};
use crate::world::{MS, SECOND, Stream, World};

const SEEDS: u64 = 20;

/// Eight workers, jobs of one millisecond, clients that wait for twenty.
const WORKERS: usize = 8;

fn settings(discipline: Discipline, workers: usize) -> Settings {
    Settings { limit: tower_offload::admission::Limit::Fixed(workers), discipline, ..Settings::default() }
}

fn ours(seed: u64) -> Ours {
    Ours::new(settings(Discipline::Adaptive, WORKERS), seed)
}

/// Every discipline that is compared, by name.
fn disciplines(patience: f64, work: f64, seed: u64) -> Vec<(&'static str, Box<dyn Policy>)> {
    let queue = 1000;
    vec![
        ("no control", Box::new(Reference::new(NoControl, WORKERS, usize::MAX))),
        ("FIFO + timeout", Box::new(Ours::new(settings(Discipline::Fifo, WORKERS), seed))),
        ("folly Codel", Box::new(Reference::new(FollyCodel::default(), WORKERS, queue))),
        ("DAGOR", Box::new(Reference::new(Dagor::default(), WORKERS, queue))),
        ("Breakwater-like", Box::new(Reference::new(Breakwater::new(patience, WORKERS, work), WORKERS, queue))),
        ("ours", Box::new(ours(seed))),
    ]
}

fn overload(work: Work, factor: f64) -> World {
    let capacity = Crowding::None.throughput(WORKERS, work);
    let mean = work.mean();
    let mut world = World::new(work, Crowding::None, 20.0 * mean, 6000.0 * mean);
    world.warm_up = 1000.0 * mean;
    world.with(Stream::steady(Level::Normal, factor * capacity))
}

fn row(name: &str, score: &Score, capacity: f64) {
    let total = score.total();
    println!(
        "| {name} | {:.1}% | {:.1} | {:.1} | {:.1}% |",
        100.0 * score.goodput() / capacity,
        score.percentile(0.5) / MS,
        score.percentile(0.99) / MS,
        100.0 * total.refused as f64 / total.asked.max(1) as f64,
    );
}

#[test]
fn at_four_times_the_load_goodput_stays_near_capacity() {
    for factor in [0.8, 1.4, 2.0, 4.0] {
        println!("\n### {factor} × capacity, exponential jobs of 1 ms, clients wait 20 ms\n");
        println!("| discipline | goodput of capacity | p50 ms | p99 ms | refused |\n|---|---|---|---|---|");
        let work = Work::Exponential(MS);
        for (name, mut policy) in disciplines(20.0 * MS, MS, 1) {
            let mut world = overload(work, factor);
            world.tells = name != "no control";
            row(name, &world.run(&mut *policy, 1), Crowding::None.throughput(WORKERS, work));
        }
    }
}
