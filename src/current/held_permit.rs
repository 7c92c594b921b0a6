//! `hold_permit`: keeps the permit of the running task beyond its response.

use std::fmt;

use super::task::CurrentTask;

/// Keeps the permit of a task until this is dropped; made by [`hold_permit`].
#[must_use = "the permit is held until this is dropped"]
pub struct HeldPermit(Option<CurrentTask>);

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
    if let Some(task) = &task {
        let task = task.task();
        task.head().continuation.hold();
        task.head().state.will_continue();
    }
    HeldPermit(task)
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        let Some(task) = self.0.take() else { return };
        let head = task.task().head();
        // Before its answer, the task looks for guards itself.
        if head.continuation.release() && head.state.was_answered() {
            task.waker().wake();
        }
    }
}

impl fmt::Debug for HeldPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldPermit").field(&self.0.as_ref().map(CurrentTask::pool)).finish()
    }
}
