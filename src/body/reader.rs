//! The connection's side of a buffer.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Frame, SizeHint};

use super::buffer::Buffer;
use super::error::BoxError;
use super::frames::FRAMES_IN_A_ROW;
use super::remaining::Remaining;
use crate::current::CurrentTask;

/// Takes the frames of a body that a task produces. Dropping it before the end of the body cancels the task, unless the
/// client expects no body, or the handler drops it and answers with something else.
pub(crate) struct Reader<D: Buf + Send + 'static> {
    buffer: Arc<Buffer<D>>,
    remaining: Remaining,
    /// The frames that the connection has taken since it last waited.
    in_a_row: usize,
}

impl<D: Buf + Send + 'static> Reader<D> {
    pub(super) const fn new(buffer: Arc<Buffer<D>>, remaining: Remaining) -> Self {
        Self { buffer, remaining, in_a_row: 0 }
    }

    /// The reader of a body of unknown length.
    pub(crate) fn unbounded(buffer: Arc<Buffer<D>>) -> Self {
        Self::new(buffer, Remaining::new(&SizeHint::new(), None))
    }

    /// The next frame. After each row of [frames](FRAMES_IN_A_ROW) it lets the runtime poll other tasks.
    ///
    /// A connection takes frames until none is left or hundreds of kilobytes are to be sent. A worker may add them as fast
    /// as they are taken, so without this the other connections of the thread would wait.
    pub(crate) fn poll_frame(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<D>, BoxError>>> {
        if self.in_a_row == FRAMES_IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.buffer.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.remaining.take(frame);
                self.in_a_row += 1;
            }
            Poll::Ready(_) => {}
            Poll::Pending => self.in_a_row = 0,
        }
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.buffer.is_end()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.remaining.hint()
    }
}

impl<D: Buf + Send + 'static> Drop for Reader<D> {
    fn drop(&mut self) {
        let is_unused = |task: &CurrentTask| task.expects_no_body() || task.gives_other_answer();
        let unused = self.buffer.task().is_some_and(is_unused);
        let complete = unused || self.remaining.is_complete() || self.buffer.is_end();
        // A task whose reader has stalled learns of that. A server drops the body then.
        if let (Some(task), false) = (self.buffer.task(), complete || self.buffer.has_stalled()) {
            // Before the writer finds that nobody reads, `checkpoint` says so.
            task.reader_left();
        }
        self.buffer.leave(complete);
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::pump::Producer;
    use super::*;
    use crate::admission::Outcome;

    #[test]
    fn a_server_that_drops_the_body_of_a_client_that_takes_nothing_has_found_a_stall() {
        for (stalls, expected) in [(true, Outcome::Stalled), (false, Outcome::Cancelled)] {
            let buffer = Buffer::<Bytes>::new(1024, Duration::from_secs(30), None);
            let (reader, mut producer) = (Reader::unbounded(buffer.clone()), Producer::new(buffer.clone()));
            buffer.push(Frame::data(Bytes::from_static(b"frame")));
            if stalls {
                buffer.stall_signal().set();
            }
            drop(reader);
            let space = producer.poll_space(&Context::from_waker(Waker::noop()));
            assert_eq!(space, Poll::Ready(Err(expected)));
        }
    }
}
