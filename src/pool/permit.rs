//! The right to be in flight: held by a job from its admission, given back by its drop alone.

use std::sync::Arc;

use super::shared::Shared;
use super::task::Task;
use crate::admission::{Key, Moment, Outcome};

/// A job's place in its pool. While the job is queued the permit stands for its place in the queue.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    key: Key,
    submitted: Moment,
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

impl Permit {
    pub(crate) fn new(shared: Arc<Shared>, key: Key, submitted: Moment, task: Option<Task>) -> Self {
        // Until it is told otherwise, a job that is dropped was cancelled.
        let end = End { outcome: Outcome::Cancelled, on_worker: false };
        Self { shared, key, submitted, began: None, task, end }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    /// The job is polled; only its first poll counts.
    pub(crate) fn begin(&mut self) {
        if self.began.is_none() {
            let now = self.shared.now();
            self.began = Some(now);
            self.shared.began(self.key, now, now.since(self.submitted), self.task.as_ref());
        }
    }

    /// The job has ended, on the worker that polled it. `failure` is what a panic said.
    pub(crate) fn end(mut self, outcome: Outcome, failure: Option<&str>) {
        if let (Some(task), Some(began)) = (&self.task, self.began) {
            task.log_end(&self.shared.name, self.shared.now().since(began), outcome, failure);
        }
        self.end = End { outcome, on_worker: true };
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.shared.now();
        let ran = self.began.map(|began| now.since(began));
        if self.end.on_worker {
            self.shared.finish_on_worker(now, self.key, self.end.outcome, ran);
        } else {
            self.shared.finish(now, self.key, self.end.outcome, ran);
        }
    }
}
