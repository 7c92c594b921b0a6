//! The simulated world: clients that arrive on schedule whatever happens, a server that slows down when crowded, and a
//! policy between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tower_offload::admission::{Offer, Outcome, Priority, Timestamp};

use crate::laws::{Crowding, Work};
use crate::policy::{Policy, Verdict};
use crate::random::Random;
use crate::score::Score;

/// Nanoseconds.
pub(crate) const MS: f64 = 1e6;
pub(crate) const SECOND: f64 = 1e9;

/// Clients of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) level: Priority,
    pub(crate) caller: Option<u64>,
    /// From when on how many requests arrive a second.
    pub(crate) rates: Vec<(f64, f64)>,
    /// How many arrive at once.
    pub(crate) batch: u32,
}

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) streams: Vec<Stream>,
    pub(crate) work: Work,
    pub(crate) crowding: Crowding,
    /// A change of the laws in the middle.
    pub(crate) change: Option<(f64, Work, Crowding)>,
    /// After this a client leaves; an answer that comes later is worth nothing.
    pub(crate) patience: f64,
    /// How often a client that was rejected or gave up asks again.
    pub(crate) retries: u8,
    /// Whether clients send their patience as a deadline.
    pub(crate) deadlines: bool,
    /// Whether the server learns that a client left.
    pub(crate) tells: bool,
    pub(crate) horizon: f64,
    /// Requests that arrive earlier do not count.
    pub(crate) warm_up: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running { since: u64 },
    Answered,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    scheduled: u64,
    stream: u16,
    tries: u8,
    left: bool,
    stage: Stage,
    work: f64,
}

struct Run<'a> {
    world: &'a World,
    policy: &'a mut dyn Policy,
    random: Random,
    now: u64,
    requests: Vec<Request>,
    arrivals: Vec<u64>,
    again: BinaryHeap<Reverse<(u64, u32)>>,
    patience: VecDeque<(u64, u32)>,
    /// The work that each running task has had, and the total at which each ends, as bits that sort like the numbers.
    done: f64,
    ends: BinaryHeap<Reverse<(u64, u32)>>,
    work: Work,
    crowding: Crowding,
    verdicts: Vec<Verdict>,
    score: Score,
}

impl Stream {
    pub(crate) fn steady(level: Priority, rate: f64) -> Self {
        Self { level, caller: None, rates: vec![(0.0, rate)], batch: 1 }
    }

    fn rate(&self, now: f64) -> (f64, f64) {
        let at = self.rates.partition_point(|&(from, _)| from <= now).max(1);
        (self.rates[at - 1].1, self.rates.get(at).map_or(f64::INFINITY, |next| next.0))
    }

    /// The next arrival after `now`. An exponential has no memory, so it is drawn anew where the rate changes.
    fn next(&self, mut now: f64, random: &mut Random) -> u64 {
        loop {
            let (rate, until) = self.rate(now);
            let next = now + random.exponential() * f64::from(self.batch) * SECOND / rate.max(1e-9);
            if next < until {
                return next as u64 + 1;
            }
            now = until;
        }
    }
}

impl World {
    pub(crate) fn new(work: Work, crowding: Crowding, patience: f64, horizon: f64) -> Self {
        Self {
            streams: Vec::new(),
            work,
            crowding,
            change: None,
            patience,
            retries: 0,
            deadlines: false,
            tells: true,
            horizon,
            warm_up: 0.0,
        }
    }

    pub(crate) fn with(mut self, stream: Stream) -> Self {
        self.streams.push(stream);
        self
    }

    /// Runs to the horizon and then until everything is answered.
    pub(crate) fn run(&self, policy: &mut dyn Policy, seed: u64) -> Score {
        let mut random = Random::new(seed);
        let arrivals = self.streams.iter().map(|stream| stream.next(0.0, &mut random)).collect();
        let mut run = Run {
            world: self,
            policy,
            random,
            now: 0,
            requests: Vec::new(),
            arrivals,
            again: BinaryHeap::new(),
            patience: VecDeque::new(),
            done: 0.0,
            ends: BinaryHeap::new(),
            work: self.work,
            crowding: self.crowding,
            verdicts: Vec::new(),
            score: Score::new(self),
        };
        while run.step() {}
        run.score
    }
}

impl Run<'_> {
    fn step(&mut self) -> bool {
        let horizon = self.world.horizon as u64;
        let (stream, arrival) = least(self.arrivals.iter().copied().map(|at| if at > horizon { u64::MAX } else { at }));
        let again = self.again.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let leave = self.patience.front().map_or(u64::MAX, |(at, _)| *at);
        let expiry = self.policy.next_expiry().map_or(u64::MAX, Timestamp::as_nanos);
        let change = self.world.change.filter(|_| self.now < horizon).map_or(u64::MAX, |(at, ..)| at as u64);
        let change = if change <= self.now { u64::MAX } else { change };
        let (event, at) = least([change, self.completion(), expiry, leave, again, arrival].into_iter());
        if at == u64::MAX {
            return false;
        }
        self.advance(at.max(self.now));
        match event {
            0 => (_, self.work, self.crowding) = self.world.change.expect("there is a change"),
            1 => self.complete(),
            2 => self.policy.expire(self.timestamp(), &mut self.verdicts),
            3 => self.leave(),
            4 => self.come_again(),
            _ => self.arrive(stream),
        }
        let now = self.timestamp();
        self.apply();
        self.policy.take(now, &mut self.verdicts);
        self.apply();
        self.policy.check();
        self.score.events += 1;
        true
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    fn completion(&self) -> u64 {
        let Some(Reverse((end, _))) = self.ends.peek() else { return u64::MAX };
        let left = (f64::from_bits(*end) - self.done).max(0.0);
        self.now + (left * self.crowding.slowdown(self.ends.len())).ceil() as u64
    }

    fn advance(&mut self, at: u64) {
        if !self.ends.is_empty() {
            self.done += (at - self.now) as f64 / self.crowding.slowdown(self.ends.len());
        }
        self.score.limit(at, self.policy.limit(), at - self.now);
        self.now = at;
    }

    fn arrive(&mut self, index: usize) {
        let stream = &self.world.streams[index];
        self.arrivals[index] = stream.next(self.now as f64, &mut self.random);
        for _ in 0..stream.batch {
            self.ask(index as u16, self.now, 0);
        }
    }

    fn come_again(&mut self) {
        let Some(Reverse((_, id))) = self.again.pop() else { return };
        let before = self.requests[id as usize];
        self.ask(before.stream, self.now, before.tries + 1);
    }

    fn ask(&mut self, stream: u16, scheduled: u64, tries: u8) {
        let id = self.requests.len() as u32;
        let due = self.now + self.world.patience as u64;
        let work = self.work.draw(&mut self.random);
        self.requests.push(Request { scheduled, stream, tries, left: false, stage: Stage::Waiting, work });
        let kind = &self.world.streams[usize::from(stream)];
        let deadline = self.world.deadlines.then(|| Timestamp::from_nanos(due));
        let offer = Offer { deadline, level: kind.level, caller: kind.caller, ..Offer::default() };
        self.score.asked(kind, scheduled);
        self.policy.offer(self.timestamp(), id, offer, &mut self.verdicts);
        self.patience.push_back((due, id));
        self.apply();
    }

    fn apply(&mut self) {
        let mut verdicts = std::mem::take(&mut self.verdicts);
        for verdict in verdicts.drain(..) {
            match verdict {
                Verdict::Start(id) => self.start(id),
                Verdict::Reject(id) => self.reject(id),
            }
        }
        self.verdicts = verdicts;
    }

    fn start(&mut self, id: u32) {
        let request = &mut self.requests[id as usize];
        assert_eq!(request.stage, Stage::Waiting, "no task starts twice, or after its answer");
        if self.world.tells {
            assert!(!request.left, "a task whose client left does not start");
        }
        request.stage = Stage::Running { since: self.now };
        self.ends.push(Reverse(((self.done + request.work).to_bits(), id)));
    }

    fn reject(&mut self, id: u32) {
        let request = &mut self.requests[id as usize];
        assert_eq!(request.stage, Stage::Waiting, "one answer each");
        request.stage = Stage::Answered;
        let (request, kind) = (*request, &self.world.streams[usize::from(request.stream)]);
        self.score.rejected(kind, request.scheduled);
        if !request.left {
            self.retry(id);
        }
    }

    fn complete(&mut self) {
        let Some(Reverse((_, id))) = self.ends.pop() else { return };
        let request = &mut self.requests[id as usize];
        let Stage::Running { since } = request.stage else { panic!("only what runs ends") };
        request.stage = Stage::Answered;
        let request = *request;
        let outcome = if request.left { Outcome::Cancelled } else { Outcome::Ok };
        let ran = Duration::from_nanos(self.now - since);
        self.policy.finish(self.timestamp(), id, outcome, ran);
        let kind = &self.world.streams[usize::from(request.stream)];
        self.score.served(kind, request.scheduled, self.now);
    }

    fn leave(&mut self) {
        let Some((_, id)) = self.patience.pop_front() else { return };
        let request = &mut self.requests[id as usize];
        if request.stage == Stage::Answered {
            return;
        }
        request.left = true;
        if request.stage == Stage::Waiting && self.world.tells {
            request.stage = Stage::Answered;
            let (request, kind) = (*request, &self.world.streams[usize::from(request.stream)]);
            self.policy.cancel(self.timestamp(), id);
            self.score.gave_up(kind, request.scheduled, self.now);
        }
        self.retry(id);
    }

    fn retry(&mut self, id: u32) {
        if self.requests[id as usize].tries < self.world.retries && self.now < self.world.horizon as u64 {
            let pause = self.world.patience * (0.5 + self.random.fraction());
            self.again.push(Reverse((self.now + pause as u64, id)));
        }
    }
}

fn least(values: impl Iterator<Item = u64>) -> (usize, u64) {
    values.enumerate().min_by_key(|&(_, value)| value).unwrap_or((0, u64::MAX))
}
