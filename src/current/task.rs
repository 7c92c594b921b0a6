//! The running task, as the body of its response and its batch see it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::stream::{FrameTimes, OpenStream};
use crate::config::BodyPolicy;
use crate::pool::{TaskRef, current_task, with_current_task};
use crate::stall::StallSignal;
use crate::task::ContinuationFuture;
use crate::terms::Deadline;
use crate::workload::Workload;

/// A task, as the body of its response sees it.
#[derive(Clone)]
pub(crate) struct CurrentTask(TaskRef);

/// The deadline of the task that this thread polls, if there is one.
pub(crate) fn deadline() -> Option<Deadline> {
    with_current_task(|task| task.head().end_deadline()).flatten()
}

/// Whether the task that this thread polls, or whose future it drops, has panicked.
pub(crate) fn has_panicked() -> bool {
    with_current_task(|task| task.head().panicked.load(Ordering::Relaxed)).unwrap_or(false)
}

impl CurrentTask {
    pub(super) fn task(&self) -> &TaskRef {
        &self.0
    }

    /// The task that this thread polls.
    pub(crate) fn get() -> Option<Self> {
        current_task().map(Self)
    }

    /// Lets the task poll `future` after its answer, inside its permit or without one. `stalled` is set if the reader of
    /// the body stalls. A task polls one such future, so ask [`can_continue`](Self::can_continue) before.
    pub(crate) fn continue_with(&self, future: ContinuationFuture, keeps_permit: bool, stalled: StallSignal) {
        let head = self.0.head();
        head.continuation.set(future, keeps_permit, stalled);
        head.state.will_continue();
    }

    /// The signal of a stall, if the task polls a future after its answer.
    pub(crate) fn stall_signal(&self) -> Option<StallSignal> {
        let head = self.0.head();
        if head.state.continues() { head.continuation.stalled() } else { None }
    }

    /// Whether the task can poll a future after its answer: it has neither answered nor such a future yet.
    pub(crate) fn can_continue(&self) -> bool {
        let head = self.0.head();
        let occupied = head.state.continues() && head.continuation.is_set();
        !head.state.has_answer() && !occupied
    }

    /// Notes that the answer is one to a `HEAD`, or has a status without a body: the server drops the body, and a function
    /// that writes it is then done.
    pub(crate) fn expect_no_body(&self) {
        self.0.head().continuation.expect_no_body();
    }

    pub(crate) fn expects_no_body(&self) -> bool {
        self.0.head().continuation.expects_no_body()
    }

    /// Whether a body that is dropped now is not part of the answer: that is still to come, and the caller waits for it.
    pub(crate) fn gives_other_answer(&self) -> bool {
        let state = &self.0.head().state;
        !state.has_answer() && !state.signals().caller_left
    }

    /// The task's waker.
    pub(crate) fn waker(&self) -> Waker {
        self.0.clone().waker()
    }

    /// Cancels the task: the reader of its body has left.
    pub(crate) fn reader_left(&self) {
        self.0.head().state.caller_left();
        self.waker().wake();
    }

    /// Adds to the time for which the task waited for the reader of its body. Nothing is learned from this time.
    pub(crate) fn waited_for_reader(&self, waited: Duration) {
        self.0.head().continuation.waited_for_reader(waited);
    }

    /// The name of the task's pool.
    pub(crate) fn pool(&self) -> &Workload {
        self.0.head().pool.name()
    }

    pub(crate) fn policy(&self) -> &BodyPolicy {
        self.0.head().body.as_deref().unwrap_or(&self.0.head().pool.plan.body)
    }

    /// Waits until a drain is announced.
    pub(crate) fn draining(&self) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        let drain = self.0.head().pool.plan.group.drain.clone();
        Box::pin(async move { drain.given().await })
    }

    /// Counts a stream of the pool.
    pub(crate) fn open_stream(&self) -> OpenStream {
        OpenStream::new(self.0.head().pool.clone())
    }

    /// The times of the frames of the response.
    pub(crate) fn frame_times(&self) -> FrameTimes {
        FrameTimes::new(self.0.head().pool.clone(), self.0.head().submitted)
    }

    pub(crate) fn bytes_added(&self, bytes: usize) {
        self.0.head().pool.stream_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_removed(&self, bytes: usize) {
        self.0.head().pool.stream_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
