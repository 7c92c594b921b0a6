//! Admission keeps its promises through any sequence of calls.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use tower_offload::Cause;
use tower_offload::admission::{
    Admission, Bounds, Discipline, Gone, Key, Level, Limit, Moment, Offer, Outcome, Place, Settings,
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
            Call::Offer { level, caller, deadline } => self.offer(Level::ALL[level], caller, deadline),
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

    fn offer(&mut self, level: Level, caller: Option<u64>, deadline: Option<u64>) {
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
