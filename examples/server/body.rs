//! Request bodies: read whole, limited in size and time, before the request goes to its pool.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONNECTION, CONTENT_LENGTH};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use tower_offload::body::BodyRead;

use super::problem::Problem;

/// The largest body, in bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the body before the request goes to its pool. A handler that waited for a slow client's body would hold a permit
/// meanwhile; here, the connection's task waits.
pub(crate) async fn read_first(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY) {
        return unread(too_large(), &parts);
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => {
            // So that a rejection does not close the connection.
            parts.extensions.insert(BodyRead);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        Ok(Err(error)) if is_limit(&error) => unread(too_large(), &parts),
        Ok(Err(_)) => unread(Problem::bad_request("the body could not be read to its end"), &parts),
        Err(_) => unread(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took longer than 10 s to arrive"), &parts),
    }
}

/// The response to a request whose body was not read to its end. An HTTP/1 connection cannot carry another request then, so
/// the response announces that it closes.
fn unread(problem: Problem, request: &Parts) -> Response {
    let mut response = problem.into_response();
    if request.version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes"))
}

fn is_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_in_time_is_refused() {
        let app = Router::new().route("/", post(|| async { "read" })).route_layer(from_fn(read_first));
        let endless = Body::from_stream(tokio_stream::pending::<Result<&str, std::io::Error>>());
        let started = tokio::time::Instant::now();
        let response = app.oneshot(Request::post("/").body(endless).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(started.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
    }
}
