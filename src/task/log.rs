//! The log of single tasks, and the list of the running ones, kept while `verbose` is on.
//!
//! Each event has the fields `pool`, `task` (the task's number in its pool), `function` and, once the task has run,
//! `seconds`; a rejection has `reason`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::display;

use crate::admission::{Outcome, Timestamp};
use crate::error::Reason;
use crate::metrics::stats::ActiveTask;
use crate::shield::shielded;
use crate::sync::lock_std as lock;
use crate::workload::Workload;

/// The running tasks by their numbers, with the times of their first polls.
#[derive(Default)]
pub(crate) struct RunningTasks(Mutex<BTreeMap<u64, (Timestamp, Arc<LogEntry>)>>);

/// How a task appears in the log.
pub(crate) struct LogEntry {
    /// The number of the task in its pool. The first one is 1.
    pub(crate) id: AtomicU64,
    pub(crate) function: String,
    /// The thread that polls it; 0 while none does.
    pub(crate) thread: AtomicI32,
}

impl RunningTasks {
    pub(crate) fn began(&self, task: &Arc<LogEntry>, now: Timestamp) {
        lock(&self.0).insert(task.id(), (now, task.clone()));
    }

    pub(crate) fn ended(&self, task: &LogEntry) {
        let _task = lock(&self.0).remove(&task.id());
    }

    /// Oldest first.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<ActiveTask> {
        let active = |(&task_id, (began, task)): (&u64, &(Timestamp, Arc<LogEntry>))| ActiveTask {
            task_id,
            function: task.function.clone(),
            running_for: now.since(*began),
            thread: Some(task.thread.load(Relaxed)).filter(|thread| *thread != 0),
        };
        lock(&self.0).iter().map(active).collect()
    }
}

impl LogEntry {
    pub(crate) fn new(function: String) -> Arc<Self> {
        Arc::new(Self { id: AtomicU64::new(0), function, thread: AtomicI32::new(0) })
    }

    fn id(&self) -> u64 {
        self.id.load(Relaxed)
    }

    pub(crate) fn log_submission(&self, pool: &Workload, active: usize, queued: usize) {
        let function = &self.function;
        self.info(pool, None, format_args!("Submitting '{function}' (active_threads={active}, queued={queued})"));
    }

    /// The pool rejected the task while it was queued.
    pub(crate) fn log_rejection(&self, pool: &Workload, reason: Reason) {
        self.warn(pool, None, Some(reason), format_args!("Rejected in the queue: {reason}"));
    }

    /// The task's caller left. `ran` is the time since the task's first poll, if there was one.
    pub(crate) fn log_cancellation(&self, pool: &Workload, ran: Option<Duration>) {
        match ran.map(|ran| ran.as_secs_f64()) {
            Some(seconds) => self.info(pool, Some(seconds), format_args!("Cancelled after {seconds:.3}s")),
            None => self.info(pool, None, format_args!("Cancelled in the queue")),
        }
    }

    /// `ran` is the time since the task's first poll, and `failure` the message of a panic.
    pub(crate) fn log_end(&self, pool: &Workload, ran: Duration, outcome: Outcome, failure: Option<&str>) {
        let seconds = ran.as_secs_f64();
        let warn = |what: fmt::Arguments<'_>| self.warn(pool, Some(seconds), None, what);
        match (outcome, failure) {
            (Outcome::Ok, _) => self.info(pool, Some(seconds), format_args!("Completed in {seconds:.3}s")),
            // The client left while the task wrote or sent its response's body.
            (Outcome::Cancelled, _) => self.log_cancellation(pool, Some(ran)),
            (Outcome::Stalled, _) => warn(format_args!("Stalled after {seconds:.3}s")),
            (_, Some(failure)) => warn(format_args!("Failed after {seconds:.3}s: {failure}")),
            (_, None) => warn(format_args!("Failed after {seconds:.3}s")),
        }
    }

    fn info(&self, pool: &Workload, seconds: Option<f64>, what: fmt::Arguments<'_>) {
        let (task, function) = (self.id(), self.function.as_str());
        shielded(|| {
            tracing::info!(
                target: "tower_offload",
                %pool, task, function, seconds,
                "ThreadPool[{pool}] Task #{task}: {what}"
            );
        });
    }

    fn warn(&self, pool: &Workload, seconds: Option<f64>, reason: Option<Reason>, what: fmt::Arguments<'_>) {
        let (task, function, reason) = (self.id(), self.function.as_str(), reason.map(display));
        shielded(|| {
            tracing::warn!(
                target: "tower_offload",
                %pool, task, function, seconds, reason,
                "ThreadPool[{pool}] Task #{task}: {what}"
            );
        });
    }
}

/// Logs a task that the pool rejected at once, before the task had a number.
pub(crate) fn log_rejection(pool: &Workload, reason: Reason, function: &str) {
    shielded(|| match reason {
        // Its client left.
        Reason::BodyError => tracing::info!(
            target: "tower_offload",
            %pool, function, %reason,
            "ThreadPool[{pool}] Cancelled '{function}': {reason}"
        ),
        _ => tracing::warn!(
            target: "tower_offload",
            %pool, function, %reason,
            "ThreadPool[{pool}] Rejected '{function}': {reason}"
        ),
    });
}
