//! What a task polls: a future whose content can be dropped before its memory is freed.
//!
//! A worker drops the content of a future that ended. The memory is freed with the task, which the caller drops last, on
//! the thread that allocated both: allocators such as glibc's lock a thread's memory when another thread frees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that a pool can run.
pub trait TaskFuture: Future + Unpin + Send + 'static {
    /// Drops the content. The future is not polled again.
    fn clear(&mut self);
}

/// Any future, in a box.
pub struct Boxed<F>(Pin<Box<Option<F>>>);

impl<F> Boxed<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Box::pin(Some(future)))
    }

    /// `None` if it was cleared.
    pub(crate) fn get(&self) -> Option<&F> {
        self.0.as_ref().get_ref().as_ref()
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
