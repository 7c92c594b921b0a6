//! The response body of a service behind the layer: the service's own, or that of a rejection.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::connection::OnConnection;
use super::error::BoxError;
use super::frames::Frames;
use super::full::FullBody;
use super::reader::Reader;
use super::remaining::Remaining;
use crate::current::{CurrentTask, FrameTimes, OpenStream};

/// The response body of a service behind a [`PoolLayer`](crate::PoolLayer): frames, trailers and size are those of the
/// service's own body, unless the pool rejected the request.
///
/// The error is that of the service's own body, or a [`BodyError`](super::BodyError).
#[pin_project]
pub struct ResponseBody<B: Body>
where
    B::Data: Send + 'static,
{
    #[pin]
    state: State<B>,
}

#[pin_project(project = StateProj)]
enum State<B: Body>
where
    B::Data: Send + 'static,
{
    Inner {
        #[pin]
        body: B,
        /// Present for a stream.
        stream: Option<Observed>,
    },
    Own {
        body: FullBody,
    },
    /// A worker has polled the body to its end.
    Complete {
        frames: Frames<B::Data>,
        remaining: Remaining,
    },
    /// A worker polls the body.
    InPool {
        reader: Reader<B::Data>,
    },
    /// In a box, so that all other responses stay small.
    OnConnection {
        body: Box<OnConnection<B>>,
    },
}

/// A stream that the connection polls, and that holds no permit.
struct Observed {
    _stream: OpenStream,
    /// Taken at the first frame.
    first: Option<FrameTimes>,
}

impl<B: Body> ResponseBody<B>
where
    B::Data: Send + 'static,
{
    pub(crate) const fn inner(body: B) -> Self {
        Self { state: State::Inner { body, stream: None } }
    }

    /// A stream of this task.
    pub(super) fn observed(body: B, task: &CurrentTask) -> Self {
        let stream = Observed { _stream: task.open_stream(), first: Some(task.frame_times()) };
        Self { state: State::Inner { body, stream: Some(stream) } }
    }

    pub(crate) const fn own(body: FullBody) -> Self {
        Self { state: State::Own { body } }
    }

    pub(super) const fn complete(frames: Frames<B::Data>, remaining: Remaining) -> Self {
        Self { state: State::Complete { frames, remaining } }
    }

    pub(super) const fn in_pool(reader: Reader<B::Data>) -> Self {
        Self { state: State::InPool { reader } }
    }

    pub(super) fn on_connection(body: OnConnection<B>) -> Self {
        Self { state: State::OnConnection { body: Box::new(body) } }
    }
}

/// A body that no pool polls, such as that of a response of your own to a rejected request.
impl<B: Body> From<B> for ResponseBody<B>
where
    B::Data: Send + 'static,
{
    fn from(body: B) -> Self {
        Self::inner(body)
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        match self.project().state.project() {
            StateProj::Inner { body, stream } => {
                let polled = body.poll_frame(cx).map_err(Into::into);
                if matches!(polled, Poll::Ready(Some(Ok(_))))
                    && let Some(mut times) = stream.as_mut().and_then(|stream| stream.first.take())
                {
                    times.record();
                }
                polled
            }
            StateProj::Own { body } => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes.into())))),
            StateProj::Complete { frames, remaining } => {
                let frame = frames.pop();
                if let Some(frame) = &frame {
                    remaining.take(frame);
                }
                Poll::Ready(frame.map(Ok))
            }
            StateProj::InPool { reader } => reader.poll_frame(cx),
            StateProj::OnConnection { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Inner { body, .. } => body.is_end_stream(),
            State::Own { body } => body.is_end_stream(),
            State::Complete { frames, .. } => frames.is_empty(),
            State::InPool { reader } => reader.is_end_stream(),
            State::OnConnection { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Inner { body, .. } => body.size_hint(),
            State::Own { body } => body.size_hint(),
            State::Complete { remaining, .. } => remaining.hint(),
            State::InPool { reader } => reader.size_hint(),
            State::OnConnection { body } => body.size_hint(),
        }
    }
}

/// An empty body of the inner service.
impl<B: Body + Default> Default for ResponseBody<B>
where
    B::Data: Send + 'static,
{
    fn default() -> Self {
        Self::inner(B::default())
    }
}

impl<B: Body> fmt::Debug for ResponseBody<B>
where
    B::Data: Buf + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Inner { .. } => "inner",
            State::Own { .. } => "rejection",
            State::Complete { .. } => "complete",
            State::InPool { .. } => "in the pool",
            State::OnConnection { .. } => "on the connection",
        };
        f.debug_tuple("ResponseBody").field(&state).finish()
    }
}
