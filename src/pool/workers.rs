//! The workers of a pool: which exist, which are parked, which poll a task, and which is to be woken or started next.
//!
//! Everything here happens under the lock of `dispatch.rs`, whose wake-up protocol it serves.
//!
//! # How many workers wake at a time
//!
//! A wake-up is the dearest thing that a pool does: two system calls, and a thread that competes for a core with the one
//! that woke it. So while the tasks that wait would take one worker less than [`BACKLOG`], one worker wakes at a time;
//! it wakes the next when it arrives and still finds more to take than workers are coming for. A longer backlog wakes as
//! many workers at once as there are cores. A worker that has ended a task and found no other looks once more after it has
//! told its caller: the caller's next task is left to it.

use std::time::Duration;

use super::active_limit::{ActiveLimit, Sampled, runnable};
use super::allotment::{Allot, Report};
use super::thread_state::{self, ThreadId};
use crate::admission::Timestamp;
use crate::sync::{Thread, current};
use crate::threads::START_BACKOFF;

/// The work, in the time of one worker, from which on workers do not wait for each other to wake.
const BACKLOG: Duration = Duration::from_micros(100);

/// How many active workers a sample has at most. The others are taken to be like them.
const SAMPLE: usize = 64;

/// The number of a worker in its pool, from zero.
pub(super) type WorkerId = usize;

/// The workers of a pool.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Option<Worker>>,
    /// The parked workers, the last one to park on top: a light load touches few threads.
    parked: Vec<WorkerId>,
    pub(super) max: usize,
    limit: ActiveLimit,
    /// The sampler runs.
    sampled: bool,
    /// Where the next sample begins, if it cannot have all workers.
    sample_from: WorkerId,
    pub(super) present: usize,
    waking: usize,
    /// Workers that found no task, and will look once more before they park.
    returning: usize,
    pub(super) active: usize,
    /// No thread could be started; no other start is tried before this time.
    start_blocked_until: Timestamp,
}

#[derive(Debug, Default)]
struct Worker {
    /// Known once the thread runs.
    thread: Option<Thread>,
    id: Option<ThreadId>,
    parked: bool,
    returning: bool,
    /// When it began to poll the task that it has.
    polling_since: Option<Timestamp>,
}

/// A worker to look up in the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awake {
    pub(super) thread: ThreadId,
    polling_since: Option<Timestamp>,
}

/// The worker to wake, once the lock is released.
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
            limit: ActiveLimit::new(max),
            sampled: false,
            sample_from: 0,
            present: 0,
            waking: 0,
            returning: 0,
            active: 0,
            start_blocked_until: Timestamp::from_nanos(0),
        }
    }

    /// Wakes or starts a worker for one of `waiting` tasks, unless enough are coming or none may.
    pub(super) fn wake(&mut self, now: Timestamp, waiting: usize) -> Wake {
        if waiting <= self.waking + self.returning || self.waking >= self.at_once(waiting) || !self.has_room() {
            return Wake::Nobody;
        }
        if let Some(thread) = self.pop_parked() {
            return Wake::Unpark(thread);
        }
        // Without any worker a start is tried in any case: if it fails, the tasks that wait are rejected.
        if self.present >= self.max || (self.present > 0 && now < self.start_blocked_until) {
            return Wake::Nobody;
        }
        let free = self.workers.iter().position(Option::is_none).unwrap_or(self.workers.len());
        if free == self.workers.len() {
            self.workers.push(None);
        }
        self.workers[free] = Some(Worker::default());
        self.present += 1;
        self.waking += 1;
        Wake::Start(free)
    }

    fn at_once(&self, waiting: usize) -> usize {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        if self.limit.usual().saturating_mul(waiting) < BACKLOG { 1 } else { self.limit.cores().max(1) }
    }

    pub(super) fn unpark_all(&mut self) -> Vec<Thread> {
        std::iter::from_fn(|| self.pop_parked()).collect()
    }

    fn pop_parked(&mut self) -> Option<Thread> {
        let top = self.parked.pop()?;
        let worker = self.workers[top].as_mut()?;
        worker.parked = false;
        self.waking += 1;
        worker.thread.clone()
    }

    /// The worker's thread has started.
    pub(super) fn started(&mut self, worker: WorkerId) {
        if let Some(worker) = &mut self.workers[worker] {
            worker.thread = Some(current());
            worker.id = thread_state::current();
        }
        self.waking -= 1;
    }

    /// The worker found no task. It tells a caller, and then looks once more.
    pub(super) fn will_return(&mut self, worker: WorkerId) {
        if let Some(worker) = &mut self.workers[worker] {
            worker.returning = true;
            self.returning += 1;
        }
    }

    /// The worker looks once more.
    pub(super) fn returned(&mut self, worker: WorkerId) {
        if let Some(worker) = &mut self.workers[worker]
            && std::mem::take(&mut worker.returning)
        {
            self.returning -= 1;
        }
    }

    /// The worker is about to park.
    pub(super) fn park(&mut self, worker: WorkerId) {
        if let Some(worker) = &mut self.workers[worker] {
            worker.parked = true;
        }
        self.parked.push(worker);
    }

    /// The worker's park returned. Whether it was woken; if not, its time is up or the wake-up was spurious, and it is not
    /// parked any more.
    pub(super) fn unparked(&mut self, worker: WorkerId) -> bool {
        let woken = self.workers[worker].as_ref().is_some_and(|worker| !worker.parked);
        if woken {
            self.waking -= 1;
        } else {
            self.parked.retain(|&other| other != worker);
            if let Some(worker) = &mut self.workers[worker] {
                worker.parked = false;
            }
        }
        woken
    }

    /// The worker's thread could not be started.
    pub(super) fn start_failed(&mut self, now: Timestamp, worker: WorkerId) {
        self.waking -= 1;
        self.start_blocked_until = now + START_BACKOFF;
        self.leave(worker);
    }

    /// Until when no start is tried, because the last one failed.
    pub(super) fn start_blocked_until(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.start_blocked_until).then_some(self.start_blocked_until)
    }

    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.workers[worker] = None;
        self.present -= 1;
    }

    /// The worker begins to poll a task.
    pub(super) fn begin_poll(&mut self, worker: WorkerId, now: Timestamp) {
        self.active += 1;
        if let Some(worker) = &mut self.workers[worker] {
            worker.polling_since = Some(now);
        }
    }

    /// The worker has polled its task, or was told not to.
    pub(super) fn end_poll(&mut self, worker: WorkerId, now: Timestamp) {
        self.active -= 1;
        let since = self.workers[worker].as_mut().and_then(|worker| worker.polling_since.take());
        if let Some(since) = since {
            self.limit.polled(now.since(since));
        }
    }

    /// The worker does not poll the task that it took.
    pub(super) fn abort_poll(&mut self, worker: WorkerId) {
        self.active -= 1;
        if let Some(worker) = &mut self.workers[worker] {
            worker.polling_since = None;
        }
    }

    /// Whether there is, or may be, a worker for one more task than `ready` of them wait to be polled.
    pub(super) fn has_room_beside(&self, ready: usize) -> bool {
        self.active + ready < self.limit.current()
    }

    /// Whether one more worker may be awake.
    fn has_room(&self) -> bool {
        self.awake() < self.limit.current()
    }

    /// Whether more workers are awake than may be: one that asks for a task gets none.
    pub(super) fn has_too_many(&self) -> bool {
        self.awake() > self.limit.current()
    }

    /// Whether the sampler is to start. The answer is yes once. `waiting` tasks wait to be taken.
    pub(super) fn starts_sampler(&mut self, waiting: usize) -> bool {
        let starts = thread_state::IS_KNOWN && !self.sampled && self.limit.is_worth_sampling(self.awake(), waiting);
        self.sampled |= starts;
        starts
    }

    /// What the budget of cores must learn, if anything.
    pub(super) fn report(&mut self, waiting: usize) -> Option<Report> {
        self.limit.report(self.awake(), self.unattended(waiting))
    }

    /// The report for a tick of the budget.
    pub(super) fn status(&mut self, waiting: usize) -> Report {
        self.limit.status(self.awake(), self.unattended(waiting))
    }

    /// Applies a message of the budget; what it must learn then.
    pub(super) fn apply(&mut self, allot: Allot, waiting: usize) -> Option<Report> {
        self.limit.apply(allot, self.awake(), self.unattended(waiting))
    }

    /// Whether the workers are to be sampled before a tick of the budget.
    pub(super) fn may_hold_unused_cores(&self) -> bool {
        thread_state::IS_KNOWN && self.limit.may_hold_unused_cores(self.awake())
    }

    /// How many of `waiting` tasks no worker is coming for.
    fn unattended(&self, waiting: usize) -> usize {
        waiting.saturating_sub(self.waking + self.returning)
    }

    /// The number of cores, for a pool without a budget.
    #[cfg(test)]
    pub(super) fn set_cores(&mut self, cores: usize) {
        self.limit.set_cores(cores);
    }

    /// The workers that are awake, or as many of them as are enough: others each time.
    pub(super) fn sample(&mut self) -> Vec<Awake> {
        let count = self.workers.len();
        let order = (0..count).map(|step| (self.sample_from + step) % count);
        let mut sample = Vec::new();
        let mut last = None;
        for worker in order {
            if sample.len() == SAMPLE {
                break;
            }
            if let Some(Worker { id: Some(thread), parked: false, polling_since, .. }) = self.workers[worker] {
                sample.push(Awake { thread, polling_since });
                last = Some(worker);
            }
        }
        self.sample_from = last.map_or(0, |last| last + 1);
        sample
    }

    /// How many workers are runnable, by a sample of them.
    pub(super) fn runnable(&self, sample: &[Sampled]) -> usize {
        runnable(sample, self.awake())
    }

    /// Learns what the sampled workers do; when to sample again. `waiting` tasks wait to be taken. `sharing`: how many
    /// runnable workers of all pools there are for each core.
    pub(super) fn learn(
        &mut self,
        now: Timestamp,
        sample: &[Sampled],
        waiting: usize,
        sharing: usize,
    ) -> Option<Duration> {
        let next = self.limit.learn(now, sample, self.awake(), self.unattended(waiting), sharing);
        self.sampled = next.is_some();
        next
    }

    #[cfg(test)]
    pub(super) fn lower_limit(&mut self) {
        let busy = vec![Sampled { runnable: true, since: None }; self.max.max(1)];
        self.limit.learn(Timestamp::from_nanos(0), &busy, self.max, 1, 1);
    }

    /// How many are waking, and how many are returning.
    #[cfg(test)]
    pub(super) fn coming(&self) -> (usize, usize) {
        (self.waking, self.returning)
    }

    fn awake(&self) -> usize {
        self.present - self.parked.len()
    }
}

// === impl Awake ===

impl Awake {
    pub(super) const fn sampled(self, runnable: bool) -> Sampled {
        Sampled { runnable, since: self.polling_since }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests;
