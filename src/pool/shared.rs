//! The state of a pool, which its handles, workers and tasks share, and a task of any type. Each refers to the other.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;

use super::plan::Plan;
use crate::admission::{Finish, Key, Outcome, Timestamp};
use crate::config::BodyPolicy;
use crate::cores::{Member, Membership};
use crate::dispatch::{Admit, Dispatch, Instantaneous};
use crate::error::{Reason, Rejection};
use crate::load::{LoadMeter, PoolLoad};
use crate::metrics::batches::Batches;
use crate::metrics::holdings::{HoldingStats, Holdings};
use crate::metrics::stats::PoolStats;
use crate::metrics::waits::Waits;
use crate::metrics::{self, TaskTimes};
use crate::options::TaskOptions;
use crate::signal::Signal;
use crate::task::{Batch, Continuation, ItemHead, LogEntry, RunningTasks, TaskState};
use crate::terms::Deadline;
use crate::timer::{Alarm, Earliest};
use crate::workload::Workload;

/// When a caller should come again that was rejected because too many streams are open: nobody knows when one of them
/// ends.
const STREAM: Duration = Duration::from_secs(1);

/// The state of one pool.
pub(crate) struct Shared {
    pub(crate) dispatch: Dispatch<TaskRef>,
    pub(crate) plan: Plan,
    /// Tells pools apart, also those of the same name.
    pub(super) id: u64,
    pub(super) membership: Membership,
    pub(super) running: RunningTasks,
    /// The timer that rejects queued tasks at their deadline or queue timeout.
    pub(super) expiry: Earliest,
    /// Wakes tasks that wait outside of the queue.
    pub(super) has_room: Notify,
    /// Notifies the tasks that a shutdown cuts them off.
    pub(crate) cut_off: Signal,
    /// The responses whose body is open after its head, and the bytes of their frames that wait for readers.
    pub(crate) streams: AtomicUsize,
    pub(crate) stream_bytes: AtomicUsize,
    pub(crate) batches: Batches,
    pub(super) load: LoadMeter,
    pub(super) holdings: Holdings,
    pub(super) waits: Waits,
    /// The histograms of the streams that no worker polls.
    pub(crate) stream_times: Mutex<TaskTimes>,
    pub(super) start_failed: AtomicBool,
    /// A publication of the metrics is due.
    pub(super) publication_due: AtomicBool,
    /// Whether the last publication found the pool overloaded.
    pub(super) overloaded: AtomicBool,
}

/// A task of any type.
pub(crate) type TaskRef = Arc<dyn AnyTask>;

/// A task that a worker can poll.
pub(crate) trait AnyTask: Send + Sync {
    /// The part of the task that does not depend on its type.
    fn head(&self) -> &Head;

    fn waker(self: Arc<Self>) -> Waker;

    /// Polls the task once, unless another thread polls or polled it. `now` is the time of the call.
    ///
    /// If the future ended, its content has been dropped, and so has its value if no caller waits for it.
    fn poll(self: Arc<Self>, now: Timestamp) -> Polled;

    /// Begins a task that rides in a batch, as its first poll would. Its future is not polled, because it has nothing to do
    /// before its result is there.
    fn begin(&self, now: Timestamp) -> Polled;

    /// Makes the answer of a task that ended readable, and wakes the caller. Called after the permit was released.
    ///
    /// This drops the reference before it wakes the caller, so that the caller usually has the last one.
    fn give_answer(self: Arc<Self>);

    /// Ends a queued task without starting it. Its caller gets `rejection`, and is woken.
    fn reject(&self, rejection: Rejection);

    /// Drops the future of a task that was rejected, or cancelled while it was queued.
    fn discard(&self);

    /// Ends a task in flight because the pool has no worker, and drops its future. `Stale` if the task is idle or has ended,
    /// or another thread polls it.
    fn abandon(&self) -> Polled;
}

/// The result of a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// The task ended with this outcome, and began at this time if it started. The worker releases its permit.
    Ended(Outcome, Option<Timestamp>),
    /// The task waits for a wake-up.
    Pending,
    /// The task was woken during the poll.
    Woken,
    /// Another thread polled the task before.
    Stale,
}

/// The part of a task that does not depend on its type.
pub(crate) struct Head {
    pub(crate) state: TaskState,
    pub(crate) pool: Arc<Shared>,
    pub(crate) submitted: Timestamp,
    /// The options that are inherited by tasks that this one submits.
    pub(crate) options: TaskOptions,
    /// The task's key in the pool's admission, once it was admitted; 0 before. Other threads find the task under the
    /// pool's lock, after it was stored.
    pub(super) key: AtomicU64,
    /// The alarm that marks the task late at its deadline. The first `checkpoint` sets it.
    pub(crate) deadline_alarm: OnceLock<Alarm>,
    /// Present while tasks are logged.
    pub(super) log: Option<Arc<LogEntry>>,
    /// The policy for the body of the response, if it is not the pool's.
    pub(crate) body: Option<Arc<BodyPolicy>>,
    /// Its answer is a response, which may open a stream.
    pub(super) may_stream: bool,
    pub(crate) continuation: Continuation,
    /// Whether the task has panicked: what its future holds is in a state that is not known.
    pub(crate) panicked: AtomicBool,
    /// Present in a task that can share its permit with others.
    pub(crate) item: Option<Box<ItemHead>>,
}

impl Shared {
    pub(super) fn new(plan: Plan) -> Arc<Self>
    where
        Self: Member,
    {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        metrics::begin(&plan.name);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            dispatch: Dispatch::new(plan.admission, id, plan.workers),
            membership: plan.group.cores.join(plan.share, this.clone()),
            load: LoadMeter::new(plan.group.now()),
            stream_times: Mutex::new(TaskTimes::of(&plan.name)),
            plan,
            id,
            running: RunningTasks::default(),
            expiry: Earliest::default(),
            has_room: Notify::new(),
            cut_off: Signal::default(),
            streams: AtomicUsize::new(0),
            stream_bytes: AtomicUsize::new(0),
            batches: Batches::default(),
            holdings: Holdings::default(),
            waits: Waits::default(),
            start_failed: AtomicBool::new(false),
            publication_due: AtomicBool::new(false),
            overloaded: AtomicBool::new(false),
        })
    }

    pub(crate) const fn name(&self) -> &Workload {
        &self.plan.name
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.plan.group.now()
    }

    /// Whether as many streams are open as may be.
    pub(super) fn is_full_of_streams(&self) -> bool {
        self.plan.max_streams > 0 && self.streams.load(Ordering::Relaxed) >= self.plan.max_streams
    }

    /// A rejection for `reason`. It says when to try again, if another attempt may succeed.
    pub(super) fn rejection(&self, reason: Reason, retry_after: Duration) -> Rejection {
        let helps = matches!(
            reason,
            Reason::QueueFull
                | Reason::QueueTimeout
                | Reason::Shed
                | Reason::StreamsFull
                | Reason::Draining
                | Reason::NoWorkers
        );
        let retry_after = if reason == Reason::StreamsFull { retry_after.max(STREAM) } else { retry_after };
        Rejection::new(self.name().clone(), reason, helps.then_some(retry_after))
    }

    /// The pool's numbers, its running tasks, its slots and its models.
    pub(super) fn stats(&self) -> PoolStats {
        let now = self.now();
        PoolStats { active_tasks: self.running.list(now), holdings: self.holdings.read(), ..self.numbers() }
    }

    /// The pool's load.
    pub(super) fn load(&self) -> PoolLoad {
        let now = self.now();
        let measured = self.load.read(now, self.plan.group.cores.count(), || self.dispatch.demand(now));
        PoolLoad::new(self.name().clone(), measured)
    }

    /// The pool's numbers alone.
    pub(super) fn numbers(&self) -> PoolStats {
        let Instantaneous { admission, overloaded, draining, workers, workers_max, active, oldest_wait, mean_run } =
            self.dispatch.instant(self.now());
        PoolStats {
            name: self.name().clone(),
            workers,
            max_workers: workers_max,
            active_threads: active,
            in_flight: admission.in_flight,
            permits_in_use: admission.permits,
            concurrency_limit: admission.limit,
            queued_tasks: admission.queued,
            queue_capacity: admission.capacity,
            oldest_wait,
            mean_run,
            streams: self.streams.load(Ordering::Relaxed),
            streams_limit: self.plan.max_streams,
            stream_buffered_bytes: self.stream_bytes.load(Ordering::Relaxed),
            overloaded,
            draining,
            load_ratio: self.load().ratio,
            counts: admission.counts,
            batches: self.batches.counts(),
            active_tasks: Vec::new(),
            holdings: HoldingStats::default(),
        }
    }
}

// === impl Head ===

impl Head {
    /// `None` before the task was admitted.
    pub(super) fn key(&self) -> Option<Key> {
        Key::of_bits(self.key.load(Ordering::Relaxed))
    }

    /// The deadline on the pool's clock.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.options.deadline.map(|deadline| self.pool.plan.group.timestamp_of(deadline.moment()))
    }

    /// The end of the task, for admission.
    pub(super) fn finish(&self, outcome: Outcome, ran: Option<Duration>) -> Finish {
        let batch = self.batch().map(|batch| batch.permit);
        Finish { outcome, ran, reader: self.continuation.reader_time(), batch }
    }

    /// Whether a task that starts now would end after its deadline, as far as that is known.
    pub(super) fn starts_too_late(&self, now: Timestamp) -> bool {
        let Some(deadline) = self.deadline() else { return false };
        deadline <= now || self.item.as_ref().is_some_and(|item| item.is_late(now, deadline))
    }

    /// The deadline after which its code should stop: that of its batch, if it is in one.
    pub(crate) fn end_deadline(&self) -> Option<Deadline> {
        self.handed_on().deadline
    }

    /// The options that the tasks inherit which its code submits: those of its batch, if it is in one.
    pub(super) fn handed_on(&self) -> TaskOptions {
        self.batch().map_or(self.options, |batch| batch.options)
    }

    /// Calls `write` for the log entry of a task that ends, with the time that it has run if it has started.
    pub(super) fn log_end(&self, began: Option<Timestamp>, write: impl FnOnce(&LogEntry, &Workload, Option<Duration>)) {
        let Some(log) = &self.log else { return };
        if began.is_some() {
            self.pool.running.ended(log);
        }
        write(log, self.pool.name(), began.map(|began| self.pool.now().since(began)));
    }

    /// Its batch, once that has started.
    fn batch(&self) -> Option<&Batch> {
        self.item.as_ref()?.batch.get()
    }
}

impl Admit for TaskRef {
    fn admitted(&self, key: Key, id: u64) {
        let head = self.head();
        head.key.store(key.to_bits(), Ordering::Relaxed);
        if let Some(log) = &head.log {
            log.id.store(id, Ordering::Relaxed);
        }
    }
}
