//! The sums of a pool's counters over the last 15 s, and the load that follows from them. It knows no clock and no lock:
//! time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::admission::{Demand, Timestamp};

/// The time over which the load is counted.
const SPAN: Duration = Duration::from_secs(15);

/// The time between two readings of the counters.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of started tasks below which the arrivals for each of them are counted over a longer time.
const ENOUGH_STARTED: f64 = 8.0;

const LONGEST_SPAN: Duration = Duration::from_secs(300);

/// The number of readings that are kept for that. They are at least 15 s apart.
const OLDER: usize = 20;

/// A difference of counters below this is none: it comes of rounding.
const ROUNDING: f64 = 1e-6;

/// One reading of a pool's counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// The sums of its admission.
    pub demand: Demand,
    /// The CPU time of all tasks.
    pub cpu_time: Duration,
}

/// The capacity of a pool when it was read.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Its concurrency limit.
    pub permits: usize,
    /// The cores of all pools.
    pub cores: usize,
}

/// Readings of one pool's counters.
#[derive(Debug)]
pub struct Window {
    last: Sums,
    /// The oldest first. The first is the newest of those that are at least as old as the window, if there are any.
    recent: VecDeque<Entry>,
    older: VecDeque<Entry>,
}

/// Sums since the pool was made. Only `started` may fall: a queued task counts as started while a permit is free for it.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    at: Timestamp,
    arrived: f64,
    started: f64,
    failed: f64,
    /// Seconds for which all permits would have been used.
    permits: f64,
    /// Seconds for which all cores would have been used.
    cpu: f64,
}

/// The numbers that a window shows. All of them are finite, and none is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Arrivals a second × mean time of a permit for each task ÷ concurrency limit.
    pub permits: f64,
    /// Arrivals a second × mean CPU time of a task ÷ cores.
    pub cpu: f64,
    /// Tasks that were submitted a second.
    pub arrivals_per_second: f64,
    /// Tasks that failed or were rejected a second.
    pub failures_per_second: f64,
    /// Tasks arrive, and none is started.
    pub starts_none: bool,
}

// === impl Window ===

impl Window {
    /// The window of a pool that is made now.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let first = Entry { at: now, ..Entry::default() };
        Self { last: Sums::default(), recent: VecDeque::from([first]), older: VecDeque::new() }
    }

    /// Whether the last reading is so old that the next one is due.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.since(self.newest().at) >= INTERVAL
    }

    /// The time at which the next reading is due.
    #[cfg(any(test, feature = "__internals"))]
    #[must_use]
    pub fn next_due(&self) -> Timestamp {
        self.newest().at + INTERVAL
    }

    /// Adds a reading, which must be due.
    pub fn add(&mut self, now: Timestamp, sums: Sums, capacity: Capacity) {
        let before = std::mem::replace(&mut self.last, sums);
        let newest = self.newest();
        let grown = |after: Duration, before: Duration| after.saturating_sub(before).as_secs_f64();
        let permit_time = grown(sums.demand.permit_time, before.demand.permit_time);
        self.push(Entry {
            at: now,
            arrived: newest.arrived + sums.demand.arrived.saturating_sub(before.demand.arrived) as f64,
            started: newest.started + (sums.demand.started as f64 - before.demand.started as f64),
            failed: newest.failed + sums.demand.failed.saturating_sub(before.demand.failed) as f64,
            permits: newest.permits + permit_time / capacity.permits.max(1) as f64,
            cpu: newest.cpu + grown(sums.cpu_time, before.cpu_time) / capacity.cores.max(1) as f64,
        });
    }

    /// The counters have not changed since the last reading, and begin to change now.
    pub fn resume(&mut self, now: Timestamp) {
        if self.is_due(now) {
            self.push(Entry { at: now, ..self.newest() });
        }
    }

    /// Whether the counters have not changed in the whole window, and not since the last reading: `demand` is that of now.
    #[must_use]
    pub fn is_at_rest(&self, demand: &Demand) -> bool {
        let newest = self.newest();
        let begin = self.at(before(newest.at, SPAN));
        let last = &self.last.demand;
        (last.arrived, last.permit_time) == (demand.arrived, demand.permit_time)
            && (begin.arrived, begin.started, begin.permits, begin.cpu)
                == (newest.arrived, newest.started, newest.permits, newest.cpu)
    }

    /// The load up to the last reading.
    #[must_use]
    pub fn measure(&self) -> Measured {
        let newest = self.newest();
        let begin = self.at(before(newest.at, SPAN));
        let seconds = newest.at.since(begin.at).as_secs_f64();
        if seconds == 0.0 {
            return Measured::default();
        }
        let arrived = newest.arrived - begin.arrived;
        let for_each_started = self.arrived_for_each_started(newest, begin);
        let each = for_each_started.unwrap_or(1.0).max(1.0);
        Measured {
            permits: (newest.permits - begin.permits) / seconds * each,
            cpu: (newest.cpu - begin.cpu) / seconds * each,
            arrivals_per_second: arrived / seconds,
            failures_per_second: (newest.failed - begin.failed) / seconds,
            starts_none: for_each_started.is_none(),
        }
    }

    /// Arrivals for each task that was started. `None` if tasks arrive and none was started.
    fn arrived_for_each_started(&self, newest: Entry, begin: Entry) -> Option<f64> {
        let arrived = |from: &Entry| newest.arrived - from.arrived;
        let started = |from: &Entry| newest.started - from.started;
        if arrived(&begin) <= started(&begin) + ROUNDING {
            return Some(1.0);
        }
        let longest = before(newest.at, LONGEST_SPAN);
        let older = self.older.iter().rev().filter(|entry| entry.at < begin.at && entry.at >= longest);
        let mut from = begin;
        for entry in older {
            if started(&from) >= ENOUGH_STARTED {
                break;
            }
            from = *entry;
        }
        (started(&from) > ROUNDING).then(|| arrived(&from) / started(&from))
    }

    /// The sums at this time, between two readings.
    fn at(&self, time: Timestamp) -> Entry {
        let after = self.recent.partition_point(|entry| entry.at <= time);
        match (after.checked_sub(1).and_then(|before| self.recent.get(before)), self.recent.get(after)) {
            (Some(before), Some(after)) => before.towards(after, time),
            (Some(only), None) | (None, Some(only)) => *only,
            (None, None) => Entry::default(),
        }
    }

    fn push(&mut self, entry: Entry) {
        self.recent.push_back(entry);
        let begin = before(entry.at, SPAN);
        while self.recent.get(1).is_some_and(|second| second.at <= begin)
            && let Some(old) = self.recent.pop_front()
        {
            if self.older.back().is_none_or(|last| old.at.since(last.at) >= SPAN) {
                self.older.push_back(old);
            }
        }
        while self.older.len() > OLDER {
            self.older.pop_front();
        }
    }

    fn newest(&self) -> Entry {
        self.recent.back().copied().unwrap_or_default()
    }
}

// === impl Entry ===

impl Entry {
    /// A point between this and a later entry, as if everything had grown evenly.
    fn towards(&self, later: &Self, time: Timestamp) -> Self {
        let part = time.since(self.at).as_secs_f64() / later.at.since(self.at).as_secs_f64();
        let between = |from: f64, to: f64| from + (to - from) * part;
        Self {
            at: time,
            arrived: between(self.arrived, later.arrived),
            started: between(self.started, later.started),
            failed: between(self.failed, later.failed),
            permits: between(self.permits, later.permits),
            cpu: between(self.cpu, later.cpu),
        }
    }
}

fn before(time: Timestamp, span: Duration) -> Timestamp {
    Timestamp::default() + time.since(Timestamp::default()).saturating_sub(span)
}

// === impl Measured ===

impl Measured {
    /// The load of the pool.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let least = if self.starts_none { 1.0 } else { 0.0 };
        self.permits.max(self.cpu).max(least)
    }
}
