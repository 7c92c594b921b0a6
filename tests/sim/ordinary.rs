//! Ordinary traffic: a pool that is not overloaded behaves as if there were no overload control.

use tower_offload::admission::{Discipline, Priority, Settings};

use crate::laws::{Crowding, Work};
use crate::policy::Ours;
use crate::seeds;
use crate::world::{MS, SECOND, Stream, World};

fn run(world: &World, workers: usize, discipline: Discipline, seed: u64) -> (f64, f64, f64, u64) {
    let settings = Settings { discipline, ..Settings::fixed(workers) };
    let score = world.run(&mut Ours::new(settings, seed), seed);
    (score.goodput(), score.percentile(0.5), score.percentile(0.99), score.total().rejected)
}

#[test]
fn an_unloaded_pool_serves_everyone_in_order() {
    for seed in seeds(2) {
        for (workers, load) in [(8, 0.5), (8, 0.8), (50, 0.9), (1, 0.5)] {
            for work in [Work::Exponential(MS), Work::Exponential(50.0 * MS), Work::HeavyTail(5.0 * MS)] {
                let patience = 100.0 * work.mean();
                // About as many tasks, however many workers there are.
                let runs = (10_000.0 / workers as f64).min(2000.0);
                let world = World::new(work, Crowding::None, patience, runs * work.mean());
                let rate = load * Crowding::None.throughput(workers, work);
                let world = world.with(Stream::steady(Priority::Normal, rate));
                let ours = run(&world, workers, Discipline::Adaptive, seed);
                assert_eq!(ours, run(&world, workers, Discipline::Fifo, seed), "{work:?} at {load}, seed {seed}");
                assert_eq!(ours.3, 0, "nobody is rejected: {work:?} at {load}, seed {seed}");
            }
        }
    }
}

#[test]
fn bursts_that_the_pool_can_work_off_are_worked_off() {
    for seed in seeds(2) {
        let world = World::new(Work::Exponential(MS), Crowding::None, 100.0 * MS, 2.0 * SECOND);
        let burst = Stream { batch: 50, ..Stream::steady(Priority::Normal, 0.5 * 8000.0) };
        let ours = run(&world.with(burst), 8, Discipline::Adaptive, seed);
        assert_eq!(ours.3, 0, "nobody is rejected, seed {seed}");
    }
}
