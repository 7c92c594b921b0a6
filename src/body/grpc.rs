//! Which bodies are those of gRPC or are streams of events, and where the first message of a body ends.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// The media type of gRPC. `application/grpc-web` is another protocol.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    is_type_of_grpc(content_type(headers))
}

/// Whether the body is a stream of server-sent events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    matches!(content_type(headers).strip_prefix(b"text/event-stream"), Some([] | [b' ' | b';', ..]))
}

/// Whether the body is a stream of messages, each behind a flag of one byte and its length in four, the highest first:
/// gRPC, and the streams of Connect.
pub(super) fn is_framed(headers: &HeaderMap) -> bool {
    let content_type = content_type(headers);
    is_type_of_grpc(content_type) || content_type.starts_with(b"application/connect+")
}

fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(&[], HeaderValue::as_bytes)
}

fn is_type_of_grpc(content_type: &[u8]) -> bool {
    matches!(content_type.strip_prefix(b"application/grpc"), Some([] | [b'+' | b';', ..]))
}

/// Finds the end of the first message of a body.
#[derive(Debug, Default)]
pub(super) struct FirstMessage {
    prefix: [u8; 5],
    received: u64,
}

impl FirstMessage {
    /// Takes the next bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let at = usize::try_from(self.received).unwrap_or(usize::MAX);
        if let Some(missing) = self.prefix.get_mut(at..) {
            let length = missing.len().min(bytes.len());
            missing[..length].copy_from_slice(&bytes[..length]);
        }
        self.received += bytes.len() as u64;
    }

    /// The length of the message, once it is known.
    pub(super) fn length(&self) -> Option<u64> {
        let [_, a, b, c, d] = self.prefix;
        (self.received >= 5).then(|| u32::from_be_bytes([a, b, c, d]).into())
    }

    /// Whether all of the message was received.
    pub(super) fn is_complete(&self) -> bool {
        self.length().is_some_and(|length| self.received - 5 >= length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_and_streams_of_connect_have_framed_messages() {
        for (content_type, grpc, framed) in [
            ("application/grpc", true, true),
            ("application/grpc+proto", true, true),
            ("application/grpc;charset=utf-8", true, true),
            ("application/grpc-web", false, false),
            ("application/grpc-web+proto", false, false),
            ("application/connect+json", false, true),
            ("application/json", false, false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!((is_grpc(&headers), is_framed(&headers)), (grpc, framed), "{content_type}");
        }
        assert!(!is_framed(&HeaderMap::new()));
    }

    #[test]
    fn the_end_of_the_first_message_is_found_at_every_cut() {
        let body = [0, 0, 0, 0, 3, b'o', b'n', b'e', 0, 0, 0, 0, 0];
        for cut in 0..=body.len() {
            let mut message = FirstMessage::default();
            message.push(&body[..cut]);
            assert_eq!(message.is_complete(), cut >= 8, "after {cut} bytes");
            assert_eq!(message.length(), (cut >= 5).then_some(3), "after {cut} bytes");
            message.push(&body[cut..]);
            assert_eq!((message.is_complete(), message.length()), (true, Some(3)));
        }
    }
}
