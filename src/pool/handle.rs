//! The caller's end of a job: a future that is also a thing to wait for.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::job::{Answer, Ticket};
use crate::error::{Cause, JobError, Rejection};
use crate::workload::Workload;

/// A job in a pool. Dropping it cancels the job: one that is queued leaves the queue at once and never starts, one in
/// flight is dropped at its next await.
pub(crate) struct Pending<T> {
    /// Gone once the result was taken.
    answer: Option<Answer<T>>,
    ticket: Arc<Ticket>,
}

/// A job that was submitted with [`submit_to_pool`](crate::Pools::submit_to_pool).
///
/// It can be awaited, or waited for by code that blocks. Dropping it lets the job go on by itself;
/// [`cancel`](Self::cancel) does not.
///
/// ```
/// use tower_offload::{Cpu, Pools};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pools = Pools::default();
/// let sum = pools.submit_to_pool(Cpu, || (1..=10).sum::<u32>())?;
/// assert_eq!(sum.wait()?, 55);
/// # Ok(())
/// # }
/// ```
pub struct JobHandle<T> {
    state: State<T>,
}

enum State<T> {
    Pending(Pending<T>),
    /// There are no pools: a task of the runtime.
    Spawned(JoinHandle<Result<T, JobError>>, Workload),
    /// The job ran where it was submitted.
    Ended(Result<T, JobError>),
    Taken,
}

/// Wakes a thread that waits.
struct Unpark {
    thread: Thread,
    /// The token of `unpark` alone does not do: a future that blocks its thread while it is polled may use it up.
    woken: AtomicBool,
}

// === impl Pending ===

impl<T> Pending<T> {
    pub(super) const fn new(answer: Answer<T>, ticket: Arc<Ticket>) -> Self {
        Self { answer: Some(answer), ticket }
    }

    /// The name of the pool.
    pub(crate) fn pool(&self) -> &Workload {
        &self.ticket.shared.name
    }

    /// What the caller is told if this is dropped now because the job's deadline has passed.
    pub(crate) fn too_late(&self) -> Rejection {
        self.ticket.too_late()
    }

    fn detach(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer.detach();
        }
        self.ticket.forget_caller();
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = self.ticket.waker_for(cx.waker());
        let mut cx = Context::from_waker(&waker);
        let answer = self.answer.as_mut().expect("a job's result is taken once");
        let Poll::Ready(value) = Pin::new(answer).poll(&mut cx) else { return Poll::Pending };
        let result = match value.and_then(super::job::Shielded::into_inner) {
            Some(Ok(value)) => Ok(value),
            Some(Err(panic)) => Err(JobError::Panicked(panic)),
            None => Err(JobError::from(self.ticket.rejection())),
        };
        // It has nothing left to cancel.
        self.detach();
        Poll::Ready(result)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let Some(answer) = &self.answer else { return };
        self.ticket.forget_caller();
        if !answer.is_finished() {
            self.ticket.cancel();
        }
    }
}

// === impl JobHandle ===

impl<T> JobHandle<T> {
    pub(crate) const fn pending(pending: Pending<T>) -> Self {
        Self { state: State::Pending(pending) }
    }

    /// A job that stands in for one of this pool.
    pub(crate) const fn spawned(task: JoinHandle<Result<T, JobError>>, pool: Workload) -> Self {
        Self { state: State::Spawned(task, pool) }
    }

    pub(crate) const fn ended(result: Result<T, JobError>) -> Self {
        Self { state: State::Ended(result) }
    }

    /// Blocks this thread until the job has ended.
    ///
    /// Not for async code, whose thread it would block: await the handle there. A job that waits for another job of its
    /// own pool, submitted from elsewhere, may wait for a worker that it holds itself: up to the queue timeout, or for good if
    /// that job has begun.
    ///
    /// # Errors
    ///
    /// Says why the job gave no value: it was refused while it was queued, cut off, or it panicked.
    ///
    /// # Panics
    ///
    /// If the handle was awaited before (`(&mut handle).await`) and gave the result then.
    pub fn wait(mut self) -> Result<T, JobError> {
        block_on(&mut self)
    }

    /// Blocks this thread until the job has ended, or for `limit`.
    ///
    /// # Errors
    ///
    /// The handle itself if the time is up: the job goes on, and can be waited for again.
    ///
    /// # Panics
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(mut self, limit: Duration) -> Result<Result<T, JobError>, Self> {
        block_on_until(Pin::new(&mut self), Instant::now().checked_add(limit)).ok_or(self)
    }

    /// Gives the job up: if it is queued it never starts, if it is in flight it is dropped at its next await. Code that
    /// blocks or computes cannot be interrupted, and goes on to its end.
    pub fn cancel(mut self) {
        if let State::Spawned(task, _) = &self.state {
            task.abort();
        }
        self.state = State::Taken;
    }

    /// Whether the job has ended: its result is there, or will be as soon as what the job held has been dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.state {
            State::Pending(pending) => pending.answer.as_ref().is_none_or(Answer::is_finished),
            State::Spawned(task, _) => task.is_finished(),
            State::Ended(_) | State::Taken => true,
        }
    }
}

impl<T> Unpin for JobHandle<T> {}

impl<T> Future for JobHandle<T> {
    type Output = Result<T, JobError>;

    /// # Panics
    ///
    /// If it is polled again after it gave the result.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.state {
            State::Pending(pending) => ready!(Pin::new(pending).poll(cx)),
            State::Spawned(task, pool) => ready!(Pin::new(task).poll(cx)).unwrap_or_else(|_| {
                // The task catches its own panics: its runtime has ended.
                Err(JobError::from(Rejection::new(pool.clone(), Cause::CutOff, None)))
            }),
            State::Ended(_) | State::Taken => match std::mem::replace(&mut self.state, State::Taken) {
                State::Ended(result) => result,
                _ => panic!("`JobHandle` polled after it gave its result"),
            },
        };
        self.state = State::Taken;
        Poll::Ready(result)
    }
}

impl<T> Drop for JobHandle<T> {
    fn drop(&mut self) {
        if let State::Pending(pending) = &mut self.state {
            pending.detach();
        }
    }
}

impl<T> fmt::Debug for JobHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

// === impl Unpark ===

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Polls `future` on this thread until it is ready.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    block_on_until(pin!(future), None).expect("without a limit there is an output")
}

/// Polls `future` on this thread until it is ready or the time is up.
fn block_on_until<F: Future>(mut future: Pin<&mut F>, until: Option<Instant>) -> Option<F::Output> {
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(unpark.clone());
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
        while !unpark.woken.swap(false, Ordering::Acquire) {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::pool::{Plan, Pool, Submission, always_ok};
    use crate::terms::Terms;

    fn pool() -> Pool {
        Pool::new(Plan::of_one_worker())
    }

    fn submit<F>(pool: &Pool, future: F) -> Pending<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let submission = Submission { future, terms: Terms::default(), function: String::new, outcome_of: always_ok };
        pool.submit(submission).expect("there is room")
    }

    /// A job that has begun, and ends when it is sent for.
    fn hold(pool: &Pool) -> (Pending<()>, Sender<()>) {
        let (release, held) = channel();
        let (begins, begun) = channel();
        let job = submit(pool, async move {
            begins.send(()).expect("the test waits for it");
            held.recv().expect("the test releases it");
        });
        begun.recv().expect("it begins");
        (job, release)
    }

    /// A waker keeps its task in memory, and the task perhaps the handle.
    #[test]
    fn nothing_keeps_the_waker_of_a_caller_that_has_its_answer_or_has_left() {
        struct Caller;
        impl Wake for Caller {
            fn wake(self: Arc<Self>) {}
        }
        let pool = pool();
        let (caller, other) = (Arc::new(Caller), Arc::new(Caller));
        let poll = |pending: &mut Pending<()>, caller: &Arc<Caller>| {
            Pin::new(pending).poll(&mut Context::from_waker(&caller.clone().into())).is_ready()
        };
        let (mut first, release) = hold(&pool);
        let mut second = submit(&pool, async {});
        assert!(!poll(&mut first, &caller) && !poll(&mut second, &other));
        let second = JobHandle::pending(second);
        drop(second);
        assert_eq!(Arc::strong_count(&other), 1, "the job is still queued");
        release.send(()).expect("it waits for this");
        while !poll(&mut first, &caller) {
            thread::yield_now();
        }
        // The worker may be about to let go of the one that it has just woken.
        let begun = Instant::now();
        while Arc::strong_count(&caller) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it has its answer");
            thread::yield_now();
        }
        drop(first);
    }

    /// However soon its caller leaves after that, and before the queue has noticed.
    #[test]
    fn a_queued_job_that_was_said_to_be_too_late_counts_as_expired() {
        let pool = pool();
        let (first, release) = hold(&pool);
        let [late, left] = [(); 2].map(|()| submit(&pool, async {}));
        late.too_late();
        drop((late, left));
        let counts = pool.stats().counts;
        assert_eq!((counts.expired, counts.cancelled), (1, 1));
        release.send(()).expect("it waits for this");
        block_on(first).expect("it ends by itself");
    }

    /// Whoever hears `started: false` may send the request again.
    #[test]
    fn a_job_that_was_said_not_to_have_started_never_does() {
        let pool = pool();
        let (first, release) = hold(&pool);
        assert!(first.too_late().started());
        let second = submit(&pool, async { panic!("it began after all") });
        assert!(!second.too_late().started());
        release.send(()).expect("it waits for this");
        block_on(first).expect("it ends by itself");
        let Err(JobError::Rejected(rejection)) = block_on(second) else { panic!("it ran") };
        assert_eq!((rejection.cause(), rejection.started()), (Cause::DeadlineExceeded, false));
    }
}
