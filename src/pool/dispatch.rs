//! Brings tasks and workers together: one lock over admission, the tasks that are ready to be polled, and the workers.
//!
//! # How no wake-up is lost
//!
//! 1. A worker that finds nothing to do enters the stack of parked workers *under the lock*, and parks after it has
//!    released the lock, with no code of the application in between: that may park too, and consume the token of rule 2.
//! 2. A thread that makes a task ready does so under the lock and, under the same lock, takes a worker off the stack. That
//!    worker is then *waking*, and is unparked after the lock is released. Unparking before parking leaves a token, so the
//!    order of the two does not matter.
//! 3. Only as many workers are waking at a time as `workers.rs` says. Each that arrives looks whether there is more to take
//!    than workers are coming for, and wakes the next.
//! 4. A worker that ends a task takes its next one under the lock that releases the permit, unless it has code of the
//!    application to call first that may take long; then it leaves that task to others. It parks only after it has looked
//!    and found nothing.
//! 5. A worker that finds more workers awake than the active limit allows parks although there are tasks to take, and none
//!    is woken beyond that limit. A thread that leaves tasks behind starts the sampler, unless it runs; the sampler runs
//!    while tasks wait, and wakes workers when the limit has risen.
//!
//! So whenever the lock is free and a task can be taken, either a worker is awake (and will look before it parks), or one is
//! waking, or none can be had and none is parked. If all that are awake block, the limit rises within milliseconds.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::active_limit::Sampled;
use super::allotment::{Allot, Report};
use super::effects::Effects;
use super::workers::{Awake, Wake, WorkerId, Workers};
use crate::admission::{Admission, Admitted, Evicted, Key, Offer, Outcome, Settings, Snapshot, Timestamp};
use crate::error::Reason;
use crate::sync::{Mutex, MutexGuard, Thread, lock, park_timeout};

/// How many woken tasks are polled in a row while a queued task could start. A pool of futures that are always ready, such
/// as streams of tokens, would otherwise keep every new task out.
const MAX_READY_IN_A_ROW: u8 = 8;

/// The lock of one pool. It has a cache line of its own, because every submission and every worker writes to it. `T` is
/// a task that can be polled.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Dispatch<T> {
    state: Mutex<State<T>>,
}

/// What is told to a task that is admitted.
pub(crate) trait Admit {
    /// The task has this key, and is the pool's `id`-th. It is called under the lock.
    fn admitted(&self, key: Key, id: u64);
}

#[derive(Debug)]
struct State<T> {
    admission: Admission<T>,
    /// Tasks with a permit that want to be polled: they were just admitted, or were woken.
    ready: VecDeque<T>,
    ready_in_a_row: u8,
    workers: Workers,
    /// Tasks that have ended, for a worker to drop.
    garbage: Vec<T>,
    draining: bool,
    /// Nobody can submit any more: workers end when they find nothing to do.
    closed: bool,
    idle_watchers: Vec<IdleWatcher>,
    /// How many tasks wait outside of the queue.
    waiting_for_room: usize,
    /// The earliest time at which [`Dispatch::expire`] is sure to be called.
    expires_at: Option<Timestamp>,
}

/// Waits until nothing is queued, and at most `except` tasks are in flight.
#[derive(Debug)]
struct IdleWatcher {
    except: usize,
    waker: Waker,
}

/// What a worker did before it asks for its next task.
#[derive(Debug)]
pub(crate) enum Last<T> {
    /// Its thread has just started.
    Started,
    /// It polled a task to its end.
    Ended(Ending),
    /// It polled a task that was woken meanwhile.
    Woken(T),
    /// It polled a task that waits for a wake-up.
    Pending,
    /// It found that another thread had polled the task.
    Stale,
}

/// How a task in flight ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) key: Key,
    pub(crate) outcome: Outcome,
    /// How long it ran, if it started.
    pub(crate) ran: Option<Duration>,
}

/// Where a task was that is to be run in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    /// In the queue. It is in flight from here on.
    Queued,
    /// In flight.
    InFlight,
    /// It has ended, or was rejected: it must not be polled, although its caller may not know yet.
    Ended,
}

/// A task that was not admitted.
#[derive(Debug)]
pub(crate) struct Refused<T> {
    /// To be dropped without the lock.
    pub(crate) _task: T,
    pub(crate) reason: Reason,
    pub(crate) retry_after: Duration,
}

/// One instant of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instantaneous {
    pub(crate) admission: Snapshot,
    pub(crate) overloaded: bool,
    pub(crate) draining: bool,
    pub(crate) workers: usize,
    pub(crate) workers_max: usize,
    pub(crate) active: usize,
}

/// A task was admitted: how much the pool has to do then.
#[derive(Debug)]
pub(crate) struct Offered<T> {
    /// The task, if the queue was full and its submitter is to run it in place.
    pub(crate) riding: Option<T>,
    pub(crate) queued: usize,
    pub(crate) active: usize,
}

impl<T> Dispatch<T> {
    pub(crate) fn new(settings: Settings, seed: u64, workers: usize) -> Self {
        let state = State {
            admission: Admission::new(settings, seed),
            ready: VecDeque::new(),
            ready_in_a_row: 0,
            workers: Workers::new(workers),
            garbage: Vec::new(),
            draining: false,
            closed: false,
            idle_watchers: Vec::new(),
            waiting_for_room: 0,
            expires_at: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Offers a task. How deep the queue is with it, or the task itself and why it was refused.
    pub(crate) fn offer(&self, now: Timestamp, offer: Offer, task: T) -> (Result<Offered<T>, Refused<T>>, Effects<T>)
    where
        T: Admit,
    {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        let admitted = if state.workers.has_room_beside(state.ready.len()) {
            state.admission.offer(now, offer, &mut evicted)
        } else {
            state.admission.offer_to_wait(now, offer, &mut evicted)
        };
        let rides = offer.rides && admitted == Err(Reason::QueueFull);
        let admitted = if rides { state.admission.offer_riding(now, offer).map(Admitted::InFlight) } else { admitted };
        let id = state.admission.submitted();
        let mut expiry = None;
        let offered = match admitted {
            Ok(Admitted::InFlight(key)) => {
                task.admitted(key, id);
                let riding = if rides {
                    Some(task)
                } else {
                    state.ready.push_back(task);
                    None
                };
                Ok(state.offered(riding))
            }
            Ok(Admitted::Queued(key)) => {
                task.admitted(key, id);
                state.admission.store(key, task);
                expiry = Some(state.admission.expiry_of(now, offer));
                Ok(state.offered(None))
            }
            Err(reason) => Err(Refused { _task: task, reason, retry_after: state.admission.retry_after(now) }),
        };
        let effects = state.effects(now, evicted, expiry);
        (offered, effects)
    }

    /// Takes a queued task out of the queue, to be run in place by the task that waits for it.
    pub(crate) fn start_riding(&self, now: Timestamp, key: Key) -> (InPlace, Effects<T>) {
        let mut state = self.lock();
        let task = state.admission.start_riding(now, key);
        let place = match &task {
            Some(_) => InPlace::Queued,
            None if state.admission.is_in_flight(key) => InPlace::InFlight,
            None => InPlace::Ended,
        };
        let effects = state.effects(now, Vec::new(), None);
        drop(state);
        // Its caller has the task as well, so nothing of the application is dropped here.
        (place, effects)
    }

    /// Counts a task that is rejected whatever the state of the pool is.
    pub(crate) fn count_rejected(&self, reason: Reason) {
        self.lock().admission.count_rejected(reason);
    }

    /// A task in flight was woken.
    pub(crate) fn ready(&self, now: Timestamp, task: T) -> Effects<T> {
        let mut state = self.lock();
        state.ready.push_back(task);
        state.effects(now, Vec::new(), None)
    }

    /// A task in flight ended other than in a worker's loop.
    pub(crate) fn finish(&self, now: Timestamp, ending: Ending) -> Effects<T> {
        let mut state = self.lock();
        state.admission.finish(now, ending.key, ending.outcome, ending.ran);
        state.effects(now, Vec::new(), None)
    }

    /// Releases the permit of the task that a worker has ended, and takes the worker's next task under the same lock.
    pub(crate) fn next(&self, worker: WorkerId, now: Timestamp, last: Last<T>) -> (Option<T>, Effects<T>) {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        match last {
            Last::Started => state.workers.started(worker),
            Last::Stale => state.workers.abort_poll(worker),
            Last::Pending => state.workers.end_poll(worker, now),
            Last::Woken(task) => {
                state.workers.end_poll(worker, now);
                state.ready.push_back(task);
            }
            Last::Ended(Ending { key, outcome, ran }) => {
                state.workers.end_poll(worker, now);
                state.admission.finish(now, key, outcome, ran);
            }
        }
        let next = state.take(worker, now, &mut evicted);
        if evicted.is_empty() && state.garbage.is_empty() {
            // One beyond the limit takes no task when it looks once more.
            if next.is_none() && !state.workers.has_too_many() {
                state.workers.will_return(worker);
            }
            return (next, state.effects(now, evicted, None));
        }
        // Code of the application is to be called first, and no other worker could take the task from this one.
        if let Some(task) = next {
            state.workers.abort_poll(worker);
            state.ready.push_front(task);
        }
        let garbage = std::mem::take(&mut state.garbage);
        let effects = state.effects(now, evicted, None);
        (None, Effects { garbage, ..effects })
    }

    /// Waits for the next task of a worker that found none, up to `keep_alive`; `None` if the worker is to end.
    ///
    /// `perform` is called without the lock.
    pub(crate) fn wait(
        &self,
        worker: WorkerId,
        keep_alive: Duration,
        now: impl Fn() -> Timestamp,
        perform: impl Fn(Effects<T>),
    ) -> Option<T> {
        let mut at = now();
        let mut idle_since = at;
        let mut state = self.lock();
        state.workers.returned(worker);
        loop {
            let mut evicted = Vec::new();
            let task = state.take(worker, at, &mut evicted);
            let idle = at.since(idle_since);
            let garbage = std::mem::take(&mut state.garbage);
            // Where tasks were found that are too late, there may be more.
            let found = task.is_some() || !evicted.is_empty() || !garbage.is_empty();
            let leaves = !found && (state.closed || idle >= keep_alive);
            if leaves {
                state.workers.leave(worker);
            }
            let mut effects = Effects { garbage, ..state.effects(at, evicted, None) };
            // Where nothing was found, nothing has changed: the tasks outside of the queue know already, and the worker
            // would call them again and again until one of them is polled.
            effects.room &= found;
            // Effects run code of the application, which may park this thread and so consume the token of an unpark. So a
            // worker parks only when there are none, with nothing in between.
            let parks = !found && !leaves && effects.is_empty();
            if parks {
                state.workers.park(worker);
            }
            drop(state);
            if !parks {
                perform(effects);
                if task.is_some() || leaves {
                    return task;
                }
            } else {
                park_timeout(keep_alive.saturating_sub(idle));
            }
            at = now();
            state = self.lock();
            if parks && state.workers.unparked(worker) {
                idle_since = at;
            }
        }
    }

    /// Takes out a queued task, whose end counts as `outcome`.
    pub(crate) fn cancel(&self, now: Timestamp, key: Key, outcome: Outcome) -> (Option<T>, Effects<T>) {
        let mut state = self.lock();
        let task = state.admission.cancel(now, key, outcome);
        let effects = state.effects(now, Vec::new(), None);
        (task, effects)
    }

    /// Gives tasks that have ended to the workers, to be dropped. Those beyond what the queue can hold come back: every
    /// worker is blocked.
    pub(crate) fn discard(&self, now: Timestamp, tasks: Vec<T>) -> (Vec<T>, Effects<T>) {
        let mut state = self.lock();
        state.garbage.extend(tasks);
        let too_many = state.garbage.len() > state.admission.snapshot().capacity.max(MIN_GARBAGE);
        let back = if too_many { std::mem::take(&mut state.garbage) } else { Vec::new() };
        (back, state.effects(now, Vec::new(), None))
    }

    /// No thread could be started for `worker`. Without any worker the tasks cannot run: those that had a permit are
    /// returned, to be ended.
    pub(crate) fn start_failed(&self, now: Timestamp, worker: WorkerId) -> (Vec<T>, Effects<T>) {
        let mut evicted = Vec::new();
        let mut ready = Vec::new();
        let mut state = self.lock();
        state.workers.start_failed(now, worker);
        if state.workers.present == 0 {
            state.admission.evict_all(Reason::NoWorkers, &mut evicted);
            ready.extend(state.ready.drain(..));
            ready.append(&mut state.garbage);
        }
        let effects = state.effects(now, evicted, None);
        (ready, effects)
    }

    /// Ends the waiting of the tasks that are late.
    pub(crate) fn expire(&self, now: Timestamp) -> Effects<T> {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        state.admission.expire(now, &mut evicted);
        state.expires_at = None;
        let next = state.admission.next_expiry();
        state.effects(now, evicted, next)
    }

    /// The call of [`expire`](Self::expire) that was asked for will not be made.
    pub(crate) fn expiry_failed(&self) {
        self.lock().expires_at = None;
    }

    /// The workers to look up in the system: do they run?
    pub(crate) fn sample(&self) -> Vec<Awake> {
        self.lock().workers.sample()
    }

    /// How many workers are runnable, by a sample of them.
    pub(crate) fn runnable(&self, sample: &[Sampled]) -> usize {
        self.lock().workers.runnable(sample)
    }

    /// Learns what the sampled workers do; when to sample again, if at all. `sharing`: how many runnable workers of all
    /// pools there are for each core.
    pub(crate) fn learn(&self, now: Timestamp, sample: &[Sampled], sharing: usize) -> (Option<Duration>, Effects<T>) {
        let mut state = self.lock();
        let waiting = state.waiting();
        let next = state.workers.learn(now, sample, waiting, sharing);
        (next, state.effects(now, Vec::new(), None))
    }

    /// Applies a message of the budget of cores.
    pub(crate) fn apply(&self, now: Timestamp, allot: Allot) -> Effects<T> {
        let mut state = self.lock();
        let waiting = state.waiting();
        let report = state.workers.apply(allot, waiting);
        let effects = state.effects(now, Vec::new(), None);
        // The later report, if there are two.
        Effects { report: effects.report.or(report), ..effects }
    }

    /// The report for a tick of the budget, and whether the workers are to be sampled before.
    pub(crate) fn status(&self) -> (Report, bool) {
        let mut state = self.lock();
        let waiting = state.waiting();
        let sample = state.workers.may_hold_unused_cores();
        (state.workers.status(waiting), sample)
    }

    /// Refuses every further offer.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.admission.drain();
    }

    /// Ends the waiting of every queued task.
    pub(crate) fn evict_all(&self, now: Timestamp, reason: Reason) -> Effects<T> {
        let mut evicted = Vec::new();
        let mut state = self.lock();
        state.admission.evict_all(reason, &mut evicted);
        state.effects(now, evicted, None)
    }

    /// Lets the workers end when they find nothing to do; the parked ones, to be unparked for it.
    pub(crate) fn close(&self) -> Vec<Thread> {
        let mut state = self.lock();
        state.closed = true;
        state.workers.unpark_all()
    }

    /// Whether nothing is queued, and no more than `except` tasks are in flight; if not, `waker` is woken when that has
    /// changed.
    pub(crate) fn poll_idle(&self, except: usize, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.lock();
        let idle = state.is_idle(except);
        if !idle && !state.idle_watchers.iter().any(|other| other.except == except && other.waker.will_wake(&waker)) {
            state.idle_watchers.push(IdleWatcher { except, waker });
        }
        idle
    }

    /// One more task waits outside of the queue until there is room, or one fewer.
    pub(crate) fn wait_for_room(&self, now: Timestamp, waits: bool) -> Effects<T> {
        let mut state = self.lock();
        state.waiting_for_room = if waits { state.waiting_for_room + 1 } else { state.waiting_for_room - 1 };
        state.effects(now, Vec::new(), None)
    }

    pub(crate) fn instant(&self, now: Timestamp) -> Instantaneous {
        self.lock().instant(now)
    }

    /// The number of cores, for a pool without a budget.
    #[cfg(test)]
    pub(super) fn set_cores(&self, cores: usize) {
        self.lock().workers.set_cores(cores);
    }

    /// As if the tasks had been seen to compute.
    #[cfg(test)]
    pub(super) fn lower_limit(&self) {
        self.lock().workers.lower_limit();
    }

    /// How many workers are waking, and how many will look once more before they park.
    #[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
    pub(super) fn coming(&self) -> (usize, usize) {
        self.lock().workers.coming()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

/// How many ended tasks a pool keeps for its workers at least, however short its queue is.
const MIN_GARBAGE: usize = 64;

// === impl State ===

impl<T> State<T> {
    /// The next task for the worker that asks, unless it is one too many.
    fn take(&mut self, worker: WorkerId, now: Timestamp, evicted: &mut Vec<Evicted<T>>) -> Option<T> {
        if self.workers.has_too_many() {
            return None;
        }
        let queue_first = self.ready_in_a_row >= MAX_READY_IN_A_ROW && self.admission.has_takeable();
        let ready = if queue_first { None } else { self.ready.pop_front() };
        let task = if ready.is_some() {
            self.ready_in_a_row = self.ready_in_a_row.saturating_add(1);
            ready
        } else {
            self.ready_in_a_row = 0;
            self.admission.take(now, evicted).map(|started| started.task).or_else(|| self.ready.pop_front())
        };
        if task.is_some() {
            self.workers.begin_poll(worker, now);
        }
        task
    }

    /// How many tasks a worker could take.
    fn waiting(&self) -> usize {
        self.ready.len() + self.admission.takeable() + usize::from(!self.garbage.is_empty())
    }

    /// What is to be done without the lock, after any change. A call of `expire` is needed at `expiry`.
    fn effects(&mut self, now: Timestamp, evicted: Vec<Evicted<T>>, expiry: Option<Timestamp>) -> Effects<T> {
        let waiting = self.waiting();
        let wake = self.workers.wake(now, waiting);
        // A thread that could not be started is tried again, whether or not anything happens until then.
        let retry = match wake {
            Wake::Nobody if waiting > 0 => self.workers.start_blocked_until(now),
            _ => None,
        };
        Effects {
            wake,
            evicted,
            garbage: Vec::new(),
            idle: self.idle_watchers(),
            expire_at: expiry.into_iter().chain(retry).min().and_then(|at| self.expire_at(at)),
            sample: self.workers.starts_sampler(waiting),
            report: self.workers.report(waiting),
            room: self.waiting_for_room > 0 && self.admission.has_room(),
        }
    }

    /// Asks for a call of `expire` at this time, unless one will be made before.
    fn expire_at(&mut self, at: Timestamp) -> Option<Timestamp> {
        let sooner = self.expires_at.is_none_or(|set| at < set).then_some(at);
        self.expires_at = sooner.or(self.expires_at);
        sooner
    }

    /// The watchers that have what they wait for.
    fn idle_watchers(&mut self) -> Vec<Waker> {
        if self.idle_watchers.is_empty() || self.admission.queued() > 0 {
            return Vec::new();
        }
        let in_flight = self.admission.in_flight();
        let idle = self.idle_watchers.extract_if(.., |watcher| in_flight <= watcher.except);
        idle.map(|watcher| watcher.waker).collect()
    }

    fn is_idle(&self, except: usize) -> bool {
        self.admission.queued() == 0 && self.admission.in_flight() <= except
    }

    fn offered(&self, riding: Option<T>) -> Offered<T> {
        Offered { riding, queued: self.admission.queued() - self.admission.takeable(), active: self.workers.active }
    }

    /// A queued task that the limit would admit, and that only waits for a worker, is reported as in flight.
    fn instant(&self, now: Timestamp) -> Instantaneous {
        let seen = self.admission.snapshot();
        let admitted = self.admission.takeable();
        let admission = Snapshot {
            in_flight: seen.in_flight + admitted,
            queued: seen.queued - admitted,
            permits: seen.permits + admitted,
            ..seen
        };
        Instantaneous {
            admission,
            overloaded: self.admission.is_overloaded(now),
            draining: self.draining,
            workers: self.workers.present,
            workers_max: self.workers.max,
            active: self.workers.active,
        }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
