//! A batch: many tasks in one pool, of which only so many are submitted at once.

use std::future::Future;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use super::{IntoTask, Pools, run};
use crate::error::{TaskError, UnknownPool};
use crate::pool::Pool;
use crate::workload::PoolName;

/// Runs tasks in a pool, at most so many of this batch at once. Cheap to clone; every clone is the same batch.
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
    /// `None` where the pools are disabled.
    pool: Option<Pool>,
    slots: Arc<Semaphore>,
    most: usize,
}

impl Pools {
    /// A batch that has at most `max_concurrent` of its tasks in the pool, queued or in flight, at once; 0 counts as 1.
    ///
    /// # Errors
    ///
    /// If there is no pool of this name.
    pub fn batch_executor(&self, pool: impl PoolName, max_concurrent: usize) -> Result<BatchExecutor, UnknownPool> {
        let most = max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Ok(BatchExecutor { pool: self.choose(pool)?, slots: Arc::new(Semaphore::new(most)), most })
    }
}

impl BatchExecutor {
    /// Runs one task of the batch: waits for its turn and for room in the pool, then does as [`Pools::run_in_pool`] does.
    ///
    /// A task of a batch is never lost to a full queue, to overload control or to the queue timeout: it waits. A task of the
    /// pool that runs another one through the batch does not wait for a turn.
    ///
    /// # Errors
    ///
    /// As of [`Pools::run_in_pool`].
    pub fn run<J, Kind>(&self, task: J) -> impl Future<Output = Result<J::Output, TaskError>> + Send + use<J, Kind>
    where
        J: IntoTask<Kind>,
    {
        let Self { pool, slots, .. } = self.clone();
        async move {
            // A task of the pool may be one of this batch: it would wait for the slot that it has.
            let nested = pool.as_ref().is_some_and(Pool::is_current);
            let slot = if nested { None } else { Some(slots.acquire_owned().await) };
            let result = run::run_patiently(pool, task).await;
            drop(slot);
            result
        }
    }

    /// Runs all tasks of an iterator, and gives their results in its order. One that fails does not stop the others.
    ///
    /// The iterator is asked for a task only when there is a place for it. Dropping the future cancels what is left.
    pub async fn run_all<J, Kind>(&self, tasks: impl IntoIterator<Item = J>) -> Vec<Result<J::Output, TaskError>>
    where
        J: IntoTask<Kind>,
    {
        let numbered = tasks.into_iter().enumerate();
        let run = |(index, task)| {
            let run = self.run(task);
            async move { (index, run.await) }
        };
        let mut ended = stream::iter(numbered).map(run).buffer_unordered(self.most);
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
