//! A task: one allocation that holds a future, its state, its answer and its caller's waker.
//!
//! The task is its own waker, and the guard of its permit: dropping a task that has not ended releases its permit.
//!
//! A worker writes the answer before it releases the permit, and the caller can read it only afterwards. So a caller
//! that has its answer finds the permit released. A value for which no caller waits is dropped while the task still
//! counts as in flight.
//!
//! A task with a continuation gives its answer before its end (`pool/task/continued.rs`): the caller reads the head of a
//! response while the task polls the body. It keeps its permit until the continuation has ended and all guards of the
//! permit are dropped, unless the continuation needs none: then the permit is released before the answer is given.

mod continued;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::task::{ArcWake, waker_ref};

use super::shared::{AnyTask, Head, Polled};
use super::{local, worker};
use crate::admission::{Outcome, Timestamp};
use crate::dispatch::Ending;
use crate::error::{Panic, Reason, Rejection, TaskError};
use crate::shield::{drop_payload, shielded};
use crate::sync::lock_std as lock;
use crate::task::{Begun, LogEntry, TaskContext, TaskFuture, Wakeup};

/// A future in a pool.
pub(super) struct Task<F: TaskFuture> {
    head: Head,
    outcome_of: fn(&F::Output) -> Outcome,
    answer: Mutex<Answer<F::Output>>,
    work: Mutex<Work<F>>,
}

/// The part of a task that workers use.
struct Work<F> {
    /// `None` if it was returned to the submitter.
    future: Option<F>,
    /// Whether the content of the future has not been dropped yet.
    live: bool,
    /// Dropped when the task ends.
    context: Option<TaskContext>,
    /// The time of the first poll.
    began: Option<Timestamp>,
    /// The outcome so far, once the answer was given although the task continues.
    answered: Option<Outcome>,
}

/// The task's result, and the caller that waits for it.
pub(super) struct Answer<T> {
    pub(super) value: Option<Result<T, TaskError>>,
    /// The waker of the caller, if it has polled for the answer.
    pub(super) caller: Option<Waker>,
    /// The caller has left.
    pub(super) unwanted: bool,
}

/// A task as its caller sees it.
pub(super) trait Awaited<T>: AnyTask {
    fn answer(&self) -> &Mutex<Answer<T>>;
}

impl<F> Task<F>
where
    F: TaskFuture,
    F::Output: Send + 'static,
{
    pub(super) fn new(head: Head, context: TaskContext, future: F, outcome_of: fn(&F::Output) -> Outcome) -> Arc<Self> {
        Arc::new(Self {
            head,
            outcome_of,
            answer: Mutex::new(Answer { value: None, caller: None, unwanted: false }),
            work: Mutex::new(Work {
                future: Some(future),
                live: true,
                context: Some(context),
                began: None,
                answered: None,
            }),
        })
    }

    /// Takes the future out of a task that was not admitted.
    pub(super) fn into_future(self: Arc<Self>) -> Option<F> {
        let mut work = lock(&self.work);
        work.live = false;
        work.future.take()
    }

    /// Ends a task that must not start, or must not be polled again.
    fn end_early(&self, work: &mut Work<F>, reason: Reason, outcome: Outcome) -> Polled {
        self.drop_all(work);
        // A task that continues has given its answer.
        if work.answered.is_none() {
            let rejection = self.head.pool.rejection(reason, std::time::Duration::ZERO);
            self.put(Err(TaskError::from(rejection)));
        }
        self.head.log_end(work.began, |log, pool, ran| match (ran, reason) {
            (Some(_), _) | (None, Reason::CutOff) => log.log_cancellation(pool, ran),
            (None, reason) => log.log_rejection(pool, reason),
        });
        Polled::Ended(outcome, work.began)
    }

    /// Claims the next poll.
    fn begin_poll(&self, now: Timestamp) -> Option<Begun> {
        let state = &self.head.state;
        if !state.has_started() && self.head.starts_too_late(now) {
            state.deadline_passed();
        }
        state.begin_poll()
    }

    /// Starts the task if this is its first poll. The result is its end, if it must not start or must not be polled again.
    fn start(&self, work: &mut Work<F>, begun: Begun, now: Timestamp) -> Option<Polled> {
        if begun.too_late {
            return Some(self.end_early(work, Reason::DeadlineExceeded, Outcome::Expired));
        }
        if begun.caller_left {
            return Some(self.end_early(work, Reason::CutOff, Outcome::Cancelled));
        }
        if begun.first {
            // Streams may have been opened while it was queued.
            if self.head.may_stream && self.head.pool.is_full_of_streams() {
                return Some(self.end_early(work, Reason::StreamsFull, Outcome::Rejected));
            }
            self.record_start(work, now);
        }
        None
    }

    /// Records the first poll.
    fn record_start(&self, work: &mut Work<F>, now: Timestamp) {
        work.began = Some(now);
        local::record_wait(now, now.since(self.head.submitted));
        if let Some(log) = &self.head.log {
            self.head.pool.running.began(log, now);
        }
    }

    /// Calls `poll`, and shows this thread in the list of running tasks meanwhile.
    fn listed<R>(&self, poll: impl FnOnce() -> R) -> R {
        let Some(log) = &self.head.log else { return poll() };
        log.thread.store(local::thread().unwrap_or(0), Ordering::Relaxed);
        let polled = poll();
        log.thread.store(0, Ordering::Relaxed);
        polled
    }

    /// Polls the future in the task's context. If the future ended, its content has been dropped.
    fn poll_future(&self, work: &mut Work<F>, cx: &mut Context<'_>) -> Poll<(Result<F::Output, TaskError>, Outcome)> {
        let Work { future: Some(future), context: Some(context), live, .. } = work else { return Poll::Pending };
        let mut ended = None;
        // The context calls code of the application too: a subscriber may panic when a span is entered.
        let run = || {
            context.run(|| {
                if let Poll::Ready(value) = Pin::new(&mut *future).poll(cx) {
                    let outcome = (self.outcome_of)(&value);
                    ended = Some((value, outcome));
                    *live = false;
                    future.clear();
                }
            });
        };
        let polled = self.listed(|| catch_unwind(AssertUnwindSafe(run)));
        match (ended, polled) {
            (None, Ok(())) => Poll::Pending,
            (Some((value, outcome)), polled) => {
                // The future panicked as it was dropped, or a subscriber panicked as the span was exited.
                if let Err(payload) = polled {
                    drop_payload(payload);
                }
                Poll::Ready((Ok(value), outcome))
            }
            (None, Err(payload)) => {
                self.head.panicked.store(true, Ordering::Relaxed);
                Poll::Ready((Err(TaskError::Panicked(Panic::new(payload))), Outcome::Panicked))
            }
        }
    }

    /// An error of code whose caller has left counts as cancelled: the code may have failed because it learned of that.
    fn unless_cancelled(&self, outcome: Outcome) -> Outcome {
        if self.head.state.signals().caller_left && outcome == Outcome::Error { Outcome::Cancelled } else { outcome }
    }

    /// Ends a poll after which the task is pending, or was woken.
    fn end_poll(&self, held: MutexGuard<'_, Work<F>>) -> Polled {
        let wakeup = self.head.state.end_poll();
        drop(held);
        if wakeup == Wakeup::ScheduleAndWakeCaller {
            wake_caller(self.take_waker());
        }
        if wakeup == Wakeup::Nothing { Polled::Pending } else { Polled::Woken }
    }

    fn log_end(&self, work: &Work<F>, outcome: Outcome, failure: Option<&str>) {
        self.head.log_end(work.began, |log, pool, ran| {
            // In the task's context, because the subscriber may be a scoped one.
            work.in_context(|| log.log_end(pool, ran.unwrap_or_default(), outcome, failure));
        });
    }

    /// Drops everything of the application that the task holds, in the task's context, and then the context.
    fn drop_all(&self, work: &mut Work<F>) {
        work.drop_continuation(&self.head);
        work.drop_all();
    }

    /// Stores the answer for the caller, or drops it if the caller has left.
    fn put(&self, value: Result<F::Output, TaskError>) {
        let mut answer = lock(&self.answer);
        if !answer.unwanted {
            answer.value = Some(value);
            return;
        }
        drop(answer);
        shielded(|| drop(value));
    }

    /// Takes the caller's waker, if the caller has polled for the answer.
    fn take_waker(&self) -> Option<Waker> {
        lock(&self.answer).caller.take()
    }
}

fn wake_caller(waker: Option<Waker>) {
    if let Some(waker) = waker {
        shielded(|| waker.wake());
    }
}

impl<F: TaskFuture> Work<F> {
    /// Drops the content of the future, and then the context.
    fn drop_all(&mut self) {
        self.drop_future();
        shielded(|| drop(self.context.take()));
    }

    /// Drops the content of the future in the task's context. If a subscriber panics as the span is entered, this drops
    /// the content without the context.
    fn drop_future(&mut self) {
        let Self { future: Some(future), live: live @ true, context: Some(context), .. } = self else { return };
        let mut clear = || {
            if std::mem::take(live) {
                future.clear();
            }
        };
        shielded(|| context.run(&mut clear));
        shielded(clear);
    }

    fn drop_continuation(&self, head: &Head) {
        if let Some(future) = head.continuation.take() {
            self.in_context(|| drop(future));
        }
    }

    fn in_context(&self, call: impl FnOnce()) {
        shielded(|| self.run_in_context(call));
    }

    fn run_in_context(&self, call: impl FnOnce()) {
        if let Some(context) = &self.context {
            context.run(call);
        }
    }
}

impl<F> AnyTask for Task<F>
where
    F: TaskFuture,
    F::Output: Send + 'static,
{
    fn head(&self) -> &Head {
        &self.head
    }

    fn waker(self: Arc<Self>) -> Waker {
        futures_util::task::waker(self)
    }

    fn poll(self: Arc<Self>, now: Timestamp) -> Polled {
        let Some(begun) = self.begin_poll(now) else { return Polled::Stale };
        let mut held = lock(&self.work);
        if held.answered.is_some() {
            drop(held);
            return self.poll_continuation(begun.caller_left);
        }
        let work = &mut *held;
        if let Some(ended) = self.start(work, begun, now) {
            return ended;
        }
        let Poll::Ready((result, outcome)) = self.poll_future(work, &mut Context::from_waker(&waker_ref(&self))) else {
            return self.end_poll(held);
        };
        let outcome = self.unless_cancelled(outcome);
        if self.head.state.continues() {
            work.answered = Some(outcome);
            if result.is_err() {
                work.drop_continuation(&self.head);
                work.drop_future();
            }
            return self.answer_early(held, result);
        }
        let failure = match &result {
            Err(TaskError::Panicked(panic)) => Some(panic.message()),
            _ => None,
        };
        self.log_end(work, outcome, failure);
        self.drop_all(work);
        self.put(result);
        Polled::Ended(outcome, work.began)
    }

    fn begin(&self, now: Timestamp) -> Polled {
        let Some(begun) = self.begin_poll(now) else { return Polled::Stale };
        let mut held = lock(&self.work);
        self.start(&mut held, begun, now).unwrap_or_else(|| self.end_poll(held))
    }

    fn give_answer(self: Arc<Self>) {
        self.head.state.end();
        let waker = self.take_waker();
        shielded(|| drop(self));
        wake_caller(waker);
    }

    fn reject(&self, rejection: Rejection) {
        // Logged before the caller can read its answer, as at every other end of a task.
        self.head.log_end(None, |log, pool, _| log.log_rejection(pool, rejection.reason()));
        self.put(Err(TaskError::from(rejection)));
        self.head.state.end();
        wake_caller(self.take_waker());
    }

    fn discard(&self) {
        self.drop_all(&mut lock(&self.work));
    }

    fn abandon(&self) -> Polled {
        let started = self.head.state.has_started();
        if self.head.state.begin_poll().is_none() {
            return Polled::Stale;
        }
        let (reason, outcome) =
            if started { (Reason::CutOff, Outcome::Cancelled) } else { (Reason::NoWorkers, Outcome::Rejected) };
        self.end_early(&mut lock(&self.work), reason, outcome)
    }
}

impl<F> Awaited<F::Output> for Task<F>
where
    F: TaskFuture,
    F::Output: Send + 'static,
{
    fn answer(&self) -> &Mutex<Answer<F::Output>> {
        &self.answer
    }
}

impl<F> ArcWake for Task<F>
where
    F: TaskFuture,
    F::Output: Send + 'static,
{
    fn wake_by_ref(this: &Arc<Self>) {
        let wakeup = this.head.state.wake();
        if wakeup != Wakeup::Nothing {
            worker::ready(&this.head.pool, this.clone());
        }
        if wakeup == Wakeup::ScheduleAndWakeCaller {
            wake_caller(this.take_waker());
        }
    }
}

/// Releases the permit of a task that has not ended, and that nobody can wake or await any more. A task that was not
/// admitted has no permit.
impl<F: TaskFuture> Drop for Task<F> {
    fn drop(&mut self) {
        let work = self.work.get_mut().unwrap_or_else(PoisonError::into_inner);
        work.drop_continuation(&self.head);
        work.drop_all();
        let began = work.began;
        if let Some(key) = self.head.key().filter(|_| !self.head.state.has_ended()) {
            let now = self.head.pool.now();
            let ran = began.map(|began| now.since(began));
            self.head.log_end(began, LogEntry::log_cancellation);
            let ending = Ending { key, finish: self.head.finish(Outcome::Cancelled, ran) };
            let effects = self.head.pool.dispatch.finish(now, ending);
            worker::perform(&self.head.pool, effects);
            worker::changed(&self.head.pool);
        }
    }
}
