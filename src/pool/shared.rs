//! What a pool's handles, workers and jobs have in common, and what is done when its lock has been released.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::crew::Call;
use super::dispatch::{After, Dispatch, From, Instantaneous};
use super::job::Work;
use super::publish::Publisher;
use super::stats::PoolStats;
use super::task::Task;
use super::watch::Watch;
use super::worker;
use crate::admission::{Evicted as Gone, Key, Outcome, Settings, Timestamp as Moment};
use crate::config::Trust;
use crate::error::{Cause, Rejection};
use crate::metrics::{self, JobTimes, Turn};
use crate::shield::shielded;
use crate::threads;
use crate::timer::{self, Alarm, Timer};
use crate::workload::Workload;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Workload,
    /// Tells pools apart, also those of the same name.
    pub(crate) id: u64,
    pub(crate) verbose: bool,
    pub(super) trust: Trust,
    pub(super) dispatch: Dispatch<Work>,
    times: JobTimes,
    origin: Instant,
    keep_alive: Duration,
    nice: Option<i32>,
    start_failed: AtomicBool,
    publisher: Arc<Publisher>,
    watch: Arc<Watch>,
    /// Ends the waiting of queued jobs. What they leave is dropped on its thread, so it is this pool's alone.
    timer: Timer,
    this: Weak<Self>,
}

/// What a pool is made of.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: Workload,
    pub(crate) workers: usize,
    pub(crate) admission: Settings,
    pub(crate) keep_alive: Duration,
    pub(crate) nice: Option<i32>,
    pub(crate) trust: Trust,
    pub(crate) verbose: bool,
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
            trust: Trust::default(),
            verbose: false,
        }
    }
}

impl Shared {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new_cyclic(|this| Self {
            id,
            verbose: plan.verbose,
            trust: plan.trust,
            dispatch: Dispatch::new(plan.admission, id, plan.workers, cores),
            times: JobTimes::of(&plan.name),
            origin: Instant::now(),
            keep_alive: plan.keep_alive,
            nice: plan.nice,
            start_failed: AtomicBool::new(false),
            publisher: Publisher::new(this.clone()),
            watch: Watch::new(this.clone()),
            timer: Timer::new(format!("offload-timer-{}", plan.name)),
            this: this.clone(),
            name: plan.name,
        })
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::default() + self.origin.elapsed()
    }

    pub(super) fn stats(&self) -> PoolStats {
        let now = self.now();
        let (instant, tasks) = self.dispatch.instant_with_tasks(now);
        let mut active_tasks: Vec<_> =
            tasks.into_iter().map(|(began, task)| task.active_for(now.since(began))).collect();
        active_tasks.sort_by_key(|task| task.task_id);
        PoolStats { active_tasks, ..self.stats_of(instant) }
    }

    /// The same without the tasks, which may be many.
    pub(super) fn numbers(&self) -> PoolStats {
        self.stats_of(self.dispatch.instant(self.now()))
    }

    fn stats_of(&self, instant: Instantaneous) -> PoolStats {
        let Instantaneous { admission, overloaded, draining, workers, workers_max, busy } = instant;
        PoolStats {
            name: self.name.clone(),
            workers,
            max_workers: workers_max,
            active_threads: busy,
            in_flight: admission.in_flight,
            concurrency_limit: admission.limit,
            queued_tasks: admission.queued,
            queue_capacity: admission.capacity,
            overloaded,
            draining,
            counts: admission.counts,
            active_tasks: Vec::new(),
        }
    }

    /// Brings the numbers of this instant to the recorder of the metrics.
    pub(super) fn publish(&self, _turn: &Turn) {
        self.times.refresh();
        metrics::publish(&self.numbers().reading());
    }

    /// The numbers have changed.
    pub(super) fn touched(&self) {
        shielded(|| self.publisher.touch());
        timer::retry();
    }

    /// A job in flight wants to be polled again.
    pub(super) fn ready(&self, work: Work, by_itself: bool) {
        let after = self.dispatch.ready(self.now(), work, by_itself);
        self.settle(after);
    }

    pub(super) fn next(&self, seat: usize, from: From) -> Option<Work> {
        self.dispatch.next(seat, from, self.keep_alive, || self.now(), |after| self.settle(after))
    }

    pub(super) fn began(&self, key: Key, now: Moment, waited: Duration, task: Option<&Task>) {
        shielded(|| self.times.record_wait(waited));
        if let Some(task) = task {
            self.dispatch.began(key, now, task.clone());
        }
    }

    pub(super) fn finish(&self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) {
        let after = self.dispatch.finish(now, key, outcome, ran);
        self.settle(after);
        self.ran(ran);
    }

    pub(super) fn finish_on_worker(&self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) {
        let (next, after) = self.dispatch.finish_and_take(worker::seat(), now, key, outcome, ran);
        match next {
            Some((work, outlook)) => worker::keep(work, outlook),
            // What is settled may take its time.
            None if !after.is_empty() => worker::tell_all(),
            None => {}
        }
        self.settle(after);
        self.ran(ran);
    }

    /// Takes a queued job out that ends like this.
    pub(super) fn cancel(&self, key: Key, outcome: Outcome) {
        let (job, after) = self.dispatch.cancel(self.now(), key, outcome);
        self.settle(after);
        if let Some(job) = job {
            job.metadata().log_refusal();
        }
        self.touched();
    }

    pub(super) fn rejection(&self, cause: Cause) -> Rejection {
        let retry =
            matches!(cause, Cause::QueueFull | Cause::QueueTimeout | Cause::Shed | Cause::Draining | Cause::NoWorkers)
                .then(|| self.dispatch.retry_after(self.now()));
        Rejection::new(self.name.clone(), cause, retry)
    }

    pub(super) fn renice(&self) {
        if let Some(nice) = self.nice
            && let Err(error) = threads::renice(nice)
        {
            shielded(|| {
                tracing::warn!(
                    target: "tower_offload",
                    pool = %self.name, %error,
                    "a worker could not be given nice {nice}"
                );
            });
        }
    }

    /// Lets the workers end once they find nothing to do.
    pub(super) fn close(&self) {
        for thread in self.dispatch.close() {
            thread.unpark();
        }
    }

    /// Does what has to be done without the lock: first what the pool needs, then what runs code of the application.
    pub(super) fn settle(&self, after: After<Work>) {
        if after.is_empty() {
            return;
        }
        let After { call, gone, watchers, arm, watch } = after;
        self.call(call);
        if watch {
            shielded(|| self.watch.begin());
        }
        if let Some(at) = arm.and_then(|at| self.instant_of(at)) {
            let this: Weak<Self> = self.this.clone();
            shielded(|| self.timer.arm_only(at, this));
        }
        for gone in gone {
            Self::send_off(&gone);
        }
        for watcher in watchers {
            shielded(|| watcher.wake());
        }
    }

    fn call(&self, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Unpark(thread) => thread.unpark(),
            Call::Start(seat) => self.start(seat),
        }
    }

    fn start(&self, seat: usize) {
        let Some(this) = self.this.upgrade() else { return };
        let Err(error) = worker::start(this, seat) else { return };
        let (ready, after) = self.dispatch.start_failed(self.now(), seat);
        self.settle(after);
        for work in ready {
            work.metadata().end(Cause::NoWorkers);
        }
        if !self.start_failed.swap(true, Ordering::Relaxed) {
            let workers = self.dispatch.instant(self.now()).workers;
            shielded(|| {
                tracing::error!(
                    target: "tower_offload",
                    pool = %self.name, workers, %error,
                    "a worker's thread could not be started; the pool goes on with those it has"
                );
            });
        }
    }

    /// Tells the caller of a queued job why it will not start.
    fn send_off(gone: &Gone<Work>) {
        gone.task.metadata().end(gone.cause);
        gone.task.metadata().log_refusal();
    }

    fn ran(&self, ran: Option<Duration>) {
        self.touched();
        if let Some(ran) = ran {
            shielded(|| self.times.record_run(ran));
        }
    }

    /// The pool's own count of an instant; the pool's start for one before it.
    pub(super) fn moment_of(&self, instant: Instant) -> Moment {
        Moment::default() + instant.saturating_duration_since(self.origin)
    }

    /// `None` if it is further than the clock can tell.
    fn instant_of(&self, moment: Moment) -> Option<Instant> {
        self.origin.checked_add(moment.since(Moment::default()))
    }
}

impl Alarm for Shared {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        let after = self.dispatch.expire(self.now());
        self.settle(after);
        None
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.timer.close();
        shielded(|| self.publish(&metrics::turn()));
    }
}
