//! The worker loop, and the effects that a thread performs after it has released a pool's lock.
//!
//! A worker takes a task and polls it once. If the task ended, the worker releases its permit and takes the next task
//! under the same lock. If the task was woken during the poll, it goes back among the ready tasks. If it is pending,
//! the worker drops its reference: the task's waker has another one. If no task waits, the worker parks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::local;
use super::publish;
use super::sampler;
use super::shared::{Polled, Shared, TaskRef};
use crate::admission::{Outcome, Rejected, Timestamp};
use crate::cores::{Allot, Member, Report};
use crate::dispatch::{Effects, Ending, MAX_TAKEN, Wake, WorkerEvent, WorkerId};
use crate::metrics::TaskTimes;
use crate::shield::shielded;
use crate::threads;
use crate::timer::TIMER;

/// The loop of `worker`.
fn run(pool: &Arc<Shared>, worker: WorkerId) {
    local::enter(pool.id, TaskTimes::of(pool.name()), pool.waits.join());
    set_up(pool);
    let (mut now, mut event, mut ended) = (pool.now(), WorkerEvent::Started, None);
    while let Some((task, at)) = next(pool, worker, now, event, ended) {
        let polled = local::poll(&task, at);
        // A task that leads a batch has woken the callers of the last one. Any other task must not make them wait longer.
        if !matches!(polled, Polled::Ended(_, Some(_))) {
            local::give_answers();
        }
        now = pool.now();
        (event, ended) = match polled {
            Polled::Ended(outcome, began) => (WorkerEvent::Ended(ending(&task, now, outcome, began)), Some(task)),
            Polled::Woken => (WorkerEvent::Woken(task), None),
            Polled::Pending | Polled::Stale => {
                // If this is the last reference, nobody can wake the task, and dropping it releases its permit. That must
                // not wait until the worker has parked and found another task.
                shielded(|| drop(task));
                (if matches!(polled, Polled::Stale) { WorkerEvent::Stale } else { WorkerEvent::Pending }, None)
            }
        };
    }
    for hook in &pool.plan.hooks.on_worker_stop {
        shielded(|| hook());
    }
    pool.load.worker_ends();
    local::leave();
}

/// Records the run time of an ended task. The result is its end for admission.
fn ending(task: &TaskRef, now: Timestamp, outcome: Outcome, began: Option<Timestamp>) -> Ending {
    let ran = began.map(|began| now.since(began));
    if let Some(ran) = ran {
        local::record_run(now, ran);
    }
    let head = task.head();
    let key = head.key().expect("a task that is polled was admitted");
    Ending { key, finish: head.finish(outcome, ran) }
}

/// The worker's next task and the current time. `None` means that the worker must end. The caller of the task that has
/// `ended` is woken after the permit was released, and before the worker parks.
///
/// If the next task is one that may lead a batch, the callers are woken when that batch starts: from then on they compete
/// with the worker for the pool's lock and for a core.
fn next(
    pool: &Arc<Shared>,
    worker: WorkerId,
    now: Timestamp,
    event: WorkerEvent<TaskRef>,
    ended: Option<TaskRef>,
) -> Option<(TaskRef, Timestamp)> {
    let (next, effects) = pool.dispatch.next(worker, now, event);
    let begins_batch = effects.is_empty() && next.as_ref().is_some_and(|task| task.head().item.is_some());
    if let Some(task) = ended {
        if begins_batch {
            local::give_answer_later(task);
        } else {
            task.give_answer();
        }
        changed(pool);
    }
    if !begins_batch {
        local::give_answers();
    }
    perform_and_drop(pool, effects);
    if let Some(task) = next {
        return Some((task, now));
    }
    let now = || pool.now();
    let task = pool.dispatch.wait(worker, pool.plan.keep_alive, now, |effects| perform_and_drop(pool, effects))?;
    Some((task, now()))
}

/// Polls a task of this thread's pool in place, for the task that waits for it, and releases its permit if it ends.
pub(super) fn run_in_place(pool: &Arc<Shared>, task: TaskRef) {
    in_place(pool, local::poll(&task, pool.now()), task);
    local::give_answers();
}

/// Begins a task of this thread's pool that rides in the batch of another.
pub(crate) fn begin_in_place(pool: &Arc<Shared>, now: Timestamp, task: TaskRef) {
    in_place(pool, local::begin(&task, now), task);
}

fn in_place(pool: &Arc<Shared>, polled: Polled, task: TaskRef) {
    match polled {
        Polled::Ended(outcome, began) => end(pool, task, outcome, began),
        Polled::Woken => ready(pool, task),
        Polled::Pending | Polled::Stale => {}
    }
}

/// Polls tasks of this thread's pool in place, for the task that leads their batch. Those that end release their permits
/// together. Their callers are woken once the worker knows what it does next.
pub(crate) fn end_in_place(pool: &Arc<Shared>, now: Timestamp, tasks: impl Iterator<Item = TaskRef>) {
    let mut endings = Vec::new();
    for task in tasks {
        match local::poll(&task, now) {
            Polled::Ended(outcome, began) => {
                endings.push(ending(&task, now, outcome, began));
                local::give_answer_later(task);
            }
            Polled::Woken => ready(pool, task),
            Polled::Pending | Polled::Stale => {}
        }
    }
    for endings in endings.chunks(MAX_TAKEN) {
        let effects = pool.dispatch.finish_all(now, endings);
        perform(pool, effects);
    }
    changed(pool);
}

/// Releases the permit of a task that ended outside of a worker's loop, and wakes its caller.
pub(super) fn end(pool: &Arc<Shared>, task: TaskRef, outcome: Outcome, began: Option<Timestamp>) {
    let now = pool.now();
    let effects = pool.dispatch.finish(now, ending(&task, now, outcome, began));
    task.give_answer();
    perform(pool, effects);
    changed(pool);
}

/// Puts a task that was woken among the ready tasks.
pub(super) fn ready(pool: &Arc<Shared>, task: TaskRef) {
    let effects = pool.dispatch.ready(pool.now(), task);
    perform(pool, effects);
}

/// Performs effects anywhere but between two polls of a worker. Tasks that have ended are left to the workers, because
/// destructors may block.
pub(crate) fn perform(pool: &Arc<Shared>, effects: Effects<TaskRef>) {
    if effects.is_empty() {
        return;
    }
    let rejected = perform_all(pool, effects);
    if rejected.is_empty() {
        return;
    }
    let (too_many, effects) = pool.dispatch.discard(pool.now(), rejected);
    if !too_many.is_empty() {
        let name = format!("offload-drop-{}", pool.name());
        // If no thread can be started, the tasks are dropped here, with the closure.
        let _ = threads::start(name, None, move || discard(too_many));
    }
    perform(pool, effects);
}

/// Performs effects where destructors may block: on a worker between two polls, or where no worker is left.
fn perform_and_drop(pool: &Arc<Shared>, effects: Effects<TaskRef>) {
    if !effects.is_empty() {
        discard(perform_all(pool, effects));
    }
}

/// Performs the effects, and returns the tasks to discard.
fn perform_all(pool: &Arc<Shared>, effects: Effects<TaskRef>) -> Vec<TaskRef> {
    let Effects { wake, rejected, to_drop, idle, expire_at, sample, report, has_room } = effects;
    match wake {
        Wake::Nobody => {}
        Wake::Unpark(thread) => thread.unpark(),
        Wake::Start(worker) => start(pool, worker),
    }
    if sample {
        sampler::start(pool, perform);
    }
    if let Some(report) = report {
        pool.membership.report(report);
    }
    if let Some(at) = expire_at.and_then(|at| pool.plan.group.instant_of(at)) {
        expire_at_instant(pool, at);
    }
    if has_room {
        shielded(|| pool.has_room.notify_one());
    }
    let mut discarded = to_drop;
    for Rejected { task, reason, retry_after, .. } in rejected {
        task.reject(pool.rejection(reason, retry_after));
        discarded.push(task);
    }
    for waker in idle {
        shielded(|| waker.wake());
    }
    discarded
}

impl Member for Shared {
    fn apply(self: Arc<Self>, allot: Allot) -> Option<Report> {
        let effects = self.dispatch.apply(self.now(), allot);
        let report = effects.report;
        perform(&self, Effects { report: None, ..effects });
        report
    }

    fn status(self: Arc<Self>) -> Report {
        let (report, to_sample) = self.dispatch.status();
        if !to_sample {
            return report;
        }
        let (_, effects) = sampler::sample(&self, true);
        perform(&self, Effects { report: None, ..effects });
        self.dispatch.status().0
    }
}

fn expire_at_instant(pool: &Arc<Shared>, at: Instant) {
    let weak = Arc::downgrade(pool);
    pool.expiry.set(at, move || {
        if let Some(pool) = weak.upgrade() {
            let effects = pool.dispatch.expire(pool.now());
            perform(&pool, effects);
            changed(&pool);
        }
    });
    if !TIMER.is_running() {
        pool.dispatch.expiry_failed();
    }
}

fn discard(tasks: Vec<TaskRef>) {
    for task in tasks {
        task.discard();
        shielded(|| drop(task));
    }
}

/// Starts the thread of `worker`.
fn start(pool: &Arc<Shared>, worker: WorkerId) {
    let Err(error) = start_thread(pool, worker) else { return };
    let (tasks, effects) = pool.dispatch.start_failed(pool.now(), worker);
    perform_and_drop(pool, effects);
    for task in tasks {
        match task.abandon() {
            Polled::Ended(outcome, began) => end(pool, task, outcome, began),
            // It had ended already, and only waited to be dropped.
            _ if task.head().state.has_ended() => task.discard(),
            // It is idle: its waker lists it again.
            _ => {}
        }
    }
    if !pool.start_failed.swap(true, Ordering::Relaxed) {
        let workers = pool.dispatch.instant(pool.now()).workers;
        shielded(|| {
            tracing::error!(
                target: "tower_offload",
                pool = %pool.name(), workers, %error,
                "a worker's thread could not be started; the pool goes on with those it has"
            );
        });
    }
}

fn start_thread(pool: &Arc<Shared>, worker: WorkerId) -> io::Result<()> {
    let name = format!("offload-{}-{}", pool.name(), worker + 1);
    let this = pool.clone();
    threads::start(name, pool.plan.stack_size, move || run(&this, worker))
}

/// Sets the thread's `nice` value, and calls the hooks for the start of a worker.
fn set_up(pool: &Arc<Shared>) {
    if let Some(nice) = pool.plan.nice
        && let Err(error) = threads::renice(nice)
    {
        shielded(|| {
            tracing::warn!(
                target: "tower_offload",
                pool = %pool.name(), %error,
                "a worker could not be given nice {nice}"
            );
        });
    }
    for hook in &pool.plan.hooks.on_worker_start {
        shielded(|| hook());
    }
}

/// Notes that the pool's numbers have changed, so that they are published.
pub(super) fn changed(pool: &Arc<Shared>) {
    shielded(|| publish::changed(pool));
}
