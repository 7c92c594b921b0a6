//! How a batch grows: which queued tasks join the task that a worker took.
//!
//! No timer is involved. A batch is what waits at the moment at which a worker is free, in the order in which the tasks
//! would start, up to the limits. At a low load a task is alone and starts at once; at a high load more tasks wait, and
//! the batches grow by themselves. For Poisson arrivals and batch times that are linear in the size, "serve what waits
//! as soon as the server is free" is stable at every load below the capacity (Inoue, "Queueing analysis of GPU-based
//! inference servers with dynamic batching", Performance Evaluation 147, 2021).
//!
//! **Deadlines.** The time of a batch of size *n* is predicted as *a·n + b* from the batches before, and as much on top
//! as two mean deviations. A batch stops growing where it would miss the nearest deadline in it. A task that would miss
//! its deadline even alone never starts. An old prediction is not used, so that a pool finds out when batches have
//! become faster. One batch that takes far longer than all others changes little, because a prediction that is too long
//! keeps items from running that would correct it.

use std::time::Duration;

use super::timestamp::{Timestamp, nanos};

/// About so many batches are remembered.
const MEMORY: f64 = 64.0;

/// The same for the deviation.
const DEVIATION_MEMORY: f64 = 16.0;

/// How many mean deviations are added to a prediction.
const DEVIATIONS: f64 = 2.0;

/// A batch that took more than this many times its prediction counts as this many times. One that took less than the
/// same part of it replaces all that were learned before: that was another situation.
const SURPRISE: f64 = 8.0;

/// A prediction is too old once no batch has ended for this many times what the usual one takes.
const OLD: f64 = 4.0;

/// The limits of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most tasks.
    pub max_items: usize,
    /// The most weight. A task that has more is a batch by itself.
    pub max_weight: u64,
}

/// A task, as a batch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchItem {
    /// Only tasks of one group share a batch.
    pub group: u64,
    /// Its share of [`BatchLimits::max_weight`].
    pub weight: u64,
    /// When its caller stops waiting.
    pub deadline: Option<Timestamp>,
}

/// Whether a queued task joins a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// It joins.
    Take,
    /// It belongs to another group. Tasks behind it may join.
    Skip,
    /// It would miss its deadline even alone.
    Expire,
    /// It does not fit, and so the batch is complete.
    Stop,
}

/// A batch while it grows.
#[derive(Clone, Debug)]
pub struct Growth {
    now: Timestamp,
    limits: BatchLimits,
    time: Option<Prediction>,
    group: u64,
    items: usize,
    weight: u64,
    /// The nearest deadline in it.
    nearest: Timestamp,
    complete: bool,
    cut: bool,
}

/// The predicted time of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Nanoseconds for each unit of weight.
    each: f64,
    /// Nanoseconds for a batch of any size.
    fixed: f64,
}

/// Learns how long batches take: a line that is fitted to the latest ones by least squares.
#[derive(Clone, Debug, Default)]
pub struct BatchTime {
    /// The sums of 1, x, y, x² and x·y, of which older batches weigh less.
    sums: [f64; 5],
    deviation: f64,
    last: Timestamp,
    /// When the first batch ended.
    warm: Option<Timestamp>,
}

// === impl Growth ===

impl Growth {
    /// A batch of one task, the one that a worker took.
    #[must_use]
    pub fn new(now: Timestamp, limits: BatchLimits, time: Option<Prediction>, first: BatchItem) -> Self {
        let nearest = first.deadline.unwrap_or(Timestamp::MAX);
        let complete = limits.max_items <= 1 || first.weight >= limits.max_weight;
        Self { now, limits, time, group: first.group, items: 1, weight: first.weight, nearest, complete, cut: false }
    }

    /// Decides on the next task that waits.
    pub fn join(&mut self, item: BatchItem) -> Join {
        if self.complete {
            return Join::Stop;
        }
        if item.group != self.group {
            return Join::Skip;
        }
        let deadline = item.deadline.unwrap_or(Timestamp::MAX);
        if self.time.is_some_and(|time| time.is_late(self.now, item.weight, deadline)) {
            return Join::Expire;
        }
        let (weight, nearest) = (self.weight.saturating_add(item.weight), self.nearest.min(deadline));
        self.cut = self.time.is_some_and(|time| time.is_late(self.now, weight, nearest));
        if self.cut || weight > self.limits.max_weight {
            self.complete = true;
            return Join::Stop;
        }
        (self.items, self.weight, self.nearest) = (self.items + 1, weight, nearest);
        self.complete = self.items >= self.limits.max_items || weight >= self.limits.max_weight;
        Join::Take
    }

    /// Whether no further task can join.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many tasks it has.
    #[must_use]
    pub const fn items(&self) -> usize {
        self.items
    }

    /// Whether a deadline kept it from growing.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }
}

// === impl Prediction ===

impl Prediction {
    /// How long a batch of this weight takes.
    #[must_use]
    pub fn of(self, weight: u64) -> Duration {
        Duration::from_nanos(self.each.mul_add(weight as f64, self.fixed) as u64)
    }

    /// Whether a batch of this weight that starts now ends after the deadline.
    #[must_use]
    pub fn is_late(self, now: Timestamp, weight: u64, deadline: Timestamp) -> bool {
        deadline < now + self.of(weight)
    }
}

// === impl BatchTime ===

impl BatchTime {
    /// Adds a batch of this weight that ended now. Nothing is learned from the first, which often loads or compiles
    /// something that the others find ready, nor from those that began before it had ended: each worker may load its own.
    pub fn add(&mut self, now: Timestamp, weight: u64, took: Duration) {
        let warm = *self.warm.get_or_insert(now);
        if now.since(warm) < took || now == warm {
            return;
        }
        let (x, mut y) = (weight as f64, nanos(took));
        if self.sums[0] > 0.0 {
            let (each, fixed) = self.line();
            let expected = each.mul_add(x, fixed);
            if y * SURPRISE < expected {
                *self = Self { warm: self.warm, ..Self::default() };
            }
            y = y.min(expected * SURPRISE);
        }
        for (sum, value) in self.sums.iter_mut().zip([1.0, x, y, x * x, x * y]) {
            *sum = sum.mul_add(1.0 - 1.0 / MEMORY, value);
        }
        let (each, fixed) = self.line();
        let deviation = (y - each.mul_add(x, fixed)).abs();
        self.deviation += (deviation - self.deviation) / DEVIATION_MEMORY;
        self.last = now;
    }

    /// The prediction for a batch that starts now. `None` if nothing recent is known.
    #[must_use]
    pub fn predict(&self, now: Timestamp) -> Option<Prediction> {
        if self.sums[0] == 0.0 {
            return None;
        }
        let (each, line) = self.line();
        let fixed = DEVIATIONS.mul_add(self.deviation, line);
        let usual_weight = self.sums[1] / self.sums[0];
        let is_old = now.nanos_since(self.last) as f64 > OLD * each.mul_add(usual_weight, fixed);
        (!is_old).then_some(Prediction { each, fixed })
    }

    /// The slope and the intercept, neither below zero. While all batches have the same size, all of their time is taken
    /// to be fixed: the next larger batch shows what is not.
    fn line(&self) -> (f64, f64) {
        let [n, x, y, xx, xy] = self.sums;
        let spread = n.mul_add(xx, -x * x);
        let each = if spread > 1e-9 * n * xx { n.mul_add(xy, -x * y) / spread } else { 0.0 };
        let fixed = each.mul_add(-x, y) / n;
        if each < 0.0 {
            (0.0, y / n)
        } else if fixed < 0.0 {
            (xy / xx, 0.0)
        } else {
            (each, fixed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Timestamp {
        Timestamp::default() + MS * (20_000 + ms)
    }

    /// The first batch has ended long ago.
    fn begun() -> BatchTime {
        let mut time = BatchTime::default();
        time.add(Timestamp::default(), 1, MS);
        time
    }

    fn item(weight: u64, deadline: Option<u32>) -> BatchItem {
        BatchItem { group: 7, weight, deadline: deadline.map(at) }
    }

    fn limits(max_items: usize, max_weight: u64) -> BatchLimits {
        BatchLimits { max_items, max_weight }
    }

    /// Batches that take 4 ms and 1 ms for each item.
    fn linear() -> BatchTime {
        let mut time = begun();
        (1..=8).for_each(|n| time.add(at(1), n, MS * (4 + n as u32)));
        time
    }

    #[test]
    fn the_first_batch_teaches_nothing_nor_do_those_that_began_before_its_end() {
        let mut time = BatchTime::default();
        for cold in 0..4 {
            time.add(at(cold), 1, MS * 10_000);
            assert!(time.predict(at(cold)).is_none());
        }
        time.add(at(8), 1, MS * 5);
        assert_eq!(ms(time.predict(at(8)).expect("it is known"), 1).round(), 5.0);
    }

    fn ms(prediction: Prediction, weight: u64) -> f64 {
        prediction.of(weight).as_secs_f64() * 1e3
    }

    #[test]
    fn a_line_is_found_and_extended() {
        let prediction = linear().predict(at(2)).expect("it is known");
        for n in [1, 8, 32] {
            assert!((ms(prediction, n) - (4 + n) as f64).abs() < 1e-3, "{prediction:?}");
        }
    }

    #[test]
    fn batches_of_one_size_predict_the_same_time_for_every_size() {
        let mut time = begun();
        (0..10).for_each(|_| time.add(at(1), 1, MS * 5));
        assert_eq!(ms(time.predict(at(1)).expect("it is known"), 32).round(), 5.0);
    }

    #[test]
    fn neither_part_of_the_line_is_negative() {
        let mut time = begun();
        (1..=8).for_each(|n| time.add(at(1), n, MS * (9 - n as u32)));
        let falling = time.predict(at(1)).expect("it is known");
        assert!(falling.each == 0.0 && falling.fixed > 0.0, "{falling:?}");
        let mut time = begun();
        (1..=8).for_each(|n| time.add(at(1), n, MS * (n * n) as u32));
        let steep = time.line();
        assert!(steep.0 > 0.0 && steep.1 == 0.0, "{steep:?}");
    }

    #[test]
    fn scattered_times_add_to_the_prediction() {
        let mut time = begun();
        (0..64).for_each(|n| time.add(at(1), 4, MS * if n % 2 == 0 { 4 } else { 6 }));
        let predicted = ms(time.predict(at(1)).expect("it is known"), 4);
        assert!((6.5..7.5).contains(&predicted), "5 and two deviations of 1: {predicted}");
    }

    #[test]
    fn one_slow_batch_changes_little() {
        let mut time = begun();
        (0..300).for_each(|_| time.add(at(1), 1, MS * 4));
        time.add(at(1), 1, MS * 10_000);
        let predicted = ms(time.predict(at(1)).expect("it is known"), 1);
        assert!((4.0..9.0).contains(&predicted), "{predicted}");
    }

    #[test]
    fn a_pool_that_becomes_slower_or_faster_is_learned() {
        let mut time = begun();
        (0..300).for_each(|_| time.add(at(1), 1, MS * 4));
        (0..100).for_each(|_| time.add(at(1), 1, MS * 4_000));
        let slow = ms(time.predict(at(1)).expect("it is known"), 1);
        assert!((2_000.0..8_000.0).contains(&slow), "{slow}");
        time.add(at(1), 1, MS * 4);
        assert_eq!(ms(time.predict(at(1)).expect("it is known"), 1).round(), 4.0);
    }

    #[test]
    fn an_old_prediction_is_not_used() {
        let time = linear();
        assert!(time.predict(at(30)).is_some() && time.predict(at(40)).is_none());
        assert!(begun().predict(at(0)).is_none());
        // Weights in tokens of 20 µs each, and nothing fixed.
        let mut time = begun();
        (1..=8).for_each(|n| time.add(at(1), n * 100, 2 * MS * n as u32));
        assert!(time.predict(at(10)).is_some() && time.predict(at(60)).is_none());
    }

    #[test]
    fn a_batch_takes_up_to_its_limits() {
        let mut batch = Growth::new(at(0), limits(3, 10), None, item(4, None));
        assert_eq!([4, 3].map(|weight| batch.join(item(weight, None))), [Join::Take, Join::Stop]);
        assert!(batch.is_complete() && batch.items() == 2 && !batch.is_cut());
        let mut batch = Growth::new(at(0), limits(3, 10), None, item(0, None));
        assert_eq!([0; 3].map(|weight| batch.join(item(weight, None))), [Join::Take, Join::Take, Join::Stop]);
    }

    #[test]
    fn an_item_above_the_weight_is_alone() {
        assert!(Growth::new(at(0), limits(3, 10), None, item(11, None)).is_complete());
        let mut batch = Growth::new(at(0), limits(3, 10), None, item(0, None));
        assert_eq!(batch.join(item(11, None)), Join::Stop);
    }

    #[test]
    fn other_groups_are_skipped() {
        let mut batch = Growth::new(at(0), limits(3, 10), None, item(1, None));
        assert_eq!(batch.join(BatchItem { group: 8, ..item(1, None) }), Join::Skip);
        assert_eq!(batch.join(item(1, None)), Join::Take);
    }

    #[test]
    fn a_batch_stops_where_it_would_miss_its_nearest_deadline() {
        let time = linear().predict(at(2));
        let mut batch = Growth::new(at(2), limits(32, 32), time, item(1, Some(10)));
        // Four take 8 ms.
        let joined: Vec<_> = (0..4).map(|_| batch.join(item(1, None))).collect();
        assert_eq!(joined, [Join::Take, Join::Take, Join::Take, Join::Stop]);
        assert!(batch.is_cut());
        let mut batch = Growth::new(at(2), limits(32, 32), time, item(1, None));
        assert_eq!(batch.join(item(1, Some(7))), Join::Stop, "two take 6 ms, and one alone can make it");
    }

    #[test]
    fn an_item_that_cannot_make_it_alone_expires_and_the_batch_grows_on() {
        let time = linear().predict(at(2));
        let mut batch = Growth::new(at(2), limits(32, 32), time, item(1, None));
        assert_eq!([Some(6), None].map(|deadline| batch.join(item(1, deadline))), [Join::Expire, Join::Take]);
        assert!(!batch.is_cut());
    }
}
