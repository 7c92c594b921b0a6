//! Rejections as axum responses, so that handlers return them with `?`.

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;

use super::format::problem;
use super::reason::{answer_to, reason_of};
use super::retry_after::seconds;
use crate::error::{
    BatchError, Cancelled, MakeError, ModelError, Panic, Reason, Rejection, SlotError, TaskError, UnknownPool,
};

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
        let reason = Some(Reason::Panicked.as_str());
        document(StatusCode::INTERNAL_SERVER_ERROR, "the task panicked", reason)
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

/// A passed deadline is a status of 504. If the client has left or a shutdown cuts the task off, the status is 500, which the
/// client rarely sees.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for Cancelled {
    fn into_response(self) -> Response {
        let reason = reason_of(self);
        document(answer_to(reason).0, &self.to_string(), Some(reason.as_str()))
    }
}

/// A value that could not be made is a status of 503, without the error, which goes to nobody else: log it. A wrong use of
/// the slots is a status of 500 that says what to use.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for SlotError {
    fn into_response(self) -> Response {
        match self {
            Self::Task(error) => error.into_response(),
            Self::Make(error) => unavailable("a value could not be made", &error),
            Self::Nested(_) | Self::Outside(_) | Self::Closed => {
                document(StatusCode::INTERNAL_SERVER_ERROR, &self.to_string(), None)
            }
        }
    }
}

/// A model that could not be loaded, or was unloaded, is a status of 503, a key that cannot name a model 400, and a model
/// that is larger than the budget 500. The error of a load goes to nobody else: log it.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl IntoResponse for ModelError {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Task(error) => return error.into_response(),
            Self::Load { error, .. } => return unavailable("the model could not be loaded", &error),
            Self::Unloaded(_) => (StatusCode::SERVICE_UNAVAILABLE, "the model was unloaded"),
            Self::BadKey { .. } => (StatusCode::BAD_REQUEST, "the key cannot name a model"),
            Self::TooLarge { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "the model is too large"),
        };
        document(status, detail, None)
    }
}

/// An item's own error becomes the response that it is by itself. A batch that failed is a 500 without details.
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl<E: IntoResponse> IntoResponse for BatchError<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Item(error) => error.into_response(),
            Self::Task(error) => error.into_response(),
            Self::Length { .. } | Self::Service(_) => {
                document(StatusCode::INTERNAL_SERVER_ERROR, "the batch failed", None)
            }
        }
    }
}

/// A status of 503 with the time of the next attempt, and without the error.
fn unavailable(detail: &str, error: &MakeError) -> Response {
    let mut response = document(StatusCode::SERVICE_UNAVAILABLE, detail, None);
    if let Some(wait) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds(wait).into());
    }
    response
}

/// A problem document of a task that may have started.
fn document(status: StatusCode, detail: &str, reason: Option<&str>) -> Response {
    let mut document = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "started": true,
    });
    if let Some(reason) = reason {
        document["reason"] = reason.into();
    }
    (status, [(CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response()
}
