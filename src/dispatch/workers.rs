//! The workers of a pool: their states, and the choice of the worker that is woken or started next.
//!
//! The pool's lock protects all of this. `dispatch.rs` describes the wake-up protocol.
//!
//! # How many workers wake at a time
//!
//! A wake-up is the most expensive thing that a pool does: it takes two system calls, and the woken thread competes
//! with its waker for a core. So while one worker could finish the waiting tasks within [`LONG_BACKLOG`], one worker
//! wakes at a time. When it arrives, it wakes the next one if more tasks wait than workers are coming for. A longer
//! backlog wakes as many workers at once as there are cores.
//!
//! A worker whose task ended, and that found no other task, first wakes the caller and then looks for a task *once
//! more* before it parks. No other worker is woken for the task that this caller submits next.

use std::time::Duration;

use crate::admission::Timestamp;
use crate::cores::{Allot, AwakeLimit, Report, Sampled};
use crate::sync::{Thread, current};
use crate::thread_state::{self, ThreadId};
use crate::threads::START_BACKOFF;

/// The time that one worker would need for the waiting tasks from which on several workers wake at once.
const LONG_BACKLOG: Duration = Duration::from_micros(100);

/// How many awake workers a sample has at most. The others are assumed to be like them.
const SAMPLE: usize = 64;

/// The number of a worker in its pool, from zero.
pub(crate) type WorkerId = usize;

/// The workers of a pool.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// The stack of parked workers. The last one to park is woken first, so a light load touches few threads.
    parked: Vec<WorkerId>,
    pub(super) max: usize,
    limit: AwakeLimit,
    /// Whether the sampler runs.
    sampled: bool,
    /// The worker with which the next sample begins, if a sample cannot have all workers.
    sample_from: WorkerId,
    pub(super) present: usize,
    /// How many workers are woken or started, and have not arrived yet.
    waking: usize,
    /// How many of these are started. Before a thread arrives, it calls a hook of the application, which may take long.
    starting: usize,
    /// How many workers found no task, and will look once more before they park.
    rechecking: usize,
    pub(super) active: usize,
    /// The time of all polls that have ended.
    poll_time: Duration,
    /// After a thread could not be started, no other start is tried before this time.
    start_blocked_until: Timestamp,
}

/// A worker, or the place of one that does not exist.
#[derive(Debug, Default)]
struct Worker {
    is_present: bool,
    /// Known once the thread runs.
    thread: Option<Thread>,
    id: Option<ThreadId>,
    parked: bool,
    rechecking: bool,
    /// The time at which it began to poll its task; `None` while it polls none.
    polling_since: Option<Timestamp>,
}

/// The worker to wake after the lock has been released.
#[derive(Debug, Default)]
pub(crate) enum Wake {
    #[default]
    Nobody,
    Unpark(Thread),
    /// Start a thread for this worker.
    Start(WorkerId),
}

impl Workers {
    pub(super) fn new(max: usize) -> Self {
        Self {
            workers: Vec::new(),
            parked: Vec::new(),
            max,
            limit: AwakeLimit::new(max),
            sampled: false,
            sample_from: 0,
            present: 0,
            waking: 0,
            starting: 0,
            rechecking: 0,
            active: 0,
            poll_time: Duration::ZERO,
            start_blocked_until: Timestamp::from_nanos(0),
        }
    }

    /// Chooses a worker to wake or start for `waiting` tasks, unless enough workers are coming or no other may be
    /// awake.
    pub(super) fn wake(&mut self, now: Timestamp, waiting: usize) -> Wake {
        // A parked worker does not wait for a thread that starts.
        let waking = if self.parked.is_empty() { self.waking } else { self.waking - self.starting };
        if waiting <= waking + self.rechecking || waking >= self.max_waking(waiting) || !self.may_wake_another() {
            return Wake::Nobody;
        }
        if let Some(thread) = self.pop_parked() {
            return Wake::Unpark(thread);
        }
        // A pool without any worker always tries to start one. If that fails, the waiting tasks are rejected.
        if self.present >= self.max || (self.present > 0 && now < self.start_blocked_until) {
            return Wake::Nobody;
        }
        let free = self.workers.iter().position(|worker| !worker.is_present).unwrap_or(self.workers.len());
        if free == self.workers.len() {
            self.workers.push(Worker::default());
        }
        self.workers[free].is_present = true;
        self.present += 1;
        self.waking += 1;
        self.starting += 1;
        Wake::Start(free)
    }

    fn max_waking(&self, waiting: usize) -> usize {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        if self.limit.mean_poll_time().saturating_mul(waiting) < LONG_BACKLOG { 1 } else { self.limit.cores().max(1) }
    }

    pub(super) fn unpark_all(&mut self) -> Vec<Thread> {
        std::iter::from_fn(|| self.pop_parked()).collect()
    }

    fn pop_parked(&mut self) -> Option<Thread> {
        let top = self.parked.pop()?;
        let worker = &mut self.workers[top];
        worker.parked = false;
        self.waking += 1;
        worker.thread.clone()
    }

    /// The worker's thread has started.
    pub(super) fn started(&mut self, worker: WorkerId) {
        let worker = &mut self.workers[worker];
        (worker.thread, worker.id) = (Some(current()), thread_state::current());
        self.waking -= 1;
        self.starting -= 1;
    }

    /// The worker found no task. It wakes the caller of its last task, and then looks once more.
    pub(super) fn will_recheck(&mut self, worker: WorkerId) {
        self.workers[worker].rechecking = true;
        self.rechecking += 1;
    }

    /// The worker looks for a task once more.
    pub(super) fn rechecked(&mut self, worker: WorkerId) {
        self.rechecking -= usize::from(std::mem::take(&mut self.workers[worker].rechecking));
    }

    /// The worker is about to park.
    pub(super) fn park(&mut self, worker: WorkerId) {
        self.workers[worker].parked = true;
        self.parked.push(worker);
    }

    /// The worker's park returned. Whether another thread woke it; if not, its keep-alive ended or the wake-up was
    /// spurious. It is not parked any more in either case.
    pub(super) fn unparked(&mut self, worker: WorkerId) -> bool {
        let woken = !std::mem::take(&mut self.workers[worker].parked);
        if woken {
            self.waking -= 1;
        } else {
            self.parked.retain(|&other| other != worker);
        }
        woken
    }

    /// The worker's thread could not be started.
    pub(super) fn start_failed(&mut self, now: Timestamp, worker: WorkerId) {
        self.waking -= 1;
        self.starting -= 1;
        self.start_blocked_until = now + START_BACKOFF;
        self.leave(worker);
    }

    /// The time before which no start is tried, because the last one failed.
    pub(super) fn start_blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.start_blocked_until).then_some(self.start_blocked_until)
    }

    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.workers[worker] = Worker::default();
        self.present -= 1;
    }

    /// The worker begins to poll a task.
    pub(super) fn begin_poll(&mut self, worker: WorkerId, now: Timestamp) {
        self.active += 1;
        self.workers[worker].polling_since = Some(now);
    }

    /// The worker has polled its task.
    pub(super) fn end_poll(&mut self, worker: WorkerId, now: Timestamp) {
        self.active -= 1;
        if let Some(since) = self.workers[worker].polling_since.take() {
            let time = now.since(since);
            self.poll_time += time;
            self.limit.record_poll(time);
        }
    }

    /// The worker did not poll the task that it took.
    pub(super) fn abort_poll(&mut self, worker: WorkerId) {
        self.active -= 1;
        self.workers[worker].polling_since = None;
    }

    /// Whether the awake limit allows a worker for one more task than those that are polled and those that are `ready`.
    pub(super) fn has_worker_for_another(&self, ready: usize) -> bool {
        self.active + ready < self.limit.current()
    }

    /// Whether one more worker may be awake.
    fn may_wake_another(&self) -> bool {
        self.awake() < self.limit.current()
    }

    /// Whether more workers are awake than the awake limit allows. A worker that asks for a task then gets none.
    pub(super) fn exceeds_limit(&self) -> bool {
        self.awake() > self.limit.current()
    }

    /// Whether the caller must start the sampler. True once, until the sampler has stopped. `waiting` tasks wait for a
    /// worker.
    pub(super) fn starts_sampler(&mut self, waiting: usize) -> bool {
        let starts = thread_state::IS_KNOWN && !self.sampled && self.limit.is_worth_sampling(self.awake(), waiting);
        self.sampled |= starts;
        starts
    }

    /// A report, if there is something that the budget of cores must know.
    pub(super) fn report(&mut self, waiting: usize) -> Option<Report> {
        self.limit.report(self.awake(), self.unattended(waiting))
    }

    /// The report for a tick of the budget.
    pub(super) fn status(&mut self, waiting: usize) -> Report {
        self.limit.status(self.awake(), self.unattended(waiting))
    }

    /// Applies a message of the budget. The caller sends the report, if there is one, to the budget.
    pub(super) fn apply(&mut self, allot: Allot, waiting: usize) -> Option<Report> {
        self.limit.apply(allot, self.awake(), self.unattended(waiting))
    }

    /// Whether the sampler should sample the workers before a tick of the budget.
    pub(super) fn may_hold_unused_cores(&self) -> bool {
        thread_state::IS_KNOWN && self.limit.may_hold_unused_cores(self.awake())
    }

    /// How many of the `waiting` tasks no worker is coming for.
    fn unattended(&self, waiting: usize) -> usize {
        waiting.saturating_sub(self.waking + self.rechecking)
    }

    /// Sets the number of cores of a pool without a budget.
    #[cfg(test)]
    pub(super) fn set_cores(&mut self, cores: usize) {
        self.limit.set_cores(cores);
    }

    /// The awake workers, or some of them if they are many: each call continues where the last one ended. Of each, its
    /// thread and the time at which it began to poll its task. And how many workers are awake.
    pub(super) fn sample(&mut self) -> (Vec<(ThreadId, Option<Timestamp>)>, usize) {
        let count = self.workers.len();
        let order = (0..count).map(|step| (self.sample_from + step) % count);
        let mut sample = Vec::new();
        let mut last = None;
        for worker in order {
            if sample.len() == SAMPLE {
                break;
            }
            if let Worker { id: Some(thread), parked: false, polling_since, .. } = self.workers[worker] {
                sample.push((thread, polling_since));
                last = Some(worker);
            }
        }
        self.sample_from = last.map_or(0, |last| last + 1);
        (sample, self.awake())
    }

    /// The threads of the workers, as far as the kernel shows them.
    pub(super) fn threads(&self) -> Vec<ThreadId> {
        self.workers.iter().filter_map(|worker| worker.id).collect()
    }

    /// The same for the workers that poll a task.
    #[cfg(feature = "dashboard")]
    pub(super) fn polling_threads(&self) -> Vec<ThreadId> {
        let polling = self.workers.iter().filter(|worker| worker.polling_since.is_some());
        polling.filter_map(|worker| worker.id).collect()
    }

    /// The time of all polls, those that go on included.
    pub(super) fn poll_time(&self, now: Timestamp) -> Duration {
        let polling = self.workers.iter().filter_map(|worker| worker.polling_since);
        self.poll_time + polling.map(|since| now.since(since)).sum::<Duration>()
    }

    /// Adjusts the awake limit to a sample of the workers. The sampler took it or, if `for_tick`, a tick of the budget.
    /// The result is the time until the sampler's next sample, if one is needed. `waiting` tasks wait for a worker.
    /// `runnable_per_core` is the number of runnable workers of all pools for each core.
    pub(super) fn observe(
        &mut self,
        now: Timestamp,
        sample: &[Sampled],
        waiting: usize,
        runnable_per_core: usize,
        for_tick: bool,
    ) -> Option<Duration> {
        let next = self.limit.observe(now, sample, self.awake(), self.unattended(waiting), runnable_per_core);
        // A tick neither starts nor ends the sampler, which may run or not.
        if !for_tick {
            self.sampled = next.is_some();
        }
        next
    }

    #[cfg(test)]
    pub(super) fn lower_limit(&mut self) {
        let runnable = vec![Sampled { runnable: true, since: None }; self.max.max(1)];
        self.limit.observe(Timestamp::from_nanos(0), &runnable, self.max, 1, 1);
    }

    /// How many workers are waking, and how many will look for a task once more.
    #[cfg(test)]
    pub(super) fn coming(&self) -> (usize, usize) {
        (self.waking, self.rechecking)
    }

    fn awake(&self) -> usize {
        self.present - self.parked.len()
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
