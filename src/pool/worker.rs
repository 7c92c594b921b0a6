//! The loop of a worker's thread, and what is done when a pool's lock has been released.
//!
//! A worker takes a task, polls it, and then either releases the permit of a task that ended and takes its next task under
//! the same lock, or puts a task that waits aside and takes the next one. If there is none, it parks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::allotment::{Allot, Report};
use super::dispatch::{Ending, Last};
use super::effects::Effects;
use super::group::Member;
use super::local;
use super::publish;
use super::runnable::{Polled, TaskRef};
use super::sampler;
use super::shared::Shared;
use super::workers::{Wake, WorkerId};
use crate::admission::{Evicted, Outcome, Timestamp};
use crate::metrics::TaskTimes;
use crate::shield::shielded;
use crate::threads;

/// The loop of `worker`.
fn run(pool: &Arc<Shared>, worker: WorkerId) {
    local::enter(pool.id, TaskTimes::of(pool.name()));
    set_up(pool);
    let mut next = next(pool, worker, pool.now(), Last::Started, None);
    while let Some((task, now)) = next.take() {
        let polled = local::poll(&task, now);
        let now = pool.now();
        next = match polled {
            Polled::Ended(outcome, began) => release(pool, worker, now, task, outcome, began),
            Polled::Woken => self::next(pool, worker, now, Last::Woken(task), None),
            Polled::Pending | Polled::Stale => {
                // It may be the last reference, to a task that nobody can wake. It is not kept while the worker parks.
                shielded(|| drop(task));
                let last = if matches!(polled, Polled::Pending) { Last::Pending } else { Last::Stale };
                self::next(pool, worker, now, last, None)
            }
        };
    }
    if let Some(hook) = &pool.plan.hooks.worker.on_stop {
        shielded(|| hook());
    }
    local::leave();
}

/// Releases the permit of a task that the worker has ended; the worker's next task.
fn release(
    pool: &Arc<Shared>,
    worker: WorkerId,
    now: Timestamp,
    task: TaskRef,
    outcome: Outcome,
    began: Option<Timestamp>,
) -> Option<(TaskRef, Timestamp)> {
    let ran = began.map(|began| now.since(began));
    if let Some(ran) = ran {
        shielded(|| local::record_run(now, ran));
    }
    match task.head().key() {
        Some(key) => next(pool, worker, now, Last::Ended(Ending { key, outcome, ran }), Some(task)),
        None => next(pool, worker, now, Last::Stale, Some(task)),
    }
}

/// The worker's next task, and the time from which on it is polled; `None` if the worker is to end. The task that has
/// `ended` tells its caller as soon as its permit was released, and before the worker waits.
fn next(
    pool: &Arc<Shared>,
    worker: WorkerId,
    now: Timestamp,
    last: Last<TaskRef>,
    ended: Option<TaskRef>,
) -> Option<(TaskRef, Timestamp)> {
    let (next, effects) = pool.dispatch.next(worker, now, last);
    if let Some(task) = ended {
        task.publish();
        changed(pool);
    }
    perform_on_worker(pool, effects);
    if let Some(task) = next {
        return Some((task, now));
    }
    let now = || pool.now();
    let task = pool.dispatch.wait(worker, pool.plan.keep_alive, now, |effects| perform_on_worker(pool, effects))?;
    Some((task, now()))
}

/// Polls a task of this thread's own pool on behalf of the one that waits for it, and releases its permit if it ends.
pub(super) fn run_in_place(pool: &Arc<Shared>, task: TaskRef) {
    match local::poll(&task, pool.now()) {
        Polled::Ended(outcome, began) => end(pool, task, outcome, began),
        Polled::Woken => ready(pool, task),
        Polled::Pending | Polled::Stale => {}
    }
}

/// Releases the permit of a task that ended outside of a worker's loop, and tells its caller.
pub(super) fn end(pool: &Arc<Shared>, task: TaskRef, outcome: Outcome, began: Option<Timestamp>) {
    let now = pool.now();
    let ran = began.map(|began| now.since(began));
    if let Some(key) = task.head().key() {
        let effects = pool.dispatch.finish(now, Ending { key, outcome, ran });
        task.publish();
        perform(pool, effects);
    }
    if let Some(ran) = ran {
        shielded(|| local::record_run(now, ran));
    }
    changed(pool);
}

/// A task in flight was woken.
pub(super) fn ready(pool: &Arc<Shared>, task: TaskRef) {
    let effects = pool.dispatch.ready(pool.now(), task);
    perform(pool, effects);
}

/// Performs what was put off until the lock was released, on a thread that is not the pool's worker.
pub(super) fn perform(pool: &Arc<Shared>, effects: Effects<TaskRef>) {
    if effects.is_empty() {
        return;
    }
    let evicted = perform_all(pool, effects);
    if evicted.is_empty() {
        return;
    }
    // What they hold is dropped by the pool's own workers: destructors may block.
    let (too_many, effects) = pool.dispatch.discard(pool.now(), evicted);
    if !too_many.is_empty() {
        let name = format!("offload-drop-{}", pool.name());
        // If no thread can be had, the tasks were dropped with the closure.
        let _ = threads::start(name, None, move || discard(too_many));
    }
    perform(pool, effects);
}

/// The same on a worker of the pool.
fn perform_on_worker(pool: &Arc<Shared>, effects: Effects<TaskRef>) {
    if !effects.is_empty() {
        discard(perform_all(pool, effects));
    }
}

/// Performs the effects; the tasks to discard.
fn perform_all(pool: &Arc<Shared>, effects: Effects<TaskRef>) -> Vec<TaskRef> {
    let Effects { wake, evicted, garbage, idle, expire_at, sample, report, room } = effects;
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
    if room {
        pool.room.notify_one();
    }
    let mut discarded = garbage;
    for Evicted { task, reason, retry_after, .. } in evicted {
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
        let (_, effects) = sampler::sample(&self);
        perform(&self, Effects { report: None, ..effects });
        self.dispatch.status().0
    }
}

fn expire_at_instant(pool: &Arc<Shared>, at: Instant) {
    let weak = Arc::downgrade(pool);
    let set = pool.expiry.set(at, move || {
        if let Some(pool) = weak.upgrade() {
            let effects = pool.dispatch.expire(pool.now());
            perform(&pool, effects);
            changed(&pool);
        }
    });
    if !set {
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
    perform_on_worker(pool, effects);
    for task in tasks {
        match task.abandon() {
            Some((outcome, began)) => end(pool, task, outcome, began),
            // It had ended already, and waited to be dropped.
            None => task.discard(),
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

/// What a worker's thread does first.
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
    if let Some(hook) = &pool.plan.hooks.worker.on_start {
        shielded(|| hook());
    }
}

/// The numbers of the pool have changed.
pub(super) fn changed(pool: &Arc<Shared>) {
    shielded(|| publish::changed(pool));
}
