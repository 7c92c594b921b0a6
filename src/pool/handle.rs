//! The caller's handle to a task: the future of its answer, which cancels the task when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::task::Awaited;
use super::{local, worker};
use crate::admission::Outcome;
use crate::error::{Reason, Rejection, TaskError};
use crate::shield::shielded;
use crate::sync::lock_std as lock;
use crate::workload::Workload;

/// A task in a pool. Dropping this cancels the task: a queued task leaves the queue at once and never starts, and the
/// future of a task in flight is dropped at its next await.
pub(crate) struct CancelOnDrop<T> {
    task: Arc<dyn Awaited<T>>,
    /// The result was taken, or is not wanted any more.
    done: bool,
}

impl<T> CancelOnDrop<T> {
    pub(super) fn new(task: Arc<dyn Awaited<T>>) -> Self {
        Self { task, done: false }
    }

    /// The name of the pool.
    pub(crate) fn pool(&self) -> &Workload {
        self.task.head().pool.name()
    }

    /// Marks the task as late, because its deadline has passed. The result is the rejection for its caller.
    pub(crate) fn too_late(&self) -> Rejection {
        let started = self.task.head().state.deadline_passed();
        self.task.head().pool.rejection(Reason::DeadlineExceeded, Duration::ZERO).with_started(started)
    }

    /// Detaches the task: it is finished without a caller.
    pub(crate) fn detach(&mut self) {
        if !std::mem::replace(&mut self.done, true) {
            leave(&*self.task);
        }
    }

    /// Whether the answer can be taken.
    pub(crate) fn is_finished(&self) -> bool {
        self.task.head().state.has_answer()
    }

    /// Called before this thread blocks until the task has ended. If the thread is a worker of the task's pool, it
    /// polls the task in place: a task that has not started, and if it waits `for_ever` also a task that was woken.
    pub(crate) fn wait_on_worker(&self, for_ever: bool) {
        let task = &self.task;
        let state = &task.head().state;
        if local::is_worker_of(task.head().pool.id) && (for_ever || !state.has_started()) {
            if for_ever {
                state.awaited_on_worker();
            }
            start_awaited(task, true);
        }
    }

    /// Takes the answer, or notes that the caller waits for it.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, TaskError>> {
        assert!(!self.done, "a task's result is taken once");
        let task = &self.task;
        let state = &task.head().state;
        // The waker is cloned without the lock, and only if it is needed.
        let mut waker = (!state.has_answer()).then(|| cx.waker().clone());
        let mut answer = lock(task.answer());
        if state.has_answer()
            && let Some(value) = answer.value.take()
        {
            drop(answer);
            self.done = true;
            return Poll::Ready(value);
        }
        // The waker that is replaced is dropped without the lock.
        std::mem::swap(&mut answer.caller, &mut waker);
        drop(answer);
        Poll::Pending
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = &self.task;
        // A worker that waits for a task which is queued behind the task that it polls would wait for itself.
        let waits_on_worker = !task.head().state.has_started() && local::is_worker_of(task.head().pool.id);
        if waits_on_worker {
            start_awaited(task, false);
        }
        self.poll_answer(cx)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let task = &self.task;
        leave(&**task);
        let (pool, head) = (&task.head().pool, task.head());
        if head.state.has_ended() {
            return;
        }
        head.state.caller_left();
        if let Some(key) = head.key() {
            let late = head.state.signals().late;
            let outcome = if late { Outcome::Expired } else { Outcome::Cancelled };
            let (queued, effects) = pool.dispatch.cancel(pool.now(), key, outcome);
            worker::perform(pool, effects);
            if let Some(queued) = queued {
                head.state.end();
                head.log_end(None, |log, pool, _| match late {
                    true => log.log_rejection(pool, Reason::DeadlineExceeded),
                    false => log.log_cancellation(pool, None),
                });
                worker::changed(pool);
                queued.discard();
                return;
            }
        }
        // The task is in flight. A worker drops its future.
        task.clone().waker().wake();
    }
}

/// Notes that the caller has left, and drops its waker and the value.
fn leave<T>(task: &dyn Awaited<T>) {
    let mut answer = lock(task.answer());
    answer.unwanted = true;
    let (caller, value) = (answer.caller.take(), answer.value.take());
    drop(answer);
    shielded(|| drop(caller));
    shielded(|| drop(value));
}

/// Starts a queued task for which this worker waits, and polls it in place if no other worker will, or if this one
/// `blocks` for it.
fn start_awaited<T>(task: &Arc<dyn Awaited<T>>, blocks: bool) {
    let Some(key) = task.head().key() else { return };
    let pool = &task.head().pool;
    let (in_place, effects) = pool.dispatch.start_awaited(pool.now(), key, blocks);
    worker::perform(pool, effects);
    if in_place {
        worker::run_in_place(pool, task.clone());
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
