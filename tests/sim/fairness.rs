//! Fairness between callers: a heavy caller and many light ones.

use tower_offload::admission::{Priority, Settings};

use crate::laws::{Crowding, Work};
use crate::policy::Ours;
use crate::score::Score;
use crate::seeds;
use crate::world::{MS, SECOND, Stream, World};

const WORKERS: usize = 8;

/// Twenty callers that ask for a fiftieth of the capacity each, and another that asks for ten times all of it.
fn world(named: bool) -> World {
    let capacity = WORKERS as f64 * 1000.0;
    let mut world = World::new(Work::Exponential(MS), Crowding::None, 20.0 * MS, 1.5 * SECOND);
    world.warm_up = 0.5 * SECOND;
    for caller in 0..=20 {
        let rate = if caller == 0 { 10.0 * capacity } else { capacity / 50.0 };
        let stream = Stream::steady(Priority::Normal, rate);
        world = world.with(Stream { caller: named.then_some(caller * 7919), ..stream });
    }
    world
}

fn quiet(score: &Score) -> f64 {
    let quiet = score.callers.iter().filter(|(caller, _)| *caller != 0);
    let (good, asked) = quiet.fold((0, 0), |sum, (_, tally)| (sum.0 + tally.good, sum.1 + tally.asked));
    good as f64 / asked as f64
}

#[test]
fn one_caller_with_endless_requests_does_not_delay_the_others() {
    for seed in seeds(1) {
        let score = world(true).run(&mut Ours::new(Settings::fixed(WORKERS), seed), seed);
        let share = quiet(&score);
        assert!(share > 0.995, "{share:.4} in time, seed {seed}");
        let goodput = score.goodput() / (WORKERS as f64 * 1000.0);
        assert!(goodput > 0.95, "{goodput:.3}: what the others leave is the frequent caller's, seed {seed}");
    }
}

#[test]
fn callers_that_are_not_named_share_their_fate() {
    let score = world(false).run(&mut Ours::new(Settings::fixed(WORKERS), 1), 1);
    let total = score.total();
    assert!(total.share() < 0.2, "{:.3} of all in time", total.share());
}
