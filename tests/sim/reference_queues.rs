//! Queue disciplines of others, written from their descriptions, over one plain FIFO queue with a fixed limit.

use std::collections::VecDeque;
use std::time::Duration;

use tower_offload::admission::{Offer, Outcome, Timestamp};

use crate::policy::{Policy, Verdict};
use crate::world::MS;

/// When a reference lets a request in, and whether it still starts it when its turn comes.
pub(crate) trait Discipline {
    fn admits(&mut self, _now: u64, _offer: Offer, _id: u32, _head_wait: u64, _in_system: usize) -> bool {
        true
    }
    fn starts(&mut self, _now: u64, _wait: u64) -> bool {
        true
    }
    fn finished(&mut self, _now: u64) {}
}

pub(crate) struct Reference<D> {
    discipline: D,
    limit: usize,
    capacity: usize,
    queue: VecDeque<(u32, u64)>,
    /// Queued tasks whose clients left; they are skipped.
    left: Vec<bool>,
    queued: usize,
    in_flight: usize,
}

impl<D: Discipline> Reference<D> {
    pub(crate) fn new(discipline: D, limit: usize, capacity: usize) -> Self {
        Self { discipline, limit, capacity, queue: VecDeque::new(), left: Vec::new(), queued: 0, in_flight: 0 }
    }

    fn has_left(&self, id: u32) -> bool {
        self.left.get(id as usize).copied().unwrap_or(false)
    }
}

impl<D: Discipline> Policy for Reference<D> {
    fn offer(&mut self, now: Timestamp, id: u32, offer: Offer, verdicts: &mut Vec<Verdict>) {
        let now = now.as_nanos();
        while self.queue.front().is_some_and(|&(id, _)| self.has_left(id)) {
            self.queue.pop_front();
        }
        let wait = self.queue.front().map_or(0, |(_, since)| now - since);
        let in_system = self.queued + self.in_flight;
        let admits = self.discipline.admits(now, offer, id, wait, in_system);
        if !admits || self.queued >= self.capacity {
            verdicts.push(Verdict::Reject(id));
        } else {
            self.queue.push_back((id, now));
            self.queued += 1;
        }
    }

    fn take(&mut self, now: Timestamp, verdicts: &mut Vec<Verdict>) {
        while self.in_flight < self.limit {
            let Some((id, since)) = self.queue.pop_front() else { return };
            if self.has_left(id) {
                continue;
            }
            self.queued -= 1;
            let now = now.as_nanos();
            if self.discipline.starts(now, now - since) {
                self.in_flight += 1;
                verdicts.push(Verdict::Start(id));
            } else {
                verdicts.push(Verdict::Reject(id));
            }
        }
    }

    fn cancel(&mut self, _now: Timestamp, id: u32) {
        self.left.resize(self.left.len().max(id as usize + 1), false);
        self.left[id as usize] = true;
        self.queued -= 1;
    }

    fn finish(&mut self, now: Timestamp, _id: u32, _outcome: Outcome, _ran: Duration) {
        self.in_flight -= 1;
        self.discipline.finished(now.as_nanos());
    }

    fn expire(&mut self, _now: Timestamp, _verdicts: &mut Vec<Verdict>) {}

    fn next_expiry(&self) -> Option<Timestamp> {
        None
    }

    fn limit(&self) -> usize {
        self.limit
    }

    fn check(&self) {
        assert!(self.in_flight <= self.limit && self.queued <= self.capacity);
    }
}

/// Everything is let in and started.
pub(crate) struct NoControl;

impl Discipline for NoControl {}

/// folly's Codel with its own constants: late if the least wait of 100 ms was above 5 ms; then 10 ms is too late.
#[derive(Default)]
pub(crate) struct FollyCodel {
    least: u64,
    until: u64,
    reset: bool,
    overloaded: bool,
}

impl Discipline for FollyCodel {
    fn starts(&mut self, now: u64, wait: u64) -> bool {
        let (target, interval) = (5.0 * MS, 100.0 * MS);
        if now > self.until && !self.reset {
            self.until = now + interval as u64;
            self.overloaded = self.least as f64 > target;
            self.reset = true;
        }
        if self.reset {
            self.reset = false;
            self.least = wait;
            return true;
        }
        self.least = self.least.min(wait);
        !(self.overloaded && wait as f64 > 2.0 * target)
    }
}

/// DAGOR: every second or 2,000 requests, a mean wait above 20 ms lowers the level that is admitted so that 5% fewer
/// come in, and otherwise 1% more do. A level is the priority and, within it, one of 128 kinds of users.
pub(crate) struct Dagor {
    threshold: usize,
    arrived: Vec<u32>,
    admitted: u32,
    seen: u32,
    waits: (f64, u32),
    since: u64,
}

const KINDS: usize = 128;

impl Default for Dagor {
    fn default() -> Self {
        let levels = 4 * KINDS;
        Self { threshold: levels, arrived: vec![0; levels], admitted: 0, seen: 0, waits: (0.0, 0), since: 0 }
    }
}

impl Dagor {
    fn turn(&mut self, now: u64) {
        let mean = self.waits.0 / f64::from(self.waits.1.max(1));
        let overloaded = mean > 20.0 * MS;
        let aim = f64::from(self.admitted) + if overloaded { -0.05 } else { 0.01 } * f64::from(self.seen);
        let mut expected = 0.0;
        self.threshold = self.arrived.len();
        for (level, count) in self.arrived.iter().enumerate() {
            expected += f64::from(*count);
            if expected > aim {
                self.threshold = level;
                break;
            }
        }
        self.arrived.fill(0);
        (self.admitted, self.seen, self.waits, self.since) = (0, 0, (0.0, 0), now);
    }
}

impl Discipline for Dagor {
    fn admits(&mut self, now: u64, offer: Offer, id: u32, _head_wait: u64, _in_system: usize) -> bool {
        if self.seen >= 2000 || now - self.since > 1000 * MS as u64 {
            self.turn(now);
        }
        let kind = (id.wrapping_mul(2_654_435_761) >> 25) as usize;
        let level = offer.level as usize * KINDS + kind;
        self.seen += 1;
        self.arrived[level] += 1;
        let admits = level < self.threshold;
        self.admitted += u32::from(admits);
        admits
    }

    fn starts(&mut self, _now: u64, wait: u64) -> bool {
        self.waits = (self.waits.0 + wait as f64, self.waits.1 + 1);
        true
    }
}

/// Breakwater's two halves at the server: credits that follow the queueing delay, and a drop at twice its target, which
/// is two fifths of the time that clients allow.
pub(crate) struct Breakwater {
    target: f64,
    credits: f64,
    period: u64,
    since: u64,
    delay: u64,
}

impl Breakwater {
    pub(crate) fn new(patience: f64, limit: usize, work: f64) -> Self {
        Self { target: 0.4 * patience, credits: limit as f64 * 2.0, period: work as u64, since: 0, delay: 0 }
    }
}

impl Discipline for Breakwater {
    fn admits(&mut self, now: u64, _offer: Offer, _id: u32, head_wait: u64, in_system: usize) -> bool {
        if now - self.since > self.period {
            self.since = now;
            let delay = self.delay.max(head_wait) as f64;
            if delay < self.target {
                self.credits += (self.credits * 0.02).max(1.0);
            } else {
                self.credits *= (1.0 - 0.02 * (delay - self.target) / self.target).max(0.5);
            }
            self.delay = 0;
        }
        (in_system as f64) < self.credits.max(1.0) && (head_wait as f64) < 2.0 * self.target
    }

    fn starts(&mut self, _now: u64, wait: u64) -> bool {
        self.delay = self.delay.max(wait);
        true
    }
}
