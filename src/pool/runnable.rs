//! What workers and the pool's lock know of a task, whatever its future is.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::dispatch::Admit;
use super::task_state::TaskState;
use crate::admission::{Key, Outcome, Timestamp};
use crate::error::Rejection;
use crate::options::TaskOptions;
use crate::timer::Alarm;

/// A task of any type.
pub(super) type TaskRef = Arc<dyn Runnable>;

/// A task that a worker can poll.
pub(super) trait Runnable: Send + Sync {
    /// What is the same in all tasks.
    fn head(&self) -> &Head;

    /// Has the task polled again.
    fn wake(self: Arc<Self>);

    /// Polls the task once, if nobody else does or did. `now` is the time of the call.
    ///
    /// The content of a future that ended has been dropped, and so has its value where nobody waits for it.
    fn poll(self: Arc<Self>, now: Timestamp) -> Polled;

    /// Lets the caller read the answer of a task that ended, and wakes it. To be called after the permit was released.
    ///
    /// This reference is dropped before the caller is woken, so that the caller has the last one in most cases.
    fn publish(self: Arc<Self>);

    /// Ends a queued task that never starts: its caller gets `rejection`, and is woken.
    fn reject(&self, rejection: Rejection);

    /// Drops the future of a task that was rejected.
    fn discard(&self);

    /// Ends a task in flight for which there is no worker, and drops its future; how that counts, and when the task
    /// began. `None` if somebody else polls it.
    fn abandon(&self) -> Option<(Outcome, Option<Timestamp>)>;

    /// What tells the tasks of a pool that a shutdown cuts them off.
    fn cut_off(&self) -> &CutOff;
}

/// What became of a task that a worker took up.
#[derive(Debug)]
pub(super) enum Polled {
    /// It ended like this, and began at this time if it started. Its permit is to be released.
    Ended(Outcome, Option<Timestamp>),
    /// It waits for a wake-up.
    Pending,
    /// It was woken while it was polled.
    Woken,
    /// Somebody else polled it before.
    Stale,
}

/// Tells the tasks of a pool that a shutdown cuts them off.
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
    /// What a task inherits that this one submits.
    pub(super) options: TaskOptions,
    /// Its key in the pool's admission, once it was admitted.
    pub(super) key: OnceLock<Key>,
    /// Notes that the deadline has passed; set by the first code that asks.
    pub(super) deadline_alarm: OnceLock<Alarm>,
    /// Present while tasks are logged.
    pub(super) log: Option<LogEntry>,
}

/// How a task appears in the log.
#[derive(Debug)]
pub(super) struct LogEntry {
    pub(super) id: OnceLock<u64>,
    pub(super) function: String,
}

impl Head {
    /// Notes the key of a task that was just admitted.
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
