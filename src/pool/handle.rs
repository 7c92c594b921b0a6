//! The caller's handle to a task: a future that blocking code can wait for, too.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::task::Awaited;
use super::{local, worker};
use crate::admission::Outcome;
use crate::block_on::block_on_until;
use crate::error::{Reason, Rejection, TaskError};
use crate::shield::shielded;
use crate::sync::lock_std as lock;
use crate::workload::Workload;

/// A task in a pool. Dropping this cancels the task: a queued task leaves the queue at once and never starts, and the
/// future of a task in flight is dropped at its next await.
pub(crate) struct Pending<T> {
    task: Arc<dyn Awaited<T>>,
    /// The result was taken, or is not wanted any more.
    done: bool,
}

/// A task that was submitted with [`submit_to_pool`](crate::Pools::submit_to_pool).
///
/// Async code awaits it, blocking code calls [`wait`](Self::wait). Dropping it does not cancel the task;
/// [`cancel`](Self::cancel) does.
///
/// ```
/// use tower_offload::{Cpu, Pools};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pools = Pools::default();
/// let sum = pools.submit_to_pool(Cpu, || (1..=10).sum::<u32>())?;
/// assert_eq!(sum.wait()?, 55);
/// # Ok(())
/// # }
/// ```
pub struct TaskHandle<T> {
    state: State<T>,
}

enum State<T> {
    Pending(Pending<T>),
    /// The pools are disabled: a task of the Tokio runtime.
    Spawned(JoinHandle<Result<T, TaskError>>, Workload),
    /// The task ran where it was submitted.
    Ended(Result<T, TaskError>),
    Taken,
}

// === impl Pending ===

impl<T> Pending<T> {
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
    fn is_finished(&self) -> bool {
        self.task.head().state.has_answer()
    }

    /// Called before this thread blocks until the task has ended. If the thread is a worker of the task's pool, it
    /// polls the task in place: a task that has not started, and if it waits `for_ever` also a task that was woken.
    fn wait_on_worker(&self, for_ever: bool) {
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
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, TaskError>> {
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

impl<T> Future for Pending<T> {
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

impl<T> Drop for Pending<T> {
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
            let (_, late) = head.state.signals();
            let outcome = if late { Outcome::Expired } else { Outcome::Cancelled };
            let (queued, effects) = pool.dispatch.cancel(pool.now(), key, outcome);
            worker::perform(pool, effects);
            if let Some(queued) = queued {
                head.state.end();
                if let Some(log) = &head.log {
                    match late {
                        true => log.log_refusal(pool.name(), Reason::DeadlineExceeded),
                        false => log.log_cancellation(pool.name(), None),
                    }
                }
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

// === impl TaskHandle ===

impl<T> TaskHandle<T> {
    pub(crate) const fn pending(pending: Pending<T>) -> Self {
        Self { state: State::Pending(pending) }
    }

    /// A task of the Tokio runtime in place of a task of this pool.
    pub(crate) const fn spawned(task: JoinHandle<Result<T, TaskError>>, pool: Workload) -> Self {
        Self { state: State::Spawned(task, pool) }
    }

    pub(crate) const fn ended(result: Result<T, TaskError>) -> Self {
        Self { state: State::Ended(result) }
    }

    /// Blocks this thread until the task has ended.
    ///
    /// Async code must await the handle instead, because this would block its thread. A task may wait for another task
    /// of its pool: its worker polls the other task in place if no other worker does, so a pool of one worker does not
    /// deadlock. A cycle through two pools does deadlock: a task of pool A waits for a task of pool B, which waits for
    /// a task of pool A. While pools are disabled, a task is one of the Tokio runtime, so this must not block the thread
    /// that runs it.
    ///
    /// # Errors
    ///
    /// Says why the task gave no value: it was rejected while it was queued, cut off, or it panicked.
    ///
    /// # Panics
    ///
    /// If the handle was awaited before (`(&mut handle).await`) and gave the result then.
    pub fn wait(mut self) -> Result<T, TaskError> {
        self.block_until(None).expect("without a limit there is an output")
    }

    /// Blocks this thread until the task has ended, but not longer than `limit`. On a worker of the task's pool, a task
    /// that has not started runs in place, as in [`wait`](Self::wait): the limit does not interrupt it.
    ///
    /// # Errors
    ///
    /// The handle itself if the time is up. The task is not cancelled, and the caller can wait for it again.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(mut self, limit: Duration) -> Result<Result<T, TaskError>, Self> {
        self.block_until(Instant::now().checked_add(limit)).ok_or(self)
    }

    /// Cancels the task. A queued task never starts, and the future of a task in flight is dropped at its next await.
    /// Code that blocks or computes runs to its end, unless it calls [`checkpoint`](crate::checkpoint). This does not wait
    /// for that end: a shutdown of the pools does.
    pub fn cancel(mut self) {
        if let State::Spawned(task, _) = &self.state {
            task.abort();
        }
        self.state = State::Taken;
    }

    /// Whether the task has ended and its result can be taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.state {
            State::Pending(pending) => pending.is_finished(),
            State::Spawned(task, _) => task.is_finished(),
            State::Ended(_) | State::Taken => true,
        }
    }

    fn block_until(&mut self, until: Option<Instant>) -> Option<Result<T, TaskError>> {
        let polled = std::future::poll_fn(|cx| {
            let State::Pending(pending) = &mut self.state else { return Pin::new(&mut *self).poll(cx) };
            let polled = pending.poll_answer(cx);
            if polled.is_pending() {
                // The task may end here, which wakes this thread.
                pending.wait_on_worker(until.is_none());
            }
            polled
        });
        block_on_until(pin!(polled), until)
    }
}

impl<T> Unpin for TaskHandle<T> {}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    /// # Panics
    ///
    /// If it is polled again after it gave the result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Pending(pending) => ready!(Pin::new(pending).poll(cx)),
            State::Spawned(task, pool) => ready!(Pin::new(task).poll(cx)).unwrap_or_else(|_| {
                // The task catches panics, so this error means that its runtime was shut down.
                Err(TaskError::from(Rejection::new(pool.clone(), Reason::CutOff, None)))
            }),
            State::Ended(_) | State::Taken => match std::mem::replace(&mut self.state, State::Taken) {
                State::Ended(result) => result,
                _ => panic!("`TaskHandle` polled after it gave its result"),
            },
        };
        self.state = State::Taken;
        Poll::Ready(result)
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        if let State::Pending(pending) = &mut self.state {
            pending.detach();
        }
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
