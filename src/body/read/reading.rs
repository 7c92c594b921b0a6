//! `Reading`: the future that reads the body of one request.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body, Frame};
use http_body_util::LengthLimitError;
use pin_project::pin_project;

use super::buffered::{Buffered, Read, bytes_of, cost_of};
use super::chunks::Chunks;
use super::error::ReadError;
use super::pace::Pace;
use super::settings::ReadBody;
use crate::body::error::BoxError;
use crate::body::grpc::{FirstMessage, is_framed};
use crate::body::pause::Timeout;
use crate::budget::{Budget, Reservation};
use crate::shield::shielded;

/// How many frames are taken in a row from a body that always has one, before other tasks of the thread have a turn.
const FRAMES_IN_A_ROW: usize = 64;

/// The longest body that counts as [brief](Reading::is_brief).
const BRIEF: u64 = 64 * 1024;

/// Reads the body of a request: all of it, or of a gRPC request its first message.
///
/// Nothing of the body is polled before this is.
#[pin_project]
pub(crate) struct Reading<B> {
    limit: usize,
    pace: Pace,
    deadline: Option<Instant>,
    /// A body that is read to its end. `None` once it has ended or failed.
    #[pin]
    whole: Option<B>,
    /// A body whose first message is read. It moves on with the rest.
    framed: Option<Pin<Box<B>>>,
    brief: bool,
    begun: bool,
    chunks: Chunks,
    trailers: Option<Box<HeaderMap>>,
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
    timeout: Option<Timeout>,
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
        let message = (!settings.whole && is_framed(headers)).then(FirstMessage::default);
        let is_short = body.size_hint().exact().is_some_and(|length| length <= BRIEF);
        let brief = message.is_none() && is_short && !headers.contains_key(EXPECT);
        let (whole, framed) = if message.is_some() { (None, Some(Box::pin(body))) } else { (Some(body), None) };
        Self {
            limit: settings.limit,
            pace: settings.pace,
            deadline,
            whole,
            framed,
            brief,
            begun: false,
            chunks: Chunks::default(),
            trailers: None,
            reservation: Reservation::of(settings.budget.as_ref().or(budget).cloned()),
            message,
            received: 0,
            wait: Wait::default(),
        }
    }

    /// Whether the body is short and the client waits for no permission to send it, so that all of it has often arrived
    /// with the head.
    pub(super) const fn is_brief(&self) -> bool {
        self.brief
    }

    fn body(self: Pin<&mut Self>) -> Option<Pin<&mut B>> {
        let this = self.project();
        this.framed.as_mut().map(Pin::as_mut).or(this.whole.as_pin_mut())
    }

    fn has_ended(&self) -> bool {
        self.framed.as_deref().or(self.whole.as_ref()).is_some_and(Body::is_end_stream)
    }

    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Buffered<B>, ReadError>> {
        if !std::mem::replace(self.as_mut().project().begun, true) {
            if self.has_ended() {
                return Poll::Ready(Ok(self.finish(true)));
            }
            self.as_mut().begin()?;
        }
        for _ in 0..FRAMES_IN_A_ROW {
            // The end of a unary call often comes together with its message, so that is asked for once more.
            let has_message = self.has_first_message();
            let body = self.as_mut().body().expect("a body is read once");
            match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.as_mut().take(frame)?,
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
                Poll::Pending => {
                    self.as_mut().reserve_announced()?;
                    return self.poll_wait(cx);
                }
            }
            if self.has_ended() {
                return Poll::Ready(Ok(self.finish(true)));
            }
            if has_message {
                return Poll::Ready(Ok(self.finish(false)));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Refuses a body that is too large by its announcement, and reserves the memory for any other. A brief body reserves
    /// what it takes once it is there, or before it is waited for.
    fn begin(mut self: Pin<&mut Self>) -> Result<(), ReadError> {
        if self.announced().is_some_and(|length| length > self.limit) {
            return Err(self.too_large());
        }
        if self.brief { Ok(()) } else { self.as_mut().reserve_announced() }
    }

    /// How many bytes follow at least, if all of the body is read.
    fn announced(&self) -> Option<usize> {
        let body = self.whole.as_ref()?;
        Some(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX))
    }

    fn reserve_announced(self: Pin<&mut Self>) -> Result<(), ReadError> {
        let Some(announced) = self.announced() else { return Ok(()) };
        let arrived = usize::try_from(self.received).unwrap_or(usize::MAX);
        self.reserve(Chunks::most(announced.saturating_add(arrived)))
    }

    fn take(mut self: Pin<&mut Self>, frame: Frame<B::Data>) -> Result<(), ReadError> {
        let this = self.as_mut().project();
        match frame.into_data().map(bytes_of) {
            Ok(bytes) => {
                *this.received += bytes.len() as u64;
                let length = match this.message {
                    Some(message) => {
                        message.push(&bytes);
                        message.length().unwrap_or(0)
                    }
                    None => *this.received,
                };
                if length > *this.limit as u64 {
                    return Err(self.too_large());
                }
                let body = this.framed.as_deref().or(this.whole.as_ref().get_ref().as_ref());
                let left = body.and_then(|body| body.size_hint().exact());
                this.chunks.push(bytes, left.and_then(|left| usize::try_from(left).ok()));
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    this.trailers.get_or_insert_default().extend(trailers);
                }
            }
        }
        let cost = self.cost();
        self.reserve(cost)
    }

    fn has_first_message(&self) -> bool {
        self.message.as_ref().is_some_and(FirstMessage::is_complete)
    }

    /// The bytes that were read, and the rest of the body, unless it has ended.
    fn finish(mut self: Pin<&mut Self>, ended: bool) -> Buffered<B> {
        let mut this = self.as_mut().project();
        this.chunks.seal();
        this.reservation.shrink_to(this.chunks.cost() + cost_of(this.trailers.as_deref()));
        this.whole.set(None);
        Buffered::read(Read {
            chunks: std::mem::take(this.chunks),
            trailers: this.trailers.take(),
            rest: this.framed.take().filter(|_| !ended),
            reservation: std::mem::take(this.reservation),
        })
    }

    fn cost(&self) -> usize {
        self.chunks.cost() + cost_of(self.trailers.as_deref())
    }

    fn reserve(self: Pin<&mut Self>, bytes: usize) -> Result<(), ReadError> {
        let reservation = self.project().reservation;
        if reservation.grow_to(bytes) {
            return Ok(());
        }
        // It would not fit either if it were the only one.
        let limit = reservation.limit().filter(|limit| bytes > *limit);
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

    fn poll_wait<T>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, ReadError>> {
        loop {
            let wait = self.as_mut().project().wait;
            if let Some(timeout) = &mut wait.timeout {
                let anew = ready!(timeout.poll(cx));
                wait.since = anew.or(wait.since);
                wait.timeout = None;
            }
            let now = Instant::now();
            let first = wait.since.is_none();
            let since = *wait.since.get_or_insert(now);
            let Some((at, error)) = self.due(since) else { return Poll::Pending };
            let wait = self.as_mut().project().wait;
            if at <= now && std::mem::replace(&mut wait.asked_at_last, true) {
                return Poll::Ready(Err(error));
            }
            if first || at <= now {
                // At first, the bytes often lie in a buffer of the connection, and no timer is needed. At last, they
                // may have arrived while no thread of the runtime was free to read them.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // When it fires, more bytes may have arrived, and the body be due later.
            wait.timeout = Some(Timeout::at(at));
        }
    }
}

/// Whether the body ended at the limit of another layer.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>() || error.source().is_some_and(is_limit)
}

impl<B> Future for Reading<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Buffered<B>, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.as_mut().poll_read(cx);
        if matches!(polled, Poll::Ready(Err(_))) {
            // The memory is given back now, not when the caller drops this.
            let mut this = self.project();
            this.whole.set(None);
            *this.framed = None;
            *this.chunks = Chunks::default();
            *this.reservation = Reservation::default();
        }
        polled
    }
}

impl<B> fmt::Debug for Reading<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("received", &self.received).finish_non_exhaustive()
    }
}
