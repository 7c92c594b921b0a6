//! The right to be in flight: held by a job from its admission, given back by its drop alone.

use std::sync::Arc;

use super::job::Ticket;
use crate::admission::{Outcome, Timestamp as Moment};
use crate::error::Cause;

/// A job's place in its pool. While the job is queued the permit stands for its place in the queue.
#[derive(Debug)]
pub(crate) struct Permit {
    ticket: Arc<Ticket>,
    submitted: Moment,
    deadline: Option<Moment>,
    began: Option<Moment>,
    /// How the job ended, on the worker that polled it; until it is told, the job has not.
    outcome: Option<Outcome>,
}

/// A job's deadline passed after it was admitted, and before a worker came to it.
#[derive(Debug)]
pub(crate) struct Late;

impl Permit {
    pub(crate) const fn new(ticket: Arc<Ticket>, submitted: Moment, deadline: Option<Moment>) -> Self {
        Self { ticket, submitted, deadline, began: None, outcome: None }
    }

    pub(crate) const fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// The job is polled; only its first poll counts. The error says that it is too late for the job to start.
    pub(crate) fn begin(&mut self) -> Result<(), Late> {
        if self.began.is_some() {
            return Ok(());
        }
        let Ticket { shared, key, task, .. } = &*self.ticket;
        let now = shared.now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.ticket.end(Cause::DeadlineExceeded);
        }
        if !self.ticket.begin() {
            return Err(Late);
        }
        self.began = Some(now);
        shared.began(*key, now, now.since(self.submitted), task.as_ref());
        Ok(())
    }

    /// Logs that the job has ended. `failure` is what a panic said.
    pub(crate) fn log_end(&self, outcome: Outcome, failure: Option<&str>) {
        let Ticket { shared, task, .. } = &*self.ticket;
        if let (Some(task), Some(began)) = (task, self.began) {
            task.log_end(&shared.name, shared.now().since(began), outcome, failure);
        }
    }

    /// The job has ended, on the worker that polled it.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Ticket { shared, key, .. } = &*self.ticket;
        let now = shared.now();
        let ran = self.began.map(|began| now.since(began));
        match self.outcome {
            Some(outcome) => shared.finish_on_worker(now, *key, outcome, ran),
            None => {
                shared.finish(now, *key, self.ticket.outcome_of_drop(), ran);
                if let Some(ran) = ran {
                    self.ticket.log_cancellation(ran);
                }
            }
        }
    }
}
