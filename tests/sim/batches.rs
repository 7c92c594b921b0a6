//! Batches in virtual time: the batches of admission beside an independent simulation of "serve what waits", beside
//! windows, and under an overload with deadlines.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tower_offload::admission::{
    Admission, Admitted, BatchItem, BatchLimits, BatchTime, Finish, Growth, Key, Offer, Outcome, Rejected, Settings,
    SharedPermit, Timestamp,
};

use crate::random::Random;

const MS: f64 = 1e6;

/// How long a batch takes: `fixed` and, for each item, `each`, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    each: f64,
    fixed: f64,
}

impl Cost {
    fn of(self, items: usize) -> u64 {
        self.each.mul_add(items as f64, self.fixed) as u64
    }

    /// Items in a nanosecond, in batches of this size.
    fn capacity(self, items: usize) -> f64 {
        items as f64 / self.of(items) as f64
    }
}

const COST: Cost = Cost { each: MS, fixed: 4.0 * MS };

/// Poisson arrivals, as times in nanoseconds.
fn arrivals(rate: f64, count: usize, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let mut now = 0.0;
    let next = || {
        now += random.exponential() / rate;
        now as u64
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// What became of the items.
#[derive(Debug, Default)]
struct Report {
    /// The latency of each that was answered in time, in nanoseconds.
    latencies: Vec<u64>,
    batches: usize,
}

impl Report {
    /// Milliseconds.
    fn mean(&self) -> f64 {
        self.latencies.iter().sum::<u64>() as f64 / self.latencies.len() as f64 / MS
    }
}

/// An item, as its caller knows it.
#[derive(Clone, Copy, Debug)]
struct Item {
    key: Option<Key>,
    arrived: u64,
    deadline: u64,
}

/// A pool that runs batches, as `pool/` and `batch/` drive admission.
struct Pool {
    admission: Admission<usize>,
    items: Vec<Item>,
    time: BatchTime,
    limits: BatchLimits,
    cost: Cost,
    patience: Option<u64>,
    /// When each batch ends, and its items.
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    running: Vec<(Vec<usize>, bool, u64)>,
    rejected: Vec<Rejected<usize>>,
    report: Report,
}

impl Pool {
    fn new(workers: usize, max_items: usize, cost: Cost, patience: Option<u64>) -> Self {
        let settings =
            Settings { timeout: Duration::from_secs(3600), ..Settings::fixed(workers).with_capacity(1 << 20) };
        Self {
            admission: Admission::new(settings, 1),
            items: Vec::new(),
            time: BatchTime::default(),
            limits: BatchLimits { max_items, max_weight: u64::MAX },
            cost,
            patience,
            ends: BinaryHeap::new(),
            running: Vec::new(),
            rejected: Vec::new(),
            report: Report::default(),
        }
    }

    /// Runs all arrivals, and what they leave behind.
    fn run(mut self, arrivals: &[u64]) -> Report {
        let mut arrivals = arrivals.iter().copied().peekable();
        loop {
            let end = self.ends.peek().map(|Reverse((at, _))| *at);
            match (arrivals.peek().copied(), end) {
                (Some(at), end) if end.is_none_or(|end| at <= end) => {
                    arrivals.next();
                    self.arrive(at);
                }
                (_, Some(_)) => self.end(),
                _ => return self.report,
            }
        }
    }

    fn arrive(&mut self, now: u64) {
        let index = self.items.len();
        let deadline = self.patience.map_or(u64::MAX, |patience| now + patience);
        let offer = Offer { deadline: self.patience.map(|_| Timestamp::from_nanos(deadline)), ..Offer::default() };
        self.items.push(Item { key: None, arrived: now, deadline });
        match self.admission.offer(Timestamp::from_nanos(now), offer, &mut self.rejected) {
            Ok(Admitted::InFlight(key)) => {
                self.items[index].key = Some(key);
                self.lead(now, index);
            }
            Ok(Admitted::Queued(key)) => {
                self.items[index].key = Some(key);
                self.admission.store(key, index);
            }
            Err(_) => {}
        }
    }

    fn properties(items: &[Item], index: usize) -> BatchItem {
        let deadline = items[index].deadline;
        BatchItem { group: 0, weight: 1, deadline: (deadline < u64::MAX).then(|| Timestamp::from_nanos(deadline)) }
    }

    /// The task that a worker took forms a batch, or is too late.
    fn lead(&mut self, now: u64, leader: usize) {
        let at = Timestamp::from_nanos(now);
        let properties = Self::properties(&self.items, leader);
        let prediction = self.time.predict(at);
        let deadline = Timestamp::from_nanos(self.items[leader].deadline);
        if prediction.is_some_and(|time| time.is_late(at, 1, deadline)) {
            self.finish(now, leader, Outcome::Expired, None, None);
            return self.take(now);
        }
        let mut growth = Growth::new(at, self.limits, prediction, properties);
        let mut batch = vec![leader];
        while !growth.is_complete() {
            let before = batch.len();
            let items = &self.items;
            let join = |&index: &usize| growth.join(Self::properties(items, index));
            self.admission.take_more(at, 64, join, &mut batch, &mut self.rejected);
            if batch.len() < before + 64 {
                break;
            }
        }
        let takes = self.cost.of(batch.len());
        self.ends.push(Reverse((now + takes, self.running.len())));
        self.running.push((batch, growth.is_cut(), now));
        self.report.batches += 1;
    }

    fn end(&mut self) {
        let Some(Reverse((now, number))) = self.ends.pop() else { return };
        let (batch, cut, started) = std::mem::take(&mut self.running[number]);
        let ran = Duration::from_nanos(now - started);
        self.time.add(Timestamp::from_nanos(now), batch.len() as u64, ran);
        let shared = Some(SharedPermit { tasks: batch.len() as u32, cut });
        // The leader ends last.
        for &index in batch.iter().rev() {
            let item = self.items[index];
            if now <= item.deadline {
                self.report.latencies.push(now - item.arrived);
            }
            self.finish(now, index, Outcome::Ok, Some(ran), shared);
        }
        self.take(now);
    }

    fn finish(&mut self, now: u64, index: usize, outcome: Outcome, ran: Option<Duration>, batch: Option<SharedPermit>) {
        let finish = Finish { outcome, ran, reader: Duration::ZERO, batch };
        let key = self.items[index].key.expect("it was admitted");
        assert!(self.admission.finish_as(Timestamp::from_nanos(now), key, finish));
    }

    fn take(&mut self, now: u64) {
        self.rejected.clear();
        let at = Timestamp::from_nanos(now);
        self.admission.expire(at, &mut self.rejected);
        while let Some(started) = self.admission.take(at, &mut self.rejected) {
            self.lead(now, started.task);
        }
    }
}

/// "Serve what waits as soon as a worker is free", by itself: no code of admission.
fn reference(arrivals: &[u64], workers: usize, max_items: usize, cost: Cost) -> f64 {
    let mut free = vec![0_u64; workers];
    let (mut next, mut total) = (0, 0.0);
    while next < arrivals.len() {
        let worker = (0..workers).min_by_key(|&worker| free[worker]).expect("there is one");
        let start = free[worker].max(arrivals[next]);
        let waiting = arrivals[next..].iter().take(max_items).take_while(|&&at| at <= start).count();
        free[worker] = start + cost.of(waiting);
        total += arrivals[next..next + waiting].iter().map(|&at| (free[worker] - at) as f64).sum::<f64>();
        next += waiting;
    }
    total / arrivals.len() as f64 / MS
}

/// The same with a window: a batch begins when it is full, or when its first item has waited for this long.
fn windowed(arrivals: &[u64], max_items: usize, cost: Cost, window: f64) -> f64 {
    let (mut free, mut next, mut total) = (0_u64, 0, 0.0);
    while next < arrivals.len() {
        let closes = arrivals[next] + (window * MS) as u64;
        let full = arrivals.get(next + max_items - 1).copied().unwrap_or(u64::MAX);
        let start = free.max(closes.min(full));
        let waiting = arrivals[next..].iter().take(max_items).take_while(|&&at| at <= start).count();
        free = start + cost.of(waiting);
        total += arrivals[next..next + waiting].iter().map(|&at| (free - at) as f64).sum::<f64>();
        next += waiting;
    }
    total / arrivals.len() as f64 / MS
}

const LOADS: [f64; 6] = [0.05, 0.2, 0.4, 0.6, 0.8, 0.95];

#[test]
fn the_mean_latency_is_that_of_serving_what_waits() {
    for (workers, max_items) in [(1, usize::MAX >> 1), (1, 64), (2, 64), (4, 8)] {
        for load in LOADS {
            let most = if max_items > 1 << 20 { 1.0 / COST.each } else { COST.capacity(max_items) };
            let arrivals = arrivals(load * most * workers as f64, 20_000, 7);
            let ours = Pool::new(workers, max_items, COST, None).run(&arrivals);
            let reference = reference(&arrivals, workers, max_items, COST);
            assert_eq!(ours.latencies.len(), arrivals.len());
            let ratio = ours.mean() / reference;
            assert!((ratio - 1.0).abs() < 0.02, "{ratio} at {load} with {workers} workers of {max_items}");
        }
    }
}

#[test]
fn no_window_is_better_and_windows_cost_much_while_the_load_is_low() {
    println!("| load | take what waits | items in a batch | window of 5 ms | window of 10 ms |");
    for load in LOADS {
        let arrivals = arrivals(load / COST.each, 40_000, 11);
        let ours = Pool::new(1, usize::MAX >> 1, COST, None).run(&arrivals);
        let mean = ours.mean();
        let windows = [1.0, 2.0, 5.0, 10.0].map(|window| windowed(&arrivals, usize::MAX >> 1, COST, window));
        println!(
            "| {load} | {mean:.1} | {:.1} | {:.1} | {:.1} |",
            arrivals.len() as f64 / ours.batches as f64,
            windows[2],
            windows[3]
        );
        for window in windows {
            assert!(mean <= window * 1.01, "{mean} against {windows:?} at {load}");
        }
        if load <= 0.4 {
            assert!(windows[2] > mean * 1.08 && windows[3] > windows[2], "{mean} against {windows:?} at {load}");
        }
    }
}

#[test]
fn an_overload_with_deadlines_leaves_nearly_all_answers_that_are_possible() {
    for (workers, max_items, patience) in [(1, 32, 100.0), (1, 32, 200.0), (2, 16, 100.0), (1, 8, 50.0), (4, 32, 80.0)]
    {
        for load in [2.0, 4.0] {
            let capacity = COST.capacity(max_items) * workers as f64;
            let arrivals = arrivals(load * capacity, 60_000, 3);
            let report = Pool::new(workers, max_items, COST, Some((patience * MS) as u64)).run(&arrivals);
            let span = arrivals[arrivals.len() - 1] as f64;
            let possible = capacity * span;
            let share = report.latencies.len() as f64 / possible;
            println!(
                "{workers} workers of {max_items}, {patience} ms, load {load}: {share:.3} of the possible answers"
            );
            assert!(share >= 0.97, "{share} with {workers} workers of {max_items}, {patience} ms, load {load}");
        }
    }
}

#[test]
fn below_capacity_deadlines_cost_no_answers() {
    for (workers, max_items) in [(1, 32), (2, 16)] {
        for load in [0.3, 0.6, 0.8] {
            let arrivals = arrivals(load * COST.capacity(max_items) * workers as f64, 40_000, 5);
            let report = Pool::new(workers, max_items, COST, Some((150.0 * MS) as u64)).run(&arrivals);
            let share = report.latencies.len() as f64 / arrivals.len() as f64;
            assert!(share >= 0.999, "{share} with {workers} workers of {max_items}, load {load}");
        }
    }
}

#[test]
fn the_reference_agrees_with_the_mean_of_a_queue_that_is_known() {
    // Batches of one: an M/D/1 queue of load ρ has the mean latency s + ρ s / (2 (1 − ρ)).
    let cost = Cost { each: 0.0, fixed: MS };
    for load in [0.3, 0.6, 0.8] {
        let arrivals = arrivals(load / cost.fixed, 200_000, 13);
        let expected = 1.0 + load / (2.0 * (1.0 - load));
        let ratio = reference(&arrivals, 1, 1, cost) / expected;
        assert!((ratio - 1.0).abs() < 0.05, "{ratio} at {load}");
    }
}
