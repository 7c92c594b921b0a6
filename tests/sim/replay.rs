//! The same traffic through two settings: every request has its arrival, its work and its caller's patience from the
//! start, so that what becomes of it differs only by what admission decides.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tower_offload::Cause;
use tower_offload::admission::{Admission, Admitted, Evicted, Key, Offer, Outcome, Priority, Settings, Timestamp};

use crate::laws::Work;
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
    Refused(Cause),
}

/// What became of the requests.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) fates: Vec<Fate>,
    /// When each was answered, or its client left.
    pub(crate) ends: Vec<u64>,
    /// What each that was refused was told.
    pub(crate) retry_after: Vec<(u64, Duration)>,
    /// For how much of the time the pool showed itself as overloaded, and of how much.
    pub(crate) overloaded: u64,
    pub(crate) span: u64,
    /// The worker time of each level.
    pub(crate) worked: [u64; 4],
}

struct Run<'a> {
    requests: &'a [Request],
    admission: Admission<u32>,
    keys: Vec<Option<Key>>,
    evicted: Vec<Evicted<u32>>,
    ends: BinaryHeap<Reverse<(u64, u32)>>,
    leaves: BinaryHeap<Reverse<(u64, u32)>>,
    has_left: Vec<bool>,
    now: u64,
    replay: Replay,
    answered: Vec<bool>,
}

/// Runs the requests, which are in order of arrival, until all are answered.
pub(crate) fn replay(requests: &[Request], settings: Settings, seed: u64) -> Replay {
    let count = requests.len();
    let mut run = Run {
        requests,
        admission: Admission::new(settings, seed),
        keys: vec![None; count],
        evicted: Vec::new(),
        ends: BinaryHeap::new(),
        leaves: BinaryHeap::new(),
        has_left: vec![false; count],
        now: 0,
        replay: Replay {
            fates: vec![Fate::InVain; count],
            ends: vec![0; count],
            retry_after: Vec::new(),
            overloaded: 0,
            span: 0,
            worked: [0; 4],
        },
        answered: vec![false; count],
    };
    let mut next = 0;
    while run.step(&mut next) {}
    assert!(run.answered.iter().all(|answered| *answered), "every caller is answered");
    assert!(run.admission.is_idle());
    run.replay
}

impl Run<'_> {
    fn step(&mut self, next: &mut usize) -> bool {
        let arrival = self.requests.get(*next).map_or(u64::MAX, |request| request.at);
        let end = self.ends.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let leave = self.leaves.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let expiry = self.admission.next_expiry().map_or(u64::MAX, Timestamp::as_nanos);
        let at = arrival.min(end).min(leave).min(expiry);
        if at == u64::MAX {
            return false;
        }
        let before = self.now;
        self.now = at.max(before);
        if self.admission.is_overloaded(Timestamp::from_nanos(before)) {
            self.replay.overloaded += self.now - before;
        }
        self.replay.span = self.now;
        let now = Timestamp::from_nanos(self.now);
        if at == end {
            self.finish(now);
        } else if at == leave {
            self.leave(now);
        } else if at == expiry {
            self.admission.expire(now, &mut self.evicted);
        } else {
            self.offer(now, *next as u32);
            *next += 1;
        }
        self.answer_evicted();
        while self.admission.has_takeable() {
            if let Some(started) = self.admission.take(now, &mut self.evicted) {
                self.start(started.task);
            }
            self.answer_evicted();
        }
        true
    }

    fn offer(&mut self, now: Timestamp, id: u32) {
        let request = self.requests[id as usize];
        let deadline = request.deadline.map(|deadline| Timestamp::from_nanos(request.at + deadline));
        let offer = Offer { deadline, level: request.level, caller: request.caller, ..Offer::default() };
        if let Some(patience) = request.patience {
            self.leaves.push(Reverse((request.at + patience, id)));
        }
        match self.admission.offer(now, offer, &mut self.evicted) {
            Ok(Admitted::InFlight(key)) => {
                self.keys[id as usize] = Some(key);
                self.start(id);
            }
            Ok(Admitted::Queued(key)) => {
                self.keys[id as usize] = Some(key);
                self.admission.store(key, id);
            }
            Err(cause) => {
                let told = self.admission.retry_after(now);
                self.refuse(id, cause, told);
            }
        }
    }

    fn start(&mut self, id: u32) {
        assert!(!self.answered[id as usize], "no task starts twice, or after its answer");
        self.ends.push(Reverse((self.now + self.requests[id as usize].work, id)));
    }

    fn finish(&mut self, now: Timestamp) {
        let Some(Reverse((_, id))) = self.ends.pop() else { return };
        let (at, request) = (id as usize, self.requests[id as usize]);
        let outcome = if self.has_left[at] { Outcome::Cancelled } else { Outcome::Ok };
        let key = self.keys[at].expect("it was admitted");
        assert!(self.admission.finish(now, key, outcome, Some(Duration::from_nanos(request.work))));
        self.replay.worked[request.level as usize] += request.work;
        let late = request.deadline.is_some_and(|deadline| self.now > request.at + deadline);
        self.answer(id, if late || self.has_left[at] { Fate::InVain } else { Fate::Served });
    }

    fn leave(&mut self, now: Timestamp) {
        let Some(Reverse((_, id))) = self.leaves.pop() else { return };
        if self.answered[id as usize] {
            return;
        }
        self.has_left[id as usize] = true;
        let key = self.keys[id as usize].expect("it was admitted");
        if self.admission.cancel(now, key, Outcome::Cancelled).is_some() {
            self.answer(id, Fate::Left);
        }
    }

    fn answer_evicted(&mut self) {
        let mut evicted = std::mem::take(&mut self.evicted);
        for evicted in evicted.drain(..) {
            self.refuse(evicted.task, evicted.cause, evicted.retry_after);
        }
        self.evicted = evicted;
    }

    fn refuse(&mut self, id: u32, cause: Cause, told: Duration) {
        self.replay.retry_after.push((self.now, told));
        self.answer(id, Fate::Refused(cause));
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

    pub(crate) fn shed(&self) -> usize {
        self.count(|_, fate| fate == Fate::Refused(Cause::Shed))
    }

    /// Refused at the door, shed or expired.
    pub(crate) fn refused(&self) -> usize {
        self.count(|_, fate| matches!(fate, Fate::Refused(_)))
    }

    /// Refused, while the other served them.
    pub(crate) fn harmed(&self, other: &Self) -> usize {
        self.count(|at, fate| matches!(fate, Fate::Refused(_)) && other.fates[at] == Fate::Served)
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
