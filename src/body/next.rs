//! The next part of a body: a frame, its end, or both.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame};

use super::error::BoxError;
use crate::admission::Outcome;

pub(super) struct Next<D> {
    pub(super) frame: Option<Frame<D>>,
    /// Known as early as the body tells it.
    pub(super) end: Option<Result<(), BoxError>>,
}

pub(super) fn poll_next<B>(mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Next<B::Data>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    Poll::Ready(match ready!(body.as_mut().poll_frame(cx)) {
        Some(Ok(frame)) => Next { frame: Some(frame), end: body.is_end_stream().then_some(Ok(())) },
        Some(Err(error)) => Next { frame: None, end: Some(Err(error.into())) },
        None => Next { frame: None, end: Some(Ok(())) },
    })
}

/// The outcome of a task whose body ended so.
pub(super) const fn outcome_of(end: &Result<(), BoxError>) -> Outcome {
    if end.is_ok() { Outcome::Ok } else { Outcome::Error }
}
