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

/// Whether an answer counts as an error: one of the service, or a status of 500 or above.
pub(super) fn failed<B, E>(result: &Result<Response<B>, E>) -> bool {
    result.as_ref().map_or(true, |response| response.status().is_server_error())
}

#[cfg(test)]
mod tests {
    use super::*;

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
