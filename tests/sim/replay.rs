//! The same traffic through two policies: every request has its arrival, its work and its caller's patience from the
//! start, so that what becomes of it differs only by what the policy decides.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tower_offload::admission::{Offer, Outcome, Priority, Timestamp};

use crate::laws::Work;
use crate::policy::{Policy, Verdict};
use crate::random::Random;
use crate::world::SECOND;

/// One request. All times are in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    pub(crate) at: u64,
    pub(crate) work: u64,
    pub(crate) level: Priority,
    pub(crate) caller: Option<u64>,
    /// After its arrival.
    pub(crate) deadline: Option<u64>,
    /// The client leaves so long after its arrival.
    pub(crate) patience: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Answered while its caller was there, and in time.
    Served,
    /// It ran, for nobody.
    InVain,
    /// Its client left the queue.
    Left,
    /// At the door, or it was shed, or expired.
    Rejected,
}

/// The result of a replay.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) fates: Vec<Fate>,
    /// When each was answered, or its client left.
    pub(crate) ends: Vec<u64>,
    /// The `retry_after` of each rejected request, and when it was rejected.
    pub(crate) retry_after: Vec<(u64, Duration)>,
    /// For how much of the time the pool showed itself as overloaded, and of how much.
    pub(crate) overloaded: u64,
    pub(crate) span: u64,
    /// The worker time of each level.
    pub(crate) worked: [u64; 4],
}

struct Run<'a> {
    requests: &'a [Request],
    policy: &'a mut dyn Policy,
    next: usize,
    ends: BinaryHeap<Reverse<(u64, u32)>>,
    leaves: BinaryHeap<Reverse<(u64, u32)>>,
    has_left: Vec<bool>,
    started: Vec<bool>,
    answered: Vec<bool>,
    verdicts: Vec<Verdict>,
    now: u64,
    replay: Replay,
}

/// Runs the requests, which are in order of arrival, until all are answered.
pub(crate) fn replay(requests: &[Request], policy: &mut dyn Policy) -> Replay {
    let count = requests.len();
    let replay = Replay {
        fates: vec![Fate::InVain; count],
        ends: vec![0; count],
        retry_after: Vec::new(),
        overloaded: 0,
        span: 0,
        worked: [0; 4],
    };
    let [has_left, started, answered] = [const { Vec::new() }; 3].map(|mut flags: Vec<bool>| {
        flags.resize(count, false);
        flags
    });
    let mut run = Run {
        requests,
        policy,
        next: 0,
        ends: BinaryHeap::new(),
        leaves: BinaryHeap::new(),
        has_left,
        started,
        answered,
        verdicts: Vec::new(),
        now: 0,
        replay,
    };
    while run.step() {}
    assert!(run.answered.iter().all(|answered| *answered), "every caller is answered");
    run.replay
}

impl Run<'_> {
    fn step(&mut self) -> bool {
        let arrival = self.requests.get(self.next).map_or(u64::MAX, |request| request.at);
        let end = self.ends.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let leave = self.leaves.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let expiry = self.policy.next_expiry().map_or(u64::MAX, Timestamp::as_nanos);
        let at = arrival.min(end).min(leave).min(expiry);
        if at == u64::MAX {
            return false;
        }
        let before = self.now;
        self.now = at.max(before);
        if self.policy.is_overloaded(Timestamp::from_nanos(before)) {
            self.replay.overloaded += self.now - before;
        }
        self.replay.span = self.now;
        let now = Timestamp::from_nanos(self.now);
        if at == end {
            self.finish(now);
        } else if at == leave {
            self.leave(now);
        } else if at == expiry {
            self.policy.expire(now, &mut self.verdicts);
        } else {
            self.offer(now);
        }
        self.apply(now);
        self.policy.take(now, &mut self.verdicts);
        self.apply(now);
        true
    }

    fn offer(&mut self, now: Timestamp) {
        let (id, request) = (self.next as u32, self.requests[self.next]);
        self.next += 1;
        let deadline = request.deadline.map(|deadline| Timestamp::from_nanos(request.at + deadline));
        let offer = Offer { deadline, level: request.level, caller: request.caller, ..Offer::default() };
        if let Some(patience) = request.patience {
            self.leaves.push(Reverse((request.at + patience, id)));
        }
        self.policy.offer(now, id, offer, &mut self.verdicts);
    }

    fn apply(&mut self, now: Timestamp) {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        for verdict in verdicts.drain(..) {
            match verdict {
                Verdict::Start(id) => {
                    let started = std::mem::replace(&mut self.started[id as usize], true);
                    assert!(!started && !self.answered[id as usize], "no task starts twice, or after its answer");
                    self.ends.push(Reverse((self.now + self.requests[id as usize].work, id)));
                }
                Verdict::Reject(id) => {
                    self.replay.retry_after.push((self.now, self.policy.retry_after(now)));
                    self.answer(id, Fate::Rejected);
                }
            }
        }
        self.verdicts = verdicts;
    }

    fn finish(&mut self, now: Timestamp) {
        let Some(Reverse((_, id))) = self.ends.pop() else { return };
        let (request, has_left) = (self.requests[id as usize], self.has_left[id as usize]);
        let outcome = if has_left { Outcome::Cancelled } else { Outcome::Ok };
        self.policy.finish(now, id, outcome, Duration::from_nanos(request.work));
        self.replay.worked[request.level as usize] += request.work;
        let late = request.deadline.is_some_and(|deadline| self.now > request.at + deadline);
        self.answer(id, if late || has_left { Fate::InVain } else { Fate::Served });
    }

    fn leave(&mut self, now: Timestamp) {
        let Some(Reverse((_, id))) = self.leaves.pop() else { return };
        if self.answered[id as usize] {
            return;
        }
        self.has_left[id as usize] = true;
        if !self.started[id as usize] {
            self.policy.cancel(now, id);
            self.answer(id, Fate::Left);
        }
    }

    fn answer(&mut self, id: u32, fate: Fate) {
        assert!(!std::mem::replace(&mut self.answered[id as usize], true), "one answer each");
        (self.replay.fates[id as usize], self.replay.ends[id as usize]) = (fate, self.now);
    }
}

impl Replay {
    pub(crate) fn count(&self, wanted: impl Fn(usize, Fate) -> bool) -> usize {
        (0..self.fates.len()).filter(|&at| wanted(at, self.fates[at])).count()
    }

    pub(crate) fn served(&self) -> usize {
        self.count(|_, fate| fate == Fate::Served)
    }

    pub(crate) fn rejected(&self) -> usize {
        self.count(|_, fate| fate == Fate::Rejected)
    }

    /// How many this one rejected while the other served them.
    pub(crate) fn harmed(&self, other: &Self) -> usize {
        self.count(|at, fate| fate == Fate::Rejected && other.fates[at] == Fate::Served)
    }
}

/// Requests at this rate a second, by chance, in this span of seconds.
pub(crate) fn steady(from: f64, until: f64, rate: f64, work: Work, random: &mut Random) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut at = from * SECOND;
    loop {
        at += random.exponential() * SECOND / rate;
        if at >= until * SECOND {
            return requests;
        }
        requests.push(Request { at: at as u64, work: work.draw(random) as u64, ..Request::default() });
    }
}

/// The same requests in order of arrival.
pub(crate) fn merged(streams: impl IntoIterator<Item = Vec<Request>>) -> Vec<Request> {
    let mut requests: Vec<_> = streams.into_iter().flatten().collect();
    requests.sort_by_key(|request| request.at);
    requests
}
