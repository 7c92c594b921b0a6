//! The response body of a service behind the layer: the service's own, or that of a rejection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::body::FullBody;

/// The response body of a service behind a [`PoolLayer`](crate::PoolLayer): frames, trailers and size are those of the
/// service's own body, unless the pool rejected the request.
#[derive(Debug)]
#[pin_project]
pub struct ResponseBody<B> {
    #[pin]
    state: State<B>,
}

#[derive(Debug)]
#[pin_project(project = StateProj)]
enum State<B> {
    Inner {
        #[pin]
        body: B,
    },
    Own {
        body: FullBody,
    },
}

impl<B> ResponseBody<B> {
    pub(super) const fn inner(body: B) -> Self {
        Self { state: State::Inner { body } }
    }

    pub(super) const fn own(body: FullBody) -> Self {
        Self { state: State::Own { body } }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().state.project() {
            StateProj::Inner { body } => body.poll_frame(cx),
            StateProj::Own { body } => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes.into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Inner { body } => body.is_end_stream(),
            State::Own { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Inner { body } => body.size_hint(),
            State::Own { body } => body.size_hint(),
        }
    }
}

/// An empty body of the inner service.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::inner(B::default())
    }
}
