//! `Reading`: the future that reads the body of one request.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;

use super::buffered::{Buffered, Read, bytes_of, cost_of};
use super::chunks::Chunks;
use super::error::ReadError;
use super::pace::Pace;
use super::settings::ReadBody;
use crate::body::error::BoxError;
use crate::body::grpc::{FirstMessage, is_framed};
use crate::budget::{Budget, Reservation};
use crate::shield::shielded;
use crate::timer::{Sleep, sleep_until};

/// How many frames are taken in a row from a body that always has one, before other tasks of the thread have a turn.
const FRAMES_IN_A_ROW: usize = 64;

/// Reads the body of a request: all of it, or of a gRPC request its first message.
///
/// Nothing of the body is polled before this is.
pub(crate) struct Reading<B> {
    limit: usize,
    pace: Pace,
    deadline: Option<Instant>,
    /// `None` once it was given away, or has failed.
    body: Option<Pin<Box<B>>>,
    begun: bool,
    chunks: Chunks,
    trailers: Option<HeaderMap>,
    reservation: Reservation,
    /// The first message, if the body is a stream of them and is not read whole. The rest of the body is not waited for.
    message: Option<FirstMessage>,
    /// How many bytes have arrived.
    received: u64,
    wait: Wait,
}

/// Waits for the client, but not for longer than the body is due.
#[derive(Default)]
struct Wait {
    /// When the client was first waited for.
    since: Option<Instant>,
    /// The body was polled once more although it is too late.
    asked_at_last: bool,
    sleep: Option<Sleep>,
}

/// The time at which a body counts as too late, and why.
type Due = (Instant, ReadError);

impl<B> Reading<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Begins to read a body. `budget` is that of the pools; it counts if `settings` have none.
    pub(crate) fn of(
        settings: &ReadBody,
        headers: &HeaderMap,
        body: B,
        budget: Option<&Budget>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            limit: settings.limit,
            pace: settings.pace,
            deadline,
            body: Some(Box::pin(body)),
            begun: false,
            chunks: Chunks::default(),
            trailers: None,
            reservation: Reservation::of(settings.budget.as_ref().or(budget).cloned()),
            message: (!settings.whole && is_framed(headers)).then(FirstMessage::default),
            received: 0,
            wait: Wait::default(),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Buffered<B>, ReadError>> {
        if !std::mem::replace(&mut self.begun, true) {
            if self.body.as_ref().is_some_and(Body::is_end_stream) {
                return Poll::Ready(Ok(self.finish(true)));
            }
            self.reserve_announced()?;
        }
        for _ in 0..FRAMES_IN_A_ROW {
            // The end of a unary call often comes together with its message, so that is asked for once more.
            let has_message = self.has_first_message();
            let body = self.body.as_mut().expect("a body is read once");
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(Some(Err(error))) => {
                    let error: BoxError = error.into();
                    if is_limit(&*error) {
                        return Poll::Ready(Err(ReadError::LimitedElsewhere));
                    }
                    shielded(|| tracing::debug!(target: "tower_offload", error, "the body of a request broke off"));
                    return Poll::Ready(Err(ReadError::BrokenOff));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(self.finish(true))),
                Poll::Pending if has_message => return Poll::Ready(Ok(self.finish(false))),
                Poll::Pending => return self.poll_wait(cx),
            }
            if self.body.as_ref().is_some_and(Body::is_end_stream) {
                return Poll::Ready(Ok(self.finish(true)));
            }
            if has_message {
                return Poll::Ready(Ok(self.finish(false)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Refuses a body that is too large by its announcement, and reserves the memory for any other.
    fn reserve_announced(&mut self) -> Result<(), ReadError> {
        let (None, Some(body)) = (&self.message, &self.body) else { return Ok(()) };
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > self.limit {
            return Err(self.too_large());
        }
        self.reserve(Chunks::most(announced))
    }

    fn take(&mut self, frame: Frame<B::Data>) -> Result<(), ReadError> {
        match frame.into_data().map(bytes_of) {
            Ok(bytes) => {
                self.received += bytes.len() as u64;
                let length = match &mut self.message {
                    Some(message) => {
                        message.push(&bytes);
                        message.length().unwrap_or(0)
                    }
                    None => self.received,
                };
                if length > self.limit as u64 {
                    return Err(self.too_large());
                }
                let left = self.body.as_ref().and_then(|body| body.size_hint().exact());
                self.chunks.push(bytes, left.and_then(|left| usize::try_from(left).ok()));
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.trailers.get_or_insert_default().extend(trailers);
                }
            }
        }
        self.reserve(self.cost())
    }

    fn has_first_message(&self) -> bool {
        self.message.as_ref().is_some_and(FirstMessage::is_complete)
    }

    /// The bytes that were read, and the rest of the body, unless it has ended.
    fn finish(&mut self, ended: bool) -> Buffered<B> {
        self.chunks.seal();
        self.reservation.shrink_to(self.cost());
        Buffered::read(Read {
            chunks: std::mem::take(&mut self.chunks),
            trailers: self.trailers.take(),
            rest: self.body.take().filter(|_| !ended),
            reservation: std::mem::take(&mut self.reservation),
        })
    }

    fn cost(&self) -> usize {
        self.chunks.cost() + cost_of(self.trailers.as_ref())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), ReadError> {
        if self.reservation.grow_to(bytes) {
            return Ok(());
        }
        // It would not fit either if it were the only one.
        let limit = self.reservation.limit().filter(|limit| bytes > *limit);
        Err(limit.map_or(ReadError::OverBudget, |limit| ReadError::TooLarge { limit }))
    }

    const fn too_large(&self) -> ReadError {
        ReadError::TooLarge { limit: self.limit }
    }

    /// The time at which the body counts as too late that has been waited for since `start`.
    fn due(&self, start: Instant) -> Option<Due> {
        let late = self.pace.due(start, self.received);
        let deadline = self.deadline.map(|deadline| (deadline, ReadError::DeadlinePassed));
        late.into_iter().chain(deadline).min_by_key(|(at, _)| *at)
    }

    fn poll_wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, ReadError>> {
        loop {
            let now = Instant::now();
            let first = self.wait.since.is_none();
            let since = *self.wait.since.get_or_insert(now);
            let Some((at, error)) = self.due(since) else { return Poll::Pending };
            if at <= now && std::mem::replace(&mut self.wait.asked_at_last, true) {
                return Poll::Ready(Err(error));
            }
            if first || at <= now {
                // At first, the bytes often lie in a buffer of the connection, and no timer is needed. At last, they
                // may have arrived while no thread of the runtime was free to read them.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let sleep = self.wait.sleep.get_or_insert_with(|| sleep_until(at));
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It was set when fewer bytes had arrived.
            self.wait.sleep = None;
        }
    }
}

/// Whether the body ended at the limit of another layer.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_limit)
}

impl<B> Unpin for Reading<B> {}

impl<B> Future for Reading<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Buffered<B>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.poll_read(cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            // The memory is given back now, not when the caller drops this.
            self.body = None;
            self.chunks = Chunks::default();
            self.reservation = Reservation::default();
        }
        polled
    }
}

impl<B> fmt::Debug for Reading<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("received", &self.received).finish_non_exhaustive()
    }
}
