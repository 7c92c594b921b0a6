//! A handle to one pool, and the way of a task into it.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use super::context::TaskContext;
use super::dispatch::{Offered, Refused};
use super::handle::Pending;
use super::runnable::{Head, LogEntry, Runnable};
use super::shared::{Plan, Shared};
use super::stats::PoolStats;
use super::task::Task;
use super::task_future::TaskFuture;
use super::task_state::TaskState;
use super::{local, publish, task_log, worker};
use crate::admission::{Offer, Outcome};
use crate::config::Trust;
use crate::error::{Reason, Rejection};
use crate::metrics::PublishGuard;
use crate::options::TaskOptions;
use crate::shield::shielded;
use crate::terms::Caller;
use crate::workload::Workload;

/// One workload pool. Cheap to clone; every clone is the same pool.
///
/// When the last handle is dropped, the pool finishes what it has and its threads end; nothing waits for that.
#[derive(Clone)]
pub struct Pool {
    open: Arc<Open>,
}

/// Lives as long as anybody can submit.
struct Open {
    shared: Arc<Shared>,
}

/// A future on its way into a pool.
pub(crate) struct Submission<F: TaskFuture, L> {
    pub(crate) future: F,
    pub(crate) options: TaskOptions,
    /// The task's name in the log; called only if tasks are logged.
    pub(crate) function: L,
    /// How the task ended, as its value tells.
    pub(crate) outcome_of: fn(&F::Output) -> Outcome,
    /// The task waits however long it takes: it is never shed, and has no queue timeout.
    pub(crate) patient: bool,
}

/// Why a future did not come into the pool.
pub(crate) struct Rejected<F: TaskFuture, L> {
    /// What was submitted, if it is to be submitted again when the pool has room.
    pub(crate) submission: Option<Submission<F, L>>,
    pub(crate) rejection: Rejection,
}

/// A task that waits outside of the queue is counted while this lives.
struct WaitsForRoom<'a>(&'a Arc<Shared>);

impl Pool {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { open: Arc::new(Open { shared: Shared::new(plan) }) }
    }

    /// The pool's name.
    #[must_use]
    pub fn name(&self) -> &Workload {
        self.shared().name()
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

    /// Whether the calling thread is one of this pool's workers.
    #[must_use]
    pub fn is_current(&self) -> bool {
        local::is_worker_of(self.shared().id)
    }

    /// Which headers of a request are believed.
    pub(crate) fn trust(&self) -> &Trust {
        &self.shared().plan.trust
    }

    /// Whether tasks are logged and listed one by one.
    pub(crate) fn is_verbose(&self) -> bool {
        self.shared().plan.verbose
    }

    /// Brings a future into the pool, or gives it back with the reason.
    ///
    /// A task of this pool that has no room for another one runs that one in place, up to its first await.
    pub(crate) fn submit_future<F, L>(&self, submission: Submission<F, L>) -> Result<Pending<F::Output>, Rejected<F, L>>
    where
        F: TaskFuture,
        F::Output: Send + 'static,
        L: Fn() -> String,
    {
        let pool = self.shared();
        let Submission { future, options: asked, function, outcome_of, patient } = submission;
        let parent = local::with_current(|task| (task.head().group, task.head().options));
        let options = parent.map_or(asked, |(_, parent)| asked.inherit(&parent));
        let submitted = pool.now();
        let deadline = options.deadline.map(|deadline| pool.plan.group.timestamp_of(deadline.moment()));
        let head = Head {
            state: TaskState::new(),
            pool: pool.id,
            group: pool.plan.group.id,
            submitted,
            deadline,
            options,
            key: OnceLock::new(),
            deadline_alarm: OnceLock::new(),
            log: self.is_verbose().then(|| LogEntry { id: OnceLock::new(), function: function() }),
        };
        let offer = Offer {
            deadline,
            level: options.priority.unwrap_or_default(),
            caller: options.caller.map(Caller::id),
            patient,
            accepted: parent.is_some_and(|(group, _)| group == pool.plan.group.id),
            rides: self.is_current(),
        };
        let context = TaskContext::capture(&pool.plan.hooks.context);
        let task = Task::new(pool.clone(), head, context, future, outcome_of);
        let (offered, effects) = pool.dispatch.offer(submitted, offer, task.clone());
        match offered {
            Ok(Offered { riding, active, queued }) => {
                // Before a worker is woken, so that on a pool at rest this line comes before the one that tells the end.
                if let Some(log) = &task.head().log {
                    log.log_submission(pool.name(), active, queued);
                }
                worker::perform(pool, effects);
                worker::changed(pool);
                if let Some(riding) = riding {
                    worker::run_in_place(pool, riding);
                }
                Ok(Pending::new(task))
            }
            Err(Refused { reason, retry_after, .. }) => {
                worker::perform(pool, effects);
                worker::changed(pool);
                let rejection = pool.rejection(reason, retry_after);
                if reason == Reason::QueueFull && patient {
                    let again = |future| Submission { future, options: asked, function, outcome_of, patient };
                    let submission = task.into_future().map(again);
                    return Err(Rejected { submission, rejection });
                }
                if let Some(log) = &task.head().log {
                    task_log::log_refusal(pool.name(), reason, &log.function);
                }
                Err(Rejected { submission: None, rejection })
            }
        }
    }

    /// Waits until a patient task would be admitted, or the pool drains.
    pub(crate) async fn room(&self) {
        let pool = self.shared();
        let notified = pool.room.notified();
        let waits = WaitsForRoom::begin(pool);
        notified.await;
        drop(waits);
    }

    /// Counts a task that is rejected whatever the state of the pool is, and logs it.
    pub(crate) fn count_rejected(&self, reason: Reason, function: impl FnOnce() -> String) -> Rejection {
        let pool = self.shared();
        pool.dispatch.count_rejected(reason);
        if self.is_verbose() {
            shielded(|| task_log::log_refusal(pool.name(), reason, &function()));
        }
        worker::changed(pool);
        Rejection::new(pool.name().clone(), reason, None)
    }

    /// Rejects every further task; what is queued or in flight goes on.
    pub(crate) fn drain(&self) {
        self.shared().dispatch.drain();
        self.shared().room.notify_waiters();
    }

    /// How many tasks of this pool the calling thread is in the middle of.
    pub(crate) fn current_tasks(&self) -> usize {
        local::polling_of(self.shared().id)
    }

    /// Whether nothing is queued, and no more than `except` tasks are in flight; if not, `waker` is woken when that has
    /// changed.
    pub(crate) fn poll_idle(&self, except: usize, waker: &Waker) -> bool {
        self.shared().dispatch.poll_idle(except, waker)
    }

    /// Rejects all queued tasks because the pool drains, and tells those in flight that they are cut off. How many were
    /// queued.
    pub(crate) fn cut_off(&self) -> u64 {
        let pool = self.shared();
        pool.cut_off.set.store(true, Ordering::Relaxed);
        pool.cut_off.notify.notify_waiters();
        let effects = pool.dispatch.evict_all(pool.now(), Reason::Draining);
        let queued = effects.evicted.len() as u64;
        worker::perform(pool, effects);
        queued
    }

    /// Lets the workers end as soon as they find nothing to do.
    pub(crate) fn close(&self) {
        close(self.shared());
    }

    /// Publishes the pool's numbers to the recorder of the application's metrics now.
    pub(crate) fn publish(&self, guard: &PublishGuard) {
        publish::publish(self.shared(), guard);
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.open.shared
    }
}

fn close(pool: &Shared) {
    for thread in pool.dispatch.close() {
        thread.unpark();
    }
}

/// The outcome of a task whose value does not tell.
pub(crate) const fn always_ok<T>(_value: &T) -> Outcome {
    Outcome::Ok
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", self.name()).finish_non_exhaustive()
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        close(&self.shared);
    }
}

// === impl WaitsForRoom ===

impl<'a> WaitsForRoom<'a> {
    fn begin(pool: &'a Arc<Shared>) -> Self {
        let effects = pool.dispatch.wait_for_room(pool.now(), true);
        worker::perform(pool, effects);
        Self(pool)
    }
}

impl Drop for WaitsForRoom<'_> {
    fn drop(&mut self) {
        let effects = self.0.dispatch.wait_for_room(self.0.now(), false);
        worker::perform(self.0, effects);
    }
}
