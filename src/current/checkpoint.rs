//! Cancellation as the code in a task sees it: `checkpoint`, `is_cancelled` and `cancelled`.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::error::Cancelled;
use crate::pool::{AnyTask, TaskRef, current_task, with_current_task};
use crate::task::Signals;
use crate::timer::{self, alarm};

/// Returns an error once the running task should stop: its caller went away, its deadline has passed, or a shutdown
/// cuts it off.
///
/// Code that blocks or computes cannot be interrupted, so it must call this now and then. A call costs a few
/// nanoseconds. Outside of a pool's task the result is always `Ok`, and so it is in threads and tasks that a task has
/// spawned. A future need not check whether its caller left, because it is dropped at its next await then.
///
/// # Errors
///
/// The reason to stop. It converts into [`std::io::Error`] and into boxed errors, so `?` works in most functions.
///
/// # Example
///
/// ```
/// use tower_offload::{Cpu, Pools, checkpoint};
///
/// fn sum(rows: &[u64]) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
///     let mut sum = 0_u64;
///     for row in rows {
///         checkpoint()?;
///         sum = sum.wrapping_add(row.pow(2));
///     }
///     Ok(sum)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rows = vec![1, 2, 3];
/// let sum = Pools::default().run_in_pool(Cpu, move || sum(&rows)).await?;
/// assert_eq!(sum.expect("nobody left"), 14);
/// # Ok(())
/// # }
/// ```
pub fn checkpoint() -> Result<(), Cancelled> {
    match with_current_task(|task| (reason(task), needs_alarm(task))) {
        Some((Some(reason), _)) => Err(reason),
        Some((None, true)) => set_alarm(),
        _ => Ok(()),
    }
}

/// Whether [`checkpoint`] would return an error.
#[must_use]
pub fn is_cancelled() -> bool {
    checkpoint().is_err()
}

/// Waits until the running task should stop; never ends outside of a pool's task.
///
/// It refers to the task that calls it or, if it is called outside of a task, to the one that polls it first.
///
/// It lets a future end in good order at its deadline or at a shutdown, for example a stream that closes its
/// connection. When its caller leaves, a future is dropped at its next await, and `cancelled` with it.
///
/// ```
/// use tower_offload::{Io, Pools, cancelled};
///
/// # async fn next_row() -> Option<u64> { None }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rows = Pools::default().run_in_pool(Io, async {
///     let mut rows = Vec::new();
///     loop {
///         tokio::select! {
///             row = next_row() => match row {
///                 Some(row) => rows.push(row),
///                 None => return rows,
///             },
///             // The rows that were read so far.
///             _ = cancelled() => return rows,
///         }
///     }
/// });
/// assert!(rows.await?.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn cancelled() -> impl Future<Output = Cancelled> + Send {
    // The task may keep this future, which must not keep the task.
    let here = current_task().map(|task| Arc::downgrade(&task));
    async move {
        // The future may have been created outside of the task that awaits it.
        match here.map_or_else(current_task, |task| task.upgrade()) {
            Some(task) => cancellation_of(task).await,
            None => pending().await,
        }
    }
}

async fn cancellation_of(task: TaskRef) -> Cancelled {
    let mut cut_off = pin!(task.head().pool.cut_off.given());
    let deadline = task.head().end_deadline().map(|deadline| timer::sleep_until(deadline.moment()));
    let mut deadline = pin!(async {
        match deadline {
            Some(deadline) => deadline.await,
            None => pending().await,
        }
    });
    poll_fn(|cx| {
        if let Some(reason) = reason(&*task) {
            return Poll::Ready(reason);
        }
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Cancelled::DeadlinePassed);
        }
        cut_off.as_mut().poll(cx).map(|()| Cancelled::CutOff)
    })
    .await
}

fn reason(task: &dyn AnyTask) -> Option<Cancelled> {
    match task.head().state.signals() {
        Signals { caller_left: true, .. } => Some(Cancelled::CallerLeft),
        Signals { late: true, .. } => Some(Cancelled::DeadlinePassed),
        _ => task.head().pool.cut_off.is_given().then_some(Cancelled::CutOff),
    }
}

/// Whether the task has a deadline, but no alarm that marks it late.
fn needs_alarm(task: &dyn AnyTask) -> bool {
    let head = task.head();
    head.options.deadline.is_some() && head.deadline_alarm.get().is_none() && head.end_deadline().is_some()
}

/// Sets an alarm that marks the running task late at its deadline. The first `checkpoint` of a task sets it, because
/// most tasks never call one.
#[cold]
fn set_alarm() -> Result<(), Cancelled> {
    let Some(task) = current_task() else { return Ok(()) };
    let Some(deadline) = task.head().end_deadline() else { return Ok(()) };
    let weak = Arc::downgrade(&task);
    let note = move || {
        if let Some(task) = weak.upgrade() {
            task.head().state.deadline_passed();
        }
    };
    let _ = task.head().deadline_alarm.set(alarm(deadline.moment(), note));
    if deadline.has_passed() { Err(Cancelled::DeadlinePassed) } else { Ok(()) }
}
