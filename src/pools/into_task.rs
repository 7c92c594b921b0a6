//! The kinds of task: a closure and a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use self::sealed::Sealed;
use crate::task::{Boxed, TaskFuture};

/// A closure or a future that can run in a pool.
///
/// `Kind` distinguishes the two, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run in a pool",
    note = "a task is a closure `FnOnce() -> T`, or a future; it and its value are `Send + 'static`"
)]
pub trait IntoTask<Kind>: Sealed<Kind> + Send + 'static {
    /// The value of the task.
    type Output: Send + 'static;
    /// The task as a future.
    type Future: TaskFuture<Output = Self::Output>;

    /// Turns the task into a future that does the work when it is polled.
    fn into_task(self) -> Self::Future;
}

mod sealed {
    /// Prevents other crates from adding kinds of task.
    pub trait Sealed<Kind> {
        /// True for futures, false for closures.
        const IS_FUTURE: bool;
    }
}

/// The [`Kind`](IntoTask) of closures.
#[derive(Debug)]
pub struct ClosureKind;

/// The [`Kind`](IntoTask) of futures.
#[derive(Debug)]
pub struct FutureKind;

/// A closure that is called at the first poll.
#[derive(Debug)]
pub struct CallOnce<F>(Option<F>);

impl<F: FnOnce() -> T, T> Sealed<ClosureKind> for F {
    const IS_FUTURE: bool = false;
}

impl<F: Future> Sealed<FutureKind> for F {
    const IS_FUTURE: bool = true;
}

impl<F, T> IntoTask<ClosureKind> for F
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;
    type Future = CallOnce<F>;

    fn into_task(self) -> CallOnce<F> {
        CallOnce(Some(self))
    }
}

impl<F> IntoTask<FutureKind> for F
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = F::Output;
    type Future = Boxed<F>;

    fn into_task(self) -> Boxed<F> {
        Boxed::new(self)
    }
}

// The closure is moved out before it is called, so it is never pinned.
impl<F> Unpin for CallOnce<F> {}

impl<F: FnOnce() -> T, T> Future for CallOnce<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<T> {
        let call = self.0.take().expect("a task is not polled after it has ended");
        Poll::Ready(call())
    }
}

impl<F, T> TaskFuture for CallOnce<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn clear(&mut self) {
        self.0 = None;
    }
}
