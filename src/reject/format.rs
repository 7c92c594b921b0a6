//! The default response to a rejection: a problem document, or for gRPC a trailers-only response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, Version};
use serde_json::json;

use super::reason::answer_to;
use super::retry_after;
use crate::body::{BodyRead, FullBody, ReadError, is_grpc};
use crate::error::{Reason, Rejection};
use crate::workload::Workload;

/// The format of the default response to a rejected request.
///
/// A request with the content type `application/grpc` gets a gRPC status without a body. Every other request gets
/// `application/problem+json` (RFC 9457). A response over HTTP/1 says `connection: close` if the body of its request
/// may be unread, because the connection cannot carry another request then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFormat {
    grpc: bool,
    close: bool,
}

impl ResponseFormat {
    /// The format of a response to this request.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        Self {
            grpc: is_grpc(request.headers()),
            close: request.version() < Version::HTTP_2 && has_unread_body(request),
        }
    }

    /// Whether the client speaks gRPC.
    #[must_use]
    pub const fn is_grpc(self) -> bool {
        self.grpc
    }

    /// Whether the response says `connection: close`.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        self.close
    }

    /// The default response to a rejected request.
    #[must_use]
    pub fn respond(self, rejection: &Rejection) -> Response<FullBody> {
        self.respond_to(&Refusal::from(rejection))
    }

    /// The response to a request whose body was not read, and that no pool was chosen for.
    pub(crate) fn respond_to_unread(self, error: ReadError) -> Response<FullBody> {
        self.respond_to(&Refusal {
            pool: None,
            reason: error.reason(),
            detail: error.to_string(),
            started: false,
            retry_after: error.retry_after(),
        })
    }

    fn respond_to(self, refusal: &Refusal<'_>) -> Response<FullBody> {
        let mut response = if self.grpc { refusal.grpc_status() } else { refusal.problem() };
        self.finish(&mut response);
        response
    }

    /// Adds `connection: close` to a response if the connection has to close.
    pub(super) fn finish<B>(self, response: &mut Response<B>) {
        if self.close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whether the request has a body that nobody has read yet. Over HTTP/1 its headers say whether it has one.
fn has_unread_body<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let has_length = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    (has_length || headers.contains_key(TRANSFER_ENCODING)) && request.extensions().get::<BodyRead>().is_none()
}

/// The contents of the response to a rejected request.
struct Refusal<'a> {
    /// `None` if no pool was chosen for the request.
    pool: Option<&'a Workload>,
    reason: Reason,
    detail: String,
    started: bool,
    retry_after: Option<Duration>,
}

impl<'a> From<&'a Rejection> for Refusal<'a> {
    fn from(rejection: &'a Rejection) -> Self {
        Self {
            pool: Some(rejection.pool()),
            reason: rejection.reason(),
            detail: rejection.to_string(),
            started: rejection.started(),
            retry_after: rejection.retry_after(),
        }
    }
}

#[cfg(feature = "axum")]
pub(super) fn problem(rejection: &Rejection) -> Response<FullBody> {
    Refusal::from(rejection).problem()
}

impl Refusal<'_> {
    fn problem(&self) -> Response<FullBody> {
        let status = answer_to(self.reason).0;
        let mut document = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.detail,
            "reason": self.reason.as_str(),
            "started": self.started,
        });
        if let Some(pool) = self.pool {
            document["pool"] = pool.as_str().into();
        }
        let mut response = Response::new(FullBody::from(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, retry_after::seconds(wait).into());
        }
        response
    }

    fn grpc_status(&self) -> Response<FullBody> {
        let mut response = Response::new(FullBody::from(Bytes::new()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(answer_to(self.reason).1 as u16));
        let message = HeaderValue::try_from(percent_encoded(&self.detail));
        headers.insert("grpc-message", message.expect("percent-encoded text is visible ASCII"));
        if let Some(wait) = self.retry_after {
            headers.insert(retry_after::GRPC_PUSHBACK, retry_after::millis(wait).into());
        }
        response
    }
}

/// Encodes a `grpc-message` as the gRPC protocol defines: every byte except visible ASCII, and `%`.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for &byte in message.as_bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes(request: http::request::Builder) -> bool {
        ResponseFormat::of(&request.body(()).expect("the parts are valid")).closes_connection()
    }

    #[test]
    fn a_response_over_http_1_closes_the_connection_if_the_body_may_be_unread() {
        let post = || Request::post("/");
        assert!(closes(post().header("content-length", "7")));
        assert!(closes(post().header("transfer-encoding", "chunked")));
        assert!(closes(post().version(Version::HTTP_10).header("content-length", "7")));
        assert!(!closes(post().header("content-length", "0")));
        assert!(!closes(Request::get("/")));
        assert!(!closes(post().version(Version::HTTP_2).header("content-length", "7")));
        assert!(!closes(post().header("content-length", "7").extension(BodyRead)));
    }
}
