//! A response body that is there as a whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A response body that is there as a whole, and sent in one frame.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// Taken when it was sent.
    bytes: Option<Bytes>,
}

impl Whole {
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.bytes.take()
    }
}

impl<T: Into<Bytes>> From<T> for Whole {
    fn from(bytes: T) -> Self {
        Self { bytes: Some(bytes.into()).filter(|bytes| !bytes.is_empty()) }
    }
}

impl Body for Whole {
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
