//! Concurrency limits: fixed ones, those of others, and ours, each over the same queue.

use tower_offload::admission::{Limit, Priority, Settings};

use crate::laws::{Crowding, Work};
use crate::policy::Ours;
use crate::reference_limits::{Aimd, Cinnamon, Envoy, Gradient2, Rule, Vegas};
use crate::score::Score;
use crate::world::{MS, SECOND, Stream, World};
use crate::{seeds, slow_seeds};

const MIN: usize = 1;
const MAX: usize = 64;

/// A limit that turned by less than this share of itself did not turn.
const HYSTERESIS: f64 = 0.35;

struct Scenario {
    name: &'static str,
    work: Work,
    crowding: Crowding,
    /// Arrivals over the best throughput.
    factor: f64,
    change: Option<(Work, Crowding)>,
}

fn scenarios() -> Vec<Scenario> {
    let (none, cores, thrash) = (Crowding::None, Crowding::Cores(8.0), Crowding::Thrash(12.0));
    let scalability = Crowding::Scalability(0.03, 0.0005);
    let exponential = Work::Exponential(5.0 * MS);
    let new = |name, work, crowding, factor| Scenario { name, work, crowding, factor, change: None };
    let changed =
        |name, crowding, work, after| Scenario { change: Some((work, after)), ..new(name, work, crowding, 1.5) };
    vec![
        new("tasks that only wait", exponential, none, 2.0),
        new("8 cores, constant", Work::Constant(5.0 * MS), cores, 2.0),
        new("8 cores, exponential", exponential, cores, 2.0),
        new("8 cores, heavy tail", Work::HeavyTail(5.0 * MS), cores, 2.0),
        new("8 cores, 1 and 500 ms", Work::Bimodal(MS, 500.0 * MS, 0.02), cores, 2.0),
        new("thrash, best at 12", exponential, thrash, 2.0),
        new("thrash, 1 and 500 ms", Work::Bimodal(MS, 500.0 * MS, 0.02), thrash, 2.0),
        new("scalability law", exponential, scalability, 2.0),
        new("thrash at 0.7 of the load", exponential, thrash, 0.7),
        changed("thrash becomes waiting", thrash, exponential, none),
        changed("waiting becomes thrash", none, exponential, thrash),
    ]
}

impl Scenario {
    fn best(&self) -> f64 {
        (MIN..=MAX).map(|limit| self.crowding.throughput(limit, self.work)).fold(0.0, f64::max)
    }

    /// The most goodput that any limit could give, while it is counted.
    fn possible(&self) -> f64 {
        let (work, crowding) = self.change.unwrap_or((self.work, self.crowding));
        let law = Self { name: "", work, crowding, factor: self.factor, change: None };
        law.best() * self.factor.min(1.0)
    }

    fn world(&self) -> World {
        let mean = self.work.mean();
        let patience = 40.0 * mean.max(if matches!(self.work, Work::Bimodal(..)) { 100.0 * MS } else { 0.0 });
        let mut world = World::new(self.work, self.crowding, patience, 40.0 * SECOND);
        world.warm_up = 20.0 * SECOND;
        let rate = self.factor * self.best();
        let mut stream = Stream::steady(Priority::Normal, rate);
        if let Some((work, crowding)) = self.change {
            world.change = Some((10.0 * SECOND, work, crowding));
            let after = Scenario { crowding, work, name: "", factor: 1.0, change: None };
            stream.rates.push((10.0 * SECOND, self.factor * after.best()));
        }
        world.with(stream)
    }

    fn run(&self, policy: &mut Ours, seed: u64) -> Score {
        self.world().run(policy, seed)
    }

    fn fixed(&self, limit: usize, seed: u64) -> Score {
        self.run(&mut Ours::new(Settings::fixed(limit), seed), seed)
    }

    fn ours(&self, seed: u64) -> Score {
        let settings = Settings { limit: Limit::Adaptive { min: MIN, max: MAX }, ..Settings::default() };
        self.run(&mut Ours::new(settings, seed), seed)
    }

    fn best_fixed(&self, seed: u64) -> (usize, f64) {
        let limits = [2, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64];
        let goodputs = limits.map(|limit| (limit, self.fixed(limit, seed).goodput()));
        goodputs.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are limits")
    }
}

fn references() -> Vec<(&'static str, Box<dyn Rule>)> {
    vec![
        ("Gradient2", Box::new(Gradient2::new(MIN, MAX))),
        ("Vegas", Box::new(Vegas::new(MIN, MAX))),
        ("Envoy gradient", Box::new(Envoy::new(MIN, MAX))),
        ("AIMD", Box::new(Aimd::new(MIN, MAX))),
        ("Cinnamon-like", Box::new(Cinnamon::new(MIN, MAX))),
    ]
}

fn row(name: &str, score: &Score, best: f64) {
    println!(
        "| {name} | {:.0}% | {:.1} | {} | {:.1} | {:.1} |",
        100.0 * score.goodput() / best,
        score.mean_limit(),
        score.reversals(HYSTERESIS),
        score.percentile(0.5) / MS,
        score.percentile(0.99) / MS,
    );
}

#[test]
fn an_adaptive_limit_stays_within_a_fifth_of_the_best_there_is() {
    for seed in seeds(1) {
        for scenario in scenarios() {
            let score = scenario.ours(seed);
            let (share, turns) = (score.goodput() / scenario.possible(), score.reversals(HYSTERESIS));
            assert!(share > 0.8, "{share:.3} of the best in `{}`, seed {seed}", scenario.name);
            assert!(turns <= 250, "{turns} turns in `{}`, seed {seed}", scenario.name);
        }
    }
}

#[test]
fn an_adaptive_limit_does_not_grow_without_need() {
    let scenario = Scenario { factor: 0.01, ..scenarios().swap_remove(0) };
    let limits = scenario.ours(1).limits;
    assert_eq!(limits.len(), 1, "{limits:?}");
}

#[test]
#[ignore = "prints the tables of README.md"]
fn tables() {
    for scenario in scenarios() {
        let (best, goodput) = scenario.best_fixed(1);
        println!("\n### {}\n", scenario.name);
        println!("| limit | goodput of best | mean limit | turns | p50 ms | p99 ms |\n|---|---|---|---|---|---|");
        row(&format!("fixed {best}, the best"), &scenario.fixed(best, 1), goodput);
        row("fixed 64", &scenario.fixed(64, 1), goodput);
        for (name, rule) in references() {
            row(name, &scenario.run(&mut Ours::limited_by(rule, Settings::default(), 1), 1), goodput);
        }
        row("ours", &scenario.ours(1), goodput);
        let runs: Vec<_> = slow_seeds().map(|seed| scenario.ours(seed)).collect();
        let worst = runs.iter().map(|score| score.goodput() / scenario.possible()).fold(f64::INFINITY, f64::min);
        let turns = runs.iter().map(|score| score.reversals(HYSTERESIS)).max().unwrap_or(0);
        let percent = 100.0 * worst;
        println!("\nOurs, worst of {} seeds: {percent:.0}% of what the law allows, {turns} turns.", runs.len());
    }
}
