//! Closures and futures in a pool, without HTTP.

use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use http::{Extensions, HeaderMap};
use tokio::runtime::Handle;

use super::{IntoTask, Pools, TaskHandle};
use crate::block_on::block_on;
use crate::error::{Panic, Reason, Rejection, TaskError, UnknownPool};
use crate::function_name::function_name;
use crate::pool::{CancelOnDrop, Pool, Rejected, Submission, TaskOptions, always_ok};
use crate::terms::Terms;
use crate::workload::PoolName;

impl Pools {
    /// Runs a closure or a future in a pool, and returns its value.
    ///
    /// The task is submitted when the future is first polled. A closure that returns a future only makes that future:
    /// pass the future itself, such as what an async function returns (`run_in_pool(Cpu, resize(picture))`).
    ///
    /// # Tasks within tasks
    ///
    /// A task that is submitted by another task inherits the deadline, the priority and the caller of its request;
    /// [`Pool::run_with`] sets them. A task may submit to its own pool: the inner task queues like any other. If a
    /// worker polls this future while no permit or no other worker is free for the inner task, that worker runs it in
    /// place. So a pool never waits for itself. Inner tasks that run in place run one after the other: they may block
    /// their threads for each other, as with a barrier, only if the pool has a permit and a worker for each of them.
    ///
    /// # Cancellation
    ///
    /// | what is dropped | a task that is queued | a task that runs |
    /// |---|---|---|
    /// | the future of `run_in_pool` | leaves the queue and never starts | a future is dropped at its next await; a closure runs to its end, and [`checkpoint`](crate::checkpoint) tells it |
    /// | the [`TaskHandle`] of `submit_to_pool` | starts in its turn | runs to its end |
    ///
    /// So `tokio::time::timeout(limit, pools.run_in_pool(Cpu, task))` cancels the task at the limit. A
    /// [`deadline`](TaskOptions::deadline) does so too, and nested tasks inherit it.
    ///
    /// # The task's name
    ///
    /// In the log and among the active tasks, a function and an async function have their own name. A closure or an
    /// async block has none: it appears as the file and line of this call, such as `src/main.rs:42`.
    ///
    /// # Errors
    ///
    /// If no pool has this name, if the pool rejects the task or cannot finish it, or if the task panics.
    #[track_caller]
    pub fn run_in_pool<N, J, Kind>(
        &self,
        pool: N,
        task: J,
    ) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<N, J, Kind>
    where
        N: PoolName,
        J: IntoTask<Kind>,
    {
        run(self.choose(pool), task, Location::caller())
    }

    /// Submits a closure or a future to a pool at once, and returns a handle. Async code awaits the handle; code that
    /// may block calls [`wait`](TaskHandle::wait). Dropping the handle does not cancel the task.
    ///
    /// An overloaded pool sheds tasks that wait too long (see [`Queue`](crate::config::Queue)). For a backlog of many
    /// tasks, use a [batch](Self::batch_executor), whose tasks wait outside the pool, or give the pool `queue: fifo`.
    ///
    /// A task may submit to its own pool: the inner task queues like any other. A worker of the pool that waits for the
    /// handle runs the inner task in place if it is still queued. A worker that polls the handle does so only if no
    /// permit or no other worker is free for the inner task. If the queue has no room, the inner task runs in place
    /// before this returns, up to its first await.
    ///
    /// [Disabled](Self::disabled) pools run a task to its end before this returns; except that a future, if this is
    /// called in a Tokio runtime, is spawned there.
    ///
    /// The task's name in the log is that of [`run_in_pool`](Self::run_in_pool).
    ///
    /// # Errors
    ///
    /// If no pool has this name, or if the pool rejects the task.
    #[track_caller]
    pub fn submit_to_pool<J, Kind>(&self, pool: impl PoolName, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        // Blocking a thread of the runtime on the future could deadlock, if the future needs that thread.
        if self.is_disabled()
            && J::IS_FUTURE
            && let Ok(runtime) = Handle::try_current()
        {
            return Ok(TaskHandle::spawned(runtime.spawn(run_here(task.into_task())), pool.to_workload()));
        }
        match self.choose(pool)? {
            Some(pool) => pool.submit(task),
            None => Ok(TaskHandle::ended(block_on(run_here(task.into_task())))),
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
    #[track_caller]
    pub fn run<J, Kind>(&self, task: J) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        self.run_with(TaskOptions::new(), task)
    }

    /// Runs a closure or a future in this pool, with its deadline, priority or caller set.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_offload::{Cpu, Pools, Priority, pool::TaskOptions};
    ///
    /// let pools = Pools::default();
    /// let options = TaskOptions::new().priority(Priority::Low);
    /// assert_eq!(pools.get(Cpu)?.run_with(options, || 6 * 7).await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the pool rejects the task or cannot finish it, or if the task panics.
    #[track_caller]
    pub fn run_with<J, Kind>(
        &self,
        options: TaskOptions,
        task: J,
    ) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        let (pool, submitted_at) = (self.clone(), Location::caller());
        async move { submit(&pool, options, task, submitted_at)?.await }
    }

    /// The options for tasks that belong to an HTTP request whose handler is not in a pool: the
    /// [`Deadline`](crate::Deadline), the [`Priority`](crate::Priority) and the [`Caller`](crate::Caller) among the
    /// request's extensions, and the headers that this pool trusts. In a [`PoolLayer`](crate::PoolLayer) this is not
    /// needed: tasks inherit the options of the request.
    ///
    /// ```
    /// use axum::{Router, extract::State, http::request::Parts, routing::get};
    /// use tower_offload::{Cpu, Pool, Pools, TaskError};
    ///
    /// async fn answer(State(cpu): State<Pool>, request: Parts) -> Result<String, TaskError> {
    ///     let options = cpu.options_of(&request.headers, &request.extensions)?;
    ///     cpu.run_with(options, || (6 * 7).to_string()).await
    /// }
    ///
    /// let pools = Pools::default();
    /// let app: Router = Router::new().route("/answer", get(answer)).with_state(pools.get(Cpu)?.clone());
    /// # let _ = app;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a trusted header cannot be read, and the pool rejects such requests. The rejection is counted.
    pub fn options_of(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<TaskOptions, Rejection> {
        match Terms::of_parts(headers, extensions, &self.plan().trust) {
            Ok(terms) => Ok(TaskOptions::of_request(terms, None, None)),
            Err(bad) => Err(self.count_rejected(Reason::BadHeader, String::new).with_detail(&bad)),
        }
    }

    /// Submits a closure or a future to this pool at once, as [`Pools::submit_to_pool`] does.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task.
    #[track_caller]
    pub fn submit<J, Kind>(&self, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        self.submit_with(TaskOptions::new(), task)
    }

    /// Submits a closure or a future to this pool at once, with its deadline, priority or caller set.
    ///
    /// # Errors
    ///
    /// If the pool rejects the task.
    #[track_caller]
    pub fn submit_with<J, Kind>(&self, options: TaskOptions, task: J) -> Result<TaskHandle<J::Output>, TaskError>
    where
        J: IntoTask<Kind>,
    {
        Ok(TaskHandle::new(submit(self, options, task, Location::caller())?))
    }
}

fn submit<J, Kind>(
    pool: &Pool,
    options: TaskOptions,
    task: J,
    submitted_at: &'static Location<'static>,
) -> Result<CancelOnDrop<J::Output>, Rejection>
where
    J: IntoTask<Kind>,
{
    let function = || function_name::<J>(J::IS_FUTURE, submitted_at);
    let submission = Submission::new(task.into_task(), options, function, always_ok);
    pool.submit_future(submission).map_err(|rejected| rejected.rejection)
}

/// Runs a task in the pool, or on this thread if there is no pool.
async fn run<J, Kind>(
    pool: Result<Option<Pool>, UnknownPool>,
    task: J,
    submitted_at: &'static Location<'static>,
) -> Result<J::Output, TaskError>
where
    J: IntoTask<Kind>,
{
    match pool? {
        Some(pool) => submit(&pool, TaskOptions::new(), task, submitted_at)?.await,
        None => run_here(task.into_task()).await,
    }
}

/// Runs a task that waits until the pool has room for it, and is never shed.
pub(super) async fn run_patiently<J, Kind>(
    pool: Option<Pool>,
    task: J,
    submitted_at: &'static Location<'static>,
) -> Result<J::Output, TaskError>
where
    J: IntoTask<Kind>,
{
    let Some(pool) = pool else { return run_here(task.into_task()).await };
    let mut future = task.into_task();
    loop {
        let function = || function_name::<J>(J::IS_FUTURE, submitted_at);
        let submission = Submission::new(future, TaskOptions::new(), function, always_ok);
        match pool.submit_future(Submission { patient: true, ..submission }) {
            Ok(pending) => return pending.await,
            Err(Rejected { future: Some(again), .. }) => {
                future = *again;
                pool.room().await;
            }
            Err(Rejected { rejection, .. }) => return Err(rejection.into()),
        }
    }
}

/// Runs a task on this thread. As in a pool, its panic becomes an error.
async fn run_here<F: Future>(task: F) -> Result<F::Output, TaskError> {
    let mut future = pin!(task);
    std::future::poll_fn(|cx| match call_here(|| future.as_mut().poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(error) => Poll::Ready(Err(error)),
    })
    .await
}

/// Calls a function on this thread. As in a pool, its panic becomes an error.
pub(crate) fn call_here<R>(call: impl FnOnce() -> R) -> Result<R, TaskError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| TaskError::Panicked(Panic::new(payload)))
}
