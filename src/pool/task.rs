//! The log of single tasks, kept while `verbose` is on.

use std::time::Duration;

use super::stats::ActiveTask;
use crate::admission::Outcome;
use crate::error::Cause;
use crate::workload::Workload;

/// A job as it appears in the log and among the running tasks.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) function: String,
}

impl Task {
    pub(crate) fn active_for(self, running_for: Duration) -> ActiveTask {
        ActiveTask { task_id: self.id, function: self.function, running_for }
    }

    pub(crate) fn log_submission(&self, pool: &Workload, busy: usize, queued: usize) {
        let Self { id, function } = self;
        tracing::info!(
            target: "tower_offload",
            "ThreadPool[{pool}] Task #{id}: Submitting '{function}' (active_threads={busy}, queued={queued})"
        );
    }

    /// It waited, and will not start.
    pub(crate) fn log_refusal(&self, pool: &Workload, cause: Cause) {
        let id = self.id;
        tracing::warn!(target: "tower_offload", "ThreadPool[{pool}] Task #{id}: Given up in the queue: {cause}");
    }

    /// Its caller left: in the queue, or after it had run for so long.
    pub(crate) fn log_cancellation(&self, pool: &Workload, ran: Option<Duration>) {
        let id = self.id;
        match ran.map(|ran| ran.as_secs_f64()) {
            Some(seconds) => {
                tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{id}: Cancelled after {seconds:.3}s");
            }
            None => tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{id}: Cancelled in the queue"),
        }
    }

    pub(crate) fn log_end(&self, pool: &Workload, ran: Duration, outcome: Outcome, failure: Option<&str>) {
        let id = self.id;
        let seconds = ran.as_secs_f64();
        match (outcome, failure) {
            (Outcome::Ok, _) => {
                tracing::info!(target: "tower_offload", "ThreadPool[{pool}] Task #{id}: Completed in {seconds:.3}s");
            }
            (_, Some(failure)) => tracing::warn!(
                target: "tower_offload",
                "ThreadPool[{pool}] Task #{id}: Failed after {seconds:.3}s: {failure}"
            ),
            (_, None) => {
                tracing::warn!(target: "tower_offload", "ThreadPool[{pool}] Task #{id}: Failed after {seconds:.3}s");
            }
        }
    }
}

/// A job was refused before it had a number.
pub(crate) fn log_refusal(pool: &Workload, cause: Cause, function: String) {
    tracing::warn!(target: "tower_offload", %pool, reason = %cause, function, "a task was refused");
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
        assert_eq!(short_name("app::jobs::process_data"), "process_data");
        assert_eq!(short_name("app::jobs::process_data::{{closure}}"), "process_data");
        assert_eq!(short_name("app::process<alloc::vec::Vec<u8>>::{{closure}}"), "process");
        assert_eq!(short_name("fn()"), "fn()");
    }
}
