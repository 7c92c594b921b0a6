//! The log of single tasks, and the list of the running ones, kept while `verbose` is on.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::runnable::LogEntry;
use super::stats::ActiveTask;
use crate::admission::{Outcome, Timestamp};
use crate::error::Reason;
use crate::shield::shielded;
use crate::workload::Workload;

/// The tasks that run, by their numbers, with the times they began at.
#[derive(Debug, Default)]
pub(super) struct RunningTasks(Mutex<BTreeMap<u64, (Timestamp, String)>>);

impl RunningTasks {
    pub(super) fn began(&self, task: &LogEntry, now: Timestamp) {
        let function = task.function.clone();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task.id(), (now, function));
    }

    pub(super) fn ended(&self, task: &LogEntry) {
        let _running = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&task.id());
    }

    /// Oldest first.
    pub(super) fn list(&self, now: Timestamp) -> Vec<ActiveTask> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let active = |(&task_id, (began, function)): (&u64, &(Timestamp, String))| ActiveTask {
            task_id,
            function: function.clone(),
            running_for: now.since(*began),
        };
        running.iter().map(active).collect()
    }
}

impl LogEntry {
    /// The number of the task in its pool; the first one is 1.
    fn id(&self) -> u64 {
        self.id.get().copied().unwrap_or_default()
    }

    pub(super) fn log_submission(&self, pool: &Workload, active: usize, queued: usize) {
        let (task, function) = (self.id(), &self.function);
        shielded(|| {
            tracing::info!(
                target: "tower_offload",
                "ThreadPool[{pool}] Task #{task}: Submitting '{function}' (active_threads={active}, queued={queued})"
            );
        });
    }

    /// It waited, and will not start.
    pub(super) fn log_refusal(&self, pool: &Workload, reason: Reason) {
        let task = self.id();
        shielded(|| {
            tracing::warn!(target: "tower_offload", "ThreadPool[{pool}] Task #{task}: Given up in the queue: {reason}");
        });
    }

    /// Its caller left: in the queue, or after it had run for a while.
    pub(super) fn log_cancellation(&self, pool: &Workload, ran: Option<Duration>) {
        let task = self.id();
        shielded(|| match ran.map(|ran| ran.as_secs_f64()) {
            Some(seconds) => {
                tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{task}: Cancelled after {seconds:.3}s");
            }
            None => tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{task}: Cancelled in the queue"),
        });
    }

    pub(super) fn log_end(&self, pool: &Workload, ran: Duration, outcome: Outcome, failure: Option<&str>) {
        let task = self.id();
        let seconds = ran.as_secs_f64();
        shielded(|| match (outcome, failure) {
            (Outcome::Ok, _) => {
                tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{task}: Completed in {seconds:.3}s");
            }
            (_, Some(failure)) => tracing::warn!(
                target: "tower_offload",
                "ThreadPool[{pool}] Task #{task}: Failed after {seconds:.3}s: {failure}"
            ),
            (_, None) => {
                tracing::warn!(target: "tower_offload", "ThreadPool[{pool}] Task #{task}: Failed after {seconds:.3}s");
            }
        });
    }
}

/// Logs a task that was refused before it had a number.
pub(super) fn log_refusal(pool: &Workload, reason: Reason, function: &str) {
    shielded(|| tracing::warn!(target: "tower_offload", %pool, reason = %reason, function, "a task was refused"));
}

/// The name of a function or closure as the log shows it: without its path, and for a closure the function it stands in.
pub(crate) fn name_of<F>() -> String {
    short_name(std::any::type_name::<F>())
}

fn short_name(full: &str) -> String {
    // The path of generic arguments is of no interest, and would be taken for the function's own.
    let path = full.split('<').next().unwrap_or(full);
    let name = path.rsplit("::").find(|part| !part.is_empty() && !part.starts_with('{'));
    name.unwrap_or(full).to_owned()
}

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn a_closure_is_named_after_its_function() {
        assert_eq!(short_name("app::tasks::process_data"), "process_data");
        assert_eq!(short_name("app::tasks::process_data::{{closure}}"), "process_data");
        assert_eq!(short_name("app::process<alloc::vec::Vec<u8>>::{{closure}}"), "process");
        assert_eq!(short_name("fn()"), "fn()");
    }
}
