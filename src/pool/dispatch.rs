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
//! 4. A worker that ends a job takes its next one under the lock that ends the first, unless it has code of the
//!    application to call before; then it leaves that job to others. It sleeps only after it has looked and found nothing.
//! 5. A worker that finds more awake than the `level` allows lies down although there are jobs to take, and none is
//!    called beyond it. Whoever leaves jobs so begins the watch, unless it is on; it goes on while they wait, and calls
//!    workers when the level has risen.
//!
//! So whenever the lock is free and a job can be taken, either a worker is awake (and will look before it sleeps), or
//! one is waking, or none can be had and none sleeps. If all that are awake block, the level rises within milliseconds.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use super::completions::Outlook;
use super::crew::{Awake, Call, Crew};
use super::level::Seen;
use super::task::Task;
use crate::admission::{
    Admission, Admitted as Place, Evicted as Gone, Key, Offer, Outcome, Settings, Snapshot, Timestamp as Moment,
};
use crate::error::Cause;
use crate::sync::{Mutex, MutexGuard, Thread, lock, park_timeout};

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
    /// It is to be looked from here on which workers run.
    pub(crate) watch: bool,
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

/// What is to be known of a pool when a job is let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    /// The jobs that were ever submitted, this one included.
    pub(crate) submitted: u64,
    pub(crate) queued: usize,
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

impl<T> Dispatch<T> {
    pub(crate) fn new(settings: Settings, seed: u64, workers: usize, most_waking: usize) -> Self {
        let crew = Crew::new(workers, most_waking);
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
        make: impl FnOnce(Key, Glance) -> (T, R),
    ) -> (Result<R, (Cause, Duration)>, After<T>) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        let placed = if state.crew.has_room_beside(state.ready.len()) {
            state.admission.offer(now, offer, &mut gone)
        } else {
            state.admission.offer_to_wait(now, offer, &mut gone)
        };
        let (offered, due) = match placed {
            Ok(Place::InFlight(key)) => {
                let (job, made) = make(key, state.glance());
                state.ready.push_back(job);
                (Ok(made), None)
            }
            Ok(Place::Queued(key)) => {
                let (job, made) = make(key, state.glance());
                state.admission.store(key, job);
                let due = state.admission.expiry_of(now, offer);
                (Ok(made), Some(due))
            }
            Err(cause) => (Err((cause, state.admission.retry_after(now))), None),
        };
        let after = state.after_until(due, now, gone);
        (offered, after)
    }

    /// Counts a job that is refused whatever the state of the pool is.
    pub(crate) fn turn_away(&self, cause: Cause) {
        self.lock().admission.count_rejected(cause);
    }

    /// A job in flight wants to be polled again. `by_itself`: it was woken while it was being polled, so the worker
    /// that polls it is about to look for work.
    pub(crate) fn ready(&self, now: Moment, job: T, by_itself: bool) -> After<T> {
        let mut state = self.lock();
        state.ready.push_back(job);
        if by_itself { After::default() } else { state.after(now, Vec::new()) }
    }

    /// A permit comes home other than at the end of a worker's poll.
    pub(crate) fn finish(&self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) -> After<T> {
        let mut state = self.lock();
        state.finish(now, key, outcome, ran);
        state.after(now, Vec::new())
    }

    /// A permit comes home on the worker that polled the job to its end: the worker's next job, if there is one, and
    /// what it may expect.
    pub(crate) fn finish_and_take(
        &self,
        seat: usize,
        now: Moment,
        key: Key,
        outcome: Outcome,
        ran: Option<Duration>,
    ) -> (Option<(T, Outlook)>, After<T>) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        state.finish(now, key, outcome, ran);
        state.crew.put_down(seat, now);
        let next = state.take_on(seat, now, &mut gone);
        if gone.is_empty() {
            let next = next.map(|job| (job, state.outlook(now)));
            let after = state.after(now, gone);
            return (next, after);
        }
        // Code of the application is to be called first, and nobody else could take the job from this worker.
        if let Some(job) = next {
            state.crew.leave_off(seat);
            state.ready.push_front(job);
        }
        let after = state.after(now, gone);
        (None, after)
    }

    /// Takes out a queued job, whose end counts as `outcome`.
    pub(crate) fn cancel(&self, now: Moment, key: Key, outcome: Outcome) -> (Option<T>, After<T>) {
        let mut state = self.lock();
        let job = state.admission.cancel(now, key, outcome);
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
        let mut at = now();
        let mut state = self.lock();
        match from {
            From::Start => state.crew.sit_down(seat),
            From::Job => {
                state.crew.busy -= 1;
                state.crew.put_down(seat, at);
            }
        }
        // In this loop the worker is neither waking nor busy.
        let mut idle_since = at;
        loop {
            let mut gone = Vec::new();
            let job = state.take_on(seat, at, &mut gone);
            let idle = at.since(idle_since);
            // Where jobs were found that are too late, there may be more.
            let leaves = job.is_none() && gone.is_empty() && (state.closed || idle >= keep_alive);
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
            } else {
                park_timeout(keep_alive.saturating_sub(idle));
            }
            at = now();
            state = self.lock();
            if lies_down && state.crew.get_up(seat) {
                idle_since = at;
            }
        }
    }

    /// The thread for `seat` could not be started. Without any worker the jobs cannot run: those that had a permit are
    /// answered, to be dropped.
    pub(crate) fn start_failed(&self, now: Moment, seat: usize) -> (Vec<T>, After<T>) {
        let mut gone = Vec::new();
        let mut ready = Vec::new();
        let mut state = self.lock();
        state.crew.start_failed(now, seat);
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
        let due = state.admission.next_expiry();
        state.after_until(due, now, gone)
    }

    /// The workers to look at: do they run?
    pub(crate) fn sample(&self) -> Vec<Awake> {
        self.lock().crew.sample()
    }

    /// Learns what the workers do that were looked at; when to look again, if at all.
    pub(crate) fn learn(&self, now: Moment, seen: &[Seen]) -> (Option<Duration>, After<T>) {
        let mut state = self.lock();
        let pressed = state.has_work();
        let next = state.crew.learn(now, seen, pressed);
        (next, state.after(now, Vec::new()))
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

    /// As if the jobs had been seen to compute.
    #[cfg(test)]
    pub(super) fn lower_level(&self) {
        self.lock().crew.lower_level();
    }

    /// How many workers are on their way.
    #[cfg(all(test, any(tower_offload_loom, tower_offload_shuttle)))]
    pub(super) fn waking(&self) -> usize {
        self.lock().crew.waking
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }
}

// === impl After ===

impl<T> Default for After<T> {
    fn default() -> Self {
        Self { call: Call::Nobody, gone: Vec::new(), watchers: Vec::new(), arm: None, watch: false }
    }
}

impl<T> After<T> {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { call, gone, watchers, arm, watch } = self;
        matches!(call, Call::Nobody) && gone.is_empty() && watchers.is_empty() && arm.is_none() && !watch
    }
}

// === impl State ===

impl<T> State<T> {
    /// The next job for the worker that asks, unless it is one too many.
    fn take_on(&mut self, seat: usize, now: Moment, gone: &mut Vec<Gone<T>>) -> Option<T> {
        if self.crew.has_too_many() {
            return None;
        }
        let job = self.ready.pop_front().or_else(|| self.admission.take(now, gone).map(|started| started.task));
        if job.is_some() {
            self.crew.take_up(seat, now);
        }
        job
    }

    /// Whether a worker would find something to do.
    fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.admission.has_takeable()
    }

    fn finish(&mut self, now: Moment, key: Key, outcome: Outcome, ran: Option<Duration>) {
        self.admission.finish(now, key, outcome, ran);
        if !self.tasks.is_empty() {
            self.tasks.remove(&key);
        }
    }

    fn after(&mut self, now: Moment, gone: Vec<Gone<T>>) -> After<T> {
        self.after_until(None, now, gone)
    }

    /// The same where a job's waiting ends at `due`.
    fn after_until(&mut self, due: Option<Moment>, now: Moment, gone: Vec<Gone<T>>) -> After<T> {
        let watched = !self.watchers.is_empty() && self.admission.is_idle();
        let watchers = if watched { std::mem::take(&mut self.watchers) } else { Vec::new() };
        let call = self.call(now);
        let pressed = self.has_work();
        // A thread that could not be started is tried again, whether or not anything happens until then.
        let retry = self.crew.barren_until(now).filter(|_| pressed && matches!(call, Call::Nobody));
        let arm = due.into_iter().chain(retry).min().and_then(|due| self.arm(due));
        After { call, gone, watchers, arm, watch: self.crew.wants_watch(pressed) }
    }

    /// Something is due at this moment: the moment itself, if nothing rings before.
    fn arm(&mut self, due: Moment) -> Option<Moment> {
        let arm = self.armed.is_none_or(|armed| due < armed).then_some(due);
        self.armed = arm.or(self.armed);
        arm
    }

    fn outlook(&self, now: Moment) -> Outlook {
        Outlook { now, usual: self.crew.usual_poll(), waiting: self.ready.len() + self.admission.queued() }
    }

    fn glance(&self) -> Glance {
        let (submitted, queued) = (self.admission.submitted(), self.admission.queued());
        Glance { submitted, queued: queued - self.admission.takeable(), busy: self.crew.busy }
    }

    /// Calls one more worker if there is more to take than workers are coming for.
    fn call(&mut self, now: Moment) -> Call {
        let waking = self.crew.waking;
        let more = self.ready.len() > waking || (self.ready.len() == waking && self.admission.has_takeable());
        if more { self.crew.call(now) } else { Call::Nobody }
    }

    /// Who has a permit to get, and waits for a worker alone, counts as in flight: the limit allows it, and a core does
    /// not.
    fn instant(&self, now: Moment) -> Instantaneous {
        let seen = self.admission.snapshot();
        let admitted = self.admission.takeable();
        let admission = Snapshot { in_flight: seen.in_flight + admitted, queued: seen.queued - admitted, ..seen };
        Instantaneous {
            admission,
            overloaded: self.admission.is_overloaded(now),
            draining: self.draining,
            workers: self.crew.present,
            workers_max: self.crew.most,
            busy: self.crew.busy,
        }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;
    use crate::admission::Priority;

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
                    assert_eq!((gone.task, gone.cause), (2, Cause::QueueTimeout));
                    let (_, after) = offer(late, 3);
                    assert!(matches!(after.call, Call::Nobody), "it is awake, and will look for itself");
                }
            },
        );
        assert_eq!(next, Some(3));
    }

    /// A destructor among what is settled may block, and the job would wait for it although others could run it.
    #[test]
    fn a_worker_that_has_something_to_settle_takes_no_job_along() {
        let settings = Settings { timeout: Duration::from_secs(1), ..Settings::fixed(1) };
        let dispatch = Dispatch::new(settings, 0, 2, 2);
        let offer = |now, job| dispatch.offer(now, Offer::default(), |key, _| (job, key)).0;
        let (start, late) = (Moment::default(), Moment::default() + Duration::from_secs(2));
        let first = offer(start, 1).expect("the pool is empty");
        assert_eq!(dispatch.next(0, From::Start, Duration::ZERO, || start, drop), Some(1));
        for (moment, job) in [(start, 2), (late, 3)] {
            offer(moment, job).expect("there is room");
        }
        let (next, after) = dispatch.finish_and_take(0, late, first, Outcome::Ok, None);
        assert_eq!((next, after.gone.len()), (None, 1));
        assert!(matches!(after.call, Call::Start(1)), "another worker comes for it");
        assert_eq!(dispatch.next(1, From::Start, Duration::ZERO, || late, drop), Some(3));
    }

    /// Two of three are within the limit, and the level has no worker for them.
    #[test]
    fn a_job_that_waits_for_a_core_is_late_and_is_outranked_like_any_that_waits() {
        let second = Duration::from_secs(1);
        let dispatch = Dispatch::new(Settings { timeout: second, ..Settings::fixed(3) }, 0, 3, 1);
        dispatch.lower_level();
        let now = Moment::default();
        let offer = |level, job| {
            let offer = Offer { level, ..Offer::default() };
            let (offered, after) = dispatch.offer(now, offer, |key, glance| (job, (key, glance.queued)));
            let (key, queued) = offered.expect("it is within the limit");
            assert_eq!(queued, 0, "it waits for no permit");
            (key, after)
        };
        let (first, after) = offer(Priority::Low, "first");
        assert!(matches!(after.call, Call::Start(0)));
        for (level, job) in [(Priority::Low, "low"), (Priority::High, "high")] {
            let (_, after) = offer(level, job);
            assert!(matches!(after.call, Call::Nobody));
        }
        let seen = dispatch.instant(now).admission;
        assert_eq!((seen.in_flight, seen.queued), (3, 0), "the limit has permits for them");

        assert_eq!(dispatch.next(0, From::Start, second, || now, drop), Some("first"));
        let (next, after) = dispatch.finish_and_take(0, now, first, Outcome::Ok, None);
        let (next, outlook) = next.expect("two wait");
        assert_eq!((next, outlook.waiting), ("high", 1));
        assert!(after.is_empty());
        let after = dispatch.expire(now + second);
        assert_eq!(after.gone.iter().map(|gone| gone.task).collect::<Vec<_>>(), ["low"]);
        let seen = dispatch.instant(now).admission;
        assert_eq!((seen.in_flight, seen.queued), (1, 0));
    }

    #[test]
    fn an_alarm_that_rings_at_its_very_moment_is_followed_by_the_next() {
        let dispatch = Dispatch::new(Settings::fixed(1).with_capacity(3), 0, 1, 1);
        let second = Duration::from_secs(1);
        let now = Moment::default();
        let by = |seconds| Offer { deadline: Some(now + second * seconds), ..Offer::default() };
        let arm = |offer| dispatch.offer(now, offer, |key, _| ((), key)).1.arm;
        assert_eq!([Offer::default(), by(1), by(1), by(2)].map(arm), [None, Some(now + second), None, None]);
        let after = dispatch.expire(now + second);
        assert_eq!((after.gone.len(), after.arm), (2, Some(now + second * 2)));
    }

    #[test]
    fn a_thread_that_could_not_be_started_is_tried_again_if_a_job_waits_for_it() {
        let now = Moment::default();
        for waits in [false, true] {
            let dispatch = Dispatch::new(Settings::fixed(2), 0, 2, 2);
            let offer = |job| dispatch.offer(now, Offer::default(), |key, _| (job, key));
            let (first, _) = offer(1);
            assert_eq!(dispatch.next(0, From::Start, Duration::ZERO, || now, drop), Some(1));
            assert!(matches!(offer(2).1.call, Call::Start(1)));
            if !waits {
                let first = first.expect("the pool is empty");
                let (next, _) = dispatch.finish_and_take(0, now, first, Outcome::Ok, None);
                assert_eq!(next.map(|(job, _)| job), Some(2));
            }
            let (ready, after) = dispatch.start_failed(now, 1);
            assert!(ready.is_empty() && matches!(after.call, Call::Nobody), "the other worker is there");
            assert_eq!(after.arm.is_some(), waits);
            if let Some(at) = after.arm {
                assert!(matches!(dispatch.expire(at).call, Call::Start(1)));
            }
        }
    }

    /// Whoever waits for the end is polled for many reasons.
    #[test]
    fn a_watcher_that_is_polled_again_is_told_once() {
        let dispatch = Dispatch::new(Settings::fixed(1), 0, 1, 1);
        let now = Moment::default();
        let key = dispatch.offer(now, Offer::default(), |key, _| ((), key)).0.expect("the pool is empty");
        let told = |after: After<()>| after.watchers.len();
        assert!(!dispatch.poll_idle(Waker::noop()) && !dispatch.poll_idle(Waker::noop()));
        assert_eq!(told(dispatch.expire(now)), 0, "a job is in flight");
        assert_eq!(told(dispatch.finish(now, key, Outcome::Ok, None)), 1);
        assert!(dispatch.poll_idle(Waker::noop()), "nothing is left");
        assert_eq!(told(dispatch.expire(now)), 0, "it was told already");
    }
}
