//! Admission itself: every rule about order, limits, lateness and refusal, put together.

use std::time::Duration;

use super::codel::{Codel, Lateness};
use super::counts::{Counts, Outcome, Snapshot};
use super::deadlines::Deadlines;
use super::limiter::Limiter;
use super::permits::Permits;
use super::priority_queue::PriorityQueue;
use super::random::Random;
use super::settings::{Discipline, Offer, Settings};
use super::slab::{Key, Slab, State};
use super::timestamp::{Timestamp, nanos};
use crate::error::Cause;

/// How many late tasks one rule of a take ends at most, so that a long queue that is all late is not ended under one lock.
const BATCH: usize = 32;

/// The same for a call that does nothing else.
const LARGE_BATCH: usize = 1024;

/// Where an admitted task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It has its permit.
    InFlight(Key),
    /// It waits; its payload is to be stored.
    Queued(Key),
}

/// A queued task that has its permit now.
#[derive(Debug)]
pub struct Started<T> {
    /// Its key, in flight from here on.
    pub key: Key,
    /// Its payload.
    pub task: T,
    /// How long it waited.
    pub waited: Duration,
}

/// A queued task that ended without being started.
#[derive(Debug)]
pub struct Evicted<T> {
    /// Its key, not valid any more: the end of this task is counted, and it needs no [`finish`](Admission::finish).
    pub key: Key,
    /// Its payload.
    pub task: T,
    /// Why it ended.
    pub cause: Cause,
    /// When its caller should come again.
    pub retry_after: Duration,
}

/// Decides for one pool; see the [module](super).
#[derive(Debug)]
pub struct Admission<T> {
    settings: Settings,
    slab: Slab<T>,
    levels: PriorityQueue,
    deadlines: Deadlines,
    queued: usize,
    permits: Permits,
    /// How many tasks are in flight without a permit.
    riding: usize,
    limiter: Limiter,
    codel: Codel,
    /// Whether even the best served level is late.
    late: Lateness,
    draining: bool,
    counts: Counts,
    random: Random,
    /// When a task last started, and the time of the last call.
    started: Timestamp,
    clock: Timestamp,
}

impl<T> Admission<T> {
    /// Nothing in flight, nothing queued. `seed` is for what is decided by chance.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            slab: Slab::new(),
            levels: PriorityQueue::new(),
            deadlines: Deadlines::default(),
            queued: 0,
            permits: Permits::default(),
            riding: 0,
            limiter: Limiter::new(settings.limit),
            codel: Codel::new(&settings),
            late: Lateness::default(),
            draining: false,
            counts: Counts::default(),
            random: Random::new(seed),
            started: Timestamp::default(),
            clock: Timestamp::default(),
        }
    }

    /// Decides on one task in constant time. A task that is queued is then to be given to [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// The cause of a refusal; nothing is kept of the task but its count.
    pub fn offer(&mut self, now: Timestamp, offer: Offer, evicted: &mut Vec<Evicted<T>>) -> Result<Admitted, Cause> {
        let may_start = self.queued == 0 && self.permits.in_use() < self.limiter.current();
        self.decide(now, offer, may_start, evicted)
    }

    /// Like [`offer`](Self::offer), where nobody is there to start the task now: it waits, though it be within the
    /// limit. Tasks that the limit has permits for take no place in the queue from the others.
    ///
    /// # Errors
    ///
    /// The cause of a refusal; nothing is kept of the task but its count.
    pub fn offer_to_wait(
        &mut self,
        now: Timestamp,
        offer: Offer,
        evicted: &mut Vec<Evicted<T>>,
    ) -> Result<Admitted, Cause> {
        self.decide(now, offer, false, evicted)
    }

    /// Counts a task that was refused for a reason of its own, and never offered.
    pub fn count_rejected(&mut self, cause: Cause) {
        self.counts.submitted += 1;
        self.counts.refused(cause);
    }

    /// Keeps the payload of a task that was just queued.
    pub fn store(&mut self, key: Key, task: T) {
        if let Some(index) = self.slab.find(key, State::Queued) {
            self.slab.at_mut(index).task = Some(task);
        }
    }

    /// The next task to start, if a permit is free and one waits. Tasks that are found too late end on the way; after so
    /// many of them that others should have the lock, the answer is `None` and more may be had.
    pub fn take(&mut self, now: Timestamp, evicted: &mut Vec<Evicted<T>>) -> Option<Started<T>> {
        self.clock = now;
        if !self.has_takeable() {
            return None;
        }
        let enough = evicted.len() + BATCH;
        self.end_due(now, BATCH, evicted);
        while evicted.len() <= enough {
            let level = self.levels.turn()?;
            let newest_first = self.shed_late(now, level, evicted);
            let run = self.codel.run();
            let Some(index) = self.levels.get(level).next(&self.slab, run, newest_first) else { continue };
            if let Some(cause) = self.unfit(now, index) {
                self.evict(index, cause, evicted);
                continue;
            }
            return Some(self.start(now, level, index));
        }
        None
    }

    /// Takes out a queued task whose caller has left, or was told that it is too late; `outcome` says how that counts.
    /// `None` if it does not wait (any more).
    pub fn cancel(&mut self, now: Timestamp, key: Key, outcome: Outcome) -> Option<T> {
        self.clock = now;
        let index = self.slab.find(key, State::Queued)?;
        self.codel.lost(&self.settings, now.since(self.slab.at(index).since));
        self.unlink(index);
        self.counts.finished(outcome);
        self.slab.remove(index)
    }

    /// Takes a queued task out of the queue and makes it in flight without a permit: it runs in place, inside the permit
    /// of the task that awaits it. `None` if it does not wait (any more).
    pub fn start_riding(&mut self, now: Timestamp, key: Key) -> Option<T> {
        self.clock = now;
        let index = self.slab.find(key, State::Queued).filter(|&index| self.slab.at(index).task.is_some())?;
        self.unlink(index);
        self.riding += 1;
        let slot = self.slab.at_mut(index);
        slot.state = State::Riding;
        slot.task.take()
    }

    /// Whether the task was started and has not ended.
    #[must_use]
    pub fn is_in_flight(&self, key: Key) -> bool {
        [State::InFlight, State::Riding].into_iter().any(|state| self.slab.find(key, state).is_some())
    }

    /// Admits a task that runs in place, inside the permit of the task that awaits it, without waiting.
    ///
    /// # Errors
    ///
    /// The cause of a refusal: the deadline has passed, or the pool is draining and the task was not accepted before.
    pub fn offer_riding(&mut self, now: Timestamp, offer: Offer) -> Result<Key, Cause> {
        self.clock = now;
        self.counts.submitted += 1;
        self.refusal(now, offer).inspect_err(|&cause| self.counts.refused(cause))?;
        self.riding += 1;
        Ok(self.slab.insert(State::Riding, now, offer.level as u8))
    }

    /// The number of the permit that a task in flight has, from zero; of the free numbers each takes the lowest. They are
    /// below the limit, unless that was lowered while they were in use.
    #[must_use]
    pub fn permit_of(&self, key: Key) -> Option<u32> {
        self.slab.find(key, State::InFlight).map(|index| self.slab.at(index).place)
    }

    /// Ends a task in flight, and takes its permit back if it has one. `ran` is how long it executed, if it did. Answers
    /// whether it was in flight.
    pub fn finish(&mut self, now: Timestamp, key: Key, outcome: Outcome, ran: Option<Duration>) -> bool {
        self.clock = now;
        if let Some(index) = self.slab.find(key, State::Riding) {
            self.slab.remove(index);
            self.riding -= 1;
            self.counts.finished(outcome);
            return true;
        }
        let Some(index) = self.slab.find(key, State::InFlight) else { return false };
        let slot = self.slab.at(index);
        let (level, share, mark, held) = (slot.level, slot.share, slot.mark, now.since(slot.since));
        if let Some(ran) = ran {
            self.codel.learn(&self.settings, ran, self.stretch(), held);
            self.limiter.ended(now, mark, outcome, held);
        }
        self.levels.get(usize::from(level)).ended(share, nanos(ran.unwrap_or_default()));
        self.permits.release(self.slab.at(index).place);
        self.slab.remove(index);
        self.counts.finished(outcome);
        true
    }

    /// Ends the waiting of tasks that waited too long: of all, or of so many that others should have the lock. Then
    /// [`next_expiry`](Self::next_expiry) is now or before.
    pub fn expire(&mut self, now: Timestamp, evicted: &mut Vec<Evicted<T>>) {
        self.clock = now;
        self.end_due(now, LARGE_BATCH, evicted);
    }

    /// When [`expire`](Self::expire) is due next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.next_due().map(|(moment, ..)| moment)
    }

    /// When the waiting of a task ends that is queued now.
    #[must_use]
    pub fn expiry_of(&self, now: Timestamp, offer: Offer) -> Timestamp {
        let timeout = self.timeout_of(now, offer.patient);
        offer.deadline.map_or(timeout, |deadline| deadline.min(timeout))
    }

    /// Whether a task can be queued, whatever its priority is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_full()
    }

    /// Refuses every further offer.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends the waiting of every task, for `cause`.
    pub fn evict_all(&mut self, cause: Cause, evicted: &mut Vec<Evicted<T>>) {
        while let Some(index) = self.levels.any() {
            self.evict(index, cause, evicted);
        }
    }

    /// Sets a fixed limit anew. An adaptive one finds its own.
    pub fn set_limit(&mut self, limit: usize) {
        if let Limiter::Fixed(fixed) = &mut self.limiter {
            *fixed = limit;
        }
    }

    /// Whether a task waits that has a permit to get.
    #[must_use]
    pub fn has_takeable(&self) -> bool {
        self.queued > 0 && self.permits.in_use() < self.limiter.current()
    }

    /// How many tasks wait that have a permit to get.
    #[must_use]
    pub fn takeable(&self) -> usize {
        self.free_permits().min(self.queued)
    }

    /// Whether nothing waits and nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queued == 0 && self.in_flight() == 0
    }

    /// Whether even the best served tasks wait too long, or did within the last interval, or would if any were started.
    #[must_use]
    pub fn is_overloaded(&self, now: Timestamp) -> bool {
        let longest = self.codel.target + self.codel.interval;
        let stuck = |index| now.nanos_since(self.slab.at(index).since.max(self.started)) >= longest;
        self.late.lasted(now, &self.codel) || self.levels.oldest().next().is_some_and(stuck)
    }

    /// When a caller that was refused now should come again: how long the tasks that wait take to start at the present
    /// rate, and up to half of that on top.
    pub fn retry_after(&mut self, now: Timestamp) -> Duration {
        self.clock = now;
        self.codel.retry_after(self.queued + 1, self.permits.in_use(), &mut self.random)
    }

    /// How many tasks were ever offered.
    #[must_use]
    pub const fn submitted(&self) -> u64 {
        self.counts.submitted
    }

    /// How many tasks are in flight, those that ride included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.permits.in_use() + self.riding
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
            in_flight: self.in_flight(),
            permits: self.permits.in_use(),
            queued: self.queued,
            capacity: self.settings.capacity,
            counts: self.counts,
            overloaded: self.is_overloaded(self.clock),
        }
    }

    fn decide(
        &mut self,
        now: Timestamp,
        offer: Offer,
        may_start: bool,
        evicted: &mut Vec<Evicted<T>>,
    ) -> Result<Admitted, Cause> {
        self.clock = now;
        let placed = self.place(now, offer, may_start, evicted);
        // A task that comes back is counted when it comes again.
        if placed != Err(Cause::QueueFull) || !offer.comes_back() {
            self.counts.submitted += 1;
            placed.inspect_err(|&cause| self.counts.refused(cause))
        } else {
            placed
        }
    }

    fn place(
        &mut self,
        now: Timestamp,
        offer: Offer,
        may_start: bool,
        evicted: &mut Vec<Evicted<T>>,
    ) -> Result<Admitted, Cause> {
        self.refusal(now, offer)?;
        if may_start {
            return Ok(Admitted::InFlight(self.start_at_once(now, offer)));
        }
        if self.is_full() {
            self.make_room(now, offer, evicted)?;
        }
        Ok(Admitted::Queued(self.enqueue(now, offer)))
    }

    /// Whether the task is refused however much room there is.
    fn refusal(&self, now: Timestamp, offer: Offer) -> Result<(), Cause> {
        if self.draining && !offer.accepted {
            return Err(Cause::Draining);
        }
        if offer.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Cause::DeadlineExceeded);
        }
        Ok(())
    }

    /// Whether no further task can wait. Those that the limit has permits for, and that only wait for somebody to start
    /// them, take no place.
    fn is_full(&self) -> bool {
        self.queued >= self.settings.capacity + self.free_permits()
    }

    fn free_permits(&self) -> usize {
        self.limiter.current().saturating_sub(self.permits.in_use())
    }

    /// How much longer a task would execute if as many ran as the limit says, where fewer do because the cores are
    /// taken: the wait that comes of sharing them is what the limit allows, and nothing to be called late.
    fn stretch(&self) -> f64 {
        {
            let running = self.permits.in_use();
            (running + self.takeable()) as f64 / running.max(1) as f64
        }
    }

    fn start_at_once(&mut self, now: Timestamp, offer: Offer) -> Key {
        self.late.clear(now);
        let level = offer.level as u8;
        let key = self.slab.insert(State::InFlight, now, level);
        let run = self.codel.run();
        let mark = self.limiter.started(now, false, run);
        let share = self.levels.get(usize::from(level)).start(&mut self.slab, offer.caller, run);
        let slot = self.slab.at_mut(key.index());
        (slot.mark, slot.share, slot.place) = (mark, share, self.permits.take());
        self.started = now;
        key
    }

    fn enqueue(&mut self, now: Timestamp, offer: Offer) -> Key {
        let key = self.slab.insert(State::Queued, now, offer.level as u8);
        let index = key.index();
        let deadline = offer.deadline.unwrap_or(Timestamp::MAX);
        let slot = self.slab.at_mut(index);
        (slot.deadline, slot.patient) = (deadline, offer.patient);
        self.levels.push(&mut self.slab, index, offer.caller, self.codel.run());
        if deadline < self.timeout_of(now, offer.patient) {
            self.deadlines.insert(&mut self.slab, deadline, index);
        }
        self.queued += 1;
        key
    }

    /// Ends what is due; failing that, sheds the newest of the lowest level below; failing that, of a busier caller.
    fn make_room(&mut self, now: Timestamp, offer: Offer, evicted: &mut Vec<Evicted<T>>) -> Result<(), Cause> {
        self.end_due(now, BATCH, evicted);
        if !self.is_full() {
            return Ok(());
        }
        let level = offer.level as usize;
        let beside = |admission: &mut Self| admission.levels.get(level).least_beside(offer.caller);
        let index = self.levels.least_below(level).or_else(|| beside(self)).ok_or(Cause::QueueFull)?;
        self.evict(index, Cause::Shed, evicted);
        Ok(())
    }

    fn start(&mut self, now: Timestamp, level: usize, index: u32) -> Started<T> {
        let run = self.codel.run();
        self.levels.took(level);
        self.unlink(index);
        let permit = self.permits.take();
        self.started = now;
        let full = self.queued > 0 && self.permits.in_use() >= self.limiter.current();
        let mark = self.limiter.started(now, full, run);
        let key = self.slab.key(index);
        let slot = self.slab.at_mut(index);
        let waited = now.since(slot.since);
        (slot.state, slot.since, slot.mark, slot.place) = (State::InFlight, now, mark, permit);
        let task = slot.task.take().expect("a task without payload is unfit to start");
        let share = slot.share;
        self.levels.get(level).started(share, run);
        Started { key, task, waited }
    }

    /// Observes how long this level waits, and whether it is late for good: then its newest is next, and those that
    /// waited hopelessly long end here.
    fn shed_late(&mut self, now: Timestamp, level: usize, evicted: &mut Vec<Evicted<T>>) -> bool {
        let queue = self.levels.get(level);
        let Some(oldest) = queue.oldest() else { return false };
        let wait = now.nanos_since(self.slab.at(oldest).since);
        queue.late.observe(now, wait, &self.codel);
        self.late.observe(now, wait, &self.codel);
        if self.settings.discipline == Discipline::Fifo || !queue.late.lasts() {
            return false;
        }
        for _ in 0..BATCH {
            let oldest = self.levels.get(level).oldest();
            let Some(index) = oldest.filter(|&index| now.nanos_since(self.slab.at(index).since) > self.codel.hopeless)
            else {
                break;
            };
            self.evict(index, Cause::Shed, evicted);
        }
        true
    }

    /// Ends up to `most` tasks whose time is up.
    fn end_due(&mut self, now: Timestamp, most: usize, evicted: &mut Vec<Evicted<T>>) {
        for _ in 0..most {
            match self.next_due() {
                Some((due, index, cause)) if due <= now => self.evict(index, cause, evicted),
                _ => break,
            }
        }
    }

    /// Whose time is up first, and why.
    fn next_due(&self) -> Option<(Timestamp, u32, Cause)> {
        let oldest = self.levels.oldest();
        let timeouts = oldest.map(|index| (self.slab.at(index).since + self.settings.timeout, index));
        let timeout = timeouts.min().map(|(due, index)| (due, index, Cause::QueueTimeout));
        let deadline = self.deadlines.first().map(|(due, index)| (due, index, Cause::DeadlineExceeded));
        timeout.into_iter().chain(deadline).min_by_key(|(due, ..)| *due)
    }

    /// Why this task must not start.
    fn unfit(&self, now: Timestamp, index: u32) -> Option<Cause> {
        let slot = self.slab.at(index);
        if slot.task.is_none() {
            return Some(Cause::CutOff);
        }
        if slot.deadline <= now {
            return Some(Cause::DeadlineExceeded);
        }
        (self.timeout_of(slot.since, slot.patient) <= now).then_some(Cause::QueueTimeout)
    }

    /// When the waiting of a task ends that was queued at this time, whatever its own deadline is.
    fn timeout_of(&self, since: Timestamp, patient: bool) -> Timestamp {
        if patient { Timestamp::MAX } else { since + self.settings.timeout }
    }

    fn evict(&mut self, index: u32, cause: Cause, evicted: &mut Vec<Evicted<T>>) {
        let key = self.slab.key(index);
        if cause == Cause::DeadlineExceeded {
            self.codel.lost(&self.settings, self.clock.since(self.slab.at(index).since));
        }
        self.unlink(index);
        self.counts.refused(cause);
        let retry_after = self.codel.retry_after(self.queued + 1, self.permits.in_use(), &mut self.random);
        // A payload is missing only if whoever queued the task failed before it was stored.
        evicted.extend(self.slab.remove(index).map(|task| Evicted { key, task, cause, retry_after }));
    }

    /// Takes a task out of the queue; what becomes of its slot is the caller's.
    fn unlink(&mut self, index: u32) {
        self.levels.unlink(&mut self.slab, index, self.clock);
        self.deadlines.remove(&mut self.slab, index);
        self.queued -= 1;
        if self.queued == 0 {
            self.late.clear(self.clock);
        }
    }
}
