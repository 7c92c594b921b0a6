//! The interface through which workers and the pool's lock use a task of any type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use super::batches::Batches;
use super::continuation::Continuation;
use super::dispatch::Admit;
use super::item::ItemHead;
use super::streams::Streams;
use super::task_state::TaskState;
use crate::admission::{Finish, Growth, Key, Outcome, Timestamp};
use crate::config::BodyPolicy;
use crate::error::Rejection;
use crate::metrics::TaskTimes;
use crate::options::TaskOptions;
use crate::terms::Deadline;
use crate::timer::Alarm;
use crate::workload::Workload;

/// A task of any type.
pub(super) type TaskRef = Arc<dyn Runnable>;

/// A task that a worker can poll.
pub(super) trait Runnable: Send + Sync {
    /// The part of the task that does not depend on its type.
    fn head(&self) -> &Head;

    /// Wakes the task, so that it is polled again.
    fn wake(self: Arc<Self>);

    fn waker(self: Arc<Self>) -> Waker;

    /// Polls the task once, unless another thread polls or polled it. `now` is the time of the call.
    ///
    /// If the future ended, its content has been dropped, and so has its value if no caller waits for it.
    fn poll(self: Arc<Self>, now: Timestamp) -> Polled;

    /// Makes the answer of a task that ended readable, and wakes the caller. Called after the permit was released.
    ///
    /// This drops the reference before it wakes the caller, so that the caller usually has the last one.
    fn publish(self: Arc<Self>);

    /// Ends a queued task without starting it. Its caller gets `rejection`, and is woken.
    fn reject(&self, rejection: Rejection);

    /// Drops the future of a task that was rejected.
    fn discard(&self);

    /// Ends a task in flight because the pool has no worker, and drops its future. The result is the task's outcome and
    /// the time at which it began, or `None` if the task has ended or another thread polls it.
    fn abandon(&self) -> Option<(Outcome, Option<Timestamp>)>;

    /// Polls the task in place, for the task that this thread polls, and releases its permit if it ends.
    fn poll_in_place(self: Arc<Self>);

    /// Takes queued tasks of the pool that join the batch of this one, and adds them to `batch`.
    fn take_more(&self, growth: &mut Growth, batch: &mut Vec<TaskRef>);

    /// The pool of the task.
    fn pool(&self) -> &dyn TaskPool;

    fn pool_handle(&self) -> Arc<dyn TaskPool>;
}

/// A pool, as its tasks see it.
pub(super) trait TaskPool: Send + Sync {
    fn name(&self) -> &Workload;

    fn now(&self) -> Timestamp;

    /// The signal by which a shutdown cuts off the tasks of the pool.
    fn cut_off(&self) -> &CutOff;

    /// How the pool treats the bodies of responses.
    fn body_policy(&self) -> &BodyPolicy;

    fn streams(&self) -> &Streams;

    fn batches(&self) -> &Batches;

    /// The histograms of the streams that no worker polls.
    fn stream_times(&self) -> &Mutex<TaskTimes>;

    /// Waits until a drain is announced.
    fn draining(&self) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>>;
}

/// The result of a poll.
#[derive(Debug)]
pub(super) enum Polled {
    /// The task ended with this outcome, and began at this time if it started. The worker releases its permit.
    Ended(Outcome, Option<Timestamp>),
    /// The task waits for a wake-up.
    Pending,
    /// The task was woken during the poll.
    Woken,
    /// Another thread polled the task before.
    Stale,
}

/// Notifies the tasks of a pool that a shutdown cuts them off.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    pub(super) set: AtomicBool,
    pub(super) notify: Notify,
}

/// The part of a task that does not depend on its type.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) state: TaskState,
    /// The pool and its `Pools`, by number.
    pub(super) pool: u64,
    pub(super) group: u64,
    pub(super) submitted: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    /// The options that a task inherits which this one submits.
    pub(super) options: TaskOptions,
    /// The task's key in the pool's admission, once it was admitted.
    pub(super) key: OnceLock<Key>,
    /// The alarm that marks the task late at its deadline. The first `checkpoint` sets it.
    pub(super) deadline_alarm: OnceLock<Alarm>,
    /// Present while tasks are logged.
    pub(super) log: Option<LogEntry>,
    /// The policy for the body of the response, if it is not the pool's.
    pub(super) body: Option<Arc<BodyPolicy>>,
    /// Its answer is a response, which may open a stream.
    pub(super) may_stream: bool,
    pub(super) continuation: Continuation,
    /// Whether the task has panicked: what its future holds is in a state that is not known.
    pub(super) panicked: AtomicBool,
    /// Present in a task that can share its permit with others.
    pub(super) item: Option<Box<ItemHead>>,
}

/// How a task appears in the log.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) id: OnceLock<u64>,
    pub(super) function: String,
    /// The thread that polls it; 0 while none does.
    pub(super) thread: Arc<AtomicI32>,
}

impl LogEntry {
    pub(super) fn new(function: String) -> Self {
        Self { id: OnceLock::new(), function, thread: Arc::default() }
    }
}

impl Head {
    /// Stores the key of a task that was just admitted.
    pub(super) fn admitted(&self, key: Key, id: u64) {
        // A task is admitted once.
        let _ = self.key.set(key);
        if let Some(log) = &self.log {
            let _ = log.id.set(id);
        }
    }

    /// `None` before the task was admitted.
    pub(super) fn key(&self) -> Option<Key> {
        self.key.get().copied()
    }

    /// The end of the task, for admission.
    pub(super) fn finish(&self, outcome: Outcome, ran: Option<Duration>) -> Finish {
        let batch = self.item.as_ref().and_then(|item| item.shared_permit());
        Finish { outcome, ran, reader: self.continuation.reader_time(), batch }
    }

    /// Whether a task that starts now would end after its deadline, as far as that is known.
    pub(super) fn starts_too_late(&self, now: Timestamp) -> bool {
        let Some(deadline) = self.deadline else { return false };
        deadline <= now || self.item.as_ref().is_some_and(|item| item.is_late(now, deadline))
    }

    /// The deadline after which its code should stop: that of its batch, if it is in one.
    pub(super) fn end_deadline(&self) -> Option<Deadline> {
        let batch = self.item.as_ref().and_then(|item| item.batch_deadline());
        batch.unwrap_or(self.options.deadline)
    }
}

impl Admit for TaskRef {
    fn admitted(&self, key: Key, id: u64) {
        self.head().admitted(key, id);
    }
}

impl fmt::Debug for dyn Runnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head().fmt(f)
    }
}

impl CutOff {
    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }
}
