//! The thread-local values of a worker: its pool, the tasks that it is polling, those that it ended, and its histograms.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::shared::{AnyTask, Polled, TaskRef};
use crate::admission::{Key, Timestamp};
use crate::metrics::TaskTimes;
use crate::metrics::waits::Histogram;
use crate::shield::shielded;
use crate::thread_state::{self, ThreadId};

thread_local! {
    static WORKER: RefCell<Option<Local>> = const { RefCell::new(None) };
}

struct Local {
    /// The pool, by number.
    pool: u64,
    times: TaskTimes,
    waits: Arc<Histogram>,
    thread: Option<ThreadId>,
    /// The stack of tasks that the worker is polling: each one waits for the task above it, which runs in place.
    polling: Vec<TaskRef>,
    /// Tasks that have ended, and whose callers are not woken yet.
    ended: Vec<TaskRef>,
}

/// Makes this thread a worker of `pool`.
pub(super) fn enter(pool: u64, times: TaskTimes, waits: Arc<Histogram>) {
    WORKER.set(Some(Local {
        pool,
        times,
        waits,
        thread: thread_state::current(),
        polling: Vec::new(),
        ended: Vec::new(),
    }));
}

/// Makes this thread an ordinary one again.
pub(super) fn leave() {
    WORKER.set(None);
}

/// Whether this thread is a worker of `pool`.
pub(super) fn is_worker_of(pool: u64) -> bool {
    with(|local| local.pool == pool).unwrap_or(false)
}

/// The number of this worker's thread, if the kernel shows its state.
pub(super) fn thread() -> Option<ThreadId> {
    with(|local| local.thread).flatten()
}

/// Whether this thread is a worker of any pool.
pub(crate) fn is_worker() -> bool {
    with(|_| ()).is_some()
}

/// Polls a task once, as the current one of this thread.
pub(super) fn poll(task: &TaskRef, now: Timestamp) -> Polled {
    as_current(task, || task.clone().poll(now))
}

/// Begins a task that rides in a batch.
pub(super) fn begin(task: &TaskRef, now: Timestamp) -> Polled {
    as_current(task, || task.begin(now))
}

fn as_current(task: &TaskRef, poll: impl FnOnce() -> Polled) -> Polled {
    with(|local| local.polling.push(task.clone()));
    let polled = poll();
    // Dropped without the borrow.
    let _task = with(|local| local.polling.pop());
    polled
}

/// Keeps a task that has ended until [`give_answers`].
pub(super) fn give_answer_later(task: TaskRef) {
    let mut task = Some(task);
    with(|local| local.ended.extend(task.take()));
    // This thread is no worker.
    if let Some(task) = task {
        task.give_answer();
    }
}

/// Makes the answers of the tasks readable that were kept, and wakes their callers.
pub(crate) fn give_answers() {
    let ended = with(|local| std::mem::take(&mut local.ended)).unwrap_or_default();
    for task in ended {
        task.give_answer();
    }
}

/// Calls `f` with the task that this thread polls. `f` must call no code of the application.
pub(crate) fn with_current_task<R>(f: impl FnOnce(&dyn AnyTask) -> R) -> Option<R> {
    with(|local| local.polling.last().map(|task| f(&**task))).flatten()
}

/// The task that this thread polls.
pub(crate) fn current_task() -> Option<TaskRef> {
    with(|local| local.polling.last().cloned()).flatten()
}

/// The keys of the tasks of `pool` that this thread is polling: the running one, and those that wait for it in place.
/// `None` if it polls none.
pub(super) fn keys_of(pool: u64) -> Option<(Key, Vec<Key>)> {
    with(|local| {
        let mut keys =
            local.polling.iter().rev().filter(|task| task.head().pool.id == pool).map(|task| task.head().key());
        Some((keys.next()??, keys.flatten().collect()))
    })
    .flatten()
}

/// Records how long a task waited.
pub(super) fn record_wait(now: Timestamp, waited: Duration) {
    let record = |local: &mut Local| {
        local.waits.count(waited);
        local.times.record_wait(now, waited);
    };
    shielded(|| with(record));
}

/// Records how long a task ran.
pub(super) fn record_run(now: Timestamp, ran: Duration) {
    shielded(|| record_times(|times| times.record_run(now, ran)));
}

/// Calls `f` with this worker's histograms. They call the application's recorder. `None` if this thread is no worker.
pub(crate) fn record_times(f: impl FnOnce(&mut TaskTimes)) -> Option<()> {
    with(|local| f(&mut local.times))
}

fn with<R>(f: impl FnOnce(&mut Local) -> R) -> Option<R> {
    // The destructor of another thread-local value may call this after this one was destroyed.
    let local = WORKER.try_with(|worker| worker.try_borrow_mut().ok()?.as_mut().map(f));
    local.ok().flatten()
}
