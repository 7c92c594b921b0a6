//! Rejections as axum responses, so that handlers return them with `?`.

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::format::problem;
use crate::error::{Panic, Reason, Rejection, TaskError, UnknownPool};

/// The problem document that a [`PoolLayer`](crate::PoolLayer) would answer with.
///
/// ```
/// use axum::{Router, extract::State, routing::get};
/// use tower_offload::{Cpu, Pools, TaskError};
///
/// fn count_primes(below: u32) -> usize {
///     (2..below).filter(|number| (2..*number).all(|factor| number % factor != 0)).count()
/// }
///
/// async fn primes(State(pools): State<Pools>) -> Result<String, TaskError> {
///     let primes = pools.run_in_pool(Cpu, || count_primes(10_000)).await?;
///     Ok(primes.to_string())
/// }
///
/// let app: Router = Router::new().route("/primes", get(primes)).with_state(Pools::default());
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        problem(&self).map(Body::new)
    }
}

/// A status of 500 that names the pool.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for UnknownPool {
    fn into_response(self) -> Response {
        Rejection::new(self.name().clone(), Reason::UnknownPool, None).into_response()
    }
}

/// A status of 500. The message of the panic goes to the panic hook alone.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Panic {
    fn into_response(self) -> Response {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let document = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": "the task panicked",
            "reason": Reason::Panicked.as_str(),
            "started": true,
        });
        (status, [(CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response()
    }
}

/// The response of the inner error.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for TaskError {
    fn into_response(self) -> Response {
        match self {
            Self::Rejected(rejection) | Self::CutOff(rejection) => rejection.into_response(),
            Self::Panicked(panic) => panic.into_response(),
            Self::UnknownPool(unknown) => unknown.into_response(),
        }
    }
}
