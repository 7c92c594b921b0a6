//! Admission itself: every rule about order, limits, lateness and refusal, put together.

use std::time::Duration;

use super::counts::{Counts, Outcome, Snapshot};
use super::deadlines::Deadlines;
use super::lanes::Lanes;
use super::limiter::Limiter;
use super::moment::{Moment, nanos};
use super::pace::{Lateness, Pace};
use super::random::Random;
use super::settings::{Discipline, Offer, Settings};
use super::slab::{Key, Slab, State};
use crate::error::Cause;

/// How many late jobs one rule of a take ends at most, so that a long queue that is all late is not ended under one lock.
const BATCH: usize = 32;

/// The same for a call that does nothing else.
const LARGE_BATCH: usize = 1024;

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

/// Decides for one pool; see the [module](super).
#[derive(Debug)]
pub struct Admission<T> {
    settings: Settings,
    slab: Slab<T>,
    lanes: Lanes,
    deadlines: Deadlines,
    queued: usize,
    in_flight: usize,
    limiter: Limiter,
    pace: Pace,
    /// Whether even the best served level is late.
    late: Lateness,
    draining: bool,
    counts: Counts,
    random: Random,
    /// When a job last started, and the time of the last call.
    started: Moment,
    clock: Moment,
}

impl<T> Admission<T> {
    /// Nothing in flight, nothing queued. `seed` is for what is decided by chance.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            slab: Slab::new(),
            lanes: Lanes::new(),
            deadlines: Deadlines::default(),
            queued: 0,
            in_flight: 0,
            limiter: Limiter::new(settings.limit),
            pace: Pace::new(&settings),
            late: Lateness::default(),
            draining: false,
            counts: Counts::default(),
            random: Random::new(seed),
            started: Moment::default(),
            clock: Moment::default(),
        }
    }

    /// Decides on one job in constant time. A job that is queued is then to be given to [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// The cause of a refusal; nothing is kept of the job but its count.
    pub fn offer(&mut self, now: Moment, offer: Offer, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        let may_start = self.queued == 0 && self.in_flight < self.limiter.current();
        self.decide(now, offer, may_start, gone)
    }

    /// Like [`offer`](Self::offer), where nobody is there to start the job now: it waits, though it be within the
    /// limit. Jobs that the limit has permits for take no place in the queue from the others.
    ///
    /// # Errors
    ///
    /// The cause of a refusal; nothing is kept of the job but its count.
    pub fn offer_to_wait(&mut self, now: Moment, offer: Offer, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        self.decide(now, offer, false, gone)
    }

    /// Counts a job that was refused for a reason of its own, and never offered.
    pub fn turn_away(&mut self, cause: Cause) {
        self.counts.submitted += 1;
        self.counts.refused(cause);
    }

    /// Keeps the payload of a job that was just queued.
    pub fn store(&mut self, key: Key, job: T) {
        if let Some(index) = self.slab.find(key, State::Queued) {
            self.slab.at_mut(index).job = Some(job);
        }
    }

    /// The next job to start, if a permit is free and one waits. Jobs that are found too late end on the way; after so
    /// many of them that others should have the lock, the answer is `None` and more may be had.
    pub fn take(&mut self, now: Moment, gone: &mut Vec<Gone<T>>) -> Option<Taken<T>> {
        self.clock = now;
        if !self.has_takeable() {
            return None;
        }
        let enough = gone.len() + BATCH;
        self.end_due(now, BATCH, gone);
        while gone.len() <= enough {
            let level = self.lanes.turn()?;
            let newest_first = self.shed_late(now, level, gone);
            let run = self.pace.run();
            let Some(index) = self.lanes.get(level).next(run, newest_first) else { continue };
            if let Some(cause) = self.unfit(now, index) {
                self.evict(index, cause, gone);
                continue;
            }
            return Some(self.start(now, level, index));
        }
        None
    }

    /// Takes out a queued job whose caller has left, or was told that it is too late; `outcome` says how that counts.
    /// `None` if it does not wait (any more).
    pub fn cancel(&mut self, now: Moment, key: Key, outcome: Outcome) -> Option<T> {
        self.clock = now;
        let index = self.slab.find(key, State::Queued)?;
        self.pace.lost(&self.settings, now.since(self.slab.at(index).since));
        self.unlink(index);
        self.counts.finished(outcome);
        self.slab.remove(index)
    }

    /// Takes the permit of a job in flight back. `ran` is how long it executed, if it did. Answers whether it had a
    /// permit.
    pub fn finish(&mut self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) -> bool {
        self.clock = now;
        let Some(index) = self.slab.find(key, State::InFlight) else { return false };
        let slot = self.slab.at(index);
        let (level, share, mark, held) = (slot.level, slot.share, slot.mark, now.since(slot.since));
        if let Some(ran) = ran {
            self.pace.learn(&self.settings, ran, self.stretch(), held);
            self.limiter.ended(now, mark, outcome, held);
        }
        self.lanes.get(usize::from(level)).ended(share, nanos(ran.unwrap_or_default()));
        self.slab.remove(index);
        self.in_flight -= 1;
        self.counts.finished(outcome);
        true
    }

    /// Ends the waiting of jobs that waited too long: of all, or of so many that others should have the lock. Then
    /// [`next_expiry`](Self::next_expiry) is now or before.
    pub fn expire(&mut self, now: Moment, gone: &mut Vec<Gone<T>>) {
        self.clock = now;
        self.end_due(now, LARGE_BATCH, gone);
    }

    /// When [`expire`](Self::expire) is due next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Moment> {
        self.next_due().map(|(moment, ..)| moment)
    }

    /// When the waiting of a job ends that is queued now.
    #[must_use]
    pub fn expiry_of(&self, now: Moment, offer: Offer) -> Moment {
        let timeout = now + self.settings.timeout;
        offer.deadline.map_or(timeout, |deadline| deadline.min(timeout))
    }

    /// Refuses every further offer.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends the waiting of every job, for `cause`.
    pub fn evict_all(&mut self, cause: Cause, gone: &mut Vec<Gone<T>>) {
        while let Some(index) = self.oldest() {
            self.evict(index, cause, gone);
        }
    }

    /// Sets a fixed limit anew. An adaptive one finds its own.
    pub fn set_limit(&mut self, limit: usize) {
        if let Limiter::Fixed(fixed) = &mut self.limiter {
            *fixed = limit;
        }
    }

    /// Whether a job waits that has a permit to get.
    #[must_use]
    pub fn has_takeable(&self) -> bool {
        self.queued > 0 && self.in_flight < self.limiter.current()
    }

    /// How many jobs wait that have a permit to get.
    #[must_use]
    pub fn takeable(&self) -> usize {
        self.free_permits().min(self.queued)
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.queued == 0 && self.in_flight == 0
    }

    /// Whether even the best served jobs wait too long, or did within the last interval, or would if any were started.
    #[must_use]
    pub fn is_overloaded(&self, now: Moment) -> bool {
        let longest = self.pace.target + self.pace.interval;
        let stuck = |index| now.nanos_since(self.slab.at(index).since.max(self.started)) >= longest;
        self.late.lasted(now, &self.pace) || self.oldest().is_some_and(stuck)
    }

    /// When a caller that was refused now should come again: how long the jobs that wait take to start at the present
    /// rate, and up to half of that on top.
    pub fn retry_after(&mut self, now: Moment) -> Duration {
        self.clock = now;
        self.pace.retry_after(self.queued + 1, self.in_flight, &mut self.random)
    }

    /// How many jobs were ever offered.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.counts.submitted
    }

    /// How many wait.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// The numbers of this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            limit: self.limiter.current(),
            in_flight: self.in_flight,
            queued: self.queued,
            capacity: self.settings.capacity,
            counts: self.counts,
            overloaded: self.is_overloaded(self.clock),
        }
    }

    fn decide(&mut self, now: Moment, offer: Offer, may_start: bool, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        self.clock = now;
        self.counts.submitted += 1;
        self.place(now, offer, may_start, gone).inspect_err(|&cause| self.counts.refused(cause))
    }

    fn place(&mut self, now: Moment, offer: Offer, may_start: bool, gone: &mut Vec<Gone<T>>) -> Result<Place, Cause> {
        if self.draining {
            return Err(Cause::Draining);
        }
        if offer.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Cause::DeadlineExceeded);
        }
        if may_start {
            return Ok(Place::InFlight(self.start_at_once(now, offer)));
        }
        if self.is_full() {
            self.make_room(now, offer, gone)?;
        }
        Ok(Place::Queued(self.enqueue(now, offer)))
    }

    /// Whether no further job can wait. Those that the limit has permits for, and that only wait for somebody to start
    /// them, take no place.
    fn is_full(&self) -> bool {
        self.queued >= self.settings.capacity + self.free_permits()
    }

    fn free_permits(&self) -> usize {
        self.limiter.current().saturating_sub(self.in_flight)
    }

    /// How much longer a job would execute if as many ran as the limit says, where fewer do because the cores are
    /// taken: the wait that comes of sharing them is what the limit allows, and nothing to be called late.
    fn stretch(&self) -> f64 {
        (self.in_flight + self.takeable()) as f64 / self.in_flight.max(1) as f64
    }

    fn start_at_once(&mut self, now: Moment, offer: Offer) -> Key {
        self.late.clear(now);
        let level = offer.level as u8;
        let key = self.slab.insert(State::InFlight, now, level);
        let run = self.pace.run();
        let mark = self.limiter.started(now, false, run);
        let share = self.lanes.get(usize::from(level)).start(&mut self.slab, offer.caller, run);
        let slot = self.slab.at_mut(key.index());
        (slot.mark, slot.share) = (mark, share);
        self.in_flight += 1;
        self.started = now;
        key
    }

    fn enqueue(&mut self, now: Moment, offer: Offer) -> Key {
        let key = self.slab.insert(State::Queued, now, offer.level as u8);
        let index = key.index();
        self.lanes.push(&mut self.slab, index, offer.caller, self.pace.run());
        if let Some(deadline) = offer.deadline.filter(|&deadline| deadline < now + self.settings.timeout) {
            self.slab.at_mut(index).deadline = Some(deadline);
            self.deadlines.insert(&mut self.slab, deadline, index);
        }
        self.queued += 1;
        key
    }

    /// Ends what is due; failing that, sheds the newest of the lowest level below; failing that, of a busier caller.
    fn make_room(&mut self, now: Moment, offer: Offer, gone: &mut Vec<Gone<T>>) -> Result<(), Cause> {
        self.end_due(now, BATCH, gone);
        if !self.is_full() {
            return Ok(());
        }
        let level = offer.level as usize;
        let beside = |admission: &mut Self| admission.lanes.get(level).least_beside(offer.caller);
        let index = self.lanes.least_below(level).or_else(|| beside(self)).ok_or(Cause::QueueFull)?;
        self.evict(index, Cause::Shed, gone);
        Ok(())
    }

    fn start(&mut self, now: Moment, level: usize, index: u32) -> Taken<T> {
        let run = self.pace.run();
        self.lanes.took(level);
        self.unlink(index);
        self.in_flight += 1;
        self.started = now;
        let full = self.queued > 0 && self.in_flight >= self.limiter.current();
        let mark = self.limiter.started(now, full, run);
        let key = self.slab.key(index);
        let slot = self.slab.at_mut(index);
        let waited = now.since(slot.since);
        (slot.state, slot.since, slot.mark) = (State::InFlight, now, mark);
        let job = slot.job.take().expect("a job without payload is unfit to start");
        let share = slot.share;
        self.lanes.get(level).started(share, run);
        Taken { key, job, waited }
    }

    /// Observes how long this level waits, and whether it is late for good: then its newest is next, and those that
    /// waited hopelessly long end here.
    fn shed_late(&mut self, now: Moment, level: usize, gone: &mut Vec<Gone<T>>) -> bool {
        let lane = self.lanes.get(level);
        let Some(oldest) = lane.oldest() else { return false };
        let wait = now.nanos_since(self.slab.at(oldest).since);
        lane.late.observe(now, wait, &self.pace);
        self.late.observe(now, wait, &self.pace);
        if self.settings.discipline == Discipline::Fifo || !lane.late.lasts() {
            return false;
        }
        for _ in 0..BATCH {
            let oldest = self.lanes.get(level).oldest();
            let Some(index) = oldest.filter(|&index| now.nanos_since(self.slab.at(index).since) > self.pace.hopeless)
            else {
                break;
            };
            self.evict(index, Cause::Shed, gone);
        }
        true
    }

    /// Ends up to `most` jobs whose time is up.
    fn end_due(&mut self, now: Moment, most: usize, gone: &mut Vec<Gone<T>>) {
        for _ in 0..most {
            match self.next_due() {
                Some((due, index, cause)) if due <= now => self.evict(index, cause, gone),
                _ => break,
            }
        }
    }

    /// The oldest job of the highest level that waits.
    fn oldest(&self) -> Option<u32> {
        self.lanes.oldest().next()
    }

    /// Whose time is up first, and why.
    fn next_due(&self) -> Option<(Moment, u32, Cause)> {
        let oldest = self.lanes.oldest();
        let timeouts = oldest.map(|index| (self.slab.at(index).since + self.settings.timeout, index));
        let timeout = timeouts.min().map(|(due, index)| (due, index, Cause::QueueTimeout));
        let deadline = self.deadlines.first().map(|(due, index)| (due, index, Cause::DeadlineExceeded));
        timeout.into_iter().chain(deadline).min_by_key(|(due, ..)| *due)
    }

    /// Why this job must not start.
    fn unfit(&self, now: Moment, index: u32) -> Option<Cause> {
        let slot = self.slab.at(index);
        if slot.job.is_none() {
            return Some(Cause::CutOff);
        }
        if slot.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Cause::DeadlineExceeded);
        }
        (slot.since + self.settings.timeout <= now).then_some(Cause::QueueTimeout)
    }

    fn evict(&mut self, index: u32, cause: Cause, gone: &mut Vec<Gone<T>>) {
        let key = self.slab.key(index);
        if cause == Cause::DeadlineExceeded {
            self.pace.lost(&self.settings, self.clock.since(self.slab.at(index).since));
        }
        self.unlink(index);
        self.counts.refused(cause);
        // A payload is missing only if whoever queued the job failed before it was stored.
        gone.extend(self.slab.remove(index).map(|job| Gone { key, job, cause }));
    }

    /// Takes a job out of the queue; what becomes of its slot is the caller's.
    fn unlink(&mut self, index: u32) {
        self.lanes.unlink(&mut self.slab, index, self.clock);
        self.deadlines.remove(&mut self.slab, index);
        self.queued -= 1;
        if self.queued == 0 {
            self.late.clear(self.clock);
        }
    }
}
