//! `BodyRead`: the mark of a request whose body was read.

/// Marks a request whose body middleware has read to its end; put it on the request's extensions.
///
/// A pool that rejects a request over HTTP/1 closes the connection if the request has a body that may be unread.
/// Without this mark, a body that middleware has read and put back counts as unread.
///
/// ```
/// use axum::body::{Body, to_bytes};
/// use axum::extract::Request;
/// use axum::http::StatusCode;
/// use tower_offload::body::BodyRead;
///
/// async fn read_first(request: Request) -> Result<Request, StatusCode> {
///     let (mut parts, body) = request.into_parts();
///     let bytes = to_bytes(body, 1 << 20).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
///     parts.extensions.insert(BodyRead);
///     Ok(Request::from_parts(parts, Body::from(bytes)))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct BodyRead;
