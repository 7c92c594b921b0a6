//! Bodies that blocking code writes, such as an export as CSV, an archive, or a generator with a callback.
//!
//! ```
//! use std::io::Write;
//!
//! use axum::http::header::CONTENT_TYPE;
//! use axum::response::IntoResponse;
//! use axum::{Router, routing::get};
//! use tower_offload::{Db, PoolLayer, Pools, stream};
//!
//! # fn rows() -> impl Iterator<Item = (u64, String)> { [(1, "one".to_owned())].into_iter() }
//! async fn export() -> impl IntoResponse {
//!     let body = stream::writer(|out| {
//!         writeln!(out, "id,title")?;
//!         for (id, title) in rows() {
//!             writeln!(out, "{id},{title}")?;
//!         }
//!         Ok::<_, std::io::Error>(())
//!     });
//!     ([(CONTENT_TYPE, "text/csv")], body)
//! }
//!
//! let pools = Pools::default();
//! let app: Router = Router::new().route("/export", get(export).layer(PoolLayer::<Db>::new(&pools)));
//! # let _ = app;
//! ```

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tracing::Span;

use crate::admission::Outcome;
use crate::block_on::block_on;
use crate::body::{BodyError, BoxError, Buffer, Producer, Reader};
use crate::config::BodyPolicy;
use crate::current::CurrentTask;
use crate::shield::shielded;
use crate::threads;

/// The bytes that small writes are gathered into.
const FRAME: usize = 16 * 1024;
/// The bytes of a single large write that become one frame. A frame costs the connection the same whatever its size.
const LARGEST_FRAME: usize = 64 * 1024;

/// A body that the function writes, in blocking code.
///
/// In a handler behind a [`PoolLayer`](crate::PoolLayer), the function runs on a worker of the handler's pool, after the
/// response's head was sent. It holds the permit of the request until it returns, and if the policy has
/// `hold`, until the client has everything. It begins even if nobody polls the body yet. It is not called if the client has
/// left before, or if the handler drops the body and responds with another one. A task that makes several writers runs the first one; the others run on threads of Tokio's blocking pool,
/// and so does a writer that is made outside of a pool, from its body's first poll on.
///
/// If `write` returns an error or panics, the body ends with an error: the client sees that it is incomplete. The error is
/// logged, unless the client has left or stalled.
///
/// The policy for bodies of the pool and the layer gives the size of the buffer, and the stall timeout. Compression
/// outside of the function runs on the connection, so a function that produces much compresses it itself: it wraps the
/// [`Writer`] in an encoder.
pub fn writer<F, E>(write: F) -> WriterBody
where
    F: FnOnce(&mut Writer) -> Result<(), E> + Send + 'static,
    E: Into<BoxError>,
{
    let task = CurrentTask::get();
    let policy = task.as_ref().map_or_else(BodyPolicy::default, |task| task.policy().clone());
    let task = task.filter(CurrentTask::can_continue);
    let buffer = Buffer::new(policy.buffer, policy.stall_timeout, task.clone());
    let reader = Reader::unbounded(buffer.clone());
    let writer = Writer { producer: Producer::new(buffer), frame: BytesMut::new(), failed: None };
    let mut start = None;
    match task {
        Some(task) => {
            let stalled = writer.producer.buffer().stall_signal();
            let written = Box::pin(async move { writer.run(write).finish(policy.hold).await });
            task.continue_with(written, true, stalled);
        }
        None => {
            let span = Span::current();
            start = Some(Box::new(move || drop(span.in_scope(|| writer.run(write)))) as Box<dyn FnOnce() + Send>);
        }
    }
    WriterBody { reader, start }
}

/// The body of a response that a function writes; made by [`writer`].
pub struct WriterBody {
    reader: Reader<Bytes>,
    /// Starts the function outside of a pool.
    start: Option<Box<dyn FnOnce() + Send>>,
}

/// Takes what the function writes.
///
/// Small writes are gathered into frames of 16 KiB, and [`flush`](io::Write::flush) sends a smaller frame. A write of more
/// is sent in frames of up to 64 KiB. A write blocks while the client is behind by more than the buffer.
///
/// # Errors
///
/// A write or a flush returns [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the client has left, and
/// [`TimedOut`](io::ErrorKind::TimedOut) if it took nothing for the stall timeout.
pub struct Writer {
    producer: Producer<Bytes>,
    frame: BytesMut,
    /// The outcome of a task whose client does not read any more.
    failed: Option<Outcome>,
}

/// The end of a function that wrote a body.
struct Written {
    producer: Producer<Bytes>,
    outcome: Outcome,
}

impl Writer {
    /// Calls the function, and ends the body.
    fn run<F, E>(mut self, write: F) -> Written
    where
        F: FnOnce(&mut Self) -> Result<(), E>,
        E: Into<BoxError>,
    {
        if let Err(outcome) = self.wait_for_space() {
            return Written { producer: self.producer, outcome };
        }
        let result = write(&mut self).map_err(Into::into);
        let end = result.and_then(|()| Ok(self.send()?));
        let outcome = match (&end, self.failed) {
            (Ok(()), _) => Outcome::Ok,
            (Err(_), Some(failed)) => failed,
            (Err(error), None) => {
                // The status was sent, and servers drop the error of a body.
                let pool = self.producer.buffer().task().map(|task| task.pool().as_str());
                shielded(|| {
                    tracing::warn!(target: "tower_offload", pool, "a body could not be written to its end: {error}");
                });
                Outcome::Error
            }
        };
        self.producer.buffer().end(end);
        Written { producer: self.producer, outcome }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        if let Err(outcome) = self.wait_for_space() {
            self.failed = Some(outcome);
            return Err(if outcome == Outcome::Stalled {
                io::Error::new(io::ErrorKind::TimedOut, BodyError::Stalled)
            } else {
                io::Error::new(io::ErrorKind::BrokenPipe, "the client has left")
            });
        }
        let frame = self.frame.split().freeze();
        self.producer.buffer().push(Frame::data(frame));
        Ok(())
    }

    fn wait_for_space(&mut self) -> Result<(), Outcome> {
        block_on(poll_fn(|cx| self.producer.poll_space(cx)))
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frame.len() >= FRAME {
            self.send()?;
        }
        let most = if self.frame.is_empty() && bytes.len() > FRAME { LARGEST_FRAME } else { FRAME };
        let taken = bytes.len().min(most - self.frame.len());
        if self.frame.is_empty() && self.frame.capacity() < taken {
            // Frames that are small because of a flush share an allocation.
            self.frame.reserve(taken.max(FRAME));
        }
        self.frame.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Written {
    async fn finish(self, hold: bool) -> Outcome {
        self.producer.finish(self.outcome, hold).await
    }
}

impl Body for WriterBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(start) = self.start.take() {
            match Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(start)),
                // If no thread can be started, the producer is dropped, which ends the body with an error.
                Err(_) => drop(threads::start("offload-writer".to_owned(), None, start)),
            }
        }
        self.reader.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}

/// A response with a status of 200 and this body.
#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl axum_core::response::IntoResponse for WriterBody {
    fn into_response(self) -> axum_core::response::Response {
        axum_core::response::Response::new(axum_core::body::Body::new(self))
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl fmt::Debug for WriterBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterBody").finish_non_exhaustive()
    }
}
