//! Errors as `application/problem+json` (RFC 9457): those of the handlers, and those of axum and tower-http.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The error of a request.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
}

// === impl Problem ===

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// The request is not valid.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A fault of the server. The reason is logged, and not shown to the client.
    pub(crate) fn internal(what: &str, reason: &dyn std::fmt::Display) -> Self {
        tracing::error!("{what}: {reason}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, what)
    }

    /// Logs why, and does not show it to the client.
    pub(crate) fn because(self, reason: &dyn std::fmt::Display) -> Self {
        tracing::error!("{}: {reason}", self.detail);
        self
    }

    /// The problem document.
    pub(crate) fn document(&self) -> Value {
        let Self { status, detail } = self;
        let title = status.canonical_reason().unwrap_or("Error");
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail })
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, [(CONTENT_TYPE, PROBLEM)], self.document().to_string()).into_response()
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// Adds a problem document to an error that has no JSON body, and keeps its other headers (`Allow`,
/// `Retry-After`).
pub(crate) async fn describe(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_described = response.headers().get(CONTENT_TYPE).is_some_and(|value| [PROBLEM, JSON].contains(value));
    if !is_error || is_described {
        return response;
    }
    let detail = match status {
        StatusCode::NOT_FOUND => "there is nothing at this path",
        StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method; `Allow` lists those that it takes",
        StatusCode::RANGE_NOT_SATISFIABLE => "the range lies outside the file; `Content-Range` has its size",
        _ => "the request cannot be answered",
    };
    let (mut parts, _) = response.into_parts();
    let (described, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(described.headers);
    Response::from_parts(parts, body)
}
