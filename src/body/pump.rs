//! The continuation of a task that polls the body of its response, and fills the buffer for the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::buffer::{Buffer, Space};
use super::error::{BodyError, BoxError};
use super::farewell::Farewell;
use crate::admission::Outcome;
use crate::pool::FrameTimes;

/// A body that a worker polls.
pub(super) struct Pump<B: Body>
where
    B::Data: Send + 'static,
{
    pub(super) body: Pin<Box<B>>,
    pub(super) producer: Producer<B::Data>,
    pub(super) farewell: Option<Farewell>,
    pub(super) times: FrameTimes,
}

/// The producer's side of a buffer. Dropping it before the end of the body ends the body with an error.
pub(crate) struct Producer<D: Buf + Send + 'static> {
    buffer: Arc<Buffer<D>>,
    /// When the buffer became full.
    full_since: Option<Instant>,
}

/// A worker takes at most this many frames of a body in a row. Then it takes the pool's next task.
pub(super) const FRAMES_IN_A_ROW: usize = 32;

/// A worker takes no further frame in a row after this time, so that bodies that compute do not keep queued tasks
/// waiting.
pub(super) const LONGEST_TURN: Duration = Duration::from_micros(200);

impl<B> Pump<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send,
    B::Error: Into<BoxError>,
{
    /// Polls the body to its end, and drops it. If it is to `hold` the permit, it then waits until the reader has taken
    /// the last frame.
    pub(super) async fn run(mut self, hold: bool) -> Outcome {
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        let Self { body, producer, .. } = self;
        drop(body);
        producer.finish(outcome, hold).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let begun = Instant::now();
        for _ in 0..FRAMES_IN_A_ROW {
            let was_full = self.producer.is_full();
            let space = self.producer.poll_space(cx);
            if let Poll::Ready(Err(outcome)) = space {
                return Poll::Ready(outcome);
            }
            if self.farewell.as_mut().is_some_and(|farewell| farewell.poll(cx).is_ready()) {
                let frames = self.farewell.take().into_iter().flat_map(Farewell::frames);
                frames.for_each(|frame| self.producer.buffer.push(frame));
                self.producer.buffer.end(Ok(()));
                return Poll::Ready(Outcome::Ok);
            }
            if space.is_pending() {
                return Poll::Pending;
            }
            if was_full {
                self.times.resume();
            }
            let end = match self.body.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    self.times.record();
                    self.producer.buffer.push(frame);
                    self.body.is_end_stream().then_some(Ok(()))
                }
                Poll::Ready(None) => Some(Ok(())),
                Poll::Ready(Some(Err(error))) => Some(Err(error.into())),
            };
            if let Some(end) = end {
                let outcome = if end.is_ok() { Outcome::Ok } else { Outcome::Error };
                self.producer.buffer.end(end);
                return Poll::Ready(outcome);
            }
            if begun.elapsed() > LONGEST_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<D: Buf + Send + 'static> Producer<D> {
    pub(crate) const fn new(buffer: Arc<Buffer<D>>) -> Self {
        Self { buffer, full_since: None }
    }

    pub(crate) const fn buffer(&self) -> &Arc<Buffer<D>> {
        &self.buffer
    }

    /// Whether the producer waits for the reader.
    const fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Waits until the buffer has space. An error is the outcome of a task whose reader does not read any more.
    ///
    /// The waker is registered in any case: a reader that leaves or stalls wakes a producer that waits for something
    /// else.
    pub(crate) fn poll_space(&mut self, cx: &Context<'_>) -> Poll<Result<(), Outcome>> {
        let end = match self.buffer.poll_space(cx) {
            Space::Full => {
                self.full_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            }
            Space::Free => Ok(()),
            Space::Stalled => Err(Outcome::Stalled),
            Space::Gone => Err(Outcome::Cancelled),
            Space::Done => Err(Outcome::Ok),
        };
        self.add_reader_time();
        Poll::Ready(end)
    }

    /// Waits for the reader, if the permit is held until it has taken everything. The result is the task's outcome.
    pub(crate) async fn finish(mut self, outcome: Outcome, hold: bool) -> Outcome {
        let mut end = outcome;
        if hold && matches!(outcome, Outcome::Ok | Outcome::Error) {
            self.full_since = Some(Instant::now());
            end = match poll_fn(|cx| self.buffer.poll_taken(cx)).await {
                Space::Stalled => Outcome::Stalled,
                Space::Gone => Outcome::Cancelled,
                Space::Free | Space::Full | Space::Done => outcome,
            };
            self.add_reader_time();
        }
        if end == Outcome::Stalled {
            self.buffer.clear();
        }
        end
    }

    fn add_reader_time(&mut self) {
        if let (Some(since), Some(task)) = (self.full_since.take(), self.buffer.task()) {
            task.waited_for_reader(since.elapsed());
        }
    }
}

impl<D: Buf + Send + 'static> Drop for Producer<D> {
    fn drop(&mut self) {
        self.buffer.end(Err(BodyError::CutOff.into()));
    }
}
