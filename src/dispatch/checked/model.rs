//! A pool whose threads belong to a checker. It repeats the worker loop, the effects and the caller's side of
//! `worker.rs`, `task.rs` and `handle.rs` without futures, clocks and threads of the system. A lost wake-up shows as a
//! deadlock.

#![cfg_attr(tower_offload_shuttle, expect(dead_code, reason = "only loom's models use all of it"))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use crate::admission::{Finish, Key, Offer, Outcome, Settings, Timestamp};
use crate::cores::Sampled;
use crate::dispatch::Effects;
use crate::dispatch::{Admit, Dispatch, Ending, Offered, RejectedOffer, WorkerEvent};
use crate::dispatch::{Wake as WakeWorker, WorkerId};
use crate::error::Reason;
use crate::sync::checked::{JoinHandle, Notify, spawn};
use crate::sync::{self, lock};
use crate::task::{TaskState, Wakeup};

/// Models have no clock: the time is this one, unless a model passes another.
pub(super) const NOW: Timestamp = Timestamp::from_nanos(1);
pub(super) const LATE: Timestamp = Timestamp::from_nanos(u64::MAX);
const KEEP_ALIVE: Duration = Duration::from_secs(60);

pub(super) type TaskRef = Arc<Task>;

/// The code of a task, called at each poll.
pub(super) type Body = Box<dyn FnMut(&Arc<Pool>, &TaskRef) -> Poll<()> + Send>;

/// The place where a task that waits for a wake-up stores itself.
#[derive(Default)]
pub(super) struct Slot {
    task: sync::Mutex<Option<TaskRef>>,
    filled: Notify,
}

/// A task of a model.
pub(super) struct Task {
    pub(super) state: TaskState,
    key: OnceLock<Key>,
    body: Mutex<Body>,
    answer: sync::Mutex<Answer>,
    rejected: AtomicBool,
}

#[derive(Default)]
struct Answer {
    given: bool,
    caller: Option<Arc<Bell>>,
}

/// The result of a poll.
enum Polled {
    Ended(Outcome),
    Pending,
    Woken,
    Stale,
}

/// A pool whose threads are the checker's.
pub(super) struct Pool {
    pub(super) dispatch: Dispatch<TaskRef>,
    limit: usize,
    threads_can_start: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// All tasks. They keep each task until all threads have ended, because the checker does not see the counts of
    /// `Arc`.
    tasks: Mutex<Vec<TaskRef>>,
    /// Whether the keep-alive of parked workers has ended.
    keep_alive_is_over: AtomicBool,
    /// How many tasks the worker loops are polling.
    polling: AtomicUsize,
    pub(super) ended: AtomicUsize,
    given_up: AtomicUsize,
    /// How many tasks were rejected, and how many of them a worker has dropped.
    rejected: AtomicUsize,
    discarded: AtomicUsize,
    /// Notified when a worker has dropped rejected tasks.
    dropped: Notify,
    /// Notified when the sampler must start.
    pub(super) sampler: Notify,
    /// Whether a worker is about to block for a task, and notified when one is.
    blocks: AtomicBool,
    blocked: Notify,
    /// Notified when the queue has room for a task that waits outside of it.
    has_room: Notify,
}

pub(super) struct Plan {
    pub(super) workers: usize,
    pub(super) limit: usize,
    pub(super) capacity: usize,
    pub(super) cores: usize,
}

/// The waker of a thread that blocks.
pub(super) struct Bell(Notify);

// === impl Task ===

impl Task {
    fn new(body: Body) -> TaskRef {
        Arc::new(Self {
            state: TaskState::new(),
            key: OnceLock::new(),
            body: Mutex::new(body),
            answer: sync::Mutex::default(),
            rejected: AtomicBool::new(false),
        })
    }

    pub(super) fn key(&self) -> Key {
        *self.key.get().expect("it was admitted")
    }

    pub(super) fn was_rejected(&self) -> bool {
        self.rejected.load(Relaxed)
    }

    fn put(&self) {
        lock(&self.answer).given = true;
    }

    fn give_answer(self: Arc<Self>) {
        self.state.end();
        let caller = lock(&self.answer).caller.take();
        drop(self);
        wake(caller);
    }

    fn reject(&self) {
        assert!(!self.state.has_started(), "a task that was rejected has started");
        self.rejected.store(true, Relaxed);
        self.put();
        self.state.end();
        self.wake_caller();
    }

    fn wake_caller(&self) {
        let caller = lock(&self.answer).caller.take();
        wake(caller);
    }

    /// Whether the answer can be read. If not, `bell` is notified once that is so.
    fn poll_answer(&self, bell: &Arc<Bell>) -> bool {
        let mut answer = lock(&self.answer);
        let ready = self.state.has_ended() && answer.given;
        if !ready {
            answer.caller = Some(bell.clone());
        }
        ready
    }
}

impl Admit for TaskRef {
    fn admitted(&self, key: Key, _id: u64) {
        self.key.set(key).expect("a task is admitted once");
    }
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(plan: &Plan) -> Arc<Self> {
        Self::of(plan, true)
    }

    pub(super) fn of(plan: &Plan, threads_can_start: bool) -> Arc<Self> {
        let settings =
            Settings { timeout: Duration::from_secs(1), ..Settings::fixed(plan.limit).with_capacity(plan.capacity) };
        let dispatch = Dispatch::new(settings, 0, plan.workers);
        dispatch.set_cores(plan.cores);
        Arc::new(Self {
            dispatch,
            limit: plan.limit,
            threads_can_start,
            threads: Mutex::default(),
            tasks: Mutex::default(),
            keep_alive_is_over: AtomicBool::new(false),
            polling: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            given_up: AtomicUsize::new(0),
            rejected: AtomicUsize::new(0),
            discarded: AtomicUsize::new(0),
            dropped: Notify::new(),
            sampler: Notify::new(),
            blocks: AtomicBool::new(false),
            blocked: Notify::new(),
            has_room: Notify::new(),
        })
    }

    pub(super) fn submit(self: &Arc<Self>, body: Body) -> Result<TaskRef, Reason> {
        self.offer(Offer::default(), Task::new(body))
    }

    /// Submits a task from a task of this pool, whose thread runs it in place if the queue is full.
    pub(super) fn submit_from_task(self: &Arc<Self>, body: Body) -> TaskRef {
        let offer = Offer { may_ride: true, accepted: true, ..Offer::default() };
        self.offer(offer, Task::new(body)).expect("a task that runs in place needs no room")
    }

    /// Submits a task that waits outside of the queue until there is room; `None` if the pool drains.
    pub(super) fn submit_patiently(self: &Arc<Self>, body: fn() -> Body) -> Option<TaskRef> {
        loop {
            match self.offer(Offer { patient: true, ..Offer::default() }, Task::new(body())) {
                Ok(task) => return Some(task),
                Err(Reason::QueueFull) => {}
                Err(_) => return None,
            }
            self.perform(self.dispatch.wait_for_room(NOW, true));
            self.has_room.wait();
            self.perform(self.dispatch.wait_for_room(NOW, false));
        }
    }

    fn offer(self: &Arc<Self>, offer: Offer, task: TaskRef) -> Result<TaskRef, Reason> {
        hold(&self.tasks).push(task.clone());
        let (offered, effects) = self.dispatch.offer(NOW, offer, task.clone());
        self.perform(effects);
        match offered {
            Ok(Offered { in_place, .. }) => {
                if let Some(task) = in_place {
                    self.run_in_place(&task);
                }
                Ok(task)
            }
            Err(RejectedOffer { reason, .. }) => Err(reason),
        }
    }

    /// Rejects every further task, and wakes those that wait for room.
    pub(super) fn drain(&self) {
        self.dispatch.drain();
        self.has_room.notify();
    }

    /// Performs effects on a thread that is not a worker.
    pub(super) fn perform(self: &Arc<Self>, effects: Effects<TaskRef>) {
        let rejected = self.perform_all(effects);
        if !rejected.is_empty() {
            let (too_many, effects) = self.dispatch.discard(NOW, rejected);
            assert!(too_many.is_empty(), "a model rejects few tasks");
            self.perform(effects);
        }
    }

    fn perform_on_worker(self: &Arc<Self>, effects: Effects<TaskRef>) {
        if !effects.is_empty() {
            let discarded = self.perform_all(effects).len();
            self.discarded.fetch_add(discarded, Relaxed);
            self.dropped.notify();
        }
    }

    fn perform_all(self: &Arc<Self>, effects: Effects<TaskRef>) -> Vec<TaskRef> {
        let Effects { wake, rejected, to_drop, idle, expire_at: _, sample, report: _, has_room } = effects;
        match wake {
            WakeWorker::Nobody => {}
            WakeWorker::Unpark(thread) => thread.unpark(),
            WakeWorker::Start(worker) => self.start(worker),
        }
        if sample {
            self.sampler.notify();
        }
        if has_room {
            self.has_room.notify();
        }
        let mut discarded = to_drop;
        for rejected in rejected {
            rejected.task.reject();
            self.rejected.fetch_add(1, Relaxed);
            self.given_up.fetch_add(1, Relaxed);
            discarded.push(rejected.task);
        }
        idle.into_iter().for_each(Waker::wake);
        discarded
    }

    fn start(self: &Arc<Self>, worker: WorkerId) {
        if self.threads_can_start {
            let this = self.clone();
            let thread = spawn(move || this.work(worker));
            hold(&self.threads).push(thread);
            return;
        }
        let (tasks, effects) = self.dispatch.start_failed(NOW, worker);
        self.perform_on_worker(effects);
        for task in tasks {
            if task.state.begin_poll().is_some() {
                task.put();
                self.end(task, Outcome::Rejected);
            } else {
                self.discarded.fetch_add(1, Relaxed);
            }
        }
    }

    /// The worker loop, as `run` in `worker.rs`.
    fn work(self: &Arc<Self>, worker: WorkerId) {
        let mut next = self.next(worker, WorkerEvent::Started, None);
        while let Some(task) = next.take() {
            let before = self.polling.fetch_add(1, Relaxed);
            assert!(before < self.limit, "more tasks are polled than the limit allows");
            let polled = self.poll(&task);
            self.polling.fetch_sub(1, Relaxed);
            next = match polled {
                Polled::Ended(outcome) => {
                    let ending = self.ending(&task, outcome);
                    self.next(worker, WorkerEvent::Ended(ending), Some(task))
                }
                Polled::Woken => self.next(worker, WorkerEvent::Woken(task), None),
                Polled::Pending | Polled::Stale => {
                    drop(task);
                    let event =
                        if matches!(polled, Polled::Pending) { WorkerEvent::Pending } else { WorkerEvent::Stale };
                    self.next(worker, event, None)
                }
            };
        }
    }

    fn next(
        self: &Arc<Self>,
        worker: WorkerId,
        event: WorkerEvent<TaskRef>,
        ended: Option<TaskRef>,
    ) -> Option<TaskRef> {
        let (next, effects) = self.dispatch.next(worker, NOW, event);
        if let Some(task) = ended {
            task.give_answer();
        }
        self.perform_on_worker(effects);
        next.or_else(|| {
            let perform = |effects| self.perform_on_worker(effects);
            self.dispatch.wait(worker, KEEP_ALIVE, || self.now(), perform)
        })
    }

    fn poll(self: &Arc<Self>, task: &TaskRef) -> Polled {
        let Some(begun) = task.state.begin_poll() else { return Polled::Stale };
        let mut body = task.body.try_lock().expect("one thread at a time polls a task");
        assert!(!task.was_rejected(), "a task that was rejected is polled");
        let outcome = if begun.too_late {
            Outcome::Expired
        } else if begun.caller_left {
            Outcome::Cancelled
        } else if body(self, task).is_ready() {
            Outcome::Ok
        } else {
            drop(body);
            return match task.state.end_poll() {
                Wakeup::Nothing => Polled::Pending,
                Wakeup::Schedule => Polled::Woken,
                Wakeup::ScheduleAndWakeCaller => {
                    task.wake_caller();
                    Polled::Woken
                }
            };
        };
        task.put();
        Polled::Ended(outcome)
    }

    fn run_in_place(self: &Arc<Self>, task: &TaskRef) {
        match self.poll(task) {
            Polled::Ended(outcome) => self.end(task.clone(), outcome),
            Polled::Woken => self.ready(task),
            Polled::Pending | Polled::Stale => {}
        }
    }

    /// Releases the permit of a task that ended outside of a worker's loop.
    fn end(self: &Arc<Self>, task: TaskRef, outcome: Outcome) {
        let effects = self.dispatch.finish(NOW, self.ending(&task, outcome));
        task.give_answer();
        self.perform(effects);
    }

    fn ending(&self, task: &TaskRef, outcome: Outcome) -> Ending {
        let count = if outcome == Outcome::Ok { &self.ended } else { &self.given_up };
        count.fetch_add(1, Relaxed);
        Ending { key: task.key(), finish: Finish { outcome, ran: None, reader: Duration::ZERO, batch: None } }
    }

    fn ready(self: &Arc<Self>, task: &TaskRef) {
        let effects = self.dispatch.ready(NOW, task.clone());
        self.perform(effects);
    }

    /// Wakes a task, as its waker does.
    pub(super) fn wake(self: &Arc<Self>, task: &TaskRef) {
        let wakeup = task.state.wake();
        if wakeup != Wakeup::Nothing {
            self.ready(task);
        }
        if wakeup == Wakeup::ScheduleAndWakeCaller {
            task.wake_caller();
        }
    }

    /// Blocks the thread of a caller until the task has ended.
    pub(super) fn wait_for(&self, task: &TaskRef) {
        let bell = Arc::new(Bell(Notify::new()));
        while !task.poll_answer(&bell) {
            bell.0.wait();
        }
    }

    /// Blocks a worker of the pool until the task has ended.
    pub(super) fn wait_on_worker_for(self: &Arc<Self>, task: &TaskRef) {
        let bell = Arc::new(Bell(Notify::new()));
        while !task.poll_answer(&bell) {
            task.state.awaited_on_worker();
            self.start_awaited(task, true);
            bell.0.wait();
        }
    }

    fn start_awaited(self: &Arc<Self>, task: &TaskRef, blocks: bool) {
        let (in_place, effects) = self.dispatch.start_awaited(NOW, task.key(), blocks);
        self.perform(effects);
        if in_place {
            self.run_in_place(task);
        }
    }

    /// Blocks a worker of the pool until the task has ended, with an executor that does not know that it blocks one.
    pub(super) fn block_on_worker_for(self: &Arc<Self>, task: &TaskRef) {
        let bell = Arc::new(Bell(Notify::new()));
        loop {
            if !task.state.has_started() {
                self.start_awaited(task, false);
            }
            if task.poll_answer(&bell) {
                return;
            }
            self.blocks.store(true, Relaxed);
            self.blocked.notify();
            bell.0.wait();
        }
    }

    /// The caller of a task goes away.
    pub(super) fn leave(self: &Arc<Self>, task: &TaskRef) {
        if task.state.has_ended() {
            return;
        }
        task.state.caller_left();
        let (queued, effects) = self.dispatch.cancel(NOW, task.key(), Outcome::Cancelled);
        self.perform(effects);
        if let Some(queued) = queued {
            queued.state.end();
            self.given_up.fetch_add(1, Relaxed);
            return;
        }
        self.wake(task);
    }

    fn now(&self) -> Timestamp {
        if self.keep_alive_is_over.load(Relaxed) { LATE } else { NOW }
    }

    /// Ends the keep-alive of the workers that are parked or about to park.
    pub(super) fn time_passes(&self) {
        self.keep_alive_is_over.store(true, Relaxed);
        // The threads are unparked without this lock, which is not the checker's: they may take it at once.
        let workers: Vec<_> = hold(&self.threads).iter().map(|worker| worker.thread().clone()).collect();
        workers.into_iter().for_each(|worker| worker.unpark());
    }

    /// Takes a sample that finds all workers runnable (`runs`), or none. The result is the time until the next sample.
    pub(super) fn sample(self: &Arc<Self>, runs: bool) -> Option<Duration> {
        let (next, effects) = self.dispatch.observe(NOW, &[Sampled { runnable: runs, since: None }], 1, false);
        self.perform(effects);
        next
    }

    /// Waits until nothing is queued, and at most `except` tasks are in flight.
    pub(super) fn wait_until_idle(&self, except: usize) {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(bell.clone());
        while !self.dispatch.poll_idle(except, &waker) {
            bell.0.wait();
        }
    }

    /// Waits until a worker is about to block for a task.
    pub(super) fn wait_until_blocked(&self) {
        while !self.blocks.load(Relaxed) {
            self.blocked.wait();
        }
    }

    /// Waits until workers have dropped every task that was rejected.
    pub(super) fn wait_until_dropped(&self) {
        while self.discarded.load(Relaxed) < self.rejected.load(Relaxed) {
            self.dropped.wait();
        }
    }

    /// Lets the workers end, and checks that every permit was released and how the tasks ended.
    pub(super) fn close(&self, ended: usize, given_up: usize) {
        self.close_all(ended + given_up);
        assert_eq!(self.ended.load(Relaxed), ended, "tasks that ran to their end");
        assert_eq!(self.given_up.load(Relaxed), given_up, "tasks that were given up");
    }

    /// The same for a model in which the number of tasks that ran to their end varies.
    pub(super) fn close_all(&self, tasks: usize) {
        for thread in self.dispatch.close() {
            thread.unpark();
        }
        loop {
            let Some(thread) = hold(&self.threads).pop() else { break };
            thread.join().expect("no worker panics");
        }
        let instant = self.dispatch.instant(Timestamp::default());
        assert_eq!((instant.workers, instant.active), (0, 0), "workers, active");
        assert_eq!(self.dispatch.coming(), (0, 0), "waking, rechecking");
        let admission = instant.admission;
        assert_eq!((admission.in_flight, admission.permits, admission.queued), (0, 0, 0), "in flight, permits, queued");
        assert_eq!(admission.counts.ended(), admission.counts.submitted);
        assert_eq!(self.discarded.load(Relaxed), self.rejected.load(Relaxed), "each rejected task is dropped once");
        let (ended, given_up) = (self.ended.load(Relaxed), self.given_up.load(Relaxed));
        assert_eq!(ended + given_up, tasks, "{ended} tasks ran to their end, {given_up} were given up");
    }
}

// === bodies ===

/// Ends at once.
pub(super) fn ends() -> Body {
    Box::new(|_, _| Poll::Ready(()))
}

/// Notifies, and ends.
pub(super) fn notifies(notify: Arc<Notify>) -> Body {
    Box::new(move |_, _| {
        notify.notify();
        Poll::Ready(())
    })
}

/// Waits for a wake-up, and continues as `then`.
pub(super) fn awaits(slot: Arc<Slot>, mut then: Body) -> Body {
    let mut waited = false;
    Box::new(move |pool, task| {
        if std::mem::replace(&mut waited, true) {
            return then(pool, task);
        }
        *lock(&slot.task) = Some(task.clone());
        slot.filled.notify();
        Poll::Pending
    })
}

/// Wakes itself, and ends at the next poll.
pub(super) fn yields() -> Body {
    let mut yielded = false;
    Box::new(move |pool, task| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        pool.wake(task);
        Poll::Pending
    })
}

/// Notifies `here` that it has begun, blocks its thread until `there` has begun too, and ends.
pub(super) fn meets(here: Arc<Notify>, there: Arc<Notify>) -> Body {
    Box::new(move |_, _| {
        here.notify();
        there.wait();
        Poll::Ready(())
    })
}

/// Submits a task to its own pool, blocks its thread until that has ended, and ends.
pub(super) fn waits_for(child: impl Fn() -> Body + Send + 'static) -> Body {
    Box::new(move |pool, _| {
        let child = pool.submit_from_task(child());
        pool.wait_on_worker_for(&child);
        Poll::Ready(())
    })
}

/// The same with an executor that does not know that it blocks a worker.
pub(super) fn blocks_on(child: fn() -> Body) -> Body {
    Box::new(move |pool, _| {
        let child = pool.submit_from_task(child());
        pool.block_on_worker_for(&child);
        Poll::Ready(())
    })
}

// === impl Slot ===

impl Slot {
    /// Takes the task, if it waits already.
    pub(super) fn take(&self) -> Option<TaskRef> {
        lock(&self.task).take()
    }

    /// Waits until the task waits, and takes it.
    pub(super) fn wait(&self) -> TaskRef {
        loop {
            if let Some(task) = self.take() {
                return task;
            }
            self.filled.wait();
        }
    }
}

// === impl Bell ===

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn wake(caller: Option<Arc<Bell>>) {
    if let Some(caller) = caller {
        caller.0.notify();
    }
}

fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
