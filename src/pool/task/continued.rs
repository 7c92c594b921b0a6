//! A task that continues after its answer: it polls its continuation, such as the body of a response.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};

use futures_util::task::waker_ref;

use super::super::shared::Polled;
use super::super::worker;
use super::{Task, Work, wake_caller};
use crate::admission::{Outcome, Timestamp};
use crate::error::{Panic, TaskError};
use crate::sync::lock_std as lock;
use crate::task::{TaskFuture, combined};

impl<F> Task<F>
where
    F: TaskFuture,
    F::Output: Send + 'static,
{
    /// Gives the answer of a task that continues, and polls its continuation for the first time.
    pub(super) fn answer_early(
        self: &Arc<Self>,
        mut work: MutexGuard<'_, Work<F>>,
        answer: Result<F::Output, TaskError>,
    ) -> Polled {
        // Its content was dropped, and the task may continue for long.
        work.future = None;
        let began = work.began;
        self.put(answer);
        drop(work);
        if !self.head.continuation.keeps_permit() {
            self.release_permit(began);
        }
        self.head.state.answered();
        wake_caller(self.take_waker());
        self.poll_continuation(false)
    }

    fn release_permit(&self, began: Option<Timestamp>) {
        let Some(key) = self.head.key() else { return };
        let now = self.head.pool.now();
        let ran = began.map(|began| now.since(began));
        let effects = self.head.pool.dispatch.release_permit(now, key, ran);
        worker::perform(&self.head.pool, effects);
        worker::changed(&self.head.pool);
    }

    /// Polls the continuation of a task whose answer was given, and ends the task if nothing keeps it in flight.
    pub(super) fn poll_continuation(self: &Arc<Self>, caller_left: bool) -> Polled {
        let continuation = &self.head.continuation;
        let mut held = lock(&self.work);
        let work = &mut *held;
        let mut outcome = work.answered.unwrap_or(Outcome::Ok);
        let mut panic = None;
        if let Some(mut future) = continuation.take() {
            let polled = if caller_left {
                Poll::Ready(Outcome::Cancelled)
            } else {
                let (waker, mut polled) = (waker_ref(self), None);
                let poll = || polled = Some(future.as_mut().poll(&mut Context::from_waker(&waker)));
                let run = AssertUnwindSafe(|| work.run_in_context(poll));
                let caught = self.listed(|| catch_unwind(run)).map_err(Panic::new).err();
                polled.unwrap_or_else(|| {
                    self.head.panicked.store(true, Ordering::Relaxed);
                    panic = caught.inspect(|panic| self.log_panic(work, panic));
                    Poll::Ready(Outcome::Panicked)
                })
            };
            match polled {
                Poll::Pending => continuation.put_back(future),
                Poll::Ready(end) => {
                    outcome = self.unless_cancelled(combined(outcome, end));
                    work.in_context(|| drop(future));
                }
            }
        }
        work.answered = Some(outcome);
        if continuation.is_set() || continuation.is_held() {
            return self.end_poll(held);
        }
        self.log_end(work, outcome, panic.as_ref().map(Panic::message));
        self.drop_all(work);
        Polled::Ended(outcome, work.began)
    }

    fn log_panic(&self, work: &Work<F>, panic: &Panic) {
        let (pool, message) = (self.head.pool.name(), panic.message());
        let log = || tracing::error!(target: "tower_offload", %pool, "the body of a response panicked: {message}");
        work.in_context(log);
    }
}
