//! A body that the connection polls, and that holds the permit of its task or ends at a drain.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::buffer::wake;
use super::error::{BodyError, BoxError};
use super::farewell::Farewell;
use super::frames::Frames;
use super::next::{Next, outcome_of, poll_next};
use super::remaining::Remaining;
use super::watch::{Look, Watch, Watched, look_at};
use crate::admission::Outcome;
use crate::current::{CurrentTask, FrameTimes, OpenStream};
use crate::stall::StallSignal;
use crate::sync::lock_std as lock;
use crate::timer::Earliest;

/// The body. If the task holds its permit for it, dropping it before its end counts as cancelled.
pub(super) struct OnConnection<B: Body> {
    shared: Arc<Shared<B>>,
    /// `None` if the permit is not held.
    task: Option<CurrentTask>,
    times: FrameTimes,
    farewell: Option<Farewell>,
    /// The frames of the farewell.
    last: Frames<B::Data>,
    remaining: Remaining,
}

/// The part of the body that its task sees.
struct Shared<B> {
    state: Mutex<State<B>>,
    /// `None` if the permit is not held.
    stalled: Option<StallSignal>,
    timer: Earliest,
}

struct State<B> {
    /// `None` once it has ended. A worker drops the body of a reader that has stalled.
    body: Option<Pin<Box<B>>>,
    outcome: Option<Outcome>,
    /// The reader is behind from a frame until it asks for the next one.
    watch: Watch,
    worker: Option<Waker>,
    /// Until the body has ended, or the reader has stalled.
    stream: Option<OpenStream>,
}

impl<B> OnConnection<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send,
    B::Error: Into<BoxError>,
{
    /// `counted`: this is a stream of its own, and no part of one that is counted already. `hold`: the task keeps its
    /// permit until the reader has taken the last frame, and the stall timeout applies.
    pub(super) fn new(
        body: B,
        remaining: Remaining,
        task: &CurrentTask,
        farewell: Option<Farewell>,
        counted: bool,
        hold: bool,
    ) -> Self {
        let (body, stream) = (Some(Box::pin(body)), counted.then(|| task.open_stream()));
        let state = State { body, outcome: None, watch: Watch::default(), worker: None, stream };
        let stalled = hold.then(|| StallSignal::new(task.policy().stall_timeout));
        let shared =
            Arc::new(Shared { state: Mutex::new(state), stalled: stalled.clone(), timer: Earliest::default() });
        if let Some(stalled) = stalled {
            let shared = shared.clone();
            task.continue_with(Box::pin(poll_fn(move |cx| shared.poll_end(cx))), true, stalled);
        }
        Self {
            shared,
            task: hold.then(|| task.clone()),
            times: task.frame_times(),
            farewell,
            last: Frames::default(),
            remaining,
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Some(farewell) = self.farewell.take_if(|farewell| farewell.comes_before_next(cx)) {
            self.end_early(farewell);
        }
        if let Some(frame) = self.last.pop() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(waited) = self.shared.resume() {
            self.times.resume();
            if let Some(task) = &self.task {
                task.waited_for_reader(waited);
            }
        }
        let mut polled = self.shared.poll_frame(cx);
        if polled.is_pending()
            && let Some(farewell) = self.farewell.take_if(|farewell| farewell.comes_when_pending())
        {
            self.end_early(farewell);
            polled = Poll::Ready(self.last.pop().map(Ok));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.remaining.take(frame);
            self.times.record();
        }
        polled
    }

    /// Ends the body with the frames of its farewell.
    fn end_early(&mut self, farewell: Farewell) {
        farewell.frames().for_each(|frame| self.last.push(frame));
        self.shared.end(Outcome::Ok);
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.last.is_empty() && lock(&self.shared.state).outcome.is_some_and(|outcome| outcome == Outcome::Ok)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.hint()
    }
}

impl<B: Body> Drop for OnConnection<B> {
    fn drop(&mut self) {
        let outcome = match &self.shared.stalled {
            _ if self.remaining.is_complete() => Outcome::Ok,
            Some(stalled) if stalled.is_set() => Outcome::Stalled,
            _ => Outcome::Cancelled,
        };
        self.shared.end(outcome);
    }
}

impl<B> Shared<B> {
    /// Ends the body, and drops it.
    fn end(&self, outcome: Outcome) {
        let mut state = lock(&self.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        state.watch.end();
        let body = state.body.take();
        let worker = state.worker.take();
        let stream = state.stream.take();
        drop(state);
        drop((body, stream));
        wake(worker);
    }

    /// The reader asks for a frame. The result is how long it let the body wait.
    fn resume(&self) -> Option<Duration> {
        lock(&self.state).watch.end().map(|since| since.elapsed())
    }

    /// Waits for the end of the body, as its task does.
    fn poll_end(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.state);
        let Some(outcome) = state.outcome else {
            let _before = state.worker.replace(cx.waker().clone());
            drop(state);
            return Poll::Pending;
        };
        let body = state.body.take();
        drop(state);
        drop(body);
        Poll::Ready(outcome)
    }
}

impl<B> Shared<B>
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn poll_frame(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut state = lock(&self.state);
        match state.outcome {
            Some(Outcome::Stalled) => return Poll::Ready(Some(Err(BodyError::Stalled.into()))),
            Some(Outcome::Panicked) => return Poll::Ready(Some(Err(BodyError::CutOff.into()))),
            _ => {}
        }
        let Some(mut body) = state.body.take() else { return Poll::Ready(None) };
        // The body is polled without the lock: it may block, and the task's worker and the timer need the lock.
        drop(state);
        let polled = catch_unwind(AssertUnwindSafe(|| poll_next(body.as_mut(), cx))).unwrap_or_else(|panic| {
            self.end(Outcome::Panicked);
            resume_unwind(panic)
        });
        if let Poll::Ready(Next { frame, end: Some(end) }) = polled {
            drop(body);
            self.end(outcome_of(&end));
            return Poll::Ready(frame.map(Ok).or(end.err().map(Err)));
        }
        let mut state = lock(&self.state);
        state.body = Some(body);
        let Next { frame, .. } = ready!(polled);
        let look = self.stalled.as_ref().and_then(|stalled| state.watch.begin(stalled.timeout()));
        drop(state);
        look_at(look, self);
        Poll::Ready(frame.map(Ok))
    }
}

impl<B: Body + Send + 'static> Watched for Shared<B> {
    fn timer(&self) -> &Earliest {
        &self.timer
    }

    fn look(&self) -> Option<Instant> {
        let stalled = self.stalled.as_ref()?;
        let timeout = stalled.timeout();
        let mut state = lock(&self.state);
        if let Look::Later(at) = state.watch.look(timeout) {
            return at;
        }
        state.outcome = Some(Outcome::Stalled);
        // Set under the lock: a server that finds the error knows the signal.
        stalled.set();
        let worker = state.worker.take();
        let stream = state.stream.take();
        drop(state);
        drop(stream);
        wake(worker);
        None
    }
}
