//! The handle to one pool, which submits tasks to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use super::handle::CancelOnDrop;
use super::plan::Plan;
use super::shared::{AnyTask, Head, Shared};
use super::task::Task;
use super::{local, publish, worker};
use crate::admission::{Limit, Offer, Outcome};
use crate::budget::Budget;
use crate::config::BodyPolicy;
use crate::dispatch::{Backlog, Offered, RejectedOffer};
use crate::error::{Reason, Rejection};
use crate::load::PoolLoad;
use crate::metrics::PublishGuard;
use crate::metrics::stats::PoolStats;
use crate::options::TaskOptions;
use crate::shield::shielded;
use crate::task::{self, BatchItem, Continuation, ItemHead, LogEntry, TaskContext, TaskFuture, TaskState};
use crate::terms::Caller;
use crate::workload::Workload;

/// One workload pool. Cheap to clone; every clone is the same pool.
///
/// When the last handle is dropped, the pool finishes its tasks and then its threads end. The drop does not wait for
/// that.
#[derive(Clone)]
pub struct Pool {
    open: Arc<Open>,
}

/// Closes the pool when the last handle is dropped.
struct Open {
    shared: Arc<Shared>,
}

/// A future on its way into a pool.
pub(crate) struct Submission<F: TaskFuture, L> {
    pub(crate) future: F,
    pub(crate) options: TaskOptions,
    /// The task's name in the log; called only if tasks are logged.
    pub(crate) function: L,
    /// Derives the task's outcome from its value.
    pub(crate) outcome_of: fn(&F::Output) -> Outcome,
    /// The policy for the body of its response, if it is not the pool's.
    pub(crate) body: Option<Arc<BodyPolicy>>,
    /// Its answer is a response, which may open a stream.
    pub(crate) may_stream: bool,
    /// The task as an item of a batch, if it is one.
    pub(crate) item: Option<Arc<dyn BatchItem>>,
    /// The task waits without a limit of time: it is never shed, and has no queue timeout.
    pub(crate) patient: bool,
}

/// A future that was rejected.
pub(crate) struct Rejected<F> {
    /// The future, if the caller can submit it again when the pool has room.
    pub(crate) future: Option<Box<F>>,
    pub(crate) rejection: Rejection,
}

/// Counts a task that waits outside of the queue, until this is dropped.
struct WaitsForRoom<'a>(&'a Arc<Shared>);

impl<F: TaskFuture, L> Submission<F, L> {
    /// A task that is no request, no item of a batch, and does not wait without a limit.
    pub(crate) const fn new(
        future: F,
        options: TaskOptions,
        function: L,
        outcome_of: fn(&F::Output) -> Outcome,
    ) -> Self {
        Self { future, options, function, outcome_of, body: None, may_stream: false, item: None, patient: false }
    }
}

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

    /// The pool's [load](crate::load).
    #[must_use]
    pub fn load(&self) -> PoolLoad {
        self.shared().load()
    }

    /// How many tasks may be in flight at once, now. It is fixed unless the pool's `concurrency` is adaptive.
    ///
    /// It sizes the connection pool of an async driver, which then never makes a task wait:
    ///
    /// ```
    /// use tower_offload::{Db, Pools};
    ///
    /// let pools = Pools::default();
    /// let max_connections = pools.get(Db)?.concurrency_limit();
    /// assert_eq!(max_connections, 25);
    /// # Ok::<(), tower_offload::error::UnknownPool>(())
    /// ```
    #[must_use]
    pub fn concurrency_limit(&self) -> usize {
        match self.shared().plan.admission.limit {
            Limit::Fixed(limit) => limit,
            Limit::Adaptive { .. } => self.backlog().limit,
        }
    }

    /// The tasks that a new one would find before it.
    pub(crate) fn backlog(&self) -> Backlog {
        self.shared().dispatch.backlog()
    }

    /// The pool's numbers without the list of its tasks.
    pub(crate) fn numbers(&self) -> PoolStats {
        self.shared().numbers()
    }

    /// Whether the calling thread is one of this pool's workers.
    #[must_use]
    pub fn is_current(&self) -> bool {
        local::is_worker_of(self.shared().id)
    }

    /// The pool's settings.
    pub(crate) fn plan(&self) -> &Plan {
        &self.shared().plan
    }

    /// The memory for request bodies that are read or queued, of all pools of one `Pools`.
    pub(crate) fn body_budget(&self) -> &Budget {
        &self.shared().plan.group.bodies
    }

    /// Notes that the pool has a function for batches.
    pub(crate) fn has_batches(&self) {
        self.shared().batches.set_in_use();
    }

    /// Submits a future, or returns it with the reason why it was rejected.
    ///
    /// If a task of this pool submits another one and the queue is full, the submitting thread polls the new task in
    /// place, up to its first await.
    pub(crate) fn submit_future<F, L>(
        &self,
        submission: Submission<F, L>,
    ) -> Result<CancelOnDrop<F::Output>, Rejected<F>>
    where
        F: TaskFuture,
        F::Output: Send + 'static,
        L: Fn() -> String,
    {
        let context = TaskContext::capture(&self.shared().plan.hooks.context);
        self.submit_in(context, submission)
    }

    /// Submits a task of this crate, without a context: no hook of the application is called on this thread. Whether it
    /// was accepted.
    pub(crate) fn submit_own<F: TaskFuture<Output = ()>>(&self, future: F, options: TaskOptions, name: &str) -> bool {
        let function = || name.to_owned();
        let submission = Submission::new(future, options, function, always_ok);
        self.submit_in(TaskContext::none(), submission).map(|mut task| task.detach()).is_ok()
    }

    fn submit_in<F, L>(
        &self,
        context: TaskContext,
        submission: Submission<F, L>,
    ) -> Result<CancelOnDrop<F::Output>, Rejected<F>>
    where
        F: TaskFuture,
        F::Output: Send + 'static,
        L: Fn() -> String,
    {
        let pool = self.shared();
        let Submission { future, options, function, outcome_of, body, may_stream, item, patient } = submission;
        if may_stream && pool.is_full_of_streams() {
            let rejection = self.count_rejected(Reason::StreamsFull, function);
            return Err(Rejected { future: None, rejection });
        }
        let (options, offer) = self.offer_of(options, patient);
        let submitted = pool.now();
        let head = Head {
            state: TaskState::new(),
            pool: pool.clone(),
            submitted,
            options,
            key: AtomicU64::new(0),
            deadline_alarm: OnceLock::new(),
            body,
            may_stream,
            continuation: Continuation::default(),
            panicked: AtomicBool::new(false),
            item: item.map(ItemHead::new),
            log: self.plan().verbose.then(|| LogEntry::new(function())),
        };
        let task = Task::new(head, context, future, outcome_of);
        let (offered, effects) = pool.dispatch.offer(submitted, offer, task.clone());
        match offered {
            Ok(Offered { in_place, active, queued }) => {
                // Logged before a worker is woken, so that this line precedes the one about the task's end.
                if let Some(log) = &task.head().log {
                    log.log_submission(pool.name(), active, queued);
                }
                worker::perform(pool, effects);
                worker::changed(pool);
                if let Some(task) = in_place {
                    worker::run_in_place(pool, task);
                }
                Ok(CancelOnDrop::new(task))
            }
            Err(RejectedOffer { reason, retry_after, .. }) => {
                worker::perform(pool, effects);
                worker::changed(pool);
                let rejection = pool.rejection(reason, retry_after);
                if reason == Reason::QueueFull && patient {
                    return Err(Rejected { future: task.into_future().map(Box::new), rejection });
                }
                if let Some(log) = &task.head().log {
                    task::log_rejection(pool.name(), reason, &log.function);
                }
                Err(Rejected { future: None, rejection })
            }
        }
    }

    /// Rejects a task that is not submitted yet, if its pool would reject it now: its request would be read in vain, or its
    /// model loaded.
    pub(crate) fn reject_early(
        &self,
        options: TaskOptions,
        may_stream: bool,
        function: impl FnOnce() -> String,
    ) -> Option<Rejection> {
        let pool = self.shared();
        if may_stream && pool.is_full_of_streams() {
            return Some(self.count_rejected(Reason::StreamsFull, function));
        }
        let (_, offer) = self.offer_of(options, false);
        let (rejected, effects) = pool.dispatch.reject_early(pool.now(), offer);
        worker::perform(pool, effects);
        let (reason, retry_after) = rejected?;
        worker::changed(pool);
        self.log_rejection(reason, function);
        Some(pool.rejection(reason, retry_after))
    }

    /// The options of a task that is submitted here, and what admission is offered.
    fn offer_of(&self, asked: TaskOptions, patient: bool) -> (TaskOptions, Offer) {
        let group = &self.shared().plan.group;
        let parent = local::with_current_task(|task| {
            let head = task.head();
            (Arc::ptr_eq(&head.pool.plan.group, group), head.handed_on())
        });
        let options = parent.map_or(asked, |(_, parent)| asked.inherit(&parent));
        let offer = Offer {
            deadline: options.deadline.map(|deadline| group.timestamp_of(deadline.moment())),
            level: options.priority.unwrap_or_default(),
            caller: options.caller.map(Caller::id),
            patient,
            accepted: parent.is_some_and(|(is_of_group, _)| is_of_group),
            may_ride: self.is_current(),
        };
        (options, offer)
    }

    /// Waits until a patient task would be admitted, or the pool drains.
    pub(crate) async fn room(&self) {
        let pool = self.shared();
        let notified = pool.has_room.notified();
        let waits = WaitsForRoom::begin(pool);
        // A drain that began before `notified` was made has notified nobody here.
        if !pool.dispatch.is_draining() {
            notified.await;
        }
        drop(waits);
    }

    /// Counts and logs a task that is rejected before it is offered, or whose client left before.
    pub(crate) fn count_rejected(&self, reason: Reason, function: impl FnOnce() -> String) -> Rejection {
        let pool = self.shared();
        pool.dispatch.count_rejected(reason);
        self.log_rejection(reason, function);
        worker::changed(pool);
        pool.rejection(reason, Duration::ZERO)
    }

    fn log_rejection(&self, reason: Reason, function: impl FnOnce() -> String) {
        if self.plan().verbose {
            shielded(|| task::log_rejection(self.name(), reason, &function()));
        }
    }

    /// Rejects every further task. Tasks that are queued or in flight are finished.
    pub(crate) fn drain(&self) {
        self.shared().dispatch.drain();
        shielded(|| self.shared().has_room.notify_waiters());
    }

    /// Whether no task is queued, and at most `except` tasks are in flight. If not, `waker` is woken once that is so.
    pub(crate) fn poll_idle(&self, except: usize, waker: &Waker) -> bool {
        self.shared().dispatch.poll_idle(except, waker)
    }

    /// Rejects all queued tasks because the pool drains, and notifies those in flight that they are cut off. Returns
    /// how many were queued.
    pub(crate) fn cut_off(&self) -> u64 {
        let pool = self.shared();
        pool.cut_off.give();
        let effects = pool.dispatch.reject_all(pool.now(), Reason::Draining);
        let queued = effects.rejected.len() as u64;
        worker::perform(pool, effects);
        queued
    }

    /// Makes the workers end as soon as they find no task.
    pub(crate) fn close(&self) {
        close(self.shared());
    }

    /// Publishes the pool's numbers to the metrics recorder of the application.
    pub(crate) fn publish(&self, guard: &PublishGuard) {
        publish::publish(self.shared(), guard);
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.open.shared
    }
}

fn close(pool: &Shared) {
    for thread in pool.dispatch.close() {
        thread.unpark();
    }
}

/// The outcome of a task whose value says nothing about success.
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
