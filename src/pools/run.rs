//! Closures and futures in a pool, without HTTP.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

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
    /// made that future, and not run it: give the future itself.
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
    /// A pool under overload sheds jobs that wait too long (see [`Queue`](crate::Queue)). For a backlog of many jobs, use a
    /// [batch](Self::batch_executor), which holds them outside of the pool, or give the pool `queue: fifo`.
    ///
    /// A job that calls this for its own pool, and every job of [disabled](Self::disabled) pools, runs to its end before
    /// this returns if it is a closure. A future then runs on a thread that this one waits for.
    ///
    /// # Errors
    ///
    /// If the pool is unknown, or refuses the job.
    pub fn submit_to_pool<J, Kind>(&self, pool: impl PoolName, job: J) -> Result<JobHandle<J::Output>, JobError>
    where
        J: IntoJob<Kind>,
    {
        match self.choose(pool)? {
            Some(pool) if !pool.is_current() => Ok(JobHandle::pending(submit(&pool, job)?)),
            _ => Ok(JobHandle::ended(crate::pool::block_on(run_here(job)))),
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
        _ => run_here(job).await,
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
async fn run_here<J, Kind>(job: J) -> Result<J::Output, JobError>
where
    J: IntoJob<Kind>,
{
    let mut future = pin!(job.into_job());
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(JobError::Panicked(Panic::new(payload)))),
    })
    .await
}
