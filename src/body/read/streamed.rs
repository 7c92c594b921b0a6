//! `StreamBody`: bounds how long the handler of a streaming request waits for its client.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::error::ReadError;
use super::pace::Rate;
use crate::body::error::BoxError;
use crate::timer::{Sleep, sleep_until};

/// Bounds how long a handler that reads the body of its request as it arrives waits for its client.
///
/// Such a handler holds its permit while it waits: an upload that goes to a disk, a stream of messages. When its client
/// has sent nothing for the stall timeout, the body ends with an error: [`ReadError::Stalled`]. Only the time counts in
/// which the handler waits for the body, not the time that it takes for itself.
///
/// It is a Tower layer of its own. Put it around the `PoolLayer` of such routes, in place of
/// [`read_body`](crate::PoolLayer::read_body):
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, body::Body, routing::post};
/// use http_body_util::BodyExt;
/// use tower::ServiceBuilder;
/// use tower_offload::{Io, PoolLayer, Pools, body::StreamBody};
///
/// async fn upload(mut body: Body) -> Result<String, String> {
///     let mut length = 0;
///     while let Some(frame) = body.frame().await {
///         // A client that stalls is an error here.
///         length += frame.map_err(|error| error.to_string())?.data_ref().map_or(0, |data| data.len());
///     }
///     Ok(length.to_string())
/// }
///
/// let layers = ServiceBuilder::new()
///     .layer(StreamBody::new(Duration::from_secs(30)).min_rate(10_000, Duration::from_secs(10)))
///     .layer(PoolLayer::<Io>::new(&Pools::default()));
/// let app: Router = Router::new().route("/uploads", post(upload).route_layer(layers));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct StreamBody {
    stall_timeout: Duration,
    rate: Rate,
}

/// A request body that ends with an error when its client stalls; see [`StreamBody`].
#[pin_project]
pub struct Streamed<B> {
    #[pin]
    body: B,
    limits: StreamBody,
    received: u64,
    /// How long the handler has waited before, and since when it waits now.
    waited: Duration,
    waits_since: Option<Instant>,
    /// Set to a time that may have moved since.
    sleep: Option<Sleep>,
    ended: bool,
}

impl StreamBody {
    /// Ends a body with an error if the handler has waited this long for the next frame.
    pub const fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, rate: Rate { bytes_per_second: 0, grace: Duration::ZERO } }
    }

    /// Ends a body with an error if the handler has waited for longer, in all, than this rate allows for the bytes that
    /// have arrived. The client gets `grace` in advance. Without this, any byte is progress.
    pub const fn min_rate(mut self, bytes_per_second: u32, grace: Duration) -> Self {
        self.rate = Rate { bytes_per_second: bytes_per_second as u64, grace };
        self
    }

    pub(crate) fn wrap<B>(self, body: B) -> Streamed<B> {
        let (waited, waits_since) = (Duration::ZERO, None);
        Streamed { body, limits: self, received: 0, waited, waits_since, sleep: None, ended: false }
    }

    /// For how long the handler may wait now, and the error then.
    fn allowed(&self, received: u64, waited: Duration) -> (Duration, ReadError) {
        let stalled = (self.stall_timeout, ReadError::Stalled { timeout: self.stall_timeout });
        let slow = ReadError::TooSlow { bytes_per_second: self.rate.bytes_per_second };
        let slow = self.rate.span(received).map(|span| (span.saturating_sub(waited), slow));
        slow.into_iter().chain([stalled]).min_by_key(|(time, _)| *time).expect("there is one")
    }
}

impl<B> Body for Streamed<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            if let Some(since) = this.waits_since.take() {
                *this.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame {
                *this.received += frame.data_ref().map_or(0, |data| data.remaining() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let since = *this.waits_since.get_or_insert_with(Instant::now);
        let (time, error) = this.limits.allowed(*this.received, *this.waited);
        let Some(due) = since.checked_add(time) else { return Poll::Pending };
        while due > Instant::now() {
            let sleep = this.sleep.get_or_insert_with(|| sleep_until(due));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            *this.sleep = None;
        }
        *this.ended = true;
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for Streamed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("received", &self.received).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_be_silent_for_the_timeout_and_be_waited_for_as_its_bytes_allow() {
        const SECOND: Duration = Duration::from_secs(1);
        let limits = StreamBody::new(30 * SECOND);
        let stalled = ReadError::Stalled { timeout: 30 * SECOND };
        assert_eq!(limits.allowed(0, 1000 * SECOND), (30 * SECOND, stalled));

        let limits = limits.min_rate(100, 10 * SECOND);
        let slow = ReadError::TooSlow { bytes_per_second: 100 };
        assert_eq!(limits.allowed(0, Duration::ZERO), (10 * SECOND, slow));
        assert_eq!(limits.allowed(500, 12 * SECOND), (3 * SECOND, slow));
        assert_eq!(limits.allowed(500, 16 * SECOND), (Duration::ZERO, slow));
        assert_eq!(limits.allowed(5000, 12 * SECOND), (30 * SECOND, stalled));
    }
}
