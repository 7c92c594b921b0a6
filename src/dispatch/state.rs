//! The state of a pool behind its lock: admission, the tasks that are ready to be polled, and the workers.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::effects::Effects;
use super::workers::{Wake, WorkerId, Workers};
use crate::admission::{Admission, Rejected, Settings, Snapshot, Timestamp};

/// How many ready tasks are polled in a row while a queued task could start. Without a bound, futures that are always
/// woken again, such as streams of tokens, would keep queued tasks waiting for ever.
pub(super) const MAX_READY_IN_A_ROW: u8 = 8;

/// The state of a pool, behind the lock of `dispatch.rs`.
#[derive(Debug)]
pub(super) struct State<T> {
    pub(super) admission: Admission<T>,
    /// Tasks in flight that a worker must poll: they were just admitted, or were woken.
    pub(super) ready: VecDeque<T>,
    pub(super) ready_in_a_row: u8,
    pub(super) workers: Workers,
    /// Tasks that have ended. A worker drops them, because their destructors may block.
    pub(super) to_drop: Vec<T>,
    /// The last handle was dropped: workers end when they find no task.
    pub(super) closed: bool,
    pub(super) idle_watchers: Vec<IdleWatcher>,
    /// How many tasks wait outside of the queue.
    pub(super) waiting_for_room: usize,
    /// The time at which the timer will call `expire`, if it is set.
    pub(super) expires_at: Option<Timestamp>,
}

/// A drain that waits until no task is queued, and at most `except` tasks are in flight.
#[derive(Debug)]
pub(super) struct IdleWatcher {
    pub(super) except: usize,
    pub(super) waker: Waker,
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
    pub(crate) oldest_wait: Duration,
    pub(crate) mean_run: Option<Duration>,
}

/// A task that was admitted, and the load of the pool at that moment.
#[derive(Debug)]
pub(crate) struct Offered<T> {
    /// The task, if the queue was full: its submitter runs it in place.
    pub(crate) in_place: Option<T>,
    pub(crate) queued: usize,
    pub(crate) active: usize,
}

impl<T> State<T> {
    pub(super) fn new(settings: Settings, seed: u64, workers: usize) -> Self {
        Self {
            admission: Admission::new(settings, seed),
            ready: VecDeque::new(),
            ready_in_a_row: 0,
            workers: Workers::new(workers),
            to_drop: Vec::new(),
            closed: false,
            idle_watchers: Vec::new(),
            waiting_for_room: 0,
            expires_at: None,
        }
    }

    /// Takes the next task for `worker`, unless more workers are awake than the awake limit allows.
    pub(super) fn take(&mut self, worker: WorkerId, now: Timestamp, rejected: &mut Vec<Rejected<T>>) -> Option<T> {
        if self.workers.exceeds_limit() {
            return None;
        }
        let queue_first = self.ready_in_a_row >= MAX_READY_IN_A_ROW && self.admission.has_takeable();
        let ready = if queue_first { None } else { self.ready.pop_front() };
        let task = if ready.is_some() {
            self.ready_in_a_row = self.ready_in_a_row.saturating_add(1);
            ready
        } else {
            self.ready_in_a_row = 0;
            self.admission.take(now, rejected).map(|started| started.task).or_else(|| self.ready.pop_front())
        };
        if task.is_some() {
            self.workers.begin_poll(worker, now);
        }
        task
    }

    /// Takes the next task for `worker`. If there are rejected tasks, or tasks to drop, the next task is left to another
    /// worker: this one calls code of the application first, which may block.
    pub(super) fn take_unless_detained(
        &mut self,
        worker: WorkerId,
        now: Timestamp,
        effects: &mut Effects<T>,
    ) -> Option<T> {
        let task = self.take(worker, now, &mut effects.rejected);
        effects.to_drop = std::mem::take(&mut self.to_drop);
        if !effects.detains() {
            return task;
        }
        if let Some(task) = task {
            self.workers.abort_poll(worker);
            self.ready.push_front(task);
        }
        None
    }

    /// How many tasks wait for a worker. The tasks to drop count as one.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.admission.takeable() + usize::from(!self.to_drop.is_empty())
    }

    /// Adds the effects that any change of this state may have.
    pub(super) fn complete(&mut self, now: Timestamp, effects: &mut Effects<T>) {
        let waiting = self.waiting();
        effects.wake = self.workers.wake(now, waiting);
        // If a thread could not be started, the timer tries it again, even if no other event occurs until then.
        let retry = match effects.wake {
            Wake::Nobody if waiting > 0 => self.workers.start_blocked_until(now),
            _ => None,
        };
        effects.idle = self.idle_watchers();
        effects.expire_at = effects.expire_at.into_iter().chain(retry).min().and_then(|at| self.expire_at(at));
        effects.sample = self.workers.starts_sampler(waiting);
        effects.report = self.workers.report(waiting);
        effects.has_room = self.waiting_for_room > 0 && self.admission.has_room();
    }

    /// Requests a call of `expire` at this time, unless the timer is set to an earlier one.
    fn expire_at(&mut self, at: Timestamp) -> Option<Timestamp> {
        let sooner = self.expires_at.is_none_or(|set| at < set).then_some(at);
        self.expires_at = sooner.or(self.expires_at);
        sooner
    }

    /// Removes the watchers whose condition is met.
    fn idle_watchers(&mut self) -> Vec<Waker> {
        if self.idle_watchers.is_empty() || self.admission.queued() > 0 {
            return Vec::new();
        }
        let in_flight = self.admission.in_flight();
        let idle = self.idle_watchers.extract_if(.., |watcher| in_flight <= watcher.except);
        idle.map(|watcher| watcher.waker).collect()
    }

    pub(super) fn is_idle(&self, except: usize) -> bool {
        self.admission.queued() == 0 && self.admission.in_flight() <= except
    }

    /// A queued task that the limit would admit, and that only waits for a worker, is reported as in flight.
    pub(super) fn instant(&self, now: Timestamp) -> Instantaneous {
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
            draining: self.admission.is_draining(),
            workers: self.workers.present,
            workers_max: self.workers.max,
            active: self.workers.active,
            oldest_wait: self.admission.oldest_wait(now),
            mean_run: self.admission.mean_run(),
        }
    }
}
