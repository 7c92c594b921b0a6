//! Request bodies: how they are read before the request goes to its pool, and JSON.

use std::time::Duration;

use axum::extract::FromRequest;
use axum::response::{IntoResponse, Response};
use tower_offload::body::ReadBody;

use super::problem::Problem;

/// The largest body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The limits of bodies. The pools' layers read them before the request goes to its pool. A handler that waited for a slow
/// client's body would hold a permit meanwhile; here, the connection's task waits.
pub(crate) fn limits() -> ReadBody {
    ReadBody::new(MAX_BODY).whole().within(BODY_TIMEOUT)
}

/// A JSON body whose rejections are problems.
#[derive(Debug, FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}
