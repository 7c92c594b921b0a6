//! The policies of a simulated pool: ours, and ours with a limit that another algorithm sets.

use std::time::Duration;

use tower_offload::admission::{Admission, Admitted, Key, Limit, Offer, Outcome, Rejected, Settings, Timestamp};

use crate::reference_limits::Rule;

/// A policy's decision about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Start(u32),
    Reject(u32),
}

/// A pool's admission, as the simulated world drives it.
pub(crate) trait Policy {
    fn offer(&mut self, now: Timestamp, id: u32, offer: Offer, verdicts: &mut Vec<Verdict>);
    /// Starts what can start.
    fn take(&mut self, now: Timestamp, verdicts: &mut Vec<Verdict>);
    fn cancel(&mut self, now: Timestamp, id: u32);
    fn finish(&mut self, now: Timestamp, id: u32, outcome: Outcome, ran: Duration);
    fn expire(&mut self, now: Timestamp, verdicts: &mut Vec<Verdict>);
    fn next_expiry(&self) -> Option<Timestamp>;
    fn limit(&self) -> usize;
    /// Whether it shows itself as overloaded.
    fn is_overloaded(&self, _now: Timestamp) -> bool {
        false
    }
    /// The answer to a caller that is rejected now: when to come again.
    fn retry_after(&mut self, _now: Timestamp) -> Duration {
        Duration::ZERO
    }
    /// Panics where a promise is broken.
    fn check(&self);
}

/// The crate's own admission.
pub(crate) struct Ours {
    pub(crate) admission: Admission<u32>,
    keys: Vec<Option<Key>>,
    rejected: Vec<Rejected<u32>>,
    rule: Option<Box<dyn Rule>>,
    most: usize,
}

impl Ours {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let admission = Admission::new(settings, seed);
        Self { admission, keys: Vec::new(), rejected: Vec::new(), rule: None, most: settings.limit.most() }
    }

    /// Our queue, with the limit of another algorithm.
    pub(crate) fn limited_by(rule: Box<dyn Rule>, settings: Settings, seed: u64) -> Self {
        let mut ours = Self::new(Settings { limit: Limit::Fixed(rule.limit()), ..settings }, seed);
        ours.most = usize::MAX;
        ours.rule = Some(rule);
        ours
    }

    fn tell(&mut self, verdicts: &mut Vec<Verdict>) {
        verdicts.extend(self.rejected.drain(..).map(|rejected| Verdict::Reject(rejected.task)));
    }

    fn keep(&mut self, id: u32, key: Key) {
        let id = id as usize;
        self.keys.resize(self.keys.len().max(id + 1), None);
        self.keys[id] = Some(key);
    }
}

impl Policy for Ours {
    fn offer(&mut self, now: Timestamp, id: u32, offer: Offer, verdicts: &mut Vec<Verdict>) {
        match self.admission.offer(now, offer, &mut self.rejected) {
            Ok(Admitted::InFlight(key)) => {
                self.keep(id, key);
                verdicts.push(Verdict::Start(id));
            }
            Ok(Admitted::Queued(key)) => {
                self.keep(id, key);
                self.admission.store(key, id);
            }
            Err(_) => verdicts.push(Verdict::Reject(id)),
        }
        self.tell(verdicts);
    }

    fn take(&mut self, now: Timestamp, verdicts: &mut Vec<Verdict>) {
        while self.admission.has_takeable() {
            let taken = self.admission.take(now, &mut self.rejected);
            verdicts.extend(taken.map(|taken| Verdict::Start(taken.task)));
        }
        self.tell(verdicts);
    }

    fn cancel(&mut self, now: Timestamp, id: u32) {
        let key = self.keys[id as usize].expect("only what was queued is cancelled");
        assert_eq!(
            self.admission.cancel(now, key, Outcome::Cancelled),
            Some(id),
            "a queued task leaves at once, with its own payload"
        );
        assert_eq!(self.admission.cancel(now, key, Outcome::Cancelled), None, "and only once");
    }

    fn finish(&mut self, now: Timestamp, id: u32, outcome: Outcome, ran: Duration) {
        let key = self.keys[id as usize].expect("only what was started finishes");
        let in_flight = self.admission.snapshot().in_flight;
        assert!(self.admission.finish(now, key, outcome, Some(ran)), "the permit comes home");
        assert!(!self.admission.finish(now, key, outcome, Some(ran)), "and only once");
        if let Some(rule) = &mut self.rule {
            rule.sample(now, ran, in_flight, outcome == Outcome::Cancelled);
            self.admission.set_limit(rule.limit());
        }
    }

    fn expire(&mut self, now: Timestamp, verdicts: &mut Vec<Verdict>) {
        self.admission.expire(now, &mut self.rejected);
        self.tell(verdicts);
    }

    fn next_expiry(&self) -> Option<Timestamp> {
        self.admission.next_expiry()
    }

    fn limit(&self) -> usize {
        self.admission.snapshot().limit
    }

    fn is_overloaded(&self, now: Timestamp) -> bool {
        self.admission.is_overloaded(now)
    }

    fn retry_after(&mut self, now: Timestamp) -> Duration {
        self.admission.retry_after(now)
    }

    fn check(&self) {
        let now = self.admission.snapshot();
        assert!(now.in_flight <= self.most, "in flight {} of {}", now.in_flight, self.most);
        assert!(now.queued <= now.capacity, "queued {} of {}", now.queued, now.capacity);
        let known = now.counts.ended() + (now.queued + now.in_flight) as u64;
        assert_eq!(now.counts.submitted, known, "every task is in one place");
    }
}
