//! The body of a dashboard's response: a page, or events until a drain.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;

use super::board::Events;
use super::event::DRAIN;
use crate::body::FullBody;

/// The body of a [`Dashboard`](super::Dashboard)'s response: a page, or events.
pub struct DashboardBody(Kind);

enum Kind {
    Full(FullBody),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl DashboardBody {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(FullBody::from(bytes)))
    }

    /// The events of one viewer. They end with the dashboard, or when a drain is announced, because a graceful shutdown
    /// waits for them.
    pub(super) fn events(events: Events, draining: impl Future<Output = ()> + Send + 'static) -> Self {
        let Events { first, frames } = events;
        let frames = stream::unfold(frames, next_frame).take_until(Box::pin(draining));
        let drain = stream::once(async { Bytes::from_static(DRAIN) });
        Self(Kind::Events(Box::pin(stream::once(async { first }).chain(frames).chain(drain))))
    }
}

async fn next_frame(mut frames: watch::Receiver<Bytes>) -> Option<(Bytes, watch::Receiver<Bytes>)> {
    frames.changed().await.ok()?;
    let frame = frames.borrow_and_update().clone();
    Some((frame, frames))
}

impl Body for DashboardBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Full(body) => Pin::new(body).poll_frame(cx),
            Kind::Events(events) => {
                events.as_mut().poll_next(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(body) => body.size_hint(),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for DashboardBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashboardBody").finish_non_exhaustive()
    }
}
