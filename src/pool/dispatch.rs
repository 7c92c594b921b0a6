//! Brings jobs and workers together: one lock over admission, the jobs that are ready to be polled, and the workers
//! that sleep.
//!
//! # How no wake-up is lost
//!
//! 1. A worker that finds nothing to do puts its seat on the stack of sleepers *under the lock*, and parks after it has
//!    let go of the lock, with no code of the application in between: that may park too, and use up the token of 2.
//! 2. Whoever makes a job ready does so under the lock and, under the same lock, takes a seat off the stack. The seat is
//!    then *waking*, and is unparked after the lock is released. Unparking before parking leaves a token, so the order
//!    of the two does not matter.
//! 3. Only as many workers are waking at a time as there are jobs to take and cores to run them. Each that arrives looks
//!    whether there is more to take than workers are coming for, and wakes the next.
//! 4. A worker that ends a job takes its next one under the lock that ends the first; it sleeps only after it has looked
//!    and found nothing.
//!
//! So whenever the lock is free and a job can be taken, either a worker is awake (and will look before it sleeps), or
//! one is waking, or none can be had and none sleeps.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use super::task::Task;
use crate::admission::{Admission, Gone, Key, Moment, Offer, Outcome, Place, Settings, Snapshot};
use crate::error::Cause;
use crate::sync::{Mutex, MutexGuard, Thread, current, lock, park_timeout};

/// The work of one pool and who does it. `T` is a job that can be polled.
#[derive(Debug)]
pub(crate) struct Dispatch<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    admission: Admission<T>,
    /// Jobs with a permit that want to be polled: they were just admitted, or were woken.
    ready: VecDeque<T>,
    crew: Crew,
    /// Nothing new is taken.
    draining: bool,
    /// Nobody can submit any more; workers end when they find nothing to do.
    closed: bool,
    /// Who waits for the moment at which nothing is queued or in flight.
    watchers: Vec<Waker>,
    /// The jobs that have begun, while tasks are logged.
    tasks: HashMap<Key, (Moment, Task)>,
    /// The earliest moment at which [`Dispatch::expire`] is sure to be called.
    armed: Option<Moment>,
}

/// The workers of a pool, by seat.
#[derive(Debug)]
struct Crew {
    seats: Vec<Option<Seat>>,
    /// Seats of the workers that sleep, the last one to lie down on top: light load touches few threads.
    asleep: Vec<usize>,
    most: usize,
    /// How many may be waking at once.
    most_waking: usize,
    present: usize,
    waking: usize,
    busy: usize,
    /// No thread could be started; no further one is tried before this moment.
    barren_until: Moment,
}

#[derive(Debug, Default)]
struct Seat {
    /// The worker's thread, once it has sat down.
    thread: Option<Thread>,
    asleep: bool,
}

/// What is to be done once the lock is released.
#[must_use]
#[derive(Debug)]
pub(crate) struct After<T> {
    pub(crate) call: Call,
    /// Queued jobs that ended without starting: their callers are to be told, and they are to be dropped.
    pub(crate) gone: Vec<Gone<T>>,
    pub(crate) watchers: Vec<Waker>,
    /// [`Dispatch::expire`] is to be called at this moment.
    pub(crate) arm: Option<Moment>,
}

/// The worker that is to come.
#[derive(Debug)]
pub(crate) enum Call {
    Nobody,
    Unpark(Thread),
    /// A thread is to be started for this seat.
    Start(usize),
}

/// One instant of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instantaneous {
    pub(crate) admission: Snapshot,
    pub(crate) overloaded: bool,
    pub(crate) draining: bool,
    pub(crate) workers: usize,
    pub(crate) workers_max: usize,
    pub(crate) busy: usize,
}

/// How a worker comes to ask for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Its thread has just started.
    Start,
    /// It has polled a job.
    Job,
}

/// After a thread could not be started, no other is tried for so long.
const BARREN: Duration = Duration::from_secs(1);

impl<T> Dispatch<T> {
    pub(crate) fn new(settings: Settings, seed: u64, workers: usize, most_waking: usize) -> Self {
        let crew = Crew {
            seats: Vec::new(),
            asleep: Vec::new(),
            most: workers,
            most_waking,
            present: 0,
            waking: 0,
            busy: 0,
            barren_until: Moment::default(),
        };
        let state = State {
            admission: Admission::new(settings, seed),
            ready: VecDeque::new(),
            crew,
            draining: false,
            closed: false,
            watchers: Vec::new(),
            tasks: HashMap::new(),
            armed: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Offers a job. `make` builds it once it is let in, under the lock: it must be short and run no code of the user.
    /// The error says why it was refused, and when to come again.
    pub(crate) fn offer<R>(
        &self,
        now: Moment,
        offer: Offer,
        make: impl FnOnce(Key, &Instantaneous) -> (T, R),
    ) -> (Result<R, (Cause, Duration)>, After<T>) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        let offered = match state.admission.offer(now, offer, &mut gone) {
            Ok(Place::InFlight(key)) => {
                let (job, made) = make(key, &state.instant(now));
                state.ready.push_back(job);
                Ok(made)
            }
            Ok(Place::Queued(key)) => {
                let (job, made) = make(key, &state.instant(now));
                state.admission.store(key, job);
                Ok(made)
            }
            Err(cause) => Err((cause, state.admission.retry_after(now))),
        };
        let after = state.after(now, gone);
        (offered, after)
    }

    /// A job in flight wants to be polled again. `by_itself`: it was woken while it was being polled, so the worker
    /// that polls it is about to look for work.
    pub(crate) fn ready(&self, now: Moment, job: T, by_itself: bool) -> Call {
        let mut state = self.lock();
        state.ready.push_back(job);
        if by_itself { Call::Nobody } else { state.call(now) }
    }

    /// A permit comes home other than at the end of a worker's poll.
    pub(crate) fn finish(&self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) -> After<T> {
        let mut state = self.lock();
        state.finish(now, key, outcome, ran);
        state.after(now, Vec::new())
    }

    /// A permit comes home on the worker that polled the job to its end: the worker's next job, if there is one.
    pub(crate) fn finish_and_take(
        &self,
        now: Moment,
        key: Key,
        outcome: Outcome,
        ran: Option<Duration>,
    ) -> (Option<T>, After<T>) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        state.finish(now, key, outcome, ran);
        let next = state.take(now, &mut gone);
        let after = state.after(now, gone);
        (next, after)
    }

    /// Takes out a queued job whose caller has left.
    pub(crate) fn cancel(&self, now: Moment, key: Key) -> (Option<T>, After<T>) {
        let mut state = self.lock();
        let job = state.admission.cancel(key);
        let after = state.after(now, Vec::new());
        (job, after)
    }

    /// The next job for the worker on `seat`, waiting for one up to `keep_alive`; `None` if the worker is to end.
    ///
    /// `settle` is called without the lock whenever there is something to be done for others.
    pub(crate) fn next(
        &self,
        seat: usize,
        from: From,
        keep_alive: Duration,
        now: impl Fn() -> Moment,
        settle: impl Fn(After<T>),
    ) -> Option<T> {
        let mut state = self.lock();
        match from {
            From::Start => state.crew.sit_down(seat),
            From::Job => state.crew.busy -= 1,
        }
        // In this loop the worker is neither waking nor busy.
        let mut idle_since = None;
        loop {
            let at = now();
            let mut gone = Vec::new();
            let job = state.take(at, &mut gone);
            let idle = at.since(*idle_since.get_or_insert(at));
            let leaves = job.is_none() && (state.closed || idle >= keep_alive);
            if job.is_some() {
                state.crew.busy += 1;
            } else if leaves {
                state.crew.leave(seat);
            }
            let after = state.after(at, gone);
            // What is settled runs code of the application, which may park this thread and so use up the token of an
            // unpark. So a worker lies down only when there is nothing to settle, and parks with nothing in between.
            let lies_down = job.is_none() && !leaves && after.is_empty();
            if lies_down {
                state.crew.lie_down(seat);
            }
            drop(state);
            if !lies_down {
                settle(after);
                if job.is_some() || leaves {
                    return job;
                }
                state = self.lock();
                continue;
            }
            park_timeout(keep_alive.saturating_sub(idle));
            state = self.lock();
            if state.crew.get_up(seat) {
                idle_since = None;
            }
        }
    }

    /// The thread for `seat` could not be started. Without any worker the jobs cannot run: those that had a permit are
    /// answered, to be dropped.
    pub(crate) fn start_failed(&self, now: Moment, seat: usize) -> (Vec<T>, After<T>) {
        let mut gone = Vec::new();
        let mut ready = Vec::new();
        let mut state = self.lock();
        state.crew.waking -= 1;
        state.crew.leave(seat);
        state.crew.barren_until = now + BARREN;
        if state.crew.present == 0 {
            state.admission.evict_all(Cause::NoWorkers, &mut gone);
            ready.extend(state.ready.drain(..));
        }
        let after = state.after(now, gone);
        (ready, after)
    }

    /// Ends the waiting of the jobs that are late.
    pub(crate) fn expire(&self, now: Moment) -> After<T> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        state.admission.expire(now, &mut gone);
        // An alarm that an earlier one has overtaken rings too; it does not ask for another.
        state.armed = state.armed.filter(|&armed| now < armed);
        state.after(now, gone)
    }

    /// Refuses every further offer.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.admission.drain();
    }

    /// Ends the waiting of every queued job.
    pub(crate) fn evict_all(&self, now: Moment, cause: Cause) -> After<T> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        state.admission.evict_all(cause, &mut gone);
        state.after(now, gone)
    }

    /// Lets the workers end when they find nothing to do; answers those that are to be unparked for it.
    pub(crate) fn close(&self) -> Vec<Thread> {
        let mut state = self.lock();
        state.closed = true;
        state.crew.call_all()
    }

    /// Whether nothing is queued or in flight; if something is, `watcher` is woken when that has changed.
    pub(crate) fn poll_idle(&self, watcher: &Waker) -> bool {
        let watcher = watcher.clone();
        let mut state = self.lock();
        let idle = state.admission.is_idle();
        if !idle && !state.watchers.iter().any(|other| other.will_wake(&watcher)) {
            state.watchers.push(watcher);
        }
        idle
    }

    /// A job has begun, and is to be shown among the running tasks.
    pub(crate) fn began(&self, key: Key, now: Moment, task: Task) {
        self.lock().tasks.insert(key, (now, task));
    }

    pub(crate) fn instant(&self, now: Moment) -> Instantaneous {
        self.lock().instant(now)
    }

    /// The instant, and the tasks that run in it with the moments they began at.
    pub(crate) fn instant_with_tasks(&self, now: Moment) -> (Instantaneous, Vec<(Moment, Task)>) {
        let state = self.lock();
        (state.instant(now), state.tasks.values().cloned().collect())
    }

    pub(crate) fn retry_after(&self, now: Moment) -> Duration {
        self.lock().admission.retry_after(now)
    }

    /// How many workers are on their way.
    #[cfg(all(test, tower_offload_loom))]
    pub(super) fn waking(&self) -> usize {
        self.lock().crew.waking
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

// === impl After ===

impl<T> After<T> {
    fn is_empty(&self) -> bool {
        matches!(self.call, Call::Nobody) && self.gone.is_empty() && self.watchers.is_empty() && self.arm.is_none()
    }
}

// === impl State ===

impl<T> State<T> {
    fn take(&mut self, now: Moment, gone: &mut Vec<Gone<T>>) -> Option<T> {
        match self.ready.pop_front() {
            Some(job) => Some(job),
            None => self.admission.take(now, gone).map(|taken| taken.job),
        }
    }

    fn finish(&mut self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) {
        self.admission.finish(now, key, outcome, ran);
        if !self.tasks.is_empty() {
            self.tasks.remove(&key);
        }
    }

    fn after(&mut self, now: Moment, gone: Vec<Gone<T>>) -> After<T> {
        let watched = !self.watchers.is_empty() && self.admission.is_idle();
        let watchers = if watched { std::mem::take(&mut self.watchers) } else { Vec::new() };
        let due = self.admission.next_expiry();
        let arm = due.filter(|&due| self.armed.is_none_or(|armed| due < armed));
        self.armed = arm.or(self.armed);
        After { call: self.call(now), gone, watchers, arm }
    }

    /// Calls one more worker if there is more to take than workers are coming for.
    fn call(&mut self, now: Moment) -> Call {
        let waking = self.crew.waking;
        let more = self.ready.len() > waking || (self.ready.len() == waking && self.admission.has_takeable());
        if more && waking < self.crew.most_waking { self.crew.call(now) } else { Call::Nobody }
    }

    fn instant(&self, now: Moment) -> Instantaneous {
        Instantaneous {
            admission: self.admission.snapshot(),
            overloaded: self.admission.is_overloaded(now),
            draining: self.draining,
            workers: self.crew.present,
            workers_max: self.crew.most,
            busy: self.crew.busy,
        }
    }
}

// === impl Crew ===

impl Crew {
    fn call(&mut self, now: Moment) -> Call {
        if let Some(thread) = self.call_sleeper() {
            return Call::Unpark(thread);
        }
        // Without any worker a start is tried in any case: if it fails, the jobs that wait for it are answered.
        if self.present >= self.most || (self.present > 0 && now < self.barren_until) {
            return Call::Nobody;
        }
        let free = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        if free == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[free] = Some(Seat::default());
        self.present += 1;
        self.waking += 1;
        Call::Start(free)
    }

    fn call_all(&mut self) -> Vec<Thread> {
        std::iter::from_fn(|| self.call_sleeper()).collect()
    }

    fn call_sleeper(&mut self) -> Option<Thread> {
        let top = self.asleep.pop()?;
        let seat = self.seats[top].as_mut()?;
        seat.asleep = false;
        self.waking += 1;
        seat.thread.clone()
    }

    fn sit_down(&mut self, seat: usize) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.thread = Some(current());
        }
        self.waking -= 1;
    }

    fn lie_down(&mut self, seat: usize) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.asleep = true;
        }
        self.asleep.push(seat);
    }

    /// Whether the worker was called. If not, its time is up or it woke for no reason, and its seat leaves the stack.
    fn get_up(&mut self, seat: usize) -> bool {
        let called = self.seats[seat].as_ref().is_some_and(|seat| !seat.asleep);
        if called {
            self.waking -= 1;
        } else {
            self.asleep.retain(|&other| other != seat);
            if let Some(seat) = &mut self.seats[seat] {
                seat.asleep = false;
            }
        }
        called
    }

    fn leave(&mut self, seat: usize) {
        self.seats[seat] = None;
        self.present -= 1;
    }
}

#[cfg(all(test, not(tower_offload_loom)))]
mod tests {
    use super::*;

    /// What is settled may park the thread, and so use up the token of an unpark that was meant for the worker.
    #[test]
    fn a_worker_that_settles_something_is_not_asleep() {
        let settings = Settings { timeout: Duration::from_secs(1), ..Settings::fixed(1).with_capacity(1) };
        let dispatch = Dispatch::new(settings, 0, 1, 1);
        let offer = |now, job| dispatch.offer(now, Offer::default(), |key, _| (job, key));
        let (start, late) = (Moment::default(), Moment::default() + Duration::from_secs(2));

        let (first, after) = offer(start, 1);
        assert!(matches!(after.call, Call::Start(0)));
        let (_, after) = offer(start, 2);
        assert!(matches!(after.call, Call::Nobody));
        let long = Duration::from_secs(60);
        assert_eq!(dispatch.next(0, From::Start, long, || start, drop), Some(1));
        let key = first.expect("the pool is empty");
        let after = dispatch.finish(start, key, Outcome::Ok, None);
        assert!(after.gone.is_empty());

        // The worker finds the second job late, and nothing to do but to tell its caller.
        let next = dispatch.next(
            0,
            From::Job,
            long,
            || late,
            |after| {
                for gone in after.gone {
                    assert_eq!((gone.job, gone.cause), (2, Cause::QueueTimeout));
                    let (_, after) = offer(late, 3);
                    assert!(matches!(after.call, Call::Nobody), "it is awake, and will look for itself");
                }
            },
        );
        assert_eq!(next, Some(3));
    }
}
