//! `Buffered`: a request body that was read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::chunks::Chunks;
use crate::budget::Reservation;

/// A request body that was read in advance: its bytes and its trailers.
///
/// Of a gRPC request, the first message was read, unless [`ReadBody::whole`](super::ReadBody::whole) says otherwise. The
/// rest of the inner body follows it.
#[pin_project]
pub struct Buffered<B> {
    #[pin]
    state: State<B>,
}

#[pin_project(project = StateProj)]
enum State<B> {
    /// The body was not read.
    Unread {
        #[pin]
        body: B,
    },
    Read {
        read: Read<B>,
    },
}

/// The part of a body that was read, and the rest.
pub(super) struct Read<B> {
    pub(super) chunks: Chunks,
    /// In a box, because most bodies have none.
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// `None` if all of the body was read.
    pub(super) rest: Option<Pin<Box<B>>>,
    pub(super) reservation: Reservation,
}

impl<B> Buffered<B> {
    /// A body that was not read.
    pub(crate) const fn unread(body: B) -> Self {
        Self { state: State::Unread { body } }
    }

    pub(super) const fn read(read: Read<B>) -> Self {
        Self { state: State::Read { read } }
    }

    /// Whether the body was read to its end.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(&self.state, State::Read { read } if read.rest.is_none())
    }
}

impl<B: Body> Read<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(bytes) = self.chunks.pop() {
            self.reservation.shrink_to(self.chunks.cost() + cost_of(self.trailers.as_deref()));
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = self.trailers.take() {
            self.reservation.shrink_to(0);
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        match &mut self.rest {
            Some(rest) => poll_bytes(rest.as_mut(), cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let buffered = self.chunks.len() as u64;
        let Some(rest) = &self.rest else { return SizeHint::with_exact(buffered) };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(buffered));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(buffered)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// Polls a body whose data may be of any type.
fn poll_bytes<B: Body>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    let frame = ready!(body.poll_frame(cx));
    Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(bytes_of))))
}

/// The bytes of a frame. Those that are `Bytes` already are not copied.
pub(super) fn bytes_of(mut data: impl Buf) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

/// The memory that trailers take: names, values, and about what the map needs for each.
pub(super) fn cost_of(trailers: Option<&HeaderMap>) -> usize {
    let fields = trailers.into_iter().flatten();
    fields.map(|(name, value)| name.as_str().len() + value.len() + 128).sum()
}

impl<B: Body> Body for Buffered<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            StateProj::Unread { body } => poll_bytes(body, cx),
            StateProj::Read { read } => read.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Unread { body } => body.is_end_stream(),
            State::Read { read } => read.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Unread { body } => body.size_hint(),
            State::Read { read } => read.size_hint(),
        }
    }
}

/// An empty body.
impl<B> Default for Buffered<B> {
    fn default() -> Self {
        let (chunks, reservation) = (Chunks::default(), Reservation::default());
        Self::read(Read { chunks, trailers: None, rest: None, reservation })
    }
}

impl<B> fmt::Debug for Buffered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let buffered = match &self.state {
            State::Unread { .. } => None,
            State::Read { read } => Some(read.chunks.len()),
        };
        f.debug_struct("Buffered").field("bytes", &buffered).finish_non_exhaustive()
    }
}
