//! A batch: many tasks in one pool, of which a limited number is submitted at once.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use super::{IntoTask, Pools, run};
use crate::error::{TaskError, UnknownPool};
use crate::pool::Pool;
use crate::workload::PoolName;

/// Runs many tasks in a pool, of which a limited number is in the pool at once. Cheap to clone; every clone is the same
/// batch.
///
/// ```
/// use tower_offload::{Inference, Pools};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pools = Pools::default();
/// let batch = pools.batch_executor(Inference, 10)?;
/// let lengths = batch.run_all(["a", "bb", "ccc"].map(|text| move || text.len())).await;
/// let lengths: Vec<usize> = lengths.into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(lengths, [1, 2, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct BatchExecutor {
    /// `None` if the pools are disabled.
    pool: Option<Pool>,
    permits: Arc<Semaphore>,
    max_concurrent: usize,
}

impl Pools {
    /// A batch with at most `max_concurrent` tasks in the pool at once, queued or in flight; 0 counts as 1.
    ///
    /// # Errors
    ///
    /// If no pool has this name.
    pub fn batch_executor(&self, pool: impl PoolName, max_concurrent: usize) -> Result<BatchExecutor, UnknownPool> {
        let max_concurrent = max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_concurrent));
        Ok(BatchExecutor { pool: self.choose(pool)?, permits, max_concurrent })
    }
}

impl BatchExecutor {
    /// Runs one task of the batch. It waits until the batch has fewer than `max_concurrent` tasks in the pool and until
    /// the pool has room, and then does as [`Pools::run_in_pool`] does.
    ///
    /// A task of a batch is never rejected because of a full queue, overload or the queue timeout: it waits. A task of
    /// the pool that runs another one through the batch does not wait for the batch. A task of another pool does. So a
    /// task of the batch must not wait for a task of another pool that waits for this batch.
    ///
    /// Dropping the future cancels the task, as with [`Pools::run_in_pool`].
    ///
    /// # Errors
    ///
    /// If the pool drains, cannot start a worker or cannot finish the task, or if the task panics.
    #[track_caller]
    pub fn run<J, Kind>(&self, task: J) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        self.run_from(task, Location::caller())
    }

    fn run_from<J, Kind>(
        &self,
        task: J,
        submitted_at: &'static Location<'static>,
    ) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        let Self { pool, permits, .. } = self.clone();
        async move {
            // A task of the pool may be one of this batch: it would wait for the permit that it has.
            let nested = pool.as_ref().is_some_and(Pool::is_current);
            let permit = if nested { None } else { Some(permits.acquire_owned().await) };
            let result = run::run_patiently(pool, task, submitted_at).await;
            drop(permit);
            result
        }
    }

    /// Runs all tasks of an iterator, and returns their results in the same order. A task that fails does not stop the
    /// others.
    ///
    /// The iterator is asked for its next task only when the batch can run it. Dropping the future cancels the tasks
    /// that have not ended.
    #[track_caller]
    pub fn run_all<J, Kind, I>(
        &self,
        tasks: I,
    ) -> impl Future<Output = Vec<Result<J::Output, TaskError>>> + use<J, Kind, I>
    where
        J: IntoTask<Kind>,
        I: IntoIterator<Item = J>,
    {
        self.clone().run_all_from(tasks, Location::caller())
    }

    async fn run_all_from<J, Kind, I>(
        self,
        tasks: I,
        submitted_at: &'static Location<'static>,
    ) -> Vec<Result<J::Output, TaskError>>
    where
        J: IntoTask<Kind>,
        I: IntoIterator<Item = J>,
    {
        let numbered = tasks.into_iter().enumerate();
        let run = |(index, task)| {
            let run = self.run_from(task, submitted_at);
            async move { (index, run.await) }
        };
        let mut ended = stream::iter(numbered).map(run).buffer_unordered(self.max_concurrent);
        let mut results = Vec::new();
        while let Some((index, result)) = ended.next().await {
            if results.len() <= index {
                results.resize_with(index + 1, || None);
            }
            results[index] = Some(result);
        }
        results.into_iter().map(|result: Option<_>| result.expect("every task of the batch has ended")).collect()
    }
}
