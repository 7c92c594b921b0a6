//! `ReadRequest`: the future that reads the body of a request, and gives the request that the handler gets.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::Request;
use http::request::Parts;
use http_body::Body;

use super::buffered::Buffered;
use super::error::ReadError;
use super::reading::Reading;
use super::settings::ReadBody;
use crate::body::error::BoxError;
use crate::body::mark::BodyRead;
use crate::budget::Budget;

/// Reads the body of a request, and gives the request with the body that was read.
pub(crate) struct ReadRequest<B> {
    /// `None` once they were given away.
    parts: Option<Parts>,
    reading: Reading<B>,
}

impl<B> ReadRequest<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// `None` if the body has ended, so that there is nothing to read. `budget` counts if `settings` have none.
    pub(crate) fn of(
        settings: &ReadBody,
        request: Request<B>,
        budget: Option<&Budget>,
        deadline: Option<Instant>,
    ) -> Result<Self, Request<Buffered<B>>> {
        if request.body().is_end_stream() {
            return Err(request.map(Buffered::unread));
        }
        let (parts, body) = request.into_parts();
        let reading = Reading::of(settings, &parts.headers, body, budget, deadline);
        Ok(Self { parts: Some(parts), reading })
    }
}

impl<B> Future for ReadRequest<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Request<Buffered<B>>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let body = ready!(Pin::new(&mut self.reading).poll(cx))?;
        let mut parts = self.parts.take().expect("a request is given once");
        // So that a rejection does not close the connection.
        match body.is_whole() {
            true => parts.extensions.insert(BodyRead),
            false => parts.extensions.remove(),
        };
        Poll::Ready(Ok(Request::from_parts(parts, body)))
    }
}

impl<B> fmt::Debug for ReadRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest").field("reading", &self.reading).finish_non_exhaustive()
    }
}
