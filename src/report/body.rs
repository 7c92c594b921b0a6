//! The body of a gRPC response, with the load report in its trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::reporter::{Format, Reporter, TRAILER};

/// A body that passes on another one, and adds the load report to its trailers if it belongs to a gRPC response.
#[pin_project]
#[derive(Debug)]
pub struct ReportBody<B> {
    #[pin]
    inner: B,
    reporter: Option<Arc<Reporter>>,
}

impl<B> ReportBody<B> {
    pub(super) fn new(inner: B, reporter: Option<Arc<Reporter>>) -> Self {
        Self { inner, reporter }
    }
}

impl<B: Body> Body for ReportBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(frame) = ready!(this.inner.poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(frame.map(|mut frame| {
            if let Some(trailers) = frame.trailers_mut()
                && let Some(reporter) = this.reporter.take()
            {
                trailers.insert(TRAILER, reporter.value(Format::Grpc));
            }
            frame
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
