//! Admission keeps its promises through any sequence of calls.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tower_offload::Cause;
use tower_offload::admission::{
    Admission, Bounds, Discipline, Gone, Key, Limit, Moment, Offer, Outcome, Place, Priority, Settings,
};

const TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
enum Call {
    Offer { level: usize, caller: Option<u64>, deadline: Option<u64> },
    Take,
    Cancel(usize),
    Finish(usize, Outcome, u64),
    Expire,
    Pass(u64),
    Drain,
    EvictAll,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let offer = (0..4_usize, proptest::option::weighted(0.3, 0..5_u64), proptest::option::weighted(0.3, 0..200_u64));
    let offer = offer.prop_map(|(level, caller, deadline)| Call::Offer { level, caller, deadline });
    let outcome =
        prop_oneof![Just(Outcome::Ok), Just(Outcome::Error), Just(Outcome::Panicked), Just(Outcome::Cancelled)];
    let finish =
        (any::<usize>(), outcome, 0..50_u64).prop_map(|(which, outcome, ran)| Call::Finish(which, outcome, ran));
    let call = prop_oneof![
        40 => offer,
        20 => Just(Call::Take),
        10 => any::<usize>().prop_map(Call::Cancel),
        20 => finish,
        10 => Just(Call::Expire),
        20 => (0..60_u64).prop_map(Call::Pass),
        1 => Just(Call::Drain),
        1 => Just(Call::EvictAll),
    ];
    proptest::collection::vec(call, 1..400)
}

fn settings() -> impl Strategy<Value = Settings> {
    let limit = prop_oneof![
        (0..5_usize).prop_map(Limit::Fixed),
        (1..4_usize, 0..6_usize).prop_map(|(min, more)| Limit::Adaptive { min, max: min + more }),
    ];
    let discipline = prop_oneof![Just(Discipline::Fifo), Just(Discipline::Adaptive)];
    (limit, 0..20_usize, discipline).prop_map(|(limit, capacity, discipline)| {
        let short = Bounds { min: Duration::from_millis(1), max: Duration::from_millis(10) };
        Settings { limit, capacity, timeout: TIMEOUT, discipline, target: short, interval: short }
    })
}

/// What a caller would know of each job.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Queued { until: u64 },
    InFlight,
    Answered,
}

struct Model {
    admission: Admission<usize>,
    now: u64,
    draining: bool,
    jobs: Vec<Known>,
    keys: HashMap<usize, Key>,
    gone: Vec<Gone<usize>>,
}

impl Model {
    fn moment(&self) -> Moment {
        Moment::default() + Duration::from_millis(self.now)
    }

    fn pick(&self, which: usize) -> Option<usize> {
        (!self.jobs.is_empty()).then(|| which % self.jobs.len())
    }

    fn call(&mut self, call: Call) {
        let now = self.moment();
        match call {
            Call::Offer { level, caller, deadline } => self.offer(Priority::ALL[level], caller, deadline),
            Call::Take => self.take(),
            Call::Cancel(which) => self.cancel(which),
            Call::Finish(which, outcome, ran) => self.finish(which, outcome, ran),
            Call::Expire => {
                self.admission.expire(now, &mut self.gone);
                assert!(self.admission.next_expiry().is_none_or(|next| next > now), "nothing that is due is left");
            }
            Call::Pass(millis) => self.now += millis,
            Call::Drain => {
                self.draining = true;
                self.admission.drain();
            }
            Call::EvictAll => {
                self.admission.evict_all(Cause::NoWorkers, &mut self.gone);
                self.answer_gone();
                assert!(!self.jobs.iter().any(|job| matches!(job, Known::Queued { .. })), "nothing waits any more");
            }
        }
        self.answer_gone();
    }

    fn offer(&mut self, level: Priority, caller: Option<u64>, deadline: Option<u64>) {
        let (now, id) = (self.moment(), self.jobs.len());
        let until = deadline.map_or(u64::MAX, |deadline| self.now + deadline);
        let offer = Offer { deadline: deadline.map(|after| now + Duration::from_millis(after)), level, caller };
        let full = self.admission.snapshot().in_flight >= self.admission.snapshot().limit;
        match self.admission.offer(now, offer, &mut self.gone) {
            Ok(Place::InFlight(key)) => {
                assert!(!full, "no permit beyond the limit");
                self.jobs.push(Known::InFlight);
                self.keys.insert(id, key);
            }
            Ok(Place::Queued(key)) => {
                self.admission.store(key, id);
                self.jobs.push(Known::Queued { until: until.min(self.now + TIMEOUT.as_millis() as u64) });
                self.keys.insert(id, key);
            }
            Err(cause) => {
                assert!(!self.draining || cause == Cause::Draining, "a draining pool says so");
                self.jobs.push(Known::Answered);
            }
        }
    }

    fn take(&mut self) {
        let now = self.moment();
        let before = self.admission.snapshot();
        let takeable = self.admission.has_takeable();
        assert_eq!(takeable, before.queued > 0 && before.in_flight < before.limit);
        let Some(taken) = self.admission.take(now, &mut self.gone) else {
            self.answer_gone();
            assert!(!takeable || self.admission.snapshot().queued == 0, "a permit and a job come together");
            return;
        };
        assert!(takeable, "no permit beyond the limit");
        assert_eq!(self.keys[&taken.job], taken.key);
        let Known::Queued { until } = self.jobs[taken.job] else { panic!("only what waits is taken") };
        assert!(until > self.now, "a job past its deadline never starts");
        self.jobs[taken.job] = Known::InFlight;
    }

    fn cancel(&mut self, which: usize) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let waits = matches!(self.jobs[id], Known::Queued { .. });
        assert_eq!(self.admission.cancel(key), waits.then_some(id), "a stale key cancels nothing");
        if waits {
            self.jobs[id] = Known::Answered;
        }
    }

    fn finish(&mut self, which: usize, outcome: Outcome, ran: u64) {
        let Some(id) = self.pick(which) else { return };
        let Some(&key) = self.keys.get(&id) else { return };
        let (now, ran) = (self.moment(), Duration::from_millis(ran));
        let flies = self.jobs[id] == Known::InFlight;
        assert_eq!(self.admission.finish(now, key, outcome, Some(ran)), flies, "a stale key brings no permit home");
        if flies {
            self.jobs[id] = Known::Answered;
        }
    }

    fn answer_gone(&mut self) {
        for gone in self.gone.drain(..) {
            assert!(matches!(self.jobs[gone.job], Known::Queued { .. }), "one answer each");
            assert_eq!(self.keys[&gone.job], gone.key);
            self.jobs[gone.job] = Known::Answered;
        }
    }

    fn check(&mut self) {
        let seen = self.admission.snapshot();
        let queued: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|job| if let Known::Queued { until } = job { Some(*until) } else { None })
            .collect();
        let in_flight = self.jobs.iter().filter(|job| **job == Known::InFlight).count();
        assert_eq!((seen.queued, seen.in_flight), (queued.len(), in_flight), "depths are exact");
        assert!(seen.queued <= seen.capacity);
        assert_eq!(seen.counts.submitted, seen.counts.ended() + (seen.queued + seen.in_flight) as u64);
        assert_eq!(seen.counts.submitted, self.jobs.len() as u64);
        assert_eq!(self.admission.is_idle(), queued.is_empty() && in_flight == 0);
        let next = self.admission.next_expiry().map(|next| next.as_nanos() / 1_000_000);
        assert_eq!(next, queued.into_iter().min(), "the next expiry is known exactly");
        assert!(self.admission.retry_after(self.moment()) <= Duration::from_secs(60));
    }

    /// Everything ends once time passes and what is in flight finishes.
    fn finish_all(&mut self) {
        self.now += TIMEOUT.as_millis() as u64;
        self.call(Call::Expire);
        for id in 0..self.jobs.len() {
            self.finish(id, Outcome::Ok, 1);
        }
        assert!(self.jobs.iter().all(|job| *job == Known::Answered), "no job starves without an answer");
        assert!(self.admission.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_job_is_in_one_place_and_answered_once(settings in settings(), calls in calls(), seed: u64) {
        let admission = Admission::new(settings, seed);
        let mut model = Model { admission, now: 0, draining: false, jobs: Vec::new(), keys: HashMap::new(), gone: Vec::new() };
        for call in calls {
            model.call(call);
            model.check();
        }
        model.finish_all();
        model.check();
    }
}

const START: Moment = Moment::from_nanos(0);

fn after(millis: u64) -> Moment {
    START + Duration::from_millis(millis)
}

fn at(level: Priority) -> Offer {
    Offer { level, ..Offer::default() }
}

/// A pool with one job in flight; what is offered next waits.
fn busy(settings: Settings) -> (Admission<&'static str>, Key) {
    let mut admission = Admission::new(settings, 1);
    match admission.offer(START, Offer::default(), &mut Vec::new()) {
        Ok(Place::InFlight(key)) => (admission, key),
        other => panic!("an empty pool has a permit: {other:?}"),
    }
}

fn queue(admission: &mut Admission<&'static str>, now: Moment, offer: Offer, job: &'static str) -> Result<(), Cause> {
    let Place::Queued(key) = admission.offer(now, offer, &mut Vec::new())? else { panic!("it should wait") };
    admission.store(key, job);
    Ok(())
}

/// Ends the job in flight and starts the next.
fn turn(admission: &mut Admission<&'static str>, key: &mut Key, now: Moment) -> &'static str {
    assert!(admission.finish(now, *key, Outcome::Ok, Some(Duration::from_millis(1))));
    let taken = admission.take(now, &mut Vec::new()).expect("jobs wait");
    *key = taken.key;
    taken.job
}

#[test]
fn higher_levels_start_first_and_equal_ones_in_order() {
    let (mut admission, mut key) = busy(Settings::fixed(1));
    let jobs = [
        (Priority::Low, "low"),
        (Priority::Normal, "first"),
        (Priority::Critical, "critical"),
        (Priority::Normal, "second"),
    ];
    for (level, job) in jobs {
        queue(&mut admission, START, at(level), job).unwrap();
    }
    let order: Vec<_> = (0..4).map(|_| turn(&mut admission, &mut key, START)).collect();
    assert_eq!(order, ["critical", "first", "second", "low"]);
}

#[test]
fn a_lower_level_has_a_turn_after_it_was_passed_over_often() {
    let (mut admission, mut key) = busy(Settings::fixed(1));
    for _ in 0..10 {
        queue(&mut admission, START, at(Priority::Low), "low").unwrap();
    }
    let mut low = Vec::new();
    for step in 0..330 {
        queue(&mut admission, START, at(Priority::Normal), "normal").unwrap();
        if turn(&mut admission, &mut key, START) == "low" {
            low.push(step);
        }
    }
    assert_eq!(low, (1..=10).map(|turn| turn * 33 - 1).collect::<Vec<_>>(), "one turn in 33");
}

#[test]
fn a_full_queue_makes_room_for_a_higher_level_only() {
    let (mut admission, _) = busy(Settings::fixed(1).with_capacity(3));
    let mut gone = Vec::new();
    for (level, job) in [(Priority::Low, "old"), (Priority::Low, "new"), (Priority::Normal, "normal")] {
        queue(&mut admission, START, at(level), job).unwrap();
    }
    assert_eq!(queue(&mut admission, START, at(Priority::Low), "low"), Err(Cause::QueueFull));
    let Ok(Place::Queued(key)) = admission.offer(START, at(Priority::High), &mut gone) else { panic!("there is room") };
    admission.store(key, "high");
    assert_eq!(gone.iter().map(|gone| (gone.job, gone.cause)).collect::<Vec<_>>(), [("new", Cause::Shed)]);
    let counts = admission.snapshot().counts;
    assert_eq!((counts.shed, counts.rejected), (1, 1));
}

#[test]
fn a_caller_with_little_in_the_queue_gets_room_from_the_one_with_most() {
    let (mut admission, _) = busy(Settings::fixed(1).with_capacity(100));
    let by = |caller| Offer { caller: Some(caller), ..Offer::default() };
    for _ in 0..100 {
        queue(&mut admission, START, by(1), "busy").unwrap();
    }
    assert_eq!(queue(&mut admission, START, by(1), "busy"), Err(Cause::QueueFull));
    assert_eq!(queue(&mut admission, START, by(2), "quiet"), Ok(()));
    assert_eq!(admission.snapshot().counts.shed, 1);
}

#[test]
fn a_job_ends_at_its_deadline_or_at_the_queue_timeout_whichever_is_first() {
    let settings = Settings { timeout: TIMEOUT, ..Settings::fixed(1) };
    let (mut admission, _) = busy(settings);
    let mut gone = Vec::new();
    for (deadline, job) in [(None, "timeout"), (Some(50), "deadline"), (Some(500), "late deadline")] {
        queue(&mut admission, START, Offer { deadline: deadline.map(after), ..Offer::default() }, job).unwrap();
    }
    assert_eq!(admission.next_expiry(), Some(after(50)));
    admission.expire(after(50), &mut gone);
    admission.expire(after(99), &mut gone);
    assert_eq!(admission.next_expiry(), Some(after(100)));
    admission.expire(after(100), &mut gone);
    let ends: Vec<_> = gone.iter().map(|gone| (gone.job, gone.cause)).collect();
    let timeout = Cause::QueueTimeout;
    assert_eq!(ends, [("deadline", Cause::DeadlineExceeded), ("timeout", timeout), ("late deadline", timeout)]);
    let past = Offer { deadline: Some(after(100)), ..Offer::default() };
    assert_eq!(admission.offer(after(100), past, &mut gone), Err(Cause::DeadlineExceeded));
    assert_eq!(admission.snapshot().counts.expired, 4);
}

#[test]
fn who_is_refused_is_told_how_long_the_queue_takes_and_a_little_more() {
    let (mut admission, mut key) = busy(Settings { discipline: Discipline::Fifo, ..Settings::fixed(1) });
    for _ in 0..100 {
        queue(&mut admission, START, Offer::default(), "job").unwrap();
    }
    for step in 1..=10 {
        turn(&mut admission, &mut key, after(step * 100));
    }
    let answers: Vec<_> = (0..100).map(|_| admission.retry_after(after(1000)).as_millis()).collect();
    assert!(answers.iter().all(|answer| (9_100..13_650).contains(answer)), "91 jobs of 100 ms: {answers:?}");
    assert!(answers.iter().min() < answers.iter().max(), "callers do not come back together");
}

#[test]
fn overload_is_seen_once_all_waits_of_an_interval_were_long_and_is_over_soon_after() {
    let (mut admission, mut key) = busy(Settings::fixed(1));
    let mut now = 0;
    let mut seen = None;
    // Two jobs come for each that is done.
    while now < 400 {
        for _ in 0..2 {
            queue(&mut admission, after(now), Offer::default(), "job").unwrap();
        }
        now += 1;
        turn(&mut admission, &mut key, after(now));
        if admission.is_overloaded(after(now)) {
            seen.get_or_insert(now);
        }
    }
    assert!(matches!(seen, Some(100..130)), "{seen:?}: 5 ms of wait, then 100 ms of it");
    while admission.snapshot().queued > 0 {
        now += 1;
        turn(&mut admission, &mut key, after(now));
    }
    assert!(admission.is_overloaded(after(now)), "it was, just now");
    assert!(!admission.is_overloaded(after(now + 100)));
    assert!(admission.snapshot().counts.shed > 0);
}

#[test]
fn a_pool_whose_workers_are_all_stuck_counts_as_overloaded() {
    let (mut admission, _) = busy(Settings::fixed(1));
    queue(&mut admission, START, Offer::default(), "job").unwrap();
    assert!(!admission.is_overloaded(after(104)));
    assert!(admission.is_overloaded(after(105)));
}

#[test]
#[ignore = "prints figures of speed; run it with --release"]
fn a_call_costs_the_same_at_any_depth() {
    println!("| depth | offer ns | take + finish ns | cancel ns | with deadlines: offer ns | cancel ns |");
    for depth in [10_usize, 1000, 100_000] {
        let cells = [false, true].map(|deadlines| measure(depth, deadlines));
        let [plain, timed] = cells;
        println!(
            "| {depth} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            plain[0], plain[1], plain[2], timed[0], timed[2]
        );
    }
}

/// Nanoseconds of an offer, of a take with its finish, and of a cancel, in a queue of this depth.
fn measure(depth: usize, deadlines: bool) -> [f64; 3] {
    let settings = Settings { timeout: Duration::from_secs(3600), ..Settings::fixed(1) };
    let (mut admission, mut key) = busy(settings.with_capacity(depth + 10_000));
    let (mut gone, mut spent, mut chance) = (Vec::new(), [0.0; 3], 1_u64);
    let mut fill = |admission: &mut Admission<&'static str>, count: usize| {
        let keys = (0..count).map(|_| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let deadline = deadlines.then(|| START + Duration::from_nanos(1_000_000_000 + (chance >> 24)));
            let offer = Offer { deadline, ..Offer::default() };
            let Ok(Place::Queued(key)) = admission.offer(START, offer, &mut Vec::new()) else { panic!("it waits") };
            admission.store(key, "job");
            key
        });
        keys.collect::<Vec<_>>()
    };
    fill(&mut admission, depth);
    const ROUNDS: usize = 200;
    const BATCH: usize = 1000;
    for _ in 0..ROUNDS {
        let begun = std::time::Instant::now();
        let keys = fill(&mut admission, BATCH);
        spent[0] += begun.elapsed().as_nanos() as f64;
        let begun = std::time::Instant::now();
        keys.iter().for_each(|&key| assert!(admission.cancel(key).is_some()));
        spent[2] += begun.elapsed().as_nanos() as f64;
        fill(&mut admission, BATCH);
        let begun = std::time::Instant::now();
        for _ in 0..BATCH {
            admission.finish(START, key, Outcome::Ok, Some(Duration::from_micros(1)));
            key = admission.take(START, &mut gone).expect("jobs wait").key;
        }
        spent[1] += begun.elapsed().as_nanos() as f64;
    }
    spent.map(|spent| spent / (ROUNDS * BATCH) as f64)
}
