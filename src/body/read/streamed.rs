//! `StreamBody`: bounds how long the handler of a streaming request waits for its client.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Buf;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::error::ReadError;
use super::pace::Rate;
use crate::body::error::BoxError;
use crate::body::pause::Timeout;
use crate::sync::lock_std as lock;

/// Bounds how long a handler that reads the body of its request as it arrives waits for its client.
///
/// Such a handler holds its permit while it waits: an upload that goes to a disk, a stream of messages. When its client
/// has sent nothing for the stall timeout, the body ends with an error: [`ReadError::Stalled`].
///
/// A wait begins when the handler polls the body and finds nothing, and ends when the client's next bytes arrive. The
/// time that the handler takes before it polls again does not count.
///
/// It is a Tower layer. Put it around the `PoolLayer` of such routes, in place of
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
    /// The sum of the waits that have ended, and the begin of the present one.
    waited: Duration,
    waits_since: Option<Instant>,
    arrival: Arc<Arrival>,
    /// Set to a time that may have moved since.
    timeout: Option<Timeout>,
    ended: bool,
}

/// The waker of the inner body: it notes when the client's bytes arrive, and wakes the handler.
///
/// A handler may not poll for long after that, for example because it waits for something else with `select!`.
#[derive(Default)]
struct Arrival {
    handler: AtomicWaker,
    at: Mutex<Option<Instant>>,
}

impl StreamBody {
    /// Ends a body with an error if the handler has waited this long for the next frame.
    pub const fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, rate: Rate { bytes_per_second: 0, grace: Duration::ZERO } }
    }

    /// Ends a body with an error if all waits together are longer than this rate allows for the bytes that have arrived.
    /// The client gets `grace` in advance. Without this, any byte is progress.
    pub const fn min_rate(mut self, bytes_per_second: u32, grace: Duration) -> Self {
        self.rate = Rate { bytes_per_second: bytes_per_second as u64, grace };
        self
    }

    pub(crate) fn wrap<B>(self, body: B) -> Streamed<B> {
        Streamed {
            body,
            limits: self,
            received: 0,
            waited: Duration::ZERO,
            waits_since: None,
            arrival: Arc::default(),
            timeout: None,
            ended: false,
        }
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
        this.arrival.handler.register(cx.waker());
        let arrived = lock(&this.arrival.at).take();
        let waker = Waker::from(this.arrival.clone());
        if let Poll::Ready(frame) = this.body.poll_frame(&mut Context::from_waker(&waker)) {
            if let Some(since) = this.waits_since.take() {
                *this.waited += arrived.unwrap_or_else(Instant::now).saturating_duration_since(since);
            }
            if let Some(Ok(frame)) = &frame {
                *this.received += frame.data_ref().map_or(0, |data| data.remaining() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (time, error) = this.limits.allowed(*this.received, *this.waited);
        loop {
            if let Some(timeout) = this.timeout {
                let anew = ready!(timeout.poll(cx));
                *this.waits_since = anew.or(*this.waits_since);
                *this.timeout = None;
            }
            let since = *this.waits_since.get_or_insert_with(Instant::now);
            let Some(due) = since.checked_add(time) else { return Poll::Pending };
            if due <= Instant::now() {
                *this.ended = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            *this.timeout = Some(Timeout::at(due));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.at).get_or_insert_with(Instant::now);
        self.handler.wake();
    }
}

impl<B> fmt::Debug for Streamed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("received", &self.received).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;

    use super::*;

    /// A body with nothing at its first poll and a byte at its second.
    #[derive(Default)]
    struct Late(Option<Waker>);

    impl Body for Late {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0.is_some() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"a")))));
            }
            self.0 = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    /// A handler's waker that counts its calls.
    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            *lock(&self.0) += 1;
        }
    }

    #[test]
    fn a_wait_ends_when_bytes_arrive_and_not_when_the_handler_polls_again() {
        let woken = Arc::new(Woken::default());
        let handler = Waker::from(woken.clone());
        let mut body = Box::pin(StreamBody::new(Duration::MAX).wrap(Late::default()));
        assert!(body.as_mut().poll_frame(&mut Context::from_waker(&handler)).is_pending());
        let since = body.waits_since.expect("it waits");
        body.body.0.as_ref().expect("it was polled").wake_by_ref();
        assert_eq!(*lock(&woken.0), 1);

        // The bytes came after ten seconds of that clock, and the handler polls at any later time.
        lock(&body.arrival.at).replace(since + Duration::from_secs(10)).expect("the arrival was noted");
        assert!(body.as_mut().poll_frame(&mut Context::from_waker(&handler)).is_ready());
        assert_eq!((body.waited, body.waits_since), (Duration::from_secs(10), None));
    }

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
