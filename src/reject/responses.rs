//! Rejections as HTTP responses: `application/problem+json` (RFC 9457), or for gRPC a trailers-only response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use serde_json::json;

use super::cause::answer_to;
use super::{Reject, ResponseBody};
use crate::body::Whole;
use crate::config::Trust;
use crate::error::Rejection;
use crate::headers::BadHeader;
use crate::terms::Terms;

/// Answers rejections with responses, so that the service's error type stays as it is. This is the default.
///
/// A request with `content-type: application/grpc` gets a gRPC status without a body. Every other one gets a problem
/// document with `pool`, `reason` and `started`, which is `false` if the handler never began, so that a client knows
/// that trying again is safe; with a status of 503 comes a `Retry-After` in whole seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Responses;

/// Whom the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Any HTTP client.
    Http,
    /// A gRPC client.
    Grpc,
}

impl<B, RB, E> Reject<Request<B>, Response<RB>, E> for Responses
where
    RB: Body,
    RB::Data: From<Bytes>,
{
    type Hint = Protocol;
    type Response = Response<ResponseBody<RB>>;
    type Error = E;

    fn hint(&self, request: &Request<B>) -> Protocol {
        protocol_of(request)
    }

    fn reject(&self, hint: Protocol, rejection: Rejection) -> Result<Self::Response, E> {
        Ok(response_to(hint, &rejection).map(ResponseBody::own))
    }

    fn pass(&self, response: Response<RB>) -> Self::Response {
        response.map(ResponseBody::inner)
    }

    fn fail(&self, error: E) -> E {
        error
    }

    fn failed(result: &Result<Response<RB>, E>) -> bool {
        super::http::failed(result)
    }

    fn describe(&self, request: &Request<B>) -> String {
        super::http::describe(request)
    }

    fn terms(&self, request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
        Terms::of_request(request, trust)
    }
}

/// `application/grpc-web` is another protocol.
pub(super) fn protocol_of<B>(request: &Request<B>) -> Protocol {
    match request.headers().get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc")) {
        Some([] | [b'+' | b';', ..]) => Protocol::Grpc,
        _ => Protocol::Http,
    }
}

/// The answer to a request of this protocol.
pub(super) fn response_to(protocol: Protocol, rejection: &Rejection) -> Response<Whole> {
    match protocol {
        Protocol::Http => problem(rejection),
        Protocol::Grpc => grpc_status(rejection),
    }
}

fn problem(rejection: &Rejection) -> Response<Whole> {
    let status = rejection.status();
    let document = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": rejection.to_string(),
        "pool": rejection.pool().as_str(),
        "reason": rejection.cause().as_str(),
        "started": rejection.started(),
    });
    let mut response = Response::new(Whole::from(document.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(wait) = rejection.retry_after() {
        headers.insert(RETRY_AFTER, whole_seconds(wait).into());
    }
    response
}

fn grpc_status(rejection: &Rejection) -> Response<Whole> {
    let mut response = Response::new(Whole::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(answer_to(rejection.cause()).1 as u16));
    let message = HeaderValue::try_from(percent_encoded(&rejection.to_string()));
    headers.insert("grpc-message", message.expect("what is percent-encoded is visible ASCII"));
    if let Some(wait) = rejection.retry_after() {
        // How a server tells when to try again: gRFC A6.
        headers.insert("grpc-retry-pushback-ms", millis(wait).into());
    }
    response
}

/// As the gRPC protocol wants `grpc-message`: bytes other than the visible ones of ASCII, and `%`, are encoded.
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

fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_that_are_whole_and_not_too_few() {
        for (wait, told) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2000, 2), (59_500, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait)), told, "{wait} ms");
        }
    }

    #[test]
    fn a_wait_is_told_to_grpc_clients_in_milliseconds() {
        assert_eq!(millis(Duration::from_micros(2_500_999)), 2500);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
