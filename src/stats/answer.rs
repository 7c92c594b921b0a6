//! The responses of the endpoints.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::body::FullBody;

#[cfg(feature = "prometheus")]
pub(super) fn ok(content_type: &'static str, body: String) -> Response<FullBody> {
    answer(StatusCode::OK, content_type, body)
}

pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response<FullBody> {
    let text = serde_json::to_string(document).expect("its keys are strings, and its numbers are finite");
    answer(status, "application/json", text)
}

pub(super) fn not_found() -> Response<FullBody> {
    problem(StatusCode::NOT_FOUND, "there is nothing at this path")
}

/// `allow` are the methods that the path has.
pub(super) fn method_not_allowed(allow: &'static str) -> Response<FullBody> {
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn problem(status: StatusCode, detail: &str) -> Response<FullBody> {
    let title = status.canonical_reason();
    let document = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    answer(status, "application/problem+json", document.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<FullBody> {
    let mut response = Response::new(FullBody::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
