//! What every HTTP request says of itself, however its rejection is answered.

use std::borrow::Cow;
use std::fmt::Write;

use http::{Request, Response};

/// How the request is called in the task log: its method and path, without the query.
pub(super) fn describe<B>(request: &Request<B>) -> String {
    format!("{} {}", request.method(), visible(request.uri().path()))
}

/// A path that has visible ASCII only. What an `http::Uri` lets pass beyond that is percent-encoded, as it should have
/// come: among it are characters that end a line, or change how the rest of it is shown.
fn visible(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return path.into();
    }
    let mut encoded = String::with_capacity(path.len() * 2);
    for &byte in path.as_bytes() {
        if byte.is_ascii_graphic() {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded.into()
}

/// Whether an answer counts as an error: one of the service, a status of 500 or above, or a gRPC status that says that
/// the server failed, where it comes without a message. Behind messages it comes in trailers, too late to be counted.
pub(super) fn failed<B, E>(result: &Result<Response<B>, E>) -> bool {
    result.as_ref().map_or(true, |response| {
        let grpc = response.headers().get("grpc-status");
        response.status().is_server_error() || grpc.is_some_and(|code| SERVER_FAILED.contains(&code.as_bytes()))
    })
}

/// The gRPC codes that stand for a fault of the server: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE
/// and DATA_LOSS. They are what OpenTelemetry's conventions count as errors of a server.
const SERVER_FAILED: [&[u8]; 6] = [b"2", b"4", b"12", b"13", b"14", b"15"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_status_that_says_that_the_server_failed_counts_as_an_error() {
        let counts = |code: &str| {
            let response = Response::builder().header("grpc-status", code).body(());
            failed(&Ok::<_, ()>(response.expect("a response")))
        };
        let failures = (0..=16).map(|code: u8| code.to_string()).filter(|code| counts(code)).collect::<Vec<_>>();
        assert_eq!(failures, ["2", "4", "12", "13", "14", "15"]);
        assert!(!failed(&Ok::<_, ()>(Response::new(()))));
    }

    #[test]
    fn a_request_is_called_by_its_path_in_visible_ascii() {
        for (path, called) in
            [("/a%20b?query", "GET /a%20b"), ("/\u{e9}\u{85}\u{2028}\u{202e}", "GET /%C3%A9%C2%85%E2%80%A8%E2%80%AE")]
        {
            let uri = http::Uri::from_maybe_shared(path.as_bytes());
            let request = Request::get(uri.expect("the crate lets it pass")).body(()).expect("a request");
            assert_eq!(describe(&request), called);
        }
    }
}
