//! The state that a pool's handles, workers and tasks share.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::batches::Batches;
use super::context::ContextHooks;
use super::dispatch::{Dispatch, Instantaneous};
use super::group::{Group, Member, Membership};
use super::holdings::{HoldingStats, Holdings};
use super::load_meter::LoadMeter;
use super::runnable::{CutOff, TaskPool, TaskRef};
use super::stats::PoolStats;
use super::streams::Streams;
use super::task_log::RunningTasks;
use super::waits::Waits;
use crate::admission::{Settings, Timestamp};
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
use crate::budget::Budget;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
use crate::config::Cores;
use crate::config::{BatchSettings, BodyPolicy, Trust};
use crate::error::{Reason, Rejection};
use crate::load::PoolLoad;
#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
use crate::load::Scale;
use crate::metrics::TaskTimes;
use crate::timer::Earliest;
use crate::workload::Workload;

/// The state of one pool.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dispatch: Dispatch<TaskRef>,
    pub(crate) plan: Plan,
    /// Tells pools apart, also those of the same name.
    pub(crate) id: u64,
    pub(super) membership: Membership,
    pub(super) running: RunningTasks,
    /// The timer that rejects queued tasks at their deadline or queue timeout.
    pub(super) expiry: Earliest,
    /// Wakes tasks that wait outside of the queue.
    pub(super) has_room: Notify,
    pub(super) cut_off: CutOff,
    pub(super) streams: Streams,
    pub(super) batches: Batches,
    pub(super) load: LoadMeter,
    pub(super) holdings: Holdings,
    pub(super) waits: Waits,
    stream_times: Mutex<TaskTimes>,
    pub(super) start_failed: AtomicBool,
    /// A publication of the metrics is due.
    pub(super) publication_due: AtomicBool,
    /// Whether the last publication found the pool overloaded.
    pub(super) overloaded: AtomicBool,
}

/// The settings of a pool.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: Workload,
    pub(crate) workers: usize,
    pub(crate) admission: Settings,
    pub(crate) keep_alive: Duration,
    pub(crate) nice: Option<i32>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) trust: Trust,
    pub(crate) verbose: bool,
    pub(crate) group: Arc<Group>,
    /// The pool's share of the group's cores.
    pub(crate) share: u32,
    pub(crate) hooks: Hooks,
    pub(crate) body: BodyPolicy,
    pub(crate) batch: BatchSettings,
    /// 0 sets no limit.
    pub(crate) max_streams: usize,
}

/// The application's hooks, which workers call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) context: ContextHooks,
    pub(crate) worker: WorkerHooks,
}

/// Hooks that a worker calls when its thread has started, and before it ends.
#[derive(Clone, Default)]
pub(crate) struct WorkerHooks {
    pub(crate) on_start: Option<Arc<dyn Fn() + Send + Sync>>,
    pub(crate) on_stop: Option<Arc<dyn Fn() + Send + Sync>>,
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
impl Plan {
    /// A `cpu` pool for tests.
    pub(super) fn of_one_worker() -> Self {
        Self {
            name: Workload::CPU,
            workers: 1,
            admission: Settings::fixed(1),
            keep_alive: Duration::from_secs(1),
            nice: None,
            stack_size: None,
            trust: Trust::default(),
            verbose: false,
            group: Group::new(Cores::Auto, Arc::default(), Budget::new(0), Scale::default()),
            share: 1,
            hooks: Hooks::default(),
            body: BodyPolicy::default(),
            batch: BatchSettings::default(),
            max_streams: 0,
        }
    }
}

impl Shared {
    pub(super) fn new(plan: Plan) -> Arc<Self>
    where
        Self: Member,
    {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            dispatch: Dispatch::new(plan.admission, id, plan.workers),
            membership: plan.group.join(plan.share, this.clone()),
            load: LoadMeter::new(plan.group.now()),
            stream_times: Mutex::new(TaskTimes::of(&plan.name)),
            plan,
            id,
            running: RunningTasks::default(),
            expiry: Earliest::default(),
            has_room: Notify::new(),
            cut_off: CutOff::default(),
            streams: Streams::default(),
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
        self.plan.max_streams > 0 && self.streams.open() >= self.plan.max_streams
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
        Rejection::new(self.name().clone(), reason, helps.then_some(retry_after))
    }

    /// The pool's numbers, its running tasks, its slots and its models.
    pub(super) fn stats(&self) -> PoolStats {
        let now = self.now();
        PoolStats { active_tasks: self.running.list(now), holdings: self.holdings.read(), ..self.numbers() }
    }

    /// The pool's load.
    pub(super) fn load(&self) -> PoolLoad {
        let measured = self.load.read(self.now(), &self.dispatch, self.plan.group.cores());
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
            streams: self.streams.open(),
            streams_limit: self.plan.max_streams,
            stream_buffered_bytes: self.streams.buffered(),
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

impl TaskPool for Shared {
    fn name(&self) -> &Workload {
        &self.plan.name
    }

    fn now(&self) -> Timestamp {
        self.plan.group.now()
    }

    fn cut_off(&self) -> &CutOff {
        &self.cut_off
    }

    fn body_policy(&self) -> &BodyPolicy {
        &self.plan.body
    }

    fn streams(&self) -> &Streams {
        &self.streams
    }

    fn batches(&self) -> &Batches {
        &self.batches
    }

    fn stream_times(&self) -> &Mutex<TaskTimes> {
        &self.stream_times
    }

    fn draining(&self) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(self.plan.group.drain.announced())
    }
}

impl fmt::Debug for WorkerHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHooks").finish_non_exhaustive()
    }
}
