//! `ReadRequest`: the future that reads the body of a request, and gives the request that the handler gets.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::Request;
use http::request::Parts;
use http_body::Body;
use pin_project::pin_project;

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
    /// Boxed, so that futures that contain this stay small.
    read: Pin<Box<RequestReading<B>>>,
}

/// Reads the body of a request where it stands.
#[doc(hidden)]
#[pin_project]
pub struct RequestReading<B> {
    /// `None` once they were given away.
    parts: Option<Parts>,
    #[pin]
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
    /// Reads the body of a request.
    pub(crate) fn of(
        settings: &ReadBody,
        mut request: Request<B>,
        budget: Option<&Budget>,
        deadline: Option<Instant>,
    ) -> Self {
        request.extensions_mut().insert(BodyRead);
        Self { read: Box::pin(RequestReading::of_marked(settings, request, budget, deadline)) }
    }
}

impl<B> RequestReading<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Reads the body of a request that is marked as read. `budget` counts if `settings` have none.
    pub(crate) fn of_marked(
        settings: &ReadBody,
        request: Request<B>,
        budget: Option<&Budget>,
        deadline: Option<Instant>,
    ) -> Self {
        let (parts, body) = request.into_parts();
        let body = Reading::of(settings, &parts.headers, body, budget, deadline);
        Self { parts: Some(parts), body }
    }

    /// Whether all of the body may have arrived with the head.
    pub(crate) const fn is_brief(&self) -> bool {
        self.body.is_brief()
    }
}

impl<B> Future for ReadRequest<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Request<Buffered<B>>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.read.as_mut().poll(cx)
    }
}

impl<B> Future for RequestReading<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Request<Buffered<B>>, ReadError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let body = ready!(this.body.poll(cx))?;
        let mut parts = this.parts.take().expect("a request is given once");
        // So that a rejection closes the connection.
        if !body.is_whole() {
            parts.extensions.remove::<BodyRead>();
        }
        Poll::Ready(Ok(Request::from_parts(parts, body)))
    }
}

impl<B> fmt::Debug for ReadRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadRequest").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for RequestReading<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestReading").finish_non_exhaustive()
    }
}
