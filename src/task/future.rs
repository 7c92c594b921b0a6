//! The future of a task. Its content can be dropped before its memory is freed.
//!
//! When a future has ended, a worker drops its content. The memory is freed together with the task, usually by the
//! caller, on the thread that allocated both: allocators such as glibc's take a lock when another thread frees memory.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that a pool can run.
pub trait TaskFuture: Future + Unpin + Send + 'static {
    /// Drops the content. The caller must not poll the future again.
    fn clear(&mut self);
}

/// Any future, in a box.
pub struct Boxed<F>(Pin<Box<Option<F>>>);

impl<F> Boxed<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Box::pin(Some(future)))
    }

    /// The content; `None` if it was dropped.
    pub(crate) fn as_pin_mut(&mut self) -> Option<Pin<&mut F>> {
        self.0.as_mut().as_pin_mut()
    }
}

impl<F: Future> Future for Boxed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.0.as_mut().as_pin_mut();
        future.expect("a future is not polled after it was cleared").poll(cx)
    }
}

impl<F: Future + Send + 'static> TaskFuture for Boxed<F> {
    fn clear(&mut self) {
        self.0.set(None);
    }
}

impl<F> fmt::Debug for Boxed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boxed").finish_non_exhaustive()
    }
}
