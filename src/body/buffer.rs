//! The frames of a body that wait for their reader: bounded in bytes, with back-pressure for the producer.
//!
//! The producer is a task of a pool, the reader is a connection. Either may leave at any time. A reader that takes
//! nothing for the stall timeout, although frames wait, has stalled: the producer learns of it and gives up.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Buf;
use http_body::Frame;

use super::error::{BodyError, BoxError};
use super::frames::Frames;
use super::watch::{Look, Watch, Watched, look_at};
use crate::current::{CurrentTask, OpenStream};
use crate::stall::StallSignal;
use crate::sync::{Mutex, lock};
use crate::timer::Earliest;

/// The buffer of one body.
pub(crate) struct Buffer<D> {
    state: Mutex<State<D>>,
    capacity: usize,
    stalled: StallSignal,
    timer: Earliest,
    task: Option<CurrentTask>,
}

struct State<D> {
    frames: Frames<D>,
    /// The bytes of these frames, each with its bookkeeping.
    bytes: usize,
    /// The end of the body, behind its frames.
    end: Option<Result<(), BoxError>>,
    progress: Progress,
    /// The reader is behind while there are frames.
    watch: Watch,
    reader: Option<Waker>,
    producer: Option<Waker>,
    /// `None` once the reader has left or stalled. A connection that can send nothing drops its body late.
    stream: Option<OpenStream>,
}

/// What the reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It takes frames.
    Reads,
    /// It took nothing for the stall timeout.
    Stalled,
    /// It has left.
    Gone,
    /// It has all that it needs.
    Done,
}

/// Whether the producer may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Free,
    Full,
    Stalled,
    Gone,
    Done,
}

/// This many frames have room, however large they are. The connection usually takes all of them at once, and a worker
/// has to be woken for the next ones: with fewer frames, large ones arrive more slowly.
///
/// Models have two, because fewer frames have fewer interleavings.
const LEAST: usize = if cfg!(tower_offload_loom) { 2 } else { 4 };

/// The bytes of a frame's bookkeeping.
const OVERHEAD: usize = 128;

impl<D: Buf + Send + 'static> Buffer<D> {
    pub(crate) fn new(capacity: usize, stall_timeout: Duration, task: Option<CurrentTask>) -> Arc<Self> {
        let state = State {
            frames: Frames::default(),
            bytes: 0,
            end: None,
            progress: Progress::Reads,
            watch: Watch::default(),
            reader: None,
            producer: None,
            stream: task.as_ref().map(CurrentTask::open_stream),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            capacity,
            stalled: StallSignal::new(stall_timeout),
            timer: Earliest::default(),
            task,
        })
    }

    /// Adds a frame, also to a full buffer. If the reader has left or has stalled, the frame is dropped.
    pub(crate) fn push(self: &Arc<Self>, frame: Frame<D>) {
        let bytes = size(&frame);
        let mut state = lock(&self.state);
        if state.progress != Progress::Reads {
            return;
        }
        let look = if state.frames.is_empty() { state.watch.begin(self.stalled.timeout()) } else { None };
        state.frames.push(frame);
        state.bytes += bytes;
        if let Some(task) = &self.task {
            task.bytes_added(bytes);
        }
        let reader = state.reader.take();
        drop(state);
        look_at(look, self);
        wake(reader);
    }

    /// Ends the body behind its frames. Only the first end counts.
    pub(crate) fn end(&self, end: Result<(), BoxError>) {
        let mut state = lock(&self.state);
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Ends the body with an error, unless it has ended.
    pub(crate) fn cut_off(&self) {
        let state = lock(&self.state);
        let has_ended = state.end.is_some() || state.progress == Progress::Done;
        drop(state);
        if !has_ended {
            self.end(Err(BodyError::CutOff.into()));
        }
    }

    /// Whether the producer may go on. Its waker is called when that may have changed.
    pub(crate) fn poll_space(&self, cx: &Context<'_>) -> Space {
        self.poll_until(cx, |state| has_room(&state.frames, state.bytes, self.capacity))
    }

    /// Whether the reader has taken all frames: until then, the buffer counts as full.
    pub(crate) fn poll_taken(&self, cx: &Context<'_>) -> Space {
        self.poll_until(cx, |state| state.frames.is_empty())
    }

    fn poll_until(&self, cx: &Context<'_>, is_free: impl FnOnce(&State<D>) -> bool) -> Space {
        // The waker that is replaced is dropped without the lock.
        let _before;
        let mut state = lock(&self.state);
        let space = match state.progress {
            Progress::Stalled => return Space::Stalled,
            Progress::Gone => return Space::Gone,
            Progress::Done => return Space::Done,
            Progress::Reads if is_free(&state) => Space::Free,
            Progress::Reads => Space::Full,
        };
        if !state.producer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            _before = state.producer.replace(cx.waker().clone());
        }
        space
    }

    /// Drops the frames, because the reader has stalled or left.
    pub(crate) fn clear(&self) {
        let (frames, bytes) = lock(&self.state).clear();
        self.removed(bytes);
        drop(frames);
    }

    /// The next frame for the reader.
    pub(crate) fn poll_frame(&self, cx: &Context<'_>) -> Poll<Option<Result<Frame<D>, BoxError>>> {
        let mut state = lock(&self.state);
        if state.progress == Progress::Stalled {
            drop(state);
            self.clear();
            return Poll::Ready(Some(Err(BodyError::Stalled.into())));
        }
        if let Some(frame) = state.frames.pop() {
            let bytes = size(&frame);
            state.bytes -= bytes;
            if state.frames.is_empty() {
                state.watch.end();
            } else {
                state.watch.restart();
            }
            let has_space = state.frames.is_empty() || state.bytes <= self.capacity / 2;
            let producer = if has_space { state.producer.take() } else { None };
            drop(state);
            self.removed(bytes);
            wake(producer);
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.progress == Progress::Done {
            return Poll::Ready(None);
        }
        let Some(end) = state.end.take() else {
            let _before = state.reader.replace(cx.waker().clone());
            drop(state);
            return Poll::Pending;
        };
        state.progress = Progress::Done;
        drop(state);
        Poll::Ready(end.err().map(Err))
    }

    /// Whether the reader has everything, and the end.
    pub(crate) fn is_end(&self) -> bool {
        lock(&self.state).is_end()
    }

    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.is_set()
    }

    /// The reader leaves; `complete` if it has all that it needs.
    pub(crate) fn leave(&self, complete: bool) {
        let mut state = lock(&self.state);
        if state.progress != Progress::Stalled {
            state.progress = match complete {
                true => Progress::Done,
                false if self.has_stalled() => Progress::Stalled,
                false => Progress::Gone,
            };
        }
        let (frames, bytes) = state.clear();
        let wakers = (state.reader.take(), state.producer.take());
        let stream = state.stream.take();
        drop(state);
        drop(stream);
        self.removed(bytes);
        drop(frames);
        drop(wakers.0);
        wake(wakers.1);
    }

    /// The signal that is set when the reader stalls.
    pub(crate) fn stall_signal(&self) -> StallSignal {
        self.stalled.clone()
    }

    pub(crate) const fn task(&self) -> Option<&CurrentTask> {
        self.task.as_ref()
    }

    fn removed(&self, bytes: usize) {
        if let Some(task) = &self.task {
            task.bytes_removed(bytes);
        }
    }
}

impl<D: Buf + Send + 'static> Watched for Buffer<D> {
    fn timer(&self) -> &Earliest {
        &self.timer
    }

    fn look(&self) -> Option<Instant> {
        let mut state = lock(&self.state);
        if let Look::Later(at) = state.watch.look(self.stalled.timeout()) {
            return at;
        }
        state.progress = Progress::Stalled;
        // Set under the lock: a server that finds the error knows the signal.
        self.stalled.set();
        let wakers = (state.reader.take(), state.producer.take());
        let stream = state.stream.take();
        drop(state);
        drop(stream);
        wake(wakers.0);
        wake(wakers.1);
        None
    }
}

impl<D> State<D> {
    fn is_end(&self) -> bool {
        self.progress == Progress::Done || (self.frames.is_empty() && matches!(self.end, Some(Ok(()))))
    }

    fn clear(&mut self) -> (Frames<D>, usize) {
        self.watch.end();
        (std::mem::take(&mut self.frames), std::mem::take(&mut self.bytes))
    }
}

/// Whether there is room for one more frame, of any size.
pub(super) fn has_room<D>(frames: &Frames<D>, bytes: usize, capacity: usize) -> bool {
    frames.len() < LEAST || bytes < capacity
}

/// The bytes with which a frame counts.
pub(super) fn size<D: Buf>(frame: &Frame<D>) -> usize {
    OVERHEAD + frame.data_ref().map_or(0, Buf::remaining)
}

pub(super) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<D> fmt::Debug for Buffer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
