//! The invariants of admission, checked after every call of any sequence of calls.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tower_offload::Reason;
use tower_offload::admission::{
    Admission, Admitted, Bounds, Discipline, Finish, Join, Key, Limit, Offer, Outcome, Priority, Rejected, Settings,
    SharedPermit, Timestamp,
};

/// An expiry after this time, in milliseconds, counts as never. It is a little before the last timestamp.
const END: u64 = u64::MAX / 1_000_000 - 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    Offer {
        level: usize,
        caller: Option<u64>,
        deadline: Option<u64>,
        /// No worker can start it now.
        waits: bool,
        patient: bool,
    },
    /// A new task runs inside the permit of another.
    OfferRiding {
        deadline: Option<u64>,
    },
    Ride(usize),
    /// A queued task is awaited: it starts at once if a permit is free.
    StartAwaited(usize),
    Take,
    Cancel(usize),
    Finish(usize, Outcome, Option<u64>),
    /// Queued tasks join the batch of a task in flight: so many at most, and which do depends on the second number.
    TakeMore(usize, u64),
    /// A task of a batch of so many ends.
    FinishShared(usize, u32, Option<u64>),
    /// A task in flight goes on without its permit.
    ReleasePermit(usize, Option<u64>),
    Expire,
    Pass(u64),
    /// The clock of the next calls is behind that of the last one by these milliseconds.
    Back(u64),
    Limit(usize),
    Drain,
    RejectAll(Reason),
}

pub(crate) const OUTCOMES: [Outcome; 7] = [
    Outcome::Ok,
    Outcome::Error,
    Outcome::Panicked,
    Outcome::Cancelled,
    Outcome::Expired,
    Outcome::Rejected,
    Outcome::Stalled,
];

/// Makes the calls, and checks every invariant after each.
pub(crate) fn check(settings: Settings, seed: u64, calls: impl IntoIterator<Item = Call>) {
    let mut model = Model::new(settings, seed);
    for call in calls {
        model.call(call);
        model.check();
    }
    model.finish_all();
    model.check();
}

/// A call at any time: the time, the method, the caller, the deadline, and how long a task ran.
pub(crate) type Extreme = (Timestamp, u8, Option<u64>, Option<Timestamp>, Duration);

/// Makes calls at any time, forward and back, with any spans: nothing overflows, and every task stays counted once.
#[allow(dead_code, reason = "libFuzzer does not use it")]
pub(crate) fn check_extremes(settings: Settings, seed: u64, calls: Vec<Extreme>) {
    let mut admission = Admission::new(settings, seed);
    let (mut rejected, mut keys) = (Vec::new(), Vec::new());
    for (now, kind, caller, deadline, ran) in calls {
        let level = Priority::ALL[usize::from(kind) % 4];
        let offer = Offer { deadline, level, caller, patient: kind == 3, ..Offer::default() };
        let admitted = match kind {
            0..4 => Some(admission.offer(now, offer, &mut rejected)),
            4 | 5 => Some(admission.offer_to_wait(now, offer, &mut rejected)),
            _ => None,
        };
        match admitted {
            Some(Ok(Admitted::InFlight(key))) => keys.push(key),
            Some(Ok(Admitted::Queued(key))) => {
                admission.store(key, ());
                keys.push(key);
                _ = admission.expiry_of(now, offer);
            }
            _ => {}
        }
        let key = keys.get(ran.subsec_nanos() as usize % keys.len().max(1)).copied();
        match (kind, key) {
            (6..8, _) => keys.extend(admission.take(now, &mut rejected).map(|started| started.key)),
            (8..10, Some(key)) => {
                _ = admission.finish(now, key, OUTCOMES[usize::from(kind) % OUTCOMES.len()], Some(ran));
            }
            (10, Some(key)) => _ = admission.cancel(now, key, Outcome::Cancelled),
            (11, _) => admission.expire(now, &mut rejected),
            _ => {}
        }
        _ = (admission.is_overloaded(now), admission.next_expiry());
        assert!(admission.retry_after(now) <= Duration::from_secs(90));
        let seen = admission.snapshot();
        assert_eq!(seen.counts.submitted, seen.counts.ended() + (seen.queued + seen.in_flight) as u64);
    }
    admission.reject_all(Reason::CutOff, &mut rejected);
    for key in keys {
        admission.finish(Timestamp::default(), key, Outcome::Ok, Some(Duration::MAX));
    }
    assert!(admission.is_idle());
}

/// Reads settings, a seed and calls from any bytes.
pub(crate) fn decode(data: &[u8]) -> (Settings, u64, Vec<Call>) {
    let mut bytes = data.iter().copied();
    let (settings, seed) = decode_settings(&mut || usize::from(bytes.next().unwrap_or_default()));
    let mut calls = Vec::new();
    while let Some(kind) = bytes.next() {
        calls.push(decode_call(kind, &mut || usize::from(bytes.next().unwrap_or_default())));
    }
    (settings, seed, calls)
}

fn decode_settings(next: &mut impl FnMut() -> usize) -> (Settings, u64) {
    let kinds = next();
    let millis = |count: usize| Duration::from_millis(count as u64);
    let limit = match kinds & 1 {
        0 => Limit::Fixed(next() % 16),
        _ => Limit::Adaptive { min: next() % 8, max: next() % 32 },
    };
    let discipline = if kinds & 2 == 0 { Discipline::Fifo } else { Discipline::Adaptive };
    let timeout = [millis(100), millis(1), millis(30_000), Duration::MAX][kinds >> 2 & 3];
    let capacity = next();
    let longest = |count| if count == 255 { Duration::MAX } else { millis(count * 8) };
    let mut bounds = || Bounds { min: longest(next()), max: longest(next()) };
    let (target, interval) = (bounds(), bounds());
    (Settings { limit, capacity, timeout, discipline, target, interval }, next() as u64)
}

fn decode_call(kind: u8, next: &mut impl FnMut() -> usize) -> Call {
    match kind % 32 {
        0..10 => {
            let ask = next();
            let mut some = |bit| (ask & bit != 0).then(|| next() as u64);
            Call::Offer {
                level: ask & 3,
                caller: some(4),
                deadline: some(8),
                waits: ask & 16 != 0,
                patient: ask & 96 == 96,
            }
        }
        10..14 => Call::Take,
        14 => match next() {
            which @ 0..96 => Call::Ride(which),
            which @ 96..128 => Call::StartAwaited(which - 96),
            which => Call::ReleasePermit(which - 128, (which & 1 != 0).then(|| next() as u64)),
        },
        15 => match next() {
            ask @ 0..96 => Call::OfferRiding { deadline: (ask & 1 != 0).then(|| next() as u64) },
            most @ 96..176 => Call::TakeMore(most - 96, next() as u64),
            ask => Call::FinishShared(next(), ask as u32 - 175, (ask & 1 != 0).then(|| next() as u64)),
        },
        16..18 => Call::Cancel(next()),
        18..24 => {
            let (which, how) = (next(), next());
            Call::Finish(which, OUTCOMES[how % OUTCOMES.len()], (how & 64 == 0).then(|| next() as u64))
        }
        24 => Call::Expire,
        25..28 => Call::Pass(next() as u64),
        28 => match next() {
            255 => Call::Pass(3_600_000),
            millis => Call::Pass(millis as u64 * 256),
        },
        29 => Call::Back(next() as u64 % 4),
        30 => Call::Limit(next() % 16),
        _ => match next() % 4 {
            0 => Call::RejectAll(Reason::NoWorkers),
            1 => Call::RejectAll(Reason::CutOff),
            2 => Call::RejectAll(Reason::Draining),
            _ => Call::Drain,
        },
    }
}

/// The state of a task in the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Queued { until: u64, level: usize },
    InFlight,
    Riding,
    Answered,
}

struct Model {
    settings: Settings,
    admission: Admission<usize>,
    now: u64,
    /// The latest time of a call, and how far behind it the clock ever was.
    latest: u64,
    behind: u64,
    draining: bool,
    /// Whether any task had a caller.
    shared: bool,
    /// The highest limit so far.
    most: usize,
    tasks: Vec<Known>,
    keys: HashMap<usize, Key>,
    rejected: Vec<Rejected<usize>>,
}

impl Model {
    fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            admission: Admission::new(settings, seed),
            now: 0,
            latest: 0,
            behind: 0,
            draining: false,
            shared: false,
            most: 0,
            tasks: Vec::new(),
            keys: HashMap::new(),
            rejected: Vec::new(),
        }
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::default() + Duration::from_millis(self.now)
    }

    fn timeout(&self) -> u64 {
        u64::try_from(self.settings.timeout.as_millis()).unwrap_or(u64::MAX)
    }

    fn pick(&self, which: usize) -> Option<usize> {
        (!self.tasks.is_empty()).then(|| which % self.tasks.len())
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Offer { level, caller, deadline, waits, patient } => {
                self.offer(level, caller, deadline, waits, patient);
            }
            Call::OfferRiding { deadline } => self.offer_riding(deadline),
            Call::Ride(which) => self.ride(which),
            Call::StartAwaited(which) => self.start_awaited(which),
            Call::TakeMore(most, choice) => self.take_more(most, choice),
            Call::FinishShared(which, tasks, ran) => {
                let ran = ran.map(Duration::from_millis);
                let batch = Some(SharedPermit { tasks, cut: tasks.is_multiple_of(2) });
                self.finish_as(which, Finish { outcome: Outcome::Ok, ran, reader: Duration::ZERO, batch });
            }
            Call::ReleasePermit(which, ran) => self.release_permit(which, ran),
            Call::Take => self.take(),
            Call::Cancel(which) => self.cancel(which),
            Call::Finish(which, outcome, ran) => self.finish(which, outcome, ran),
            Call::Expire => {
                let now = self.timestamp();
                self.admission.expire(now, &mut self.rejected);
                assert!(self.admission.next_expiry().is_none_or(|next| next > now), "nothing that is due is left");
            }
            Call::Pass(millis) => {
                self.now += millis;
                self.latest = self.latest.max(self.now);
            }
            Call::Back(millis) => {
                self.now = self.now.saturating_sub(millis);
                self.behind = self.behind.max(self.latest - self.now);
            }
            Call::Limit(limit) => {
                let before = self.admission.snapshot().limit;
                self.admission.set_limit(limit);
                let fixed = matches!(self.settings.limit, Limit::Fixed(_));
                assert_eq!(self.admission.snapshot().limit, if fixed { limit } else { before });
            }
            Call::Drain => {
                self.draining = true;
                self.admission.drain();
            }
            Call::RejectAll(reason) => {
                self.admission.reject_all(reason, &mut self.rejected);
                assert!(
                    self.rejected.iter().all(|rejected| rejected.reason == reason),
                    "each is rejected for this reason"
                );
                self.answer_evicted();
                assert!(
                    !self.tasks.iter().any(|task| matches!(task, Known::Queued { .. })),
                    "nothing is queued any more"
                );
            }
        }
        self.answer_evicted();
    }

    fn offer(&mut self, level: usize, caller: Option<u64>, deadline: Option<u64>, waits: bool, patient: bool) {
        let (now, id) = (self.timestamp(), self.tasks.len());
        let until = deadline.map(|after| now + Duration::from_millis(after));
        let offer = Offer { deadline: until, level: Priority::ALL[level], caller, patient, ..Offer::default() };
        let had_room = self.admission.has_room();
        let before = self.admission.snapshot();
        self.shared |= caller.is_some();
        let offered = if waits {
            self.admission.offer_to_wait(now, offer, &mut self.rejected)
        } else {
            self.admission.offer(now, offer, &mut self.rejected)
        };
        let known = match offered {
            Ok(Admitted::InFlight(key)) => {
                assert!(!waits, "`offer_to_wait` starts nothing");
                assert!(before.permits < before.limit, "no permit beyond the limit");
                assert_eq!(before.queued, 0, "no task starts before the queued ones");
                self.keys.insert(id, key);
                Known::InFlight
            }
            Ok(Admitted::Queued(key)) => {
                self.admission.store(key, id);
                self.keys.insert(id, key);
                Known::Queued {
                    until: {
                        let timeout = if patient { u64::MAX } else { self.timeout() };
                        self.now.saturating_add(deadline.unwrap_or(u64::MAX).min(timeout))
                    },
                    level,
                }
            }
            Err(reason) => {
                let expected = match deadline {
                    _ if self.draining => Reason::Draining,
                    Some(0) => Reason::DeadlineExceeded,
                    _ => Reason::QueueFull,
                };
                assert_eq!(reason, expected);
                let places = before.capacity + before.limit.saturating_sub(before.permits);
                assert!(reason != Reason::QueueFull || before.queued >= places, "there was room");
                Known::Answered
            }
        };
        assert!(!self.draining || known == Known::Answered, "a draining pool takes nothing");
        let in_time = deadline != Some(0);
        assert!(!had_room || self.draining || !in_time || known != Known::Answered, "there was room");
        // A patient task that finds the queue full is not counted: it is offered again.
        if !(patient && offered == Err(Reason::QueueFull)) {
            self.tasks.push(known);
        }
    }

    fn offer_riding(&mut self, deadline: Option<u64>) {
        let (now, id) = (self.timestamp(), self.tasks.len());
        let until = deadline.map(|after| now + Duration::from_millis(after));
        let known = match self.admission.offer_riding(now, Offer { deadline: until, ..Offer::default() }) {
            Ok(key) => {
                assert!(!self.draining && deadline != Some(0));
                self.keys.insert(id, key);
                Known::Riding
            }
            Err(reason) => {
                assert_eq!(reason, if self.draining { Reason::Draining } else { Reason::DeadlineExceeded });
                Known::Answered
            }
        };
        self.tasks.push(known);
    }

    fn ride(&mut self, which: usize) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let waits = matches!(self.tasks[id], Known::Queued { .. });
        assert_eq!(
            self.admission.start_riding(self.timestamp(), key),
            waits.then_some(id),
            "only a queued task can start in place"
        );
        if waits {
            self.tasks[id] = Known::Riding;
        }
    }

    fn start_awaited(&mut self, which: usize) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let (now, before) = (self.timestamp(), self.admission.snapshot());
        let waits = matches!(self.tasks[id], Known::Queued { .. });
        // An adaptive limit may move within this call, because time has passed.
        let moves = matches!(self.settings.limit, Limit::Adaptive { .. });
        let started = self.admission.start_awaited(now, key);
        assert!(moves || started.is_some() == (waits && before.permits < before.limit), "a permit is all it needs");
        if let Some(started) = started {
            assert_eq!((started.task, started.key, waits), (id, key, true), "only a queued task can start");
            self.tasks[id] = Known::InFlight;
        }
    }

    fn take(&mut self) {
        let now = self.timestamp();
        let before = self.admission.snapshot();
        let takeable = self.admission.has_takeable();
        assert_eq!(takeable, before.queued > 0 && before.permits < before.limit);
        let taken = self.admission.take(now, &mut self.rejected);
        let shed = self.rejected.iter().any(|rejected| rejected.reason == Reason::Shed);
        assert!(!shed || self.admission.takeable() == 0, "no task is shed while a permit is free for it");
        let given_up = !self.rejected.is_empty();
        self.answer_evicted();
        let Some(taken) = taken else {
            assert!(!takeable || given_up, "a queued task starts if a permit is free");
            return;
        };
        // An adaptive limit may move within this call, because time has passed.
        let moves = matches!(self.settings.limit, Limit::Adaptive { .. });
        assert!(takeable || moves && before.queued > 0, "no permit beyond the limit");
        assert_eq!(self.keys[&taken.task], taken.key);
        let Known::Queued { until, level } = self.tasks[taken.task] else { panic!("only a queued task is taken") };
        assert!(until > self.now, "a task past its deadline never starts");
        if self.settings.discipline == Discipline::Fifo && !self.shared {
            let waits = |task: &Known| matches!(task, Known::Queued { level: other, .. } if *other == level);
            assert!(!self.tasks[..taken.task].iter().any(waits), "a level is served in order");
        }
        self.tasks[taken.task] = Known::InFlight;
    }

    fn take_more(&mut self, most: usize, choice: u64) {
        let (now, before) = (self.timestamp(), self.admission.snapshot());
        let (mut batch, mut expired, mut stopped) = (Vec::new(), HashSet::new(), false);
        let join = |&id: &usize| {
            assert!(!stopped, "nothing is looked at after the batch is complete");
            match (id as u64 ^ choice).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60 {
                0..8 => Join::Take,
                8..12 => Join::Skip,
                12..15 => {
                    expired.insert(id);
                    Join::Expire
                }
                _ => {
                    stopped = true;
                    Join::Stop
                }
            }
        };
        self.admission.take_more(now, most, join, &mut batch, &mut self.rejected);
        assert!(batch.len() <= most);
        assert_eq!(self.admission.snapshot().permits, before.permits, "a batch takes no permit");
        for rejected in self.rejected.extract_if(.., |rejected| expired.contains(&rejected.task)) {
            assert_eq!(rejected.reason, Reason::DeadlineExceeded);
            self.tasks[rejected.task] = Known::Answered;
        }
        self.answer_evicted();
        let mut order = Vec::new();
        for id in batch {
            let Known::Queued { until, level } = self.tasks[id] else { panic!("only a queued task joins") };
            assert!(until > self.now, "a task past its deadline never starts");
            order.push((level, id));
            self.tasks[id] = Known::Riding;
        }
        let by_level = |pair: &[(usize, usize)]| pair[0].0 <= pair[1].0;
        assert!(order.windows(2).all(by_level), "the highest levels come first");
        if self.settings.discipline == Discipline::Fifo && !self.shared {
            assert!(order.is_sorted(), "a level is served in order");
        }
    }

    fn cancel(&mut self, which: usize) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let waits = matches!(self.tasks[id], Known::Queued { .. });
        assert_eq!(
            self.admission.cancel(self.timestamp(), key, Outcome::Cancelled),
            waits.then_some(id),
            "a stale key cancels nothing"
        );
        if waits {
            self.tasks[id] = Known::Answered;
        }
    }

    fn release_permit(&mut self, which: usize, ran: Option<u64>) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let had_one = self.tasks[id] == Known::InFlight;
        let released = self.admission.release_permit(self.timestamp(), key, ran.map(Duration::from_millis));
        assert_eq!(released, had_one, "a permit is released once");
        if had_one {
            self.tasks[id] = Known::Riding;
        }
    }

    fn finish(&mut self, which: usize, outcome: Outcome, ran: Option<u64>) {
        let ran = ran.map(Duration::from_millis);
        self.finish_as(which, Finish { outcome, ran, reader: Duration::ZERO, batch: None });
    }

    fn finish_as(&mut self, which: usize, finish: Finish) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let in_flight = matches!(self.tasks[id], Known::InFlight | Known::Riding);
        let ended = self.admission.finish_as(self.timestamp(), key, finish);
        assert_eq!(ended, in_flight, "a stale key releases no permit");
        if in_flight {
            self.tasks[id] = Known::Answered;
        }
    }

    fn answer_evicted(&mut self) {
        for rejected in self.rejected.drain(..) {
            let Known::Queued { until, .. } = self.tasks[rejected.task] else { panic!("a task is answered once") };
            let late = matches!(rejected.reason, Reason::DeadlineExceeded | Reason::QueueTimeout);
            assert!(!late || until <= self.now, "no task expires early");
            assert_eq!(self.keys[&rejected.task], rejected.key);
            self.tasks[rejected.task] = Known::Answered;
        }
    }

    fn check(&mut self) {
        let seen = self.admission.snapshot();
        let waiting = |task: &Known| if let Known::Queued { until, .. } = task { Some(*until) } else { None };
        let queued: Vec<_> = self.tasks.iter().filter_map(waiting).collect();
        let those = |wanted| self.tasks.iter().filter(|task| **task == wanted).count();
        let (permits, in_flight) = (those(Known::InFlight), those(Known::InFlight) + those(Known::Riding));
        assert_eq!((seen.queued, seen.in_flight, seen.permits), (queued.len(), in_flight, permits), "depths are exact");
        let permitted = self.keys.values().filter(|key| self.admission.has_permit(**key)).count();
        assert_eq!(permitted, permits, "each permit is that of one task");
        self.most = self.most.max(seen.limit);
        assert!(seen.queued + permits <= seen.capacity + self.most, "no more tasks than the limit and the capacity");
        assert_eq!(seen.counts.submitted, seen.counts.ended() + (seen.queued + seen.in_flight) as u64);
        assert_eq!(seen.counts.submitted, self.tasks.len() as u64);
        let alone = (self.admission.submitted(), self.admission.queued());
        assert_eq!(alone, (seen.counts.submitted, seen.queued), "the single getters agree with the snapshot");
        if let Limit::Adaptive { min, max } = self.settings.limit {
            assert!((min.max(1)..=max.max(min).max(1)).contains(&seen.limit), "the limit stays in its bounds");
        }
        assert_eq!(self.admission.is_idle(), queued.is_empty() && in_flight == 0);
        let next = self.admission.next_expiry().map(|next| next.as_nanos() / 1_000_000);
        let soonest = queued.into_iter().filter(|until| *until < END).min();
        let next = next.filter(|next| *next < END);
        // Tasks are queued in the order of arrival. If the clock went back, a task due later can be ahead of another.
        let known = next.zip(soonest).is_none_or(|(next, due)| (due..=due + self.behind).contains(&next));
        // An adaptive limit may move earlier.
        let moves = matches!(self.settings.limit, Limit::Adaptive { .. });
        let known = known || next < soonest && moves;
        assert!((next.is_some() == soonest.is_some() || moves) && known, "{next:?}, {soonest:?}");
        assert!(self.admission.retry_after(self.timestamp()) <= Duration::from_secs(90));
    }

    /// Lets time pass, rejects every queued task and finishes every task in flight. Then every task must have its answer.
    fn finish_all(&mut self) {
        self.now = self.latest + self.timeout().min(60_000);
        self.latest = self.now;
        self.call(Call::Expire);
        // Patient tasks have no queue timeout.
        self.call(Call::RejectAll(Reason::CutOff));
        for id in 0..self.tasks.len() {
            self.finish(id, Outcome::Ok, Some(1));
        }
        assert!(self.tasks.iter().all(|task| *task == Known::Answered), "no task starves without an answer");
        assert!(self.admission.is_idle());
    }
}
