//! Admission itself: a limit, a bounded queue, and the end of waiting.

use std::time::Duration;

use super::counts::{Counts, Outcome};
use super::moment::Moment;
use super::queue::{Key, Queue};
use crate::error::Cause;

/// How many jobs may be in flight at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// So many.
    Fixed(usize),
}

/// What one pool's admission goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many jobs may be in flight.
    pub limit: Limit,
    /// How many jobs may wait.
    pub capacity: usize,
    /// How long a job may wait.
    pub timeout: Duration,
}

/// What is known of a job when it is offered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// The moment after which the job is of no use to its caller.
    pub deadline: Option<Moment>,
}

/// Where an admitted job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has its permit.
    InFlight(Key),
    /// It waits; its payload is to be stored.
    Queued(Key),
}

/// A queued job that has its permit now.
#[derive(Debug)]
pub struct Taken<T> {
    /// Its key, in flight from here on.
    pub key: Key,
    /// Its payload.
    pub job: T,
    /// How long it waited.
    pub waited: Duration,
}

/// A queued job that ended without being started.
#[derive(Debug)]
pub struct Gone<T> {
    /// Its key, not valid any more.
    pub key: Key,
    /// Its payload.
    pub job: T,
    /// Why it ended.
    pub cause: Cause,
}

/// One instant of a pool's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many jobs may be in flight.
    pub limit: usize,
    /// How many are.
    pub in_flight: usize,
    /// How many wait.
    pub queued: usize,
    /// How many may wait.
    pub capacity: usize,
    /// How many were submitted, and how they ended.
    pub counts: Counts,
}

/// Decides for one pool; see the [module](super).
#[derive(Debug)]
pub struct Admission<T> {
    settings: Settings,
    queue: Queue<T>,
    in_flight: usize,
    draining: bool,
    counts: Counts,
}

impl<T> Admission<T> {
    /// Nothing in flight, nothing queued. `seed` is for what is decided by chance.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        let _ = seed;
        Self { settings, queue: Queue::new(), in_flight: 0, draining: false, counts: Counts::default() }
    }

    /// Decides on one job in constant time. A job that is queued is then to be given to [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// The cause of a refusal; nothing is kept of the job but its count.
    pub fn offer(&mut self, now: Moment, offer: Offer, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        self.counts.submitted += 1;
        self.place(now, offer, gone).inspect_err(|&cause| self.counts.refused(cause))
    }

    fn place(&mut self, now: Moment, offer: Offer, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        if self.draining {
            return Err(Cause::Draining);
        }
        if offer.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Cause::DeadlineExceeded);
        }
        if self.queue.len() == 0 && self.in_flight < self.limit() {
            self.in_flight += 1;
            return Ok(Place::InFlight(self.queue.insert_in_flight()));
        }
        self.expire(now, gone);
        if self.queue.len() >= self.settings.capacity {
            return Err(Cause::QueueFull);
        }
        Ok(Place::Queued(self.queue.push(now, now + self.settings.timeout)))
    }

    /// Keeps the payload of a job that was just queued.
    pub fn store(&mut self, key: Key, job: T) {
        self.queue.store(key, job);
    }

    /// The next job to start, if a permit is free and one waits.
    pub fn take(&mut self, now: Moment, gone: &mut Vec<Gone<T>>) -> Option<Taken<T>> {
        self.expire(now, gone);
        if !self.has_takeable() {
            return None;
        }
        let (key, _) = self.queue.oldest()?;
        let waiter = self.queue.promote(key)?;
        self.in_flight += 1;
        Some(Taken { key, job: waiter.job, waited: now.since(waiter.since) })
    }

    /// Takes out a queued job whose caller has left. `None` if it does not wait (any more).
    pub fn cancel(&mut self, key: Key) -> Option<T> {
        let waiter = self.queue.remove(key)?;
        self.counts.cancelled += 1;
        Some(waiter.job)
    }

    /// Takes the permit of a job in flight back. Answers whether it had one.
    pub fn finish(&mut self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) -> bool {
        let _ = (now, ran);
        let held = self.queue.end(key);
        if held {
            self.in_flight -= 1;
            self.counts.finished(outcome);
        }
        held
    }

    /// Ends the waiting of every job that waited too long.
    pub fn expire(&mut self, now: Moment, gone: &mut Vec<Gone<T>>) {
        while let Some((key, until)) = self.queue.oldest() {
            if until > now {
                break;
            }
            self.evict(key, Cause::QueueTimeout, gone);
        }
    }

    /// When [`expire`](Self::expire) is due next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        self.queue.oldest().map(|(_, until)| until)
    }

    /// Refuses every further offer.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends the waiting of every job, for `cause`.
    pub fn evict_all(&mut self, cause: Cause, gone: &mut Vec<Gone<T>>) {
        while let Some((key, _)) = self.queue.oldest() {
            self.evict(key, cause, gone);
        }
    }

    /// Whether a job waits that has a permit to get.
    #[must_use]
    pub fn has_takeable(&self) -> bool {
        self.queue.len() > 0 && self.in_flight < self.limit()
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.in_flight == 0
    }

    /// The numbers of this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            limit: self.limit(),
            in_flight: self.in_flight,
            queued: self.queue.len(),
            capacity: self.settings.capacity,
            counts: self.counts,
        }
    }

    /// When a caller that was refused now should come again.
    pub fn retry_after(&mut self, _now: Moment) -> Duration {
        Duration::from_secs(1)
    }

    fn limit(&self) -> usize {
        match self.settings.limit {
            Limit::Fixed(limit) => limit,
        }
    }

    fn evict(&mut self, key: Key, cause: Cause, gone: &mut Vec<Gone<T>>) {
        if let Some(waiter) = self.queue.remove(key) {
            self.counts.refused(cause);
            gone.push(Gone { key, job: waiter.job, cause });
        }
    }
}
