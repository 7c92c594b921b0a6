//! A handle to one pool, and the way of a job into it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Waker;

use super::context::JobContext;
use super::handle::Pending;
use super::job::{self, Ticket};
use super::permit::Permit;
use super::shared::{Plan, Shared};
use super::stats::PoolStats;
use super::task::{self, Task};
use super::worker;
use crate::admission::{Offer, Outcome};
use crate::config::Trust;
use crate::error::{Cause, Rejection};
use crate::metrics::Turn;
use crate::shield::shielded;
use crate::terms::Terms;
use crate::workload::Workload;

/// One workload pool. Cheap to clone; every clone is the same pool.
///
/// When the last handle is gone, what the pool has is finished and its threads end; nothing waits for that.
#[derive(Clone)]
pub struct Pool {
    open: Arc<Open>,
}

/// Lives as long as anybody can submit.
struct Open {
    shared: Arc<Shared>,
}

/// A future on its way into a pool.
pub(crate) struct Submission<F: Future, L> {
    pub(crate) future: F,
    pub(crate) terms: Terms,
    /// How the job is called in the log; asked only if there is one.
    pub(crate) function: L,
    /// How the job ended, as its value tells.
    pub(crate) outcome_of: fn(&F::Output) -> Outcome,
}

impl Pool {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { open: Arc::new(Open { shared: Shared::new(plan) }) }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &Workload {
        &self.shared().name
    }

    /// The pool's numbers at this instant.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.shared().stats()
    }

    /// The same without the tasks.
    pub(crate) fn numbers(&self) -> PoolStats {
        self.shared().numbers()
    }

    /// Whether the calling thread is one of this pool's workers. A job that submits to its own pool runs inline.
    #[must_use]
    pub fn is_current(&self) -> bool {
        worker::is_of(self.shared().id)
    }

    /// Which headers of a request are believed.
    pub(crate) fn trust(&self) -> &Trust {
        &self.shared().trust
    }

    /// Whether jobs are logged and listed one by one.
    pub(crate) fn is_verbose(&self) -> bool {
        self.shared().verbose
    }

    /// Brings a future into the pool, or says why not.
    pub(crate) fn submit<F, L>(&self, submission: Submission<F, L>) -> Result<Pending<F::Output>, Rejection>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
        L: FnOnce() -> String,
    {
        let shared = self.shared();
        let Submission { future, terms, function, outcome_of } = submission;
        let now = shared.now();
        let context = JobContext::capture();
        let mut function = shared.verbose.then(function);
        let mut future = Some(future);
        let mut log = None;
        let deadline = terms.deadline.map(|deadline| shared.moment_of(deadline.moment()));
        let offer = Offer { deadline, level: terms.priority, caller: terms.caller, ..Offer::default() };
        let (offered, after) = shared.dispatch.offer(now, offer, |key, glance| {
            let task = function.take().map(|function| Task { id: glance.submitted, function });
            log = task.clone().map(|task| (task, glance.busy, glance.queued));
            let ticket = Arc::new(Ticket::new(shared.clone(), key, task));
            let permit = Permit::new(ticket.clone(), now, deadline);
            let (work, answer) = job::build(&mut future, context, permit, outcome_of);
            (work, Pending::new(answer, ticket))
        });
        // Before a worker is called, so that on a pool at rest this line comes before the one that tells the end.
        if let Some((task, busy, queued)) = log {
            shielded(|| task.log_submission(&shared.name, busy, queued));
        }
        shared.settle(after);
        shared.touched();
        // A future that was refused may panic as it is dropped: only after all this.
        drop(future);
        match offered {
            Ok(pending) => Ok(pending),
            Err((cause, retry_after)) => {
                if let Some(function) = function {
                    shielded(|| task::log_refusal(&shared.name, cause, function));
                }
                let waiting_helps = !matches!(cause, Cause::DeadlineExceeded);
                Err(Rejection::new(shared.name.clone(), cause, waiting_helps.then_some(retry_after)))
            }
        }
    }

    /// Counts a job that is refused whatever the state of the pool is, and says so.
    pub(crate) fn turn_away(&self, cause: Cause, function: impl FnOnce() -> String) -> Rejection {
        let shared = self.shared();
        shared.dispatch.turn_away(cause);
        if shared.verbose {
            shielded(|| task::log_refusal(&shared.name, cause, function()));
        }
        shared.touched();
        Rejection::new(shared.name.clone(), cause, None)
    }

    /// Refuses every further job; what is queued or in flight goes on.
    pub(crate) fn drain(&self) {
        self.shared().dispatch.drain();
    }

    /// Whether nothing is queued or in flight; if something is, `watcher` is woken when that has changed.
    pub(crate) fn poll_idle(&self, watcher: &Waker) -> bool {
        self.shared().dispatch.poll_idle(watcher)
    }

    /// Tells the callers of all queued jobs that the pool drains; how many there were.
    pub(crate) fn give_up_queue(&self) -> u64 {
        let shared = self.shared();
        let after = shared.dispatch.evict_all(shared.now(), Cause::Draining);
        let given_up = after.gone.len() as u64;
        shared.settle(after);
        given_up
    }

    /// Lets the workers end as soon as they find nothing to do.
    pub(crate) fn close(&self) {
        self.shared().close();
    }

    /// Brings the pool's numbers to the recorder of the application's metrics now.
    pub(crate) fn publish(&self, turn: &Turn) {
        self.shared().publish(turn);
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.open.shared
    }
}

/// The outcome of a job whose value cannot tell.
pub(crate) const fn always_ok<T>(_value: &T) -> Outcome {
    Outcome::Ok
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", self.name()).finish_non_exhaustive()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
    }
}
