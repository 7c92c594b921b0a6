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

/// The future of [`ReadBody::read`].
///
/// # Panics
///
/// If it is polled again after it has ended.
pub struct ReadRequest<B> {
    /// Boxed, so that the future of a response stays small.
    read: Box<Read<B>>,
}

struct Read<B> {
    /// `None` once they were given away.
    parts: Option<Parts>,
    body: Reading<B>,
}

impl ReadBody {
    /// Reads the body of one request, for middleware that has to decide which bodies are read.
    ///
    /// ```
    /// use axum::body::Body;
    /// use axum::extract::Request;
    /// use axum::response::{IntoResponse, Response};
    /// use tower_offload::Rejection;
    /// use tower_offload::body::ReadBody;
    ///
    /// async fn read_all_but_uploads(request: Request) -> Result<Request, String> {
    ///     if request.uri().path().starts_with("/uploads") {
    ///         return Ok(request);
    ///     }
    ///     let read = ReadBody::new(1 << 20).read(request).await.map_err(|error| error.to_string())?;
    ///     Ok(read.map(Body::new))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// If the body is not read to its end.
    pub fn read<B>(&self, request: Request<B>) -> ReadRequest<B>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        ReadRequest::of(self, request, None, None)
    }
}

impl<B> ReadRequest<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads the body of a request. `budget` counts if `settings` have none.
    pub(crate) fn of(
        settings: &ReadBody,
        request: Request<B>,
        budget: Option<&Budget>,
        deadline: Option<Instant>,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let body = Reading::of(settings, &parts.headers, body, budget, deadline);
        Self { read: Box::new(Read { parts: Some(parts), body }) }
    }
}

impl<B> Future for ReadRequest<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Request<Buffered<B>>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Read { parts, body } = &mut *self.read;
        let body = ready!(Pin::new(body).poll(cx))?;
        let mut parts = parts.take().expect("a request is given once");
        // So that a rejection does not close the connection.
        match body.is_whole() {
            true => parts.extensions.insert(BodyRead),
            false => parts.extensions.remove(),
        };
        Poll::Ready(Ok(Request::from_parts(parts, body)))
    }
}

impl<B> Unpin for ReadRequest<B> {}

impl<B> fmt::Debug for ReadRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest").finish_non_exhaustive()
    }
}
