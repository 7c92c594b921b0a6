//! Admission itself: a task is offered, waits, starts and ends.
//!
//! The rules are in the sibling modules. `leaving` has the ways to leave the queue unserved, `sharing` the tasks that run
//! inside the permit of another, and `reading` the methods that read a pool's state.

mod leaving;
mod reading;
mod sharing;

use std::collections::BTreeSet;
use std::time::Duration;

use super::codel::Codel;
use super::counts::{Counts, Outcome};
use super::drain_rate::DrainRate;
use super::limiter::Limiter;
use super::mean::Mean;
use super::occupancy::Occupancy;
use super::priority_queue::PriorityQueue;
use super::random::Random;
use super::settings::{Discipline, Limit, Offer, Settings};
use super::slab::{Key, Slab, State, UNSHARED};
use super::timestamp::{Timestamp, nanos};
use crate::error::Reason;

/// How many late tasks one rule of a take rejects at most, so that a long queue of late tasks does not hold the lock.
const BATCH: usize = 32;

/// The same for a call that only rejects late tasks.
const LARGE_BATCH: usize = 1024;

/// How many tasks the mean execution time remembers. It adapts to a new workload within about that many tasks.
const MEMORY: u32 = 128;

/// A pool that was idle for this long forgets what it has learned.
const FORGET: Duration = Duration::from_secs(600);

/// The state of an admitted task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It has its permit.
    InFlight(Key),
    /// It waits; the caller must store its payload.
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

/// How a task in flight ended.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// Its outcome.
    pub outcome: Outcome,
    /// How long it executed, if it did.
    pub ran: Option<Duration>,
    /// For how much of that time it waited for the reader of its body. Nothing is learned from this part.
    pub reader: Duration,
    /// Its batch, if it shared its permit with other tasks or could have.
    pub batch: Option<SharedPermit>,
}

/// A batch, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPermit {
    /// How many tasks were in it.
    pub tasks: u32,
    /// Whether a deadline kept it from growing.
    pub cut: bool,
}

/// A queued task that ended without being started.
#[derive(Debug)]
pub struct Rejected<T> {
    /// Its key, not valid any more: the end of this task is counted, and it needs no [`finish`](Admission::finish).
    pub key: Key,
    /// Its payload.
    pub task: T,
    /// Why it ended.
    pub reason: Reason,
    /// When its caller should come again.
    pub retry_after: Duration,
}

/// Decides for one pool; see the [module](super).
#[derive(Debug)]
pub struct Admission<T> {
    settings: Settings,
    slab: Slab<T>,
    levels: PriorityQueue,
    /// The queued tasks whose deadline comes before the queue timeout.
    deadlines: BTreeSet<(Timestamp, u32)>,
    queued: usize,
    /// How many permits are in use.
    permits: usize,
    /// How many tasks are in flight without a permit of theirs, inside the permit of another task.
    without_permit: usize,
    limiter: Limiter,
    /// How long tasks execute, in nanoseconds; and how long they would if as many ran as the limit says.
    run: Mean,
    shared_run: Mean,
    /// How many tasks execute in one permit: more than one where tasks are batched.
    in_a_permit: Mean,
    codel: Codel,
    drain_rate: DrainRate,
    draining: bool,
    counts: Counts,
    occupancy: Occupancy,
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
            deadlines: BTreeSet::new(),
            queued: 0,
            permits: 0,
            without_permit: 0,
            limiter: Limiter::new(settings.limit),
            run: Mean::new(MEMORY),
            shared_run: Mean::new(MEMORY),
            in_a_permit: Mean::new(MEMORY),
            codel: Codel::new(&settings),
            drain_rate: DrainRate::new(),
            draining: false,
            counts: Counts::default(),
            occupancy: Occupancy::default(),
            random: Random::new(seed),
            started: Timestamp::default(),
            clock: Timestamp::default(),
        }
    }

    /// Decides on one task in constant time. A task that is queued must then be given to [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// The reason of a rejection; nothing is kept of the task but its count.
    pub fn offer(&mut self, now: Timestamp, offer: Offer, rejected: &mut Vec<Rejected<T>>) -> Result<Admitted, Reason> {
        let may_start = self.queued == 0 && self.permits < self.limiter.current();
        self.decide(now, offer, may_start, rejected)
    }

    /// Like [`offer`](Self::offer) while no worker can start the task: it is queued even if a permit is free. A queued
    /// task that has a free permit does not count towards the queue capacity.
    ///
    /// # Errors
    ///
    /// The reason of a rejection; nothing is kept of the task but its count.
    pub fn offer_to_wait(
        &mut self,
        now: Timestamp,
        offer: Offer,
        rejected: &mut Vec<Rejected<T>>,
    ) -> Result<Admitted, Reason> {
        self.decide(now, offer, false, rejected)
    }

    /// Rejects a task that is not offered yet, if it would be rejected now. Such a rejection counts as that of an offer.
    pub fn reject_early(&mut self, now: Timestamp, offer: Offer, rejected: &mut Vec<Rejected<T>>) -> Option<Reason> {
        self.pass(now);
        let room = self.check(now, offer).and_then(|()| match self.is_full() {
            true => self.find_room(now, offer, rejected).map(drop),
            false => Ok(()),
        });
        let reason = room.err()?;
        self.counts.submitted += 1;
        self.count_unstarted(reason);
        Some(reason)
    }

    /// Counts a task that was rejected without having been offered.
    pub fn count_rejected(&mut self, reason: Reason) {
        self.counts.submitted += 1;
        self.count_unstarted(reason);
    }

    /// Counts a task that ended without having been started.
    fn count_unstarted(&mut self, reason: Reason) {
        self.counts.unstarted(reason);
        self.occupancy.unstarted += 1;
    }

    /// Keeps the payload of a task that was just queued.
    pub fn store(&mut self, key: Key, task: T) {
        if let Some(index) = self.slab.find(key, State::Queued) {
            self.slab.at_mut(index).task = Some(task);
        }
    }

    /// The next task to start, if a permit is free and one waits. Tasks that are found too late end on the way; after a
    /// batch of them the answer is `None`, so that others get the lock, although more tasks may wait.
    pub fn take(&mut self, now: Timestamp, rejected: &mut Vec<Rejected<T>>) -> Option<Started<T>> {
        self.pass(now);
        if !self.has_takeable() {
            return None;
        }
        let enough = rejected.len() + BATCH;
        self.end_due(now, BATCH, rejected);
        while rejected.len() <= enough {
            let work = self.work();
            let level = self.levels.turn(self.run.value())?;
            let index = self.levels.get(level).next(&self.slab, work)?;
            if let Some(reason) = self.reason_not_to_start(now, index) {
                self.reject(index, reason, rejected);
                continue;
            }
            let started = self.start(now, level, index);
            if self.free_permits() == 0 {
                self.shed_useless(now, level, rejected);
            }
            return Some(started);
        }
        None
    }

    /// The caller of a task has left, or has been answered that it is too late: takes the task out of the queue, and counts
    /// it as `outcome`. `None` if it is not queued. If it is in flight, its work counts as in vain.
    pub fn cancel(&mut self, now: Timestamp, key: Key, outcome: Outcome) -> Option<T> {
        self.pass(now);
        if let Some(index) = self.slab.find(key, State::InFlight) {
            // Its time is up, whatever its deadline was.
            self.slab.at_mut(index).deadline = Timestamp::default();
        }
        let index = self.slab.find(key, State::Queued)?;
        self.count_lost(index, Some(now));
        self.unlink(index);
        self.counts.finished(outcome);
        self.occupancy.unstarted += 1;
        self.slab.remove(index)
    }

    /// Ends a task in flight, and releases its permit if it has one. `ran` is how long it executed, if it did.
    /// Returns whether it was in flight.
    pub fn finish(&mut self, now: Timestamp, key: Key, outcome: Outcome, ran: Option<Duration>) -> bool {
        self.finish_as(now, key, Finish { outcome, ran, reader: Duration::ZERO, batch: None })
    }

    /// The same for a task that had a batch, or a reader.
    pub fn finish_as(&mut self, now: Timestamp, key: Key, finish: Finish) -> bool {
        self.pass(now);
        let Some(index) = self.slab.find(key, State::InFlight) else { return false };
        self.counts.finished(finish.outcome);
        if self.slab.at(index).has_permit {
            self.finish_permitted(now, index, finish);
        } else {
            self.without_permit -= 1;
            self.finish_shared(now, index, finish);
        }
        self.slab.remove(index);
        true
    }

    /// Releases the permit of a task that continues without it: its answer was given, and it polls the body of its
    /// response. Whether it had a permit.
    pub fn release_permit(&mut self, now: Timestamp, key: Key, ran: Option<Duration>) -> bool {
        self.pass(now);
        let Some(index) = self.slab.find(key, State::InFlight) else { return false };
        if !self.slab.at(index).has_permit {
            return false;
        }
        self.finish_permitted(now, index, Finish { outcome: Outcome::Ok, ran, reader: Duration::ZERO, batch: None });
        let slot = self.slab.at_mut(index);
        // It has left its virtual queue, too.
        (slot.has_permit, slot.queue) = (false, UNSHARED);
        self.without_permit += 1;
        true
    }

    fn finish_permitted(&mut self, now: Timestamp, index: u32, finish: Finish) {
        let Finish { outcome, reader, batch, .. } = finish;
        let ran = finish.ran.map(|ran| ran.saturating_sub(reader));
        let tasks = batch.map_or(1, |batch| batch.tasks);
        let slot = self.slab.at(index);
        let (mark, held) = (slot.mark, now.since(slot.since).saturating_sub(reader));
        let stretch = self.stretch();
        self.leave_level(now, index, finish, ran.map(nanos));
        if let Some(ran) = ran {
            self.levels.get(usize::from(self.slab.at(index).level)).ran(nanos(ran));
            self.run.add(nanos(ran));
            self.in_a_permit.add(f64::from(tasks));
            self.shared_run.add(nanos(ran) * stretch);
            self.codel.adapt(&self.settings, self.shared_run.value());
            self.limiter.ended(mark, outcome, held / tasks);
        }
        self.permits -= 1;
    }

    /// A task leaves the virtual queue that it was taken from, and says whether its work was in vain. `ran` is how long
    /// its permit executed, in nanoseconds: the tasks of a batch share that time.
    fn leave_level(&mut self, now: Timestamp, index: u32, finish: Finish, ran: Option<f64>) {
        let Finish { outcome, batch, .. } = finish;
        let (work, run, limit) = (self.work(), self.run.value(), self.limiter.current());
        let slot = self.slab.at(index);
        let too_late = slot.deadline < now || matches!(outcome, Outcome::Cancelled | Outcome::Expired);
        let level = self.levels.get(usize::from(slot.level));
        let share = ran.map(|ran| ran / batch.map_or(1.0, |batch| f64::from(batch.tasks)));
        level.ended(&self.slab, index, now, share);
        if self.settings.discipline == Discipline::Fifo {
            return;
        }
        if ran.is_some() {
            level.overload.ended(too_late || batch.is_some_and(|batch| batch.cut), run, limit);
        } else if outcome == Outcome::Expired {
            // It was taken, and did not start because it was too late.
            level.overload.lost(work, run, limit);
        }
    }

    /// Rejects every further offer.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Sets a fixed limit anew. An adaptive one finds its own.
    pub fn set_limit(&mut self, limit: usize) {
        if matches!(self.settings.limit, Limit::Fixed(_)) {
            self.limiter = Limiter::new(Limit::Fixed(limit));
        }
    }

    fn decide(
        &mut self,
        now: Timestamp,
        offer: Offer,
        may_start: bool,
        rejected: &mut Vec<Rejected<T>>,
    ) -> Result<Admitted, Reason> {
        self.pass(now);
        let admitted = self.check(now, offer).and_then(|()| {
            if may_start {
                Ok(Admitted::InFlight(self.start_at_once(now, offer)))
            } else {
                self.enqueue(now, offer, rejected)
            }
        });
        // A task that is offered again is counted then.
        if admitted == Err(Reason::QueueFull) && offer.is_offered_again() {
            return admitted;
        }
        self.counts.submitted += 1;
        admitted.inspect_err(|&reason| self.count_unstarted(reason))
    }

    /// Time passes: permits that are free while nothing waits make up for what was lost.
    fn pass(&mut self, now: Timestamp) {
        self.occupancy.pass(now, self.permits + self.takeable());
        let free = self.free_since_last_call(now);
        if free > 0.0 {
            self.levels.recover(free);
        }
        if self.is_idle() && now.since(self.clock) >= FORGET {
            self.forget();
        }
        if self.is_stalled() {
            self.limiter.waits(now, self.started, self.run.value());
        }
        self.clock = now;
    }

    /// Forgets everything learned: the next workload may be a different one.
    fn forget(&mut self) {
        self.limiter = Limiter::new(self.settings.limit);
        self.levels = PriorityQueue::new();
        [self.run, self.shared_run, self.in_a_permit] = [Mean::new(MEMORY); 3];
        self.codel = Codel::new(&self.settings);
        self.drain_rate = DrainRate::new();
    }

    /// Whether tasks wait and every permit is in use.
    fn is_stalled(&self) -> bool {
        self.queued > 0 && self.free_permits() == 0
    }

    /// Whether the task is rejected however much room there is.
    fn check(&self, now: Timestamp, offer: Offer) -> Result<(), Reason> {
        if self.draining && !offer.accepted {
            return Err(Reason::Draining);
        }
        if offer.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Reason::DeadlineExceeded);
        }
        Ok(())
    }

    /// The work of one task: the execution time of a permit over the tasks that share it.
    fn work(&self) -> f64 {
        self.run.value() / self.in_a_permit.value().max(1.0)
    }

    /// How much longer a task would execute if as many ran as the limit says, where fewer do because the cores are
    /// taken: the wait that comes of sharing them is what the limit allows, and nothing to be called late.
    fn stretch(&self) -> f64 {
        let running = self.permits;
        (running + self.takeable()) as f64 / running.max(1) as f64
    }

    fn start_at_once(&mut self, now: Timestamp, offer: Offer) -> Key {
        self.codel.clear(now);
        let level = offer.level as u8;
        let key = self.slab.insert(State::InFlight, now, level);
        let (run, work) = (self.run.value(), self.work());
        self.levels.get(usize::from(level)).start_at_once(&mut self.slab, key.index(), offer.caller, work);
        let slot = self.slab.at_mut(key.index());
        slot.deadline = offer.deadline.unwrap_or(Timestamp::MAX);
        (slot.mark, slot.has_permit) = (self.limiter.started(now, false, run, || false), true);
        self.permits += 1;
        self.started = now;
        key
    }

    fn enqueue(&mut self, now: Timestamp, offer: Offer, rejected: &mut Vec<Rejected<T>>) -> Result<Admitted, Reason> {
        if self.is_full() {
            self.make_room(now, offer, rejected)?;
        }
        let key = self.slab.insert(State::Queued, now, offer.level as u8);
        let index = key.index();
        let deadline = offer.deadline.unwrap_or(Timestamp::MAX);
        let slot = self.slab.at_mut(index);
        (slot.deadline, slot.patient) = (deadline, offer.patient);
        let work = self.work();
        self.levels.push(&mut self.slab, index, offer.caller, work);
        if deadline < self.timeout_of(now, offer.patient) {
            self.deadlines.insert((deadline, index));
        }
        self.queued += 1;
        Ok(Admitted::Queued(key))
    }

    fn start(&mut self, now: Timestamp, level: usize, index: u32) -> Started<T> {
        let run = self.run.value();
        if let Some(oldest) = self.levels.get(level).oldest() {
            self.codel.observe(now, now.nanos_since(self.slab.at(oldest).since));
        }
        self.levels.took(level, run);
        self.unlink(index);
        self.drain_rate.started(now, self.queued > 0);
        self.permits += 1;
        self.started = now;
        let limit = self.limiter.current();
        let full = self.queued > 0 && self.permits >= limit;
        let mark = self.limiter.started(now, full, run, || self.levels.exceed(run, limit));
        let key = self.slab.key(index);
        let slot = self.slab.at_mut(index);
        let waited = now.since(slot.since);
        (slot.state, slot.since, slot.mark, slot.has_permit) = (State::InFlight, now, mark, true);
        let task = slot.task.take().expect("a task without payload never starts");
        self.levels.get(level).started(&self.slab, index);
        Started { key, task, waited }
    }

    /// Takes a task out of the queue. The caller must reuse or remove its slot.
    fn unlink(&mut self, index: u32) {
        self.levels.unlink(&mut self.slab, index);
        self.deadlines.remove(&(self.slab.at(index).deadline, index));
        self.queued -= 1;
        if self.queued == 0 {
            self.codel.clear(self.clock);
            self.drain_rate.clear();
        }
    }
}
