//! Runs the function of a batch for a list of items, and gives a result for each.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::function::Function;
use crate::current::checkpoint;
use crate::error::{BatchError, Panic, TaskError};
use crate::metrics::batches::BatchResult;
use crate::shield::shielded;

/// The results of a batch, one for each item, and how the batch ended.
pub(super) struct Ran<O, E> {
    pub(super) results: Vec<Result<O, BatchError<E>>>,
    pub(super) result: BatchResult,
}

/// Why a batch has no results.
enum Failure {
    Panicked(Panic),
    Length { items: usize, results: usize },
    Service(Arc<dyn Error + Send + Sync>),
}

/// Calls the function. If it fails as a whole and the batch is isolated, calls it once more for each item.
pub(super) async fn run<I, O, E>(function: Arc<Function<I, O, E>>, items: Vec<I>) -> Ran<O, E>
where
    I: Send,
{
    let number = items.len();
    // Copying calls code of the application. An item whose copy panics is not run once more.
    let copy_all = |copy: fn(&I) -> I| items.iter().map(|item| shielded(|| copy(item))).collect::<Vec<_>>();
    let copies = function.copy.filter(|_| number > 1).map(copy_all);
    let failure = match call(&function, items).await {
        Ok(results) => {
            let results = results.into_iter().map(|result| result.map_err(BatchError::Item)).collect();
            return Ran { results, result: BatchResult::Ok };
        }
        Err(failure) => failure,
    };
    let result = failure.result();
    let Some(copies) = copies else { return Ran { results: failure.for_each(number), result } };
    let mut results = Vec::with_capacity(number);
    for copied in copies {
        // Once all callers have left, the rest is not run.
        let Some(item) = copied.filter(|_| checkpoint().is_ok()) else {
            results.push(Err(failure.again().into_error()));
            continue;
        };
        results.push(match call(&function, vec![item]).await {
            Ok(mut one) => one.remove(0).map_err(BatchError::Item),
            Err(failure) => Err(failure.into_error()),
        });
    }
    Ran { results, result }
}

async fn call<I, O, E>(function: &Function<I, O, E>, items: Vec<I>) -> Result<Vec<Result<O, E>>, Failure> {
    let number = items.len();
    // The function is called inside of the future, too: a blocking one runs in the call.
    let called = AssertUnwindSafe(async { (function.call)(items).await }).catch_unwind().await;
    match called {
        Err(payload) => Err(Failure::Panicked(Panic::new(payload))),
        Ok(Err(error)) => Err(Failure::Service(error.into())),
        Ok(Ok(results)) if results.len() == number => Ok(results),
        Ok(Ok(results)) => Err(Failure::Length { items: number, results: results.len() }),
    }
}

impl Failure {
    const fn result(&self) -> BatchResult {
        match self {
            Self::Panicked(_) => BatchResult::Panicked,
            Self::Length { .. } | Self::Service(_) => BatchResult::Error,
        }
    }

    fn into_error<E>(self) -> BatchError<E> {
        match self {
            Self::Panicked(panic) => BatchError::Task(TaskError::Panicked(panic)),
            Self::Length { items, results } => BatchError::Length { items, results },
            Self::Service(error) => BatchError::Service(error),
        }
    }

    /// The same failure for each item. The payload of a panic goes to the first, and its message to all.
    fn for_each<O, E>(self, items: usize) -> Vec<Result<O, BatchError<E>>> {
        let others: Vec<_> = (1..items).map(|_| Err(self.again().into_error())).collect();
        std::iter::once(Err(self.into_error())).chain(others).collect()
    }

    fn again(&self) -> Self {
        match self {
            Self::Panicked(panic) => Self::Panicked(Panic::new(Box::new(panic.message().to_owned()))),
            Self::Length { items, results } => Self::Length { items: *items, results: *results },
            Self::Service(error) => Self::Service(error.clone()),
        }
    }
}
