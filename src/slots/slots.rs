//! `Slots`: the handle through which tasks use values.

use std::fmt;
use std::future::Future;
use std::panic::Location;

use super::guard::SlotGuard;
use super::lender::Lender;
use crate::admission::Outcome;
use crate::error::SlotError;
use crate::function_name::function_name;
use crate::pool::{Pool, SlotsStats, Submission, TaskOptions};
use crate::pools::{IntoTask, call_here};

/// Values that belong to the permits of a pool: at most one for each task that may be in flight.
///
/// A task that uses a value has a permit, and there are as many values as permits at most. So no task waits for a value,
/// and the pool's queue, with its deadlines, priorities and shedding, is the only one. The module's docs have an
/// [overview](crate::slots).
///
/// Cheap to clone; every clone is the same slots. When the last clone and the last [`SlotGuard`] are dropped, the idle
/// values are dropped on that thread.
pub struct Slots<T: Send + 'static> {
    pub(super) lender: Lender<T>,
}

impl<T: Send + 'static> Slots<T> {
    /// Runs a closure with a value, as a task of the pool.
    ///
    /// The task is submitted when the future is first polled. It is queued, shed, cancelled and counted like every other
    /// task; [`run_with`](Self::run_with) sets its deadline, priority and caller. The worker then takes a value: the one
    /// that was used last, or a new one. If the closure panics, the value is dropped, unless
    /// [`keep_on_panic`](super::SlotsBuilder::keep_on_panic) is set.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task or cannot finish it, the closure panics, or a new value is needed and cannot be
    /// made. [`Nested`](SlotError::Nested) if the calling task has a value of these slots already.
    #[track_caller]
    pub fn run<R, F>(&self, task: F) -> impl Future<Output = Result<R, SlotError>> + Send + use<T, R, F>
    where
        F: FnOnce(&mut T) -> R + Send + 'static,
        R: Send + 'static,
    {
        self.run_with(TaskOptions::new(), task)
    }

    /// Runs a closure with a value, as a task of the pool, with the task's deadline, priority or caller set.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_with<R, F>(
        &self,
        options: TaskOptions,
        task: F,
    ) -> impl Future<Output = Result<R, SlotError>> + Send + use<T, R, F>
    where
        F: FnOnce(&mut T) -> R + Send + 'static,
        R: Send + 'static,
    {
        let (slots, submitted_at) = (self.clone(), Location::caller());
        let nested = self.lender.nested();
        async move {
            if let Some(error) = nested {
                return Err(error);
            }
            let Some(pool) = slots.lender.pool().cloned() else { return run_here(&slots.lender, task) };
            let function = move || function_name::<F>(false, submitted_at);
            let future = IntoTask::into_task(move || slots.lender.lend(task));
            let submission = Submission::new(future, options, function, outcome);
            pool.submit_future(submission).map_err(|rejected| rejected.rejection)?.await?
        }
    }

    /// Calls a closure with a value, in code that runs in a task of this pool already: the handler behind a
    /// [`PoolLayer`](crate::PoolLayer), or a closure of [`Pool::run`]. The task's permit entitles it to the value, so
    /// there is no second queue.
    ///
    /// It blocks the worker while a new value is made. Use [`take`](Self::take) to keep the value across awaits.
    ///
    /// # Errors
    ///
    /// [`Outside`](SlotError::Outside) if the calling thread runs no task of this pool; [`Nested`](SlotError::Nested)
    /// if this task has a value of these slots already, or a task that waits for it and whose permit it uses. An error
    /// of the value, if a new one is needed and cannot be made.
    pub fn here<R>(&self, call: impl FnOnce(&mut T) -> R) -> Result<R, SlotError> {
        self.lender.lend(call)
    }

    /// Takes a value, in code that runs in a task of this pool already. The value is put back when the guard is dropped.
    ///
    /// ```
    /// use tower_offload::{Inference, Pools, slots::Slots};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # async fn next_token() -> u8 { 7 }
    /// let pools = Pools::default();
    /// let sessions = Slots::builder(&pools, Inference).make(|| Ok::<_, String>(vec![0_u8; 4])).build().await?;
    /// let written = pools.run_in_pool(Inference, async move {
    ///     let mut session = sessions.take()?;
    ///     session.push(next_token().await);
    ///     Ok::<_, tower_offload::slots::SlotError>(session.len())
    /// });
    /// assert_eq!(written.await??, 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`here`](Self::here).
    pub fn take(&self) -> Result<SlotGuard<T>, SlotError> {
        self.lender.take()
    }

    /// The numbers of these slots at this instant.
    #[must_use]
    pub fn stats(&self) -> SlotsStats {
        self.lender.inner().stats()
    }

    /// The pool; `None` if the pools are [disabled](crate::Pools::disabled).
    #[must_use]
    pub fn pool(&self) -> Option<&Pool> {
        self.lender.pool()
    }

    /// Makes a value in a task of the pool, unless there is one.
    pub(super) fn make_first(&self) -> impl Future<Output = Result<(), SlotError>> + Send + use<T> {
        self.run_with(TaskOptions::new().independent(), |_value: &mut T| ())
    }
}

/// Calls a closure with a value on this thread. As in a pool, its panic becomes an error.
fn run_here<T: Send + 'static, R>(slots: &Lender<T>, call: impl FnOnce(&mut T) -> R) -> Result<R, SlotError> {
    call_here(|| slots.lend(call))?
}

/// A task that got no value counts as one that failed.
const fn outcome<R>(result: &Result<R, SlotError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(_) => Outcome::Error,
    }
}

impl<T: Send + 'static> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self { lender: self.lender.clone() }
    }
}

impl<T: Send + 'static> fmt::Debug for Slots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
