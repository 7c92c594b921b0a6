//! `FullBody`: a response body that is complete from the beginning.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A response body that is complete from the beginning, and sent in one frame.
#[derive(Clone, Debug, Default)]
pub struct FullBody {
    /// `None` if it is empty or was sent.
    bytes: Option<Bytes>,
}

impl FullBody {
    /// The bytes, or none if they were sent.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes.unwrap_or_default()
    }

    /// The bytes as text. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn into_string(self) -> String {
        String::from_utf8_lossy(&self.into_bytes()).into_owned()
    }

    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.bytes.take()
    }
}

impl From<Bytes> for FullBody {
    fn from(bytes: Bytes) -> Self {
        Self { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) }
    }
}

impl From<String> for FullBody {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl Body for FullBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}
