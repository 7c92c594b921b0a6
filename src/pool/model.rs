//! A pool whose threads belong to a checker: loom, which tries every interleaving of a few (`models.rs`), or shuttle, which
//! tries many of a crowd (`schedules.rs`). A wake-up that is lost shows as a deadlock.

#![cfg_attr(tower_offload_shuttle, expect(dead_code, reason = "only loom's models use all of it"))]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::crew::Call;
use super::dispatch::{After, Dispatch, From};
use super::level::Seen;
use crate::admission::{Key, Offer, Outcome, Settings, Timestamp as Moment};
use crate::error::Cause;
use crate::sync::checked::{JoinHandle, Notify, spawn};

/// Models have no clock: it is always this moment, but where a model gives another, or lets time pass.
pub(super) const NOW: Moment = Moment::from_nanos(1);
pub(super) const LATE: Moment = Moment::from_nanos(u64::MAX);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A job of a model.
pub(super) struct Job {
    key: Key,
    deed: Deed,
}

/// What a job does when it is polled.
pub(super) enum Deed {
    /// It ends.
    End,
    /// At the first poll it waits to be woken, from the given slot; at the second it ends.
    Await(Arc<Mutex<Option<Job>>>),
    /// It wakes the job in the slot, blocks its thread until that has ended, and ends.
    WakeThenBlock(Arc<Mutex<Option<Job>>>, Arc<Notify>),
    /// It ends and says so.
    Tell(Arc<Notify>),
    /// It says that it has begun, blocks its thread until the other has begun too, and ends.
    Meet(Arc<Notify>, Arc<Notify>),
}

/// A pool whose threads are loom's.
pub(super) struct Pool {
    pub(super) dispatch: Dispatch<Job>,
    limit: usize,
    /// Whether threads can be started.
    fertile: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// It is late: workers that sleep have slept for as long as they may.
    is_late: AtomicBool,
    in_flight: AtomicUsize,
    pub(super) ended: AtomicUsize,
    gone: AtomicUsize,
    /// Rings when somebody is to look at the workers.
    pub(super) watch: Notify,
}

pub(super) struct Plan {
    pub(super) workers: usize,
    pub(super) limit: usize,
    pub(super) capacity: usize,
    pub(super) most_waking: usize,
}

impl Pool {
    pub(super) fn new(plan: &Plan) -> Arc<Self> {
        Self::of(plan, true)
    }

    pub(super) fn of(plan: &Plan, fertile: bool) -> Arc<Self> {
        let settings =
            Settings { timeout: Duration::from_secs(1), ..Settings::fixed(plan.limit).with_capacity(plan.capacity) };
        Arc::new(Self {
            dispatch: Dispatch::new(settings, 0, plan.workers, plan.most_waking),
            limit: plan.limit,
            fertile,
            threads: Mutex::default(),
            is_late: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            watch: Notify::new(),
        })
    }

    pub(super) fn submit(self: &Arc<Self>, deed: Deed) -> Result<Key, Cause> {
        let (offered, after) = self.dispatch.offer(NOW, Offer::default(), |key, _| (Job { key, deed }, key));
        self.settle(after);
        offered.map_err(|(cause, _)| cause)
    }

    pub(super) fn settle(self: &Arc<Self>, after: After<Job>) {
        let After { call, gone, watchers, watch, .. } = after;
        self.call(call);
        if watch {
            self.watch.notify();
        }
        self.gone.fetch_add(gone.len(), Ordering::Relaxed);
        watchers.into_iter().for_each(Waker::wake);
    }

    fn call(self: &Arc<Self>, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Unpark(thread) => thread.unpark(),
            Call::Start(seat) if self.fertile => {
                let this = self.clone();
                let thread = spawn(move || this.work(seat));
                hold(&self.threads).push(thread);
            }
            Call::Start(seat) => {
                let (ready, after) = self.dispatch.start_failed(NOW, seat);
                self.settle(after);
                for job in ready {
                    let after = self.dispatch.finish(NOW, job.key, Outcome::Cancelled, None);
                    self.gone.fetch_add(1, Ordering::Relaxed);
                    self.settle(after);
                }
            }
        }
    }

    fn work(self: &Arc<Self>, seat: usize) {
        let mut from = From::Start;
        let mut kept: Option<Job> = None;
        let next = |from| self.dispatch.next(seat, from, KEEP_ALIVE, || self.now(), |after| self.settle(after));
        while let Some(job) = kept.take().or_else(|| next(from)) {
            from = From::Job;
            kept = self.poll(seat, job);
        }
    }

    /// Polls a job; the next one of this worker, if this one has ended.
    fn poll(self: &Arc<Self>, seat: usize, job: Job) -> Option<Job> {
        let Job { key, deed } = job;
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        assert!(before < self.limit, "more jobs are in flight than the limit allows");
        match deed {
            Deed::End => {}
            Deed::Tell(told) => told.notify(),
            Deed::Await(slot) => {
                self.in_flight.fetch_sub(1, Ordering::Relaxed);
                *hold(&slot) = Some(Job { key, deed: Deed::End });
                return None;
            }
            Deed::WakeThenBlock(slot, told) => {
                let other = hold(&slot).take().expect("the model lets the other job wait first");
                self.wake(Job { key: other.key, deed: Deed::Tell(told.clone()) });
                told.wait();
            }
            Deed::Meet(here, there) => {
                here.notify();
                there.wait();
            }
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
        let (next, after) = self.dispatch.finish_and_take(seat, NOW, key, Outcome::Ok, None);
        self.settle(after);
        next.map(|(job, _)| job)
    }

    pub(super) fn wake(self: &Arc<Self>, job: Job) {
        let after = self.dispatch.ready(NOW, job, false);
        self.settle(after);
    }

    fn now(&self) -> Moment {
        if self.is_late.load(Ordering::Relaxed) { LATE } else { NOW }
    }

    /// So much time passes that the workers which sleep, or are about to, have no reason to stay.
    pub(super) fn time_passes(&self) {
        self.is_late.store(true, Ordering::Relaxed);
        // Not under the lock, which is not the checker's: whoever is unparked may want it at once.
        let workers: Vec<_> = hold(&self.threads).iter().map(|worker| worker.thread().clone()).collect();
        workers.into_iter().for_each(|worker| worker.unpark());
    }

    /// Somebody looks at the workers that are awake, and finds that all of them run, or that none does. When to look
    /// again.
    pub(super) fn look(self: &Arc<Self>, they_run: bool) -> Option<Duration> {
        let (next, after) = self.dispatch.learn(NOW, &[Seen { runs: they_run, since: None }]);
        self.settle(after);
        next
    }

    /// Waits until nothing is queued or in flight.
    pub(super) fn wait_until_idle(&self) {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(bell.clone());
        while !self.dispatch.poll_idle(&waker) {
            bell.0.wait();
        }
    }

    /// Lets the workers end, and looks whether everything came home.
    pub(super) fn close(&self, ended: usize, gone: usize) {
        self.close_all(ended + gone);
        assert_eq!(self.ended.load(Ordering::Relaxed), ended, "jobs that ran to their end");
        assert_eq!(self.gone.load(Ordering::Relaxed), gone, "jobs that were given up");
    }

    /// The same, however many of the jobs ran and were given up.
    pub(super) fn close_all(&self, jobs: usize) {
        for thread in self.dispatch.close() {
            thread.unpark();
        }
        loop {
            let Some(thread) = hold(&self.threads).pop() else { break };
            thread.join().expect("no worker panics");
        }
        let instant = self.dispatch.instant(Moment::default());
        assert_eq!((instant.workers, instant.busy, self.dispatch.waking()), (0, 0, 0), "workers, busy, waking");
        assert_eq!((instant.admission.in_flight, instant.admission.queued), (0, 0), "in flight, queued");
        assert_eq!(instant.admission.counts.ended(), instant.admission.counts.submitted);
        let (ended, gone) = (self.ended.load(Ordering::Relaxed), self.gone.load(Ordering::Relaxed));
        assert_eq!(ended + gone, jobs, "{ended} jobs ran to their end, {gone} were given up");
    }
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

pub(super) fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
