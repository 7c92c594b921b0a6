//! Below capacity the adaptive queue rejects no task that a FIFO queue with the same settings would have served.
//!
//! A scenario is drawn from its seed: load, limit, queue, timeout, run times, bursts, idle spells, impatient clients,
//! deadlines, priorities and callers. The same requests go through both queues. Above capacity all clients are
//! impatient and some are lost: the adaptive queue must serve no fewer in time.
//!
//!     cargo test --test sim harm                                            # a thousand scenarios
//!     SIM_SCENARIOS=100000 cargo test --release --test sim harm             # a hundred thousand
//!     SIM_SCENARIO=4711 cargo test --test sim harm                          # the one with this seed

use std::time::Duration;

use tower_offload::admission::{Discipline, Limit, Priority, Settings};

use crate::laws::Work;
use crate::policy::{Ours, Policy};
use crate::random::Random;
use crate::reference_limits::{Aimd, Cinnamon, Envoy, Gradient2, Rule, Vegas};
use crate::reference_queues::{Breakwater, Dagor, FollyCodel, NoControl, Reference};
use crate::replay::{Fate, Replay, Request, replay, steady};
use crate::world::{MS, SECOND};

/// The share of all tasks, over all scenarios, that may be rejected although a FIFO queue would have served them.
const SHARE: f64 = 0.001;

/// The same for one scenario, and a few tasks more.
const SHARE_OF_ONE: f64 = 0.01;
const FEW: usize = 3;

struct Scenario {
    seed: u64,
    text: String,
    /// Whether some tasks have deadlines or priorities.
    is_told_apart: bool,
    settings: Settings,
    requests: Vec<Request>,
}

struct Verdict {
    harmed: usize,
    ours: Replay,
    fifo: Replay,
}

impl Scenario {
    /// A scenario with this mean run time, or a random one.
    fn new(seed: u64, mean: Option<f64>) -> Self {
        let random = &mut Random::new(seed.wrapping_add(0x5EED));
        let one_in = |random: &mut Random, n: u64| random.bits().is_multiple_of(n);
        // Log-uniform between the two bounds.
        let scaled = |random: &mut Random, from: f64, to: f64| from * (to / from).powf(random.fraction());
        let load = 0.1 + 0.88 * random.fraction();
        let limit = scaled(random, 1.0, 64.99) as usize;
        let capacity = scaled(random, 1.0, 10_000.0) as usize;
        let timeout = [1.0, 30.0, 3600.0][(random.bits() % 3) as usize];
        let drawn = scaled(random, 0.01 * MS, 100.0 * SECOND);
        let mean = mean.unwrap_or(drawn);
        let work = match random.bits() % 5 {
            0 => Work::Constant(mean),
            1 | 2 => Work::Exponential(mean),
            3 => Work::HeavyTail(mean),
            _ => Work::Bimodal(MS, 500.0 * MS, scaled(random, 0.001, 0.05)),
        };
        let mean = work.mean();
        let timeout = (timeout * SECOND).max(mean * scaled(random, 0.5, 1000.0));
        let count = scaled(random, 100.0, if seed < 1000 { 800.0 } else { 20_000.0 }) as usize;
        // The number of tasks in a burst, and the number after which no task arrives for hours.
        let burst = if one_in(random, 3) { scaled(random, 2.0, 500.0) as usize } else { 1 };
        let idle = one_in(random, 4).then(|| scaled(random, 20.0, 1000.0) as usize);
        // From the middle on, tasks are longer by this factor, and arrive less often by the same factor.
        let change = if one_in(random, 5) { [0.01, 100.0][(random.bits() % 2) as usize] } else { 1.0 };
        let impatient = one_in(random, 2).then(|| (3 + random.bits() % 98, scaled(random, 0.1, 10.0)));
        let deadlines = one_in(random, 4).then(|| (1 + random.bits() % 100, scaled(random, 0.2, 50.0)));
        let levels = if one_in(random, 4) { 4 } else { 1 };
        let callers = one_in(random, 4).then(|| scaled(random, 1.0, 30.0));
        let mut requests = Vec::with_capacity(count);
        let mut at = 0.0;
        for number in 0..count {
            let scale = if number < count / 2 { 1.0 } else { change };
            if number % burst == 0 {
                at += random.exponential() * burst as f64 * mean * scale / limit as f64;
            }
            let some = |random: &mut Random, kind: Option<(u64, f64)>| {
                let (every, runs) = kind?;
                one_in(random, every).then(|| (runs * mean * scale * (0.5 + random.fraction())) as u64 + 1)
            };
            let level = if levels == 1 { Priority::Normal } else { Priority::ALL[(random.bits() % levels) as usize] };
            requests.push(Request {
                at: at as u64,
                work: (work.draw(random) * scale) as u64,
                level,
                // The first caller sends the most requests.
                caller: callers.map(|callers| (callers * random.fraction().powi(3)) as u64 * 7919),
                patience: some(random, impatient),
                deadline: some(random, deadlines),
            });
        }
        // Arrivals are scaled to the load, and idle spells inserted, once the total work is known.
        let is_told_apart = deadlines.is_some() || callers.is_some() || levels > 1;
        let settings = Settings::fixed(limit);
        let mut scenario = Self { seed, text: String::new(), is_told_apart, settings, requests };
        scenario.scale(load, limit, idle.map(|every| (every, 4.0 * 3600.0 * SECOND + 100.0 * mean * change.max(1.0))));
        scenario.settings = Settings { timeout: Duration::from_nanos(timeout as u64), ..Settings::fixed(limit) };
        scenario.settings.capacity = capacity;
        scenario.text = format!(
            "load {load:.2}, limit {limit}, capacity {capacity}, timeout {:.3} s, {work:?}, bursts of {burst}, \
             idle after {idle:?}, change {change}, impatient {impatient:?}, deadlines {deadlines:?}, levels {levels}, \
             callers {callers:?}",
            timeout / SECOND
        );
        scenario
    }

    /// Scales the time between arrivals so that each half has the wanted load. Then inserts the idle spells.
    fn scale(&mut self, load: f64, limit: usize, idle: Option<(usize, f64)>) {
        let half = self.requests.len() / 2;
        let (mut from, mut begin) = (0, 0_u64);
        let arrivals: Vec<u64> = self.requests.iter().map(|request| request.at).collect();
        for (first, until) in [(0, half), (half, self.requests.len())] {
            let work: f64 = self.requests[first..until].iter().map(|request| request.work as f64).sum();
            let needed = work / (limit as f64 * load);
            let last = arrivals[until - 1];
            let stretch = needed / (last - from).max(1) as f64;
            for (request, arrival) in self.requests.iter_mut().zip(&arrivals).take(until).skip(first) {
                request.at = begin + ((arrival - from) as f64 * stretch) as u64;
            }
            (from, begin) = (last, self.requests[until - 1].at);
        }
        if let Some((every, pause)) = idle {
            for (number, request) in self.requests.iter_mut().enumerate() {
                request.at += ((number / every) as f64 * pause) as u64;
            }
        }
    }

    /// Compares the two queues over the first `count` requests.
    fn verdict(&self, count: usize) -> Verdict {
        let requests = &self.requests[..count];
        let run = |discipline| {
            let settings = Settings { discipline, ..self.settings };
            replay(requests, &mut Ours::new(settings, self.seed))
        };
        let (ours, fifo) = (run(Discipline::Adaptive), run(Discipline::Fifo));
        Verdict { harmed: ours.harmed(&fifo), ours, fifo }
    }

    /// The smallest number of requests with which the scenario still fails.
    fn shrink(&self) -> String {
        let mut count = self.requests.len();
        for parts in [2, 4, 8, 16, 32] {
            let fewer = count - count / parts;
            if self.verdict(fewer).is_harm(fewer) {
                count = fewer;
            }
        }
        let Verdict { harmed, ours, fifo } = self.verdict(count);
        let (served, rejected) = ((ours.served(), fifo.served()), (ours.rejected(), fifo.rejected()));
        format!(
            "SIM_SCENARIO={}: of the first {count} requests {harmed} are rejected that FIFO serves; served {} and {}, \
             rejected {} and {}; {}",
            self.seed, served.0, served.1, rejected.0, rejected.1, self.text
        )
    }
}

impl Verdict {
    /// Whether more tasks are harmed than are served in their stead. Chance alone exchanges a few.
    fn is_harm(&self, count: usize) -> bool {
        self.harmed.saturating_sub(self.fifo.harmed(&self.ours)) > FEW + (SHARE_OF_ONE * count as f64) as usize
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn below_capacity_no_task_is_rejected_that_a_fifo_queue_would_have_served() {
    let seeds = number("SIM_SCENARIO").map_or(0..number("SIM_SCENARIOS").unwrap_or(1000), |seed| seed..seed + 1);
    let (mut tasks, mut harmed, mut served, mut failures) = (0, 0, [0; 2], Vec::new());
    for seed in seeds {
        let scenario = Scenario::new(seed, None);
        let count = scenario.requests.len();
        let verdict = scenario.verdict(count);
        (tasks, harmed) = (tasks + count, harmed + verdict.harmed);
        served = [served[0] + verdict.ours.served(), served[1] + verdict.fifo.served()];
        if verdict.is_harm(count) {
            failures.push(scenario.shrink());
        }
    }
    println!("{harmed} of {tasks} tasks harmed; served {served:?}, ours and FIFO; {} scenarios fail", failures.len());
    assert!(failures.is_empty(), "{}", failures[..failures.len().min(20)].join("\n"));
    if number("SIM_SCENARIO").is_some() {
        return;
    }
    assert!(harmed as f64 <= SHARE * tasks as f64, "{harmed} of {tasks}");
    assert!(served[0] as f64 >= (1.0 - SHARE) * served[1] as f64, "{served:?}");
}

/// The share of the possible answers that came in time, adaptive and FIFO, after the first fourth of the time.
fn above_capacity(seed: u64, lowest: f64, highest: f64) -> ([f64; 2], String) {
    let random = &mut Random::new(seed.wrapping_add(0xAB0E));
    let scaled = |random: &mut Random, from: f64, to: f64| from * (to / from).powf(random.fraction());
    let limit = scaled(random, 1.0, 64.99) as usize;
    let capacity = scaled(random, 10.0, 10_000.0) as usize;
    let (load, patience) = (scaled(random, lowest, highest), scaled(random, 3.0, 100.0) * MS);
    let kind = random.bits() % 3;
    let work = match random.bits() % 4 {
        0 => Work::Constant(MS),
        1 => Work::Exponential(MS),
        2 => Work::HeavyTail(MS),
        _ => Work::Bimodal(MS / 11.0, 500.0 * MS / 11.0, 10.0 / 499.0),
    };
    let rate = load * limit as f64 * SECOND / work.mean();
    let span = (10_000.0 / rate).clamp(0.3, 2.0);
    let mut requests = steady(0.0, span, rate, work, random);
    for request in &mut requests {
        // The run times are constant, exponential, or of two kinds.
        let factor = match kind {
            0 => 1.0,
            1 => random.exponential(),
            _ => [1.0, 5.0][(random.bits() % 2) as usize],
        };
        request.patience = Some((patience * factor) as u64 + 1);
    }
    let possible = 0.75 * span * rate / load.max(1.0);
    let served = [Discipline::Adaptive, Discipline::Fifo].map(|discipline| {
        let settings = Settings { discipline, ..Settings::fixed(limit).with_capacity(capacity) };
        let replay = replay(&requests, &mut Ours::new(settings, seed));
        let counts = |at: usize, fate| fate == Fate::Served && requests[at].at as f64 > span * SECOND / 4.0;
        replay.count(counts) as f64 / possible
    });
    let text = format!(
        "SIM_SCENARIO={seed}: load {load:.2}, limit {limit}, capacity {capacity}, patience {:.1} ms of kind {kind}, \
         {work:?}: {served:.3?}",
        patience / MS
    );
    (served, text)
}

#[test]
fn above_capacity_it_serves_no_fewer_than_a_fifo_queue_and_mostly_more() {
    for (lowest, highest, better) in [(0.5, 0.98, -0.001), (1.05, 1.4, 0.02), (1.05, 8.0, 0.1)] {
        let seeds =
            number("SIM_SCENARIO").map_or(0..number("SIM_SCENARIOS").unwrap_or(1000) / 60, |seed| seed..seed + 1);
        let runs: Vec<_> = seeds.map(|seed| above_capacity(seed, lowest, highest)).collect();
        let fails = |served: &[f64; 2]| served[0] < served[1] - 0.08;
        let failures: Vec<_> = runs.iter().filter(|(served, _)| fails(served)).map(|(_, text)| text.as_str()).collect();
        let mean = |which: usize| runs.iter().map(|(served, _)| served[which]).sum::<f64>() / runs.len() as f64;
        let (ours, fifo) = (mean(0), mean(1));
        println!("loads of {lowest} to {highest}: {ours:.4} of what is possible, FIFO {fifo:.4}");
        // If a few tasks are longer than clients wait, FIFO may serve more in time.
        assert!(failures.len() <= runs.len() / 100, "{}", failures.join("\n"));
        assert!(runs.len() == 1 || ours > fifo + better, "{ours:.4}, FIFO {fifo:.4}");
    }
}

/// The policies to compare in a scenario, with their names.
fn policies(scenario: &Scenario) -> Vec<(&'static str, Box<dyn Policy>)> {
    let (settings, seed) = (scenario.settings, scenario.seed);
    let (limit, capacity) = (settings.limit.most(), settings.capacity);
    let limited = |rule: Box<dyn Rule>| Box::new(Ours::limited_by(rule, settings, seed));
    let adaptive = Settings { limit: Limit::Adaptive { min: 1, max: limit }, ..settings };
    vec![
        ("no control", Box::new(Reference::new(NoControl, limit, capacity))),
        ("folly Codel", Box::new(Reference::new(FollyCodel::default(), limit, capacity))),
        ("DAGOR", Box::new(Reference::new(Dagor::default(), limit, capacity))),
        ("Breakwater-like", Box::new(Reference::new(Breakwater::new(20.0 * MS, limit, MS), limit, capacity))),
        ("ours", Box::new(Ours::new(settings, seed))),
        ("Gradient2", limited(Box::new(Gradient2::new(1, limit)))),
        ("Vegas", limited(Box::new(Vegas::new(1, limit)))),
        ("Envoy gradient", limited(Box::new(Envoy::new(1, limit.max(3))))),
        ("AIMD", limited(Box::new(Aimd::new(1, limit)))),
        ("Cinnamon-like", limited(Box::new(Cinnamon::new(1, limit)))),
        ("ours, adaptive limit", Box::new(Ours::new(adaptive, seed))),
    ]
}

#[test]
#[ignore = "prints the tables of README.md"]
fn tables() {
    println!("\n| policy | rejected below capacity |\n|---|---|");
    let mut harmed = Vec::new();
    let mut tasks = 0;
    for seed in 0..number("SIM_SCENARIOS").unwrap_or(1000) {
        let scenario = Scenario::new(seed, Some(MS));
        if scenario.is_told_apart {
            // The other policies support no levels, callers or deadlines.
            continue;
        }
        let Verdict { fifo, .. } = scenario.verdict(scenario.requests.len());
        tasks += scenario.requests.len();
        for (at, (name, mut policy)) in policies(&scenario).into_iter().enumerate() {
            harmed.resize(harmed.len().max(at + 1), (name, 0));
            harmed[at].1 += replay(&scenario.requests, &mut *policy).harmed(&fifo);
        }
    }
    for (name, harmed) in harmed {
        println!("| {name} | {:.3}% |", 100.0 * harmed as f64 / tasks as f64);
    }
}
