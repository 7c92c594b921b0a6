//! HTTP: the default protocol of a layer.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response};

use super::Protocol;
use crate::body::is_grpc;
use crate::config::Trust;
use crate::headers::BadHeader;
use crate::terms::Terms;

/// The protocol of HTTP requests, gRPC included. This is the default.
///
/// - The terms of a request come from its extensions and from the headers that its pool trusts:
///   [`Terms::of_request`].
/// - A result counts as an error if it is one, if its status is 500 or above, or if it is a gRPC status that means a
///   fault of the server and comes without a message. A gRPC status behind messages comes in the trailers, too late to
///   be counted.
/// - The task log shows the method and the path of a request, of long ones about 256 bytes, and never its query.
/// - Requests to gRPC's standard health service (`/grpc.health.v1.Health/…`) always run inline: a full pool must not
///   fail the liveness probe of a server that is only overloaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

/// About the longest name of a request, in bytes. A path may have 64 KB, and a name is logged several times and shown as
/// long as its task runs.
const LONGEST_NAME: usize = 256;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl<B, RB, E> Protocol<Request<B>, Response<RB>, E> for Http {
    fn terms(&self, request: &mut Request<B>, trust: &Trust) -> Result<Terms, BadHeader> {
        Terms::of_request(request, trust)
    }

    fn failed(&self, result: &Result<Response<RB>, E>) -> bool {
        failed(result)
    }

    fn describe(&self, request: &Request<B>) -> String {
        describe(request)
    }

    fn expects_body(&self, request: &Request<B>) -> bool {
        request.method() != Method::HEAD
    }

    fn timed(&self, response: &mut Response<RB>, queued: Duration, ran: Duration) {
        let mut value = FromEnd::new();
        value.put_millis(ran);
        value.put(b", run;dur=");
        value.put_millis(queued);
        value.put(b"queue;dur=");
        if let Ok(value) = HeaderValue::from_bytes(value.written()) {
            response.headers_mut().append(SERVER_TIMING, value);
        }
    }

    fn runs_inline(&self, request: &Request<B>) -> bool {
        request.uri().path().starts_with("/grpc.health.v1.Health/") && is_grpc(request.headers())
    }
}

/// The value of `Server-Timing`, written from its end, because the digits of a number come from the last to the first.
///
/// `format!` takes 2,000 instructions more, and this is written for each response.
struct FromEnd {
    bytes: [u8; Self::LONGEST],
    begin: usize,
}

impl FromEnd {
    /// Two numbers of 20 digits with a point each, and their names.
    const LONGEST: usize = 64;

    const fn new() -> Self {
        Self { bytes: [0; Self::LONGEST], begin: Self::LONGEST }
    }

    fn put(&mut self, text: &[u8]) {
        self.begin -= text.len();
        self.bytes[self.begin..][..text.len()].copy_from_slice(text);
    }

    /// Milliseconds with three digits after the point.
    fn put_millis(&mut self, span: Duration) {
        let nanos = u64::from(span.subsec_nanos());
        // Not by way of `as_micros`, which has 128 bits.
        let mut micros = span.as_secs().saturating_mul(1_000_000).saturating_add((nanos + 500) / 1000);
        let mut digits = 0;
        while micros > 0 || digits < 4 {
            if digits == 3 {
                self.put(b".");
            }
            self.put(&[b'0' + (micros % 10) as u8]);
            micros /= 10;
            digits += 1;
        }
    }

    fn written(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

/// The method and the path. Bytes of the path that are not visible ASCII are percent-encoded: `http::Uri` lets them pass,
/// among them characters that end a line or change how the rest of it is shown.
fn describe<B>(request: &Request<B>) -> String {
    let mut name = format!("{:.LONGEST_NAME$} ", request.method().as_str());
    for &byte in request.uri().path().as_bytes() {
        if name.len() >= LONGEST_NAME {
            name.push_str("...");
            break;
        }
        if byte.is_ascii_graphic() {
            name.push(byte.into());
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    name
}

fn failed<B, E>(result: &Result<Response<B>, E>) -> bool {
    result.as_ref().map_or(true, |response| {
        let grpc = response.headers().get(GRPC_STATUS);
        response.status().is_server_error() || grpc.is_some_and(|code| SERVER_FAILED.contains(&code.as_bytes()))
    })
}

/// The gRPC codes that mean a fault of the server: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and
/// DATA_LOSS. OpenTelemetry's conventions count these as errors of a server.
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
    fn the_times_of_a_response_are_milliseconds_with_three_digits() {
        let mut response = Response::new(());
        let time = Duration::from_nanos;
        <Http as Protocol<Request<()>, _, ()>>::timed(&Http, &mut response, time(12_300_400), time(999_999_500));
        <Http as Protocol<Request<()>, _, ()>>::timed(&Http, &mut response, time(499), Duration::MAX);
        let shown: Vec<_> = response.headers().get_all(SERVER_TIMING).into_iter().collect();
        assert_eq!(shown, ["queue;dur=12.300, run;dur=1000.000", "queue;dur=0.000, run;dur=18446744073709551.615"]);
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

    #[test]
    fn a_long_path_or_method_is_cut() {
        let path = format!("/{}", "\u{e9}/".repeat(20_000));
        let uri = http::Uri::from_maybe_shared(path.into_bytes()).expect("the crate lets it pass");
        let called = describe(&Request::get(uri).body(()).expect("a request"));
        assert!(called.starts_with("GET /%C3%A9/") && called.ends_with("..."), "{called}");
        assert!((256..264).contains(&called.len()), "{}", called.len());
        let method = "M".repeat(30_000);
        let called = describe(&Request::builder().method(method.as_str()).body(()).expect("a request"));
        assert_eq!(called, format!("{} ...", &method[..256]));
    }
}
