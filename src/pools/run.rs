//! Closures and futures in a pool, without HTTP.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::Handle;

use super::{IntoTask, Pools};
use crate::error::{Panic, Rejection, TaskError, UnknownPool};
use crate::pool::{Pending, Pool, Rejected, Submission, TaskHandle, TaskOptions, always_ok, name_of};
use crate::workload::PoolName;

impl Pools {
    /// Runs a closure or a future in a pool, and gives its value to whoever awaits.
    ///
    /// The task is submitted when the future is first polled. A closure that returns a future has made that future, and not
    /// run it: pass the future itself, of an async function what calling it returns
    /// (`run_in_pool(Cpu, resize(picture))`).
    ///
    /// A task that is submitted by another task inherits the deadline, the priority and the caller of its request;
    /// [`Pool::run_with`] sets them. A task may call this for its own pool: the inner task queues like any other, and the
    /// worker that polls this future runs an inner task in place that is still queued, so a pool never waits for itself.
    ///
    /// # Cancellation
    ///
    /// | what is dropped | a task that is queued | a task that runs |
    /// |---|---|---|
    /// | the future of `run_in_pool` | leaves the queue and never starts | a future is dropped at its next await; a closure goes on, and [`checkpoint`](crate::checkpoint) tells it |
    /// | the [`TaskHandle`] of `submit_to_pool` | starts in its turn | goes on |
    ///
    /// So `tokio::time::timeout(limit, pools.run_in_pool(Cpu, task))` gives the task up at the limit. A
    /// [`deadline`](TaskOptions::deadline) does so too, and a nested task inherits it.
    ///
    /// # Errors
    ///
    /// If the pool is unknown, refuses the task or cannot finish it, or if the task panics.
    pub fn run_in_pool<N, J, Kind>(
        &self,
        pool: N,
        task: J,
    ) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<N, J, Kind>
    where
        N: PoolName,
        J: IntoTask<Kind>,
    {
        run(self.choose(pool), task)
    }

    /// Submits a closure or a future to a pool at once, and gives a handle that can be awaited *or* waited for by code
    /// that blocks. Dropping the handle lets the task go on.
    ///
    /// A pool under overload sheds tasks that wait too long (see [`Queue`](crate::config::Queue)). For a backlog of many tasks, use a
    /// [batch](Self::batch_executor), which holds them outside of the pool, or give the pool `queue: fifo`.
    ///
    /// A task that calls this for its own pool has run the inner one to its end when this returns: it would otherwise need
    /// a second place in the pool, and might wait for itself. So an inner future must not wait for what its submitter
    /// does later; where it is to, await [`run_in_pool`](Self::run_in_pool) beside that instead.
    ///
    /// A task of [disabled](Self::disabled) pools has run to its end when this returns; except that a future, if this is
    /// called in a Tokio runtime, is spawned there.
    ///
    /// # Errors
    ///
    /// If the pool is unknown, or refuses the task.
    pub fn submit_to_pool<J, Kind>(&self, pool: impl PoolName, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        // Polled on a thread of the runtime, a future may need that thread to come to its end.
        if self.is_disabled()
            && J::IS_FUTURE
            && let Ok(runtime) = Handle::try_current()
        {
            return Ok(TaskHandle::spawned(runtime.spawn(run_here(task.into_task())), pool.to_workload()));
        }
        match self.choose(pool)? {
            Some(pool) => pool.submit(task),
            None => Ok(TaskHandle::ended(crate::pool::block_on(run_here(task.into_task())))),
        }
    }
}

impl Pool {
    /// Runs a closure or a future in this pool, as [`Pools::run_in_pool`] does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_offload::{Cpu, Pools};
    ///
    /// let pools = Pools::default();
    /// let cpu = pools.get(Cpu)?;
    /// assert_eq!(cpu.run(|| 6 * 7).await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the pool rejects the task or cannot finish it, or if the task panics.
    pub fn run<J, Kind>(&self, task: J) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        self.run_with(TaskOptions::new(), task)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task or cannot finish it, or if the task panics.
    pub fn run_with<J, Kind>(
        &self,
        options: TaskOptions,
        task: J,
    ) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        let pool = self.clone();
        async move { submit(&pool, options, task)?.await }
    }

    /// Submits a closure or a future to this pool at once, as [`Pools::submit_to_pool`] does.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task.
    pub fn submit<J, Kind>(&self, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        self.submit_with(TaskOptions::new(), task)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task.
    pub fn submit_with<J, Kind>(&self, options: TaskOptions, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        Ok(TaskHandle::pending(submit(self, options, task)?))
    }
}

fn submit<J, Kind>(pool: &Pool, options: TaskOptions, task: J) -> Result<Pending<J::Output>, Rejection>
where
    J: IntoTask<Kind>,
{
    pool.submit_future(submission(options, task, false)).map_err(|rejected| rejected.rejection)
}

fn submission<J, Kind>(
    options: TaskOptions,
    task: J,
    patient: bool,
) -> Submission<J::Future, impl Fn() -> String + use<J, Kind>>
where
    J: IntoTask<Kind>,
{
    Submission { future: task.into_task(), options, function: name_of::<J>, outcome_of: always_ok, patient }
}

/// Runs a task where it stands, or in the pool if there is one.
async fn run<J, Kind>(pool: Result<Option<Pool>, UnknownPool>, task: J) -> Result<J::Output, TaskError>
where
    J: IntoTask<Kind>,
{
    match pool? {
        Some(pool) => submit(&pool, TaskOptions::new(), task)?.await,
        None => run_here(task.into_task()).await,
    }
}

/// Runs a task that waits until the pool has room for it, and is never shed.
pub(super) async fn run_patiently<J, Kind>(pool: Option<Pool>, task: J) -> Result<J::Output, TaskError>
where
    J: IntoTask<Kind>,
{
    let Some(pool) = pool else { return run_here(task.into_task()).await };
    let mut submission = submission(TaskOptions::new(), task, true);
    loop {
        match pool.submit_future(submission) {
            Ok(pending) => return pending.await,
            Err(Rejected { submission: Some(again), .. }) => {
                submission = again;
                pool.room().await;
            }
            Err(Rejected { rejection, .. }) => return Err(rejection.into()),
        }
    }
}

/// Runs a task where it stands; its panic is an error as it would be in a pool.
async fn run_here<F: Future>(task: F) -> Result<F::Output, TaskError> {
    let mut future = pin!(task);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(TaskError::Panicked(Panic::new(payload)))),
    })
    .await
}
