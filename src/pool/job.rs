//! A job: the future that a worker polls, the permit in it, and what its caller is told when it ends.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_task::{Runnable, ScheduleInfo, WithInfo};
use futures_util::task::AtomicWaker;
use pin_project::{pin_project, pinned_drop};

use super::context::JobContext;
use super::permit::Permit;
use super::shared::Shared;
use super::task::Task;
use super::worker;
use crate::admission::{Key, Outcome};
use crate::error::{Cause, Panic, Rejection};
use crate::shield::shielded;

/// A job that a worker can poll once.
pub(crate) type Work = Runnable<Arc<Ticket>>;

/// The caller's end of a job.
pub(crate) type Answer<T> = async_task::FallibleTask<Shielded<Result<T, Panic>>, Arc<Ticket>>;

/// What both the worker's and the caller's end of a job know of it.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: Key,
    /// Present while tasks are logged.
    pub(super) task: Option<Task>,
    /// Why the pool ended the job without starting it: a [`Cause`] as a number; or that it has begun; or zero.
    fate: AtomicU8,
    /// Who waits for the job.
    caller: AtomicWaker,
}

/// A future with its permit and its context.
#[pin_project(PinnedDrop)]
struct Job<F: Future> {
    #[pin]
    future: Option<F>,
    context: Shielded<JobContext>,
    permit: Option<Permit>,
    outcome_of: fn(&F::Output) -> Outcome,
}

/// The result of a job, and how it counts.
type Ended<T> = (Shielded<Result<T, Panic>>, Outcome);

/// A value whose destructor may panic without harm to the thread that drops it.
///
/// `async-task` ends the process when a future or a value of a task panics as it is dropped.
#[derive(Debug)]
pub(crate) struct Shielded<T>(Option<T>);

/// Puts a future and its permit into a job that a worker of the permit's pool can poll. The future is taken out of the
/// caller's hands here, and not before: what is refused is dropped by the caller.
pub(crate) fn build<F>(
    future: &mut Option<F>,
    context: JobContext,
    permit: Permit,
    outcome_of: fn(&F::Output) -> Outcome,
) -> (Work, Answer<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let ticket = permit.ticket().clone();
    let context = Shielded::new(context);
    let job = Job { future: future.take(), context, permit: Some(permit), outcome_of };
    let schedule = WithInfo(|work: Work, info: ScheduleInfo| {
        let ticket = work.metadata().clone();
        ticket.shared.ready(work, info.woken_while_running);
    });
    let (work, answer) = async_task::Builder::new().metadata(ticket).spawn(|_| job, schedule);
    (work, answer.fallible())
}

// === impl Ticket ===

impl Ticket {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, task: Option<Task>) -> Self {
        Self { shared, key, task, fate: AtomicU8::new(0), caller: AtomicWaker::new() }
    }

    /// A waker for the task of the job, which wakes `caller` in its turn.
    pub(super) fn waker_for(self: &Arc<Self>, caller: &Waker) -> Waker {
        self.caller.register(caller);
        Waker::from(self.clone())
    }

    /// Nobody waits for the job any more.
    pub(super) fn forget_caller(&self) {
        let caller = self.caller.take();
        shielded(|| drop(caller));
    }

    /// Notes that the job begins; not if its caller was told before that it does not.
    pub(super) fn begin(&self) -> bool {
        self.fate.compare_exchange(0, BEGUN, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Notes why the job will not start, to be read by its caller. One that has begun stays so: its caller must not
    /// take it for safe to run again.
    pub(super) fn end(&self, cause: Cause) {
        let _ = self.fate.compare_exchange(0, code(cause), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// How the job ends if it is dropped now.
    pub(super) fn outcome_of_drop(&self) -> Outcome {
        match self.cause() {
            Some(Cause::NoWorkers) => Outcome::Rejected,
            Some(Cause::DeadlineExceeded) => Outcome::Expired,
            // The caller has left.
            _ => Outcome::Cancelled,
        }
    }

    /// Why the pool ended the job without starting it, if it did.
    fn cause(&self) -> Option<Cause> {
        let fate = self.fate.load(Ordering::Acquire);
        ENDINGS.into_iter().find(|&cause| code(cause) == fate)
    }

    /// The job ended without a value.
    pub(super) fn rejection(&self) -> Rejection {
        self.shared.rejection(self.cause().unwrap_or(Cause::CutOff))
    }

    /// Logs that the job will not start, for what was noted of it, or because its caller has left.
    pub(super) fn log_refusal(&self) {
        if let Some(task) = &self.task {
            shielded(|| match self.cause() {
                Some(cause) => task.log_refusal(&self.shared.name, cause),
                None => task.log_cancellation(&self.shared.name, None),
            });
        }
    }

    /// Logs that the job was dropped in flight.
    pub(super) fn log_cancellation(&self, ran: Duration) {
        if let Some(task) = &self.task {
            shielded(|| task.log_cancellation(&self.shared.name, Some(ran)));
        }
    }

    /// The job's deadline has passed, whether it has begun or not. One that has not never will.
    pub(super) fn too_late(&self) -> Rejection {
        self.end(Cause::DeadlineExceeded);
        let begun = self.fate.load(Ordering::Acquire) == BEGUN;
        self.shared.rejection(Cause::DeadlineExceeded).with_started(begun)
    }

    /// The caller has left, or was told that it is too late: a job that is queued leaves the queue.
    pub(crate) fn cancel(&self) {
        self.shared.cancel(self.key, self.outcome_of_drop());
    }
}

/// The job has ended, or never will begin.
impl Wake for Ticket {
    fn wake(self: Arc<Self>) {
        if let Some(caller) = self.caller.take() {
            worker::tell(caller);
        }
    }
}

/// The causes for which a pool ends a job that it had admitted.
const ENDINGS: [Cause; 5] =
    [Cause::QueueTimeout, Cause::Shed, Cause::DeadlineExceeded, Cause::Draining, Cause::NoWorkers];

const BEGUN: u8 = u8::MAX;

fn code(cause: Cause) -> u8 {
    ENDINGS.into_iter().zip(1..).find_map(|(ending, code)| (ending == cause).then_some(code)).unwrap_or(0)
}

// === impl Job ===

impl<F: Future> Future for Job<F> {
    type Output = Shielded<Result<F::Output, Panic>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(late) = this.permit.take_if(|permit| permit.begin().is_err()) {
            in_context(this.context, || this.future.set(None));
            late.ticket().log_refusal();
            late.end(Outcome::Expired);
            return Poll::Ready(Shielded(None));
        }
        // What surrounds the poll is the application's too: a subscriber may panic when a span is entered.
        let mut ended = None;
        let surrounded = catch_unwind(AssertUnwindSafe(|| {
            let _in_context = this.context.get().map(JobContext::enter);
            ended = poll_future(this.future.as_mut(), *this.outcome_of, cx);
            if let Some((result, outcome)) = &ended {
                shielded(|| this.future.set(None));
                if let Some(permit) = &this.permit {
                    let failure = result.get().and_then(|result| result.as_ref().err());
                    permit.log_end(*outcome, failure.map(Panic::message));
                }
            }
        }));
        let (result, outcome) = match (ended, surrounded) {
            (None, Ok(())) => return Poll::Pending,
            (Some(ended), _) => ended,
            (None, Err(payload)) => {
                let result = Shielded::new(Err(Panic::new(payload)));
                in_context(this.context, || this.future.set(None));
                (result, Outcome::Panicked)
            }
        };
        // The future went first, now the permit goes, and then the caller is told: who has an answer finds the place
        // free.
        if let Some(permit) = this.permit.take() {
            permit.end(outcome);
        }
        Poll::Ready(result)
    }
}

/// What the future gives, if it ends, and how that counts.
fn poll_future<F: Future>(
    future: Pin<&mut Option<F>>,
    outcome_of: fn(&F::Output) -> Outcome,
    cx: &mut Context<'_>,
) -> Option<Ended<F::Output>> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let value = future.as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx));
        value.map(|value| {
            let outcome = outcome_of(&value);
            (value, outcome)
        })
    }));
    match polled {
        Ok(Poll::Pending) => None,
        Ok(Poll::Ready((value, outcome))) => Some((Shielded::new(Ok(value)), outcome)),
        Err(payload) => Some((Shielded::new(Err(Panic::new(payload))), Outcome::Panicked)),
    }
}

#[pinned_drop]
impl<F: Future> PinnedDrop for Job<F> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.future.is_some() {
            in_context(this.context, || this.future.set(None));
        }
    }
}

/// Calls it in the context of the job; without, if a subscriber panics as the span is entered.
fn in_context(context: &Shielded<JobContext>, call: impl FnOnce()) {
    let mut call = Some(call);
    shielded(|| {
        let _in_context = context.get().map(JobContext::enter);
        call.take().map(|call| call())
    });
    shielded(|| call.map(|call| call()));
}

// === impl Shielded ===

impl<T> Shielded<T> {
    const fn new(value: T) -> Self {
        Self(Some(value))
    }

    const fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Shielded<T> {
    fn drop(&mut self) {
        if self.0.is_some() {
            shielded(|| self.0 = None);
        }
    }
}
