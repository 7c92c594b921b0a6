//! The handle to a task that was submitted: a future that blocking code can wait for, too.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::block_on::block_on_until;
use crate::error::{Reason, Rejection, TaskError};
use crate::pool::CancelOnDrop;
use crate::workload::Workload;

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
    Pending(CancelOnDrop<T>),
    /// The pools are disabled: a task of the Tokio runtime.
    Spawned(JoinHandle<Result<T, TaskError>>, Workload),
    /// The task ran where it was submitted.
    Ended(Result<T, TaskError>),
    Taken,
}

// === impl TaskHandle ===

impl<T> TaskHandle<T> {
    pub(crate) const fn new(pending: CancelOnDrop<T>) -> Self {
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
