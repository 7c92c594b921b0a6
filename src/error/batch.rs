//! `BatchError`: why an item of a batch has no result.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{Rejection, TaskError};

/// Why an item of a batch has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchError<E> {
    /// The function returned this error for the item.
    Item(E),
    /// The pool rejected the item or could not finish it, or the batch panicked.
    Task(TaskError),
    /// The function returned fewer or more results than it was given items.
    Length {
        /// How many items it was given.
        items: usize,
        /// How many results it returned.
        results: usize,
    },
    /// The service failed as a whole: the error that all items of the batch share.
    Service(Arc<dyn Error + Send + Sync>),
}

impl<E> BatchError<E> {
    /// Whether the pool rejected the item before it started: calling the batch again is safe.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Task(error) if error.is_rejected())
    }

    /// Whether the batch panicked.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        matches!(self, Self::Task(error) if error.is_panic())
    }

    /// Converts the error of an item. All other errors stay as they are.
    ///
    /// The items of [`BatchBuilder::try_run`](crate::batch::BatchBuilder::try_run) have no error of their own, and
    /// `tonic::Status` has no conversion from [`Infallible`](std::convert::Infallible). So a method of a tonic service
    /// says which type that error would have:
    #[cfg_attr(feature = "tonic", doc = "```")]
    #[cfg_attr(not(feature = "tonic"), doc = "```ignore")]
    /// use std::convert::Infallible;
    /// use tonic::{Request, Response, Status};
    /// use tower::ServiceExt;
    /// use tower_offload::batch::Batch;
    ///
    /// type Embed = Batch<String, Vec<f32>, Infallible>;
    ///
    /// async fn embed(embed: Embed, request: Request<String>) -> Result<Response<Vec<f32>>, Status> {
    ///     let vector = embed.oneshot(request.into_inner()).await;
    ///     let vector = vector.map_err(|error| error.map_item(|never| -> Status { match never {} }))?;
    ///     Ok(Response::new(vector))
    /// }
    /// ```
    pub fn map_item<F>(self, convert: impl FnOnce(E) -> F) -> BatchError<F> {
        match self {
            Self::Item(error) => BatchError::Item(convert(error)),
            Self::Task(error) => BatchError::Task(error),
            Self::Length { items, results } => BatchError::Length { items, results },
            Self::Service(error) => BatchError::Service(error),
        }
    }
}

impl<E: fmt::Display> fmt::Display for BatchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(error) => error.fmt(f),
            Self::Task(error) => error.fmt(f),
            Self::Length { items, results } => {
                write!(f, "the batch returned {results} results for {items} items")
            }
            Self::Service(error) => write!(f, "the batch failed: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for BatchError<E> {
    /// The source of the inner error, because `Display` already shows the inner error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Item(error) => error.source(),
            Self::Task(error) => error.source(),
            Self::Length { .. } => None,
            Self::Service(error) => error.source(),
        }
    }
}

impl<E> From<TaskError> for BatchError<E> {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

impl<E> From<Rejection> for BatchError<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Task(TaskError::from(rejection))
    }
}
