//! The task that a worker is polling: what code in it can do with its permit and its continuation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::local;
use super::open_stream::{FrameTimes, OpenStream};
use super::shared::TaskRef;
use crate::config::BodyPolicy;
use crate::stall::StallSignal;
use crate::task::ContinuationFuture;
use crate::workload::Workload;

/// Keeps the permit of a task until this is dropped; made by [`hold_permit`].
#[must_use = "the permit is held until this is dropped"]
pub struct HeldPermit(Option<CurrentTask>);

/// A task, as the body of its response sees it.
#[derive(Clone)]
pub(crate) struct CurrentTask(TaskRef);

/// Holds the permit of the running task beyond its response, until the result is dropped.
///
/// A request usually releases its permit with its response. The handler of a WebSocket, or of another upgrade, moves
/// the result into the task that serves the connection, so that the pool's limit bounds the open connections. Until
/// then the request counts as in flight, and a shutdown waits for it.
///
/// Call this in the handler itself, not in the task or the callback that serves the connection: outside of a pool's task
/// the result holds nothing. In a body whose permit was released with its head, the result keeps the request in flight,
/// without a permit.
///
/// ```
/// use axum::extract::ws::{WebSocket, WebSocketUpgrade};
/// use axum::response::Response;
/// use axum::{Router, routing::get};
/// use tower_offload::{Io, PoolLayer, Pools, hold_permit};
///
/// async fn chat(upgrade: WebSocketUpgrade) -> Response {
///     let permit = hold_permit();
///     upgrade.on_upgrade(async move |mut socket: WebSocket| {
///         let _permit = permit;
///         while let Some(Ok(_message)) = socket.recv().await {}
///     })
/// }
///
/// let app: Router = Router::new().route("/chat", get(chat).layer(PoolLayer::<Io>::new(&Pools::default())));
/// # let _ = app;
/// ```
pub fn hold_permit() -> HeldPermit {
    let task = CurrentTask::get();
    if let Some(CurrentTask(task)) = &task {
        task.head().continuation.hold();
        task.head().state.will_continue();
    }
    HeldPermit(task)
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        let Some(CurrentTask(task)) = self.0.take() else { return };
        let head = task.head();
        // Before its answer, the task looks for guards itself.
        if head.continuation.release() && head.state.was_answered() {
            task.waker().wake();
        }
    }
}

impl CurrentTask {
    pub(super) fn task(&self) -> &TaskRef {
        &self.0
    }

    /// The task that this thread polls.
    pub(crate) fn get() -> Option<Self> {
        local::current().map(Self)
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
        !state.has_answer() && !state.signals().0
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

impl fmt::Debug for HeldPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldPermit").field(&self.0.as_ref().map(CurrentTask::pool)).finish()
    }
}
