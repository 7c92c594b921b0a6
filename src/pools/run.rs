//! Closures and futures in a pool, without HTTP.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio::runtime::Handle;

use super::{IntoJob, Pools};
use crate::error::{JobError, Panic, Rejection, UnknownPool};
use crate::pool::{JobHandle, Pending, Pool, Submission, always_ok, name_of};
use crate::terms::Terms;
use crate::workload::PoolName;

impl Pools {
    /// Runs a closure or a future in a pool, and gives its value to whoever awaits.
    ///
    /// The job is submitted when the future is first polled. If the future is dropped, a job that is queued leaves the
    /// queue and never starts; a closure that runs cannot be interrupted and goes on; a future is dropped at its next
    /// await. A job that calls this for its own pool runs the inner one inline. A closure that returns a future has
    /// made that future, and not run it: give the future itself, of an async function what calling it gives
    /// (`run_in_pool(Cpu, resize(picture))`).
    ///
    /// Jobs of this kind have no deadline of their own and the normal priority; requests behind a
    /// [`PoolLayer`](crate::PoolLayer) can have both.
    ///
    /// # Errors
    ///
    /// If the pool is unknown, refuses the job or cannot finish it, or if the job panics.
    pub fn run_in_pool<N, J, Kind>(
        &self,
        pool: N,
        job: J,
    ) -> impl Future<Output = Result<J::Output, JobError>> + Send + use<N, J, Kind>
    where
        N: PoolName,
        J: IntoJob<Kind>,
    {
        run(self.choose(pool), job)
    }

    /// Submits a closure or a future to a pool at once, and gives a handle that can be awaited *or* waited for by code
    /// that blocks. Dropping the handle lets the job go on.
    ///
    /// A pool under overload sheds jobs that wait too long (see [`Queue`](crate::config::Queue)). For a backlog of many jobs, use a
    /// [batch](Self::batch_executor), which holds them outside of the pool, or give the pool `queue: fifo`.
    ///
    /// A job that calls this for its own pool has run the inner one to its end when this returns: it would otherwise need
    /// a second place in the pool, and might wait for itself. So an inner future must not wait for what its submitter
    /// does later; where it is to, await [`run_in_pool`](Self::run_in_pool) beside that instead.
    ///
    /// A job of [disabled](Self::disabled) pools has run to its end when this returns; except that a future, if this is
    /// called in a Tokio runtime, is spawned there.
    ///
    /// # Errors
    ///
    /// If the pool is unknown, or refuses the job.
    pub fn submit_to_pool<J, Kind>(&self, pool: impl PoolName, job: J) -> Result<JobHandle<J::Output>, JobError>
    where
        J: IntoJob<Kind>,
    {
        // Polled on a thread of the runtime, a future may need that thread to come to its end.
        if self.is_disabled()
            && J::IS_FUTURE
            && let Ok(runtime) = Handle::try_current()
        {
            return Ok(JobHandle::spawned(runtime.spawn(run_here(job.into_job())), pool.to_workload()));
        }
        match self.choose(pool)? {
            Some(pool) if !pool.is_current() => Ok(JobHandle::pending(submit(&pool, job)?)),
            _ => Ok(JobHandle::ended(crate::pool::block_on(run_here(job.into_job())))),
        }
    }
}

/// Runs a job in the pool, or here if there is none or this thread is the pool's own.
pub(super) async fn run<J, Kind>(pool: Result<Option<Pool>, UnknownPool>, job: J) -> Result<J::Output, JobError>
where
    J: IntoJob<Kind>,
{
    match pool? {
        Some(pool) if !pool.is_current() => submit(&pool, job)?.await,
        _ => run_here(job.into_job()).await,
    }
}

fn submit<J, Kind>(pool: &Pool, job: J) -> Result<Pending<J::Output>, Rejection>
where
    J: IntoJob<Kind>,
{
    pool.submit(Submission {
        future: job.into_job(),
        terms: Terms::default(),
        function: name_of::<J>,
        outcome_of: always_ok,
    })
}

/// Runs a job where it stands; its panic is an error as it would be in a pool.
async fn run_here<F: Future>(job: F) -> Result<F::Output, JobError> {
    let mut future = pin!(job);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(JobError::Panicked(Panic::new(payload)))),
    })
    .await
}
