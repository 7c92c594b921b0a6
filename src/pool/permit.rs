//! The right to be in flight: held by a job from its admission, given back by its drop alone.

use std::sync::Arc;

use super::job::Ticket;
use super::task::Task;
use crate::admission::{Moment, Outcome};
use crate::error::Cause;

/// A job's place in its pool. While the job is queued the permit stands for its place in the queue.
#[derive(Debug)]
pub(crate) struct Permit {
    ticket: Arc<Ticket>,
    submitted: Moment,
    deadline: Option<Moment>,
    began: Option<Moment>,
    /// Present while tasks are logged.
    task: Option<Task>,
    end: End,
}

#[derive(Debug)]
struct End {
    outcome: Outcome,
    /// Whether the worker that polled the job is about to look for its next one.
    on_worker: bool,
}

/// A job's deadline passed after it was admitted, and before a worker came to it.
#[derive(Debug)]
pub(crate) struct Late;

impl Permit {
    pub(crate) const fn new(
        ticket: Arc<Ticket>,
        submitted: Moment,
        deadline: Option<Moment>,
        task: Option<Task>,
    ) -> Self {
        // Until it is told otherwise, a job that is dropped was cancelled.
        let end = End { outcome: Outcome::Cancelled, on_worker: false };
        Self { ticket, submitted, deadline, began: None, task, end }
    }

    pub(crate) const fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// The job is polled; only its first poll counts. The error says that it is too late for the job to start.
    pub(crate) fn begin(&mut self) -> Result<(), Late> {
        if self.began.is_some() {
            return Ok(());
        }
        let Ticket { shared, key, .. } = &*self.ticket;
        let now = shared.now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.ticket.end(Cause::DeadlineExceeded);
            return Err(Late);
        }
        self.began = Some(now);
        self.ticket.begin();
        shared.began(*key, now, now.since(self.submitted), self.task.as_ref());
        Ok(())
    }

    /// Logs that the job has ended. `failure` is what a panic said.
    pub(crate) fn log_end(&self, outcome: Outcome, failure: Option<&str>) {
        if let (Some(task), Some(began)) = (&self.task, self.began) {
            task.log_end(&self.ticket.shared.name, self.ticket.shared.now().since(began), outcome, failure);
        }
    }

    /// The job has ended, on the worker that polled it.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.end = End { outcome, on_worker: true };
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.ticket.shared.now();
        let ran = self.began.map(|began| now.since(began));
        let outcome = if self.ticket.has_no_worker() { Outcome::Rejected } else { self.end.outcome };
        if self.end.on_worker {
            self.ticket.shared.finish_on_worker(now, self.ticket.key, outcome, ran);
        } else {
            self.ticket.shared.finish(now, self.ticket.key, outcome, ran);
        }
    }
}
