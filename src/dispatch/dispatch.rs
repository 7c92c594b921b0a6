//! Brings tasks and workers together: one lock over admission, the tasks that are ready to be polled, and the workers.
//!
//! # How no wake-up is lost
//!
//! 1. A worker that finds no task pushes itself onto the stack of parked workers *under the lock*, and parks after it
//!    has released the lock. It calls no code of the application in between: such code may park too, and consume the
//!    token of rule 2.
//! 2. A thread that makes a task ready does so under the lock and, under the same lock, pops a worker off the stack.
//!    That worker is then *waking*; the thread unparks it after it has released the lock. An unpark that comes before
//!    the park leaves a token, so the order of the two does not matter.
//! 3. `workers.rs` limits how many workers are waking at a time. Each woken worker checks, under the lock, whether more
//!    tasks wait than workers are waking, and wakes the next one.
//! 4. A worker whose task ended takes its next task under the same lock that releases the permit. If it has effects to
//!    perform first that may take long, it leaves that task to another worker. It parks only after it has looked for a
//!    task once more and found none.
//! 5. A worker parks although tasks wait if more workers are awake than the awake limit allows, and no worker is woken
//!    beyond that limit. A thread that leaves tasks waiting starts the sampler, unless it runs already. The sampler
//!    runs while tasks wait, and wakes workers when the limit has risen.
//!
//! So whenever the lock is free and a task can be taken, one of these is true: a worker is awake, and will look for a
//! task before it parks; a worker is waking; as many workers are awake as may be; or the pool has all its workers, and
//! all of them poll. If all awake workers block, the limit rises within some samples. If no worker may be awake, the pool
//! has asked the budget of cores for one, and the budget's message wakes a worker.

use std::task::Waker;
use std::time::Duration;

use super::effects::Effects;
use super::state::{IdleWatcher, Instantaneous, Offered, State};
use super::workers::WorkerId;
use crate::admission::{Admitted, Demand, Finish, Join, Key, Offer, Outcome, Settings, Timestamp};
use crate::cores::{Allot, Report, Sampled};
use crate::error::Reason;
use crate::sync::{Mutex, MutexGuard, Thread, lock, park_timeout};
use crate::thread_state::ThreadId;

/// The lock of one pool and the state behind it. It has its own cache line, because every submission and every worker
/// writes to it. `T` is a task that can be polled.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Dispatch<T> {
    state: Mutex<State<T>>,
}

/// A task that can be admitted.
pub(crate) trait Admit {
    /// Stores the task's key, and its number in the pool. Called under the lock.
    fn admitted(&self, key: Key, id: u64);
}

/// The event after which a worker asks for its next task.
#[derive(Debug)]
pub(crate) enum WorkerEvent<T> {
    /// Its thread has just started.
    Started,
    /// The task that it polled has ended.
    Ended(Ending),
    /// The task that it polled was woken during the poll.
    Woken(T),
    /// The task that it polled waits for a wake-up.
    Pending,
    /// Another thread had polled the task that it took.
    Stale,
}

/// How a task in flight ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) key: Key,
    pub(crate) finish: Finish,
}

/// The tasks in flight and queued, the concurrency limit, and the mean run time, which is zero while it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) tasks: usize,
    pub(crate) limit: usize,
    pub(crate) run: Duration,
}

/// A task that was not admitted.
#[derive(Debug)]
pub(crate) struct RejectedOffer<T> {
    /// Dropped after the lock has been released.
    pub(crate) _task: T,
    pub(crate) reason: Reason,
    pub(crate) retry_after: Duration,
}

impl<T> Dispatch<T> {
    pub(crate) fn new(settings: Settings, seed: u64, workers: usize) -> Self {
        Self { state: Mutex::new(State::new(settings, seed, workers)) }
    }

    /// Offers a task to admission.
    pub(crate) fn offer(
        &self,
        now: Timestamp,
        offer: Offer,
        task: T,
    ) -> (Result<Offered<T>, RejectedOffer<T>>, Effects<T>)
    where
        T: Admit,
    {
        self.change(now, |state, effects| {
            let admitted = if state.workers.has_worker_for_another(state.ready.len()) {
                state.admission.offer(now, offer, &mut effects.rejected)
            } else {
                state.admission.offer_to_wait(now, offer, &mut effects.rejected)
            };
            let runs_in_place = offer.may_ride && admitted == Err(Reason::QueueFull);
            let admitted =
                if runs_in_place { state.admission.offer_riding(now, offer).map(Admitted::InFlight) } else { admitted };
            let id = state.admission.submitted();
            let mut in_place = None;
            match admitted {
                Ok(Admitted::InFlight(key)) => {
                    task.admitted(key, id);
                    if runs_in_place {
                        in_place = Some(task);
                    } else {
                        state.ready.push_back(task);
                    }
                }
                Ok(Admitted::Queued(key)) => {
                    task.admitted(key, id);
                    state.admission.store(key, task);
                    effects.expire_at = Some(state.admission.expiry_of(now, offer));
                }
                Err(reason) => {
                    return Err(RejectedOffer { _task: task, reason, retry_after: state.admission.retry_after(now) });
                }
            }
            let queued = state.admission.queued() - state.admission.takeable();
            Ok(Offered { in_place, queued, active: state.workers.active })
        })
    }

    /// Rejects a task that is not offered yet, if it would be rejected now: the reason, and when to try again.
    pub(crate) fn reject_early(&self, now: Timestamp, offer: Offer) -> (Option<(Reason, Duration)>, Effects<T>) {
        self.change(now, |state, effects| {
            let reason = state.admission.reject_early(now, offer, &mut effects.rejected)?;
            Some((reason, state.admission.retry_after(now)))
        })
    }

    /// Starts a queued task that a worker of the pool waits for. Whether the worker must poll it in place.
    ///
    /// If a permit is free, and a worker that polls no task, the task is put among the ready tasks: in place, it might
    /// block for a task that is awaited after it. If not, or if the worker `blocks` for this task alone, it runs inside
    /// the permit of the task that waits. A worker that blocks polls it in place even if it was in flight already. A task
    /// that has ended, or was rejected, must not be polled, although its caller may not know yet.
    pub(crate) fn start_awaited(&self, now: Timestamp, key: Key, blocks: bool) -> (bool, Effects<T>) {
        self.change(now, |state, _| {
            let has_worker = state.workers.active + state.ready.len() < state.workers.max;
            if !blocks
                && has_worker
                && let Some(started) = state.admission.start_awaited(now, key)
            {
                state.ready.push_back(started.task);
                return false;
            }
            // The caller has another reference to the task, so this drops nothing of the application.
            state.admission.start_riding(now, key).is_some() || (blocks && state.admission.is_in_flight(key))
        })
    }

    /// Takes queued tasks that join the batch of a task in flight, [`MAX_TAKEN`] of them at most, and adds them to
    /// `batch`.
    pub(crate) fn take_more(&self, now: Timestamp, join: impl FnMut(&T) -> Join, batch: &mut Vec<T>) -> Effects<T> {
        batch.reserve(MAX_TAKEN);
        let take = |state: &mut State<T>, effects: &mut Effects<T>| {
            state.admission.take_more(now, MAX_TAKEN, join, batch, &mut effects.rejected);
        };
        self.change(now, take).1
    }

    /// Counts a task that was rejected before it was offered.
    pub(crate) fn count_rejected(&self, reason: Reason) {
        self.lock().admission.count_rejected(reason);
    }

    /// Puts a task in flight that was woken among the ready tasks.
    pub(crate) fn ready(&self, now: Timestamp, task: T) -> Effects<T> {
        self.change(now, |state, _| state.ready.push_back(task)).1
    }

    /// Releases the permit of a task that continues without it.
    pub(crate) fn release_permit(&self, now: Timestamp, key: Key, ran: Option<Duration>) -> Effects<T> {
        self.change(now, |state, _| state.admission.release_permit(now, key, ran)).1
    }

    /// Releases the permit of a task that ended outside of a worker's loop.
    pub(crate) fn finish(&self, now: Timestamp, ending: Ending) -> Effects<T> {
        self.finish_all(now, &[ending])
    }

    /// The same for several tasks under one hold of the lock, [`MAX_TAKEN`] of them at most.
    pub(crate) fn finish_all(&self, now: Timestamp, endings: &[Ending]) -> Effects<T> {
        let finish = |state: &mut State<T>, _: &mut Effects<T>| {
            for Ending { key, finish } in endings {
                state.admission.finish_as(now, *key, *finish);
            }
        };
        self.change(now, finish).1
    }

    /// Records what a worker did, which releases the permit of a task that ended, and takes the worker's next task
    /// under the same lock.
    pub(crate) fn next(&self, worker: WorkerId, now: Timestamp, event: WorkerEvent<T>) -> (Option<T>, Effects<T>) {
        self.change(now, |state, effects| {
            match event {
                WorkerEvent::Started => state.workers.started(worker),
                WorkerEvent::Stale => state.workers.abort_poll(worker),
                WorkerEvent::Pending => state.workers.end_poll(worker, now),
                WorkerEvent::Woken(task) => {
                    state.workers.end_poll(worker, now);
                    state.ready.push_back(task);
                }
                WorkerEvent::Ended(Ending { key, finish }) => {
                    state.workers.end_poll(worker, now);
                    state.admission.finish_as(now, key, finish);
                }
            }
            let next = state.take_unless_detained(worker, now, effects);
            // A worker beyond the limit takes no task when it looks once more.
            if next.is_none() && !effects.detains() && !state.workers.exceeds_limit() {
                state.workers.will_recheck(worker);
            }
            next
        })
    }

    /// Waits for the next task of a worker that found none, for at most `keep_alive`. `None` means that the worker must
    /// end.
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
        state.workers.rechecked(worker);
        loop {
            let mut effects = Effects::default();
            let task = state.take_unless_detained(worker, at, &mut effects);
            let idle = at.since(idle_since);
            // Late tasks are rejected in portions, so there may be more of them.
            let found = task.is_some() || effects.detains();
            let leaves = !found && (state.closed || idle >= keep_alive);
            let stops = !found && !leaves;
            // Before the report to the budget of cores, in which this worker is not awake any more.
            if leaves {
                state.workers.leave(worker);
            } else if stops {
                state.workers.park(worker);
            }
            state.complete(at, &mut effects);
            // A worker that found nothing has made no room. The tasks that wait outside of the queue were woken before,
            // and the worker would wake them again and again until one of them is polled.
            effects.has_room &= found;
            // Effects run code of the application, which may park this thread and so consume the token of an unpark. So
            // a worker parks only when there are none, with nothing in between.
            let parks = stops && effects.is_empty();
            if stops && !parks {
                state.workers.unparked(worker);
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

    /// Takes a task out of the queue, and counts its end as `outcome`.
    pub(crate) fn cancel(&self, now: Timestamp, key: Key, outcome: Outcome) -> (Option<T>, Effects<T>) {
        self.change(now, |state, _| state.admission.cancel(now, key, outcome))
    }

    /// Hands tasks that have ended to the workers, which drop them. If more accumulate than the queue can hold, every
    /// worker is blocked, and all of them are returned.
    pub(crate) fn discard(&self, now: Timestamp, tasks: Vec<T>) -> (Vec<T>, Effects<T>) {
        self.change(now, |state, _| {
            state.to_drop.extend(tasks);
            let too_many = state.to_drop.len() > state.admission.snapshot().capacity.max(MIN_DROP_CAPACITY);
            if too_many { std::mem::take(&mut state.to_drop) } else { Vec::new() }
        })
    }

    /// No thread could be started for `worker`. If the pool has no worker at all, its queued tasks are rejected, and
    /// its ready tasks are returned: the caller ends them.
    pub(crate) fn start_failed(&self, now: Timestamp, worker: WorkerId) -> (Vec<T>, Effects<T>) {
        self.change(now, |state, effects| {
            state.workers.start_failed(now, worker);
            if state.workers.present > 0 {
                return Vec::new();
            }
            state.admission.reject_all(Reason::NoWorkers, &mut effects.rejected);
            state.ready.drain(..).chain(state.to_drop.drain(..)).collect()
        })
    }

    /// Rejects the queued tasks whose deadline or queue timeout has passed.
    pub(crate) fn expire(&self, now: Timestamp) -> Effects<T> {
        let expire = |state: &mut State<T>, effects: &mut Effects<T>| {
            state.admission.expire(now, &mut effects.rejected);
            state.expires_at = None;
            effects.expire_at = state.admission.next_expiry();
        };
        self.change(now, expire).1
    }

    /// The timer could not be set: it will not call [`expire`](Self::expire) at the time that was requested.
    pub(crate) fn expiry_failed(&self) {
        self.lock().expires_at = None;
    }

    /// The threads of the workers that the sampler looks up, with the times at which they began to poll their tasks, and
    /// how many workers are awake.
    pub(crate) fn sample(&self) -> (Vec<(ThreadId, Option<Timestamp>)>, usize) {
        self.lock().workers.sample()
    }

    /// Adjusts the awake limit to a sample of the workers. The result is the time until the next sample, if one is
    /// needed. `runnable_per_core` is the number of runnable workers of all pools for each core. The sampler took the sample, or, if
    /// `for_tick`, a tick of the budget of cores.
    pub(crate) fn observe(
        &self,
        now: Timestamp,
        sample: &[Sampled],
        runnable_per_core: usize,
        for_tick: bool,
    ) -> (Option<Duration>, Effects<T>) {
        self.change(now, |state, _| state.workers.observe(now, sample, state.waiting(), runnable_per_core, for_tick))
    }

    /// Applies a message of the budget of cores.
    pub(crate) fn apply(&self, now: Timestamp, allot: Allot) -> Effects<T> {
        let (report, effects) = self.change(now, |state, _| state.workers.apply(allot, state.waiting()));
        // The later report, if there are two.
        Effects { report: effects.report.or(report), ..effects }
    }

    /// The report for a tick of the budget, and whether the sampler should sample the workers before.
    pub(crate) fn status(&self) -> (Report, bool) {
        let mut state = self.lock();
        let waiting = state.waiting();
        let sample = state.workers.may_hold_unused_cores();
        (state.workers.status(waiting), sample)
    }

    /// Rejects every further offer.
    pub(crate) fn drain(&self) {
        self.lock().admission.drain();
    }

    /// Whether every further offer is rejected.
    pub(crate) fn is_draining(&self) -> bool {
        self.lock().admission.is_draining()
    }

    /// Rejects every queued task.
    pub(crate) fn reject_all(&self, now: Timestamp, reason: Reason) -> Effects<T> {
        self.change(now, |state, effects| state.admission.reject_all(reason, &mut effects.rejected)).1
    }

    /// Makes the workers end as soon as they find no task. The caller unparks the threads that this returns.
    pub(crate) fn close(&self) -> Vec<Thread> {
        let mut state = self.lock();
        state.closed = true;
        state.workers.unpark_all()
    }

    /// Whether no task is queued, and at most `except` tasks are in flight. If not, `waker` is woken once that is so.
    pub(crate) fn poll_idle(&self, except: usize, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.lock();
        let idle = state.is_idle(except);
        if !idle && !state.idle_watchers.iter().any(|other| other.except == except && other.waker.will_wake(&waker)) {
            state.idle_watchers.push(IdleWatcher { except, waker });
        }
        idle
    }

    /// Counts a task that begins (`waits`) or ceases to wait outside of the queue until there is room.
    pub(crate) fn wait_for_room(&self, now: Timestamp, waits: bool) -> Effects<T> {
        let change = |state: &mut State<T>, _: &mut Effects<T>| match waits {
            true => state.waiting_for_room += 1,
            false => state.waiting_for_room -= 1,
        };
        self.change(now, change).1
    }

    pub(crate) fn instant(&self, now: Timestamp) -> Instantaneous {
        self.lock().instant(now)
    }

    /// The tasks that a new one would find before it.
    pub(crate) fn backlog(&self) -> Backlog {
        let state = self.lock();
        let (tasks, run) = (state.admission.in_flight() + state.admission.queued(), state.admission.mean_run());
        Backlog { tasks, limit: state.admission.limit(), run: run.unwrap_or_default() }
    }

    /// The demand so far, the time of all polls, and the workers' threads.
    pub(crate) fn demand(&self, now: Timestamp) -> (Demand, Duration, Vec<ThreadId>) {
        let state = self.lock();
        (state.admission.demand(now), state.workers.poll_time(now), state.workers.threads())
    }

    /// The threads of the workers that poll a task, as far as the kernel shows them.
    #[cfg(feature = "dashboard")]
    pub(crate) fn polling_threads(&self) -> Vec<ThreadId> {
        self.lock().workers.polling_threads()
    }

    /// The number of cores, for a pool without a budget.
    #[cfg(test)]
    pub(super) fn set_cores(&self, cores: usize) {
        self.lock().workers.set_cores(cores);
    }

    /// Lowers the limit, as if a sample had found every worker runnable.
    #[cfg(test)]
    pub(crate) fn lower_limit(&self) {
        self.lock().workers.lower_limit();
    }

    /// How many workers are waking, and how many will look for a task once more before they park.
    #[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
    pub(super) fn coming(&self) -> (usize, usize) {
        self.lock().workers.coming()
    }

    /// Changes the state. The result is that of `change`, and the effects that follow from the new state. `change` adds
    /// the tasks that it rejects, and the time at which a queued task expires.
    fn change<R>(&self, now: Timestamp, change: impl FnOnce(&mut State<T>, &mut Effects<T>) -> R) -> (R, Effects<T>) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let result = change(&mut state, &mut effects);
        state.complete(now, &mut effects);
        (result, effects)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

/// How many tasks join a batch, or end with one, under one hold of the lock, at most.
pub(crate) const MAX_TAKEN: usize = 64;

/// The least number of ended tasks that a pool keeps for its workers to drop, however short its queue is.
const MIN_DROP_CAPACITY: usize = 64;

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
