//! The continuation of a task that polls the body of its response, and fills the buffer for the connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body::Body;

use super::buffer::{Buffer, Space};
use super::error::BoxError;
use super::farewell::Farewell;
use super::frames::FRAMES_IN_A_ROW;
use super::next::{Next, outcome_of, poll_next};
use crate::admission::Outcome;
use crate::current::FrameTimes;

/// Polls a body to its end, drops it, and then [finishes](Finish).
pub(super) struct Pump<B: Body>
where
    B::Data: Send + 'static,
{
    /// `None` once it has ended.
    body: Option<Pin<Box<B>>>,
    finish: Finish<B::Data>,
    farewell: Option<Farewell>,
    times: FrameTimes,
}

/// The end of a body. If the permit is held, it waits until the reader has taken everything. The result is the task's
/// outcome.
pub(crate) struct Finish<D: Buf + Send + 'static> {
    producer: Producer<D>,
    outcome: Outcome,
    hold: bool,
}

/// The producer's side of a buffer. Dropping it before the end of the body ends the body with an error.
pub(crate) struct Producer<D: Buf + Send + 'static> {
    buffer: Arc<Buffer<D>>,
    /// When the buffer became full.
    full_since: Option<Instant>,
}

/// A worker takes no further frame in a row after this time, so that bodies that compute do not keep queued tasks
/// waiting.
pub(super) const LONGEST_TURN: Duration = Duration::from_micros(200);

impl<B> Pump<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(
        body: Pin<Box<B>>,
        producer: Producer<B::Data>,
        farewell: Option<Farewell>,
        times: FrameTimes,
        hold: bool,
    ) -> Self {
        Self { body: Some(body), finish: producer.finish(Outcome::Ok, hold), farewell, times }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self { body: Some(body), finish: Finish { producer, .. }, farewell, times } = self else {
            return Poll::Ready(self.finish.outcome);
        };
        let begun = Instant::now();
        for _ in 0..FRAMES_IN_A_ROW {
            let was_full = producer.is_full();
            let space = producer.poll_space(cx);
            if let Poll::Ready(Err(outcome)) = space {
                return Poll::Ready(outcome);
            }
            if let Some(farewell) = farewell.take_if(|farewell| farewell.comes_before_next(cx)) {
                return Poll::Ready(end_early(producer, farewell));
            }
            if space.is_pending() {
                return Poll::Pending;
            }
            if was_full {
                times.resume();
            }
            let Poll::Ready(Next { frame, end }) = poll_next(body.as_mut(), cx) else {
                let farewell = farewell.take_if(|farewell| farewell.comes_when_pending());
                return farewell.map_or(Poll::Pending, |farewell| Poll::Ready(end_early(producer, farewell)));
            };
            if let Some(frame) = frame {
                times.record();
                producer.buffer.push(frame);
            }
            if let Some(end) = end {
                let outcome = outcome_of(&end);
                producer.buffer.end(end);
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

/// Ends the body with the frames of its farewell.
fn end_early<D: Buf + From<Bytes> + Send + 'static>(producer: &Producer<D>, farewell: Farewell) -> Outcome {
    farewell.frames().for_each(|frame| producer.buffer.push(frame));
    producer.buffer.end(Ok(()));
    Outcome::Ok
}

impl<B> Future for Pump<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send,
    B::Error: Into<BoxError>,
{
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.body.is_some() {
            self.finish.outcome = ready!(self.poll_body(cx));
            self.body = None;
        }
        Pin::new(&mut self.finish).poll(cx)
    }
}

/// Nothing is pinned: the body is in a box.
impl<B: Body> Unpin for Pump<B> where B::Data: Send + 'static {}

impl<D: Buf + Send + 'static> Future for Finish<D> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Self { producer, outcome, hold } = &mut *self;
        if *hold && matches!(outcome, Outcome::Ok | Outcome::Error) {
            producer.full_since.get_or_insert_with(Instant::now);
            match producer.buffer.poll_taken(cx) {
                Space::Full => return Poll::Pending,
                Space::Stalled => *outcome = Outcome::Stalled,
                Space::Gone => *outcome = Outcome::Cancelled,
                Space::Free | Space::Done => {}
            }
            producer.add_reader_time();
        }
        if *outcome == Outcome::Stalled {
            producer.buffer.clear();
        }
        Poll::Ready(*outcome)
    }
}

impl<D: Buf + Send + 'static> Unpin for Finish<D> {}

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

    /// Ends the work on a body with this outcome.
    pub(crate) const fn finish(self, outcome: Outcome, hold: bool) -> Finish<D> {
        Finish { producer: self, outcome, hold }
    }

    fn add_reader_time(&mut self) {
        if let (Some(since), Some(task)) = (self.full_since.take(), self.buffer.task()) {
            task.waited_for_reader(since.elapsed());
        }
    }
}

impl<D: Buf + Send + 'static> Drop for Producer<D> {
    fn drop(&mut self) {
        self.buffer.cut_off();
    }
}
