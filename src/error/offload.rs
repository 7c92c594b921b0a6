//! `OffloadError`: the error of a service behind a layer that rejects with errors.

use std::error::Error;
use std::fmt;

use super::Rejection;

/// The error of a service behind [`PoolLayer::errors`](crate::PoolLayer::errors): a rejection by the pool, or an error
/// of the service.
#[derive(Debug)]
#[non_exhaustive]
pub enum OffloadError<E> {
    /// The pool gave no response. [`Rejection::started`] says whether the handler had started.
    Rejected(Rejection),
    /// The service failed.
    Inner(E),
}

impl<E> OffloadError<E> {
    /// Whether the pool rejected the request.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// The rejection, if the pool rejected the request.
    #[must_use]
    pub const fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(_) => None,
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> OffloadError<E> {
    /// The [`Rejection`] or the service's own error in a box: the error type of many layers of tower.
    ///
    /// ```
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_offload::error::OffloadError;
    /// use tower_offload::{Cpu, PoolLayer, Pools, Rejection};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let pools = Pools::default();
    /// let service = ServiceBuilder::new()
    ///     .buffer(16)
    ///     .map_err(OffloadError::into_boxed)
    ///     .layer(PoolLayer::<Cpu>::new(&pools).any_request())
    ///     .service(service_fn(|text: &'static str| async move { Ok::<_, BoxError>(text.parse::<i32>()?) }));
    /// assert_eq!(service.clone().oneshot("12").await?, 12);
    /// let error = service.oneshot("twelve").await.unwrap_err();
    /// assert!(error.is::<std::num::ParseIntError>() && !error.is::<Rejection>());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_boxed(self) -> Box<dyn Error + Send + Sync> {
        match self {
            Self::Rejected(rejection) => rejection.into(),
            Self::Inner(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for OffloadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for OffloadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Inner(error) => error.source(),
        }
    }
}
