//! Models of the wake protocol: loom runs them through every interleaving of their threads, up to a bound on
//! preemptions. A wake-up that is lost shows as a deadlock.
//!
//! `RUSTFLAGS="--cfg tower_offload_loom" cargo test --lib --release models`

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::sync::Notify;
use loom::thread::{self, JoinHandle};

use super::crew::Call;
use super::dispatch::{After, Dispatch, From};
use super::level::Seen;
use crate::admission::{Key, Moment, Offer, Outcome, Settings};
use crate::error::Cause;

/// Models have no clock: it is always this moment, but where a model gives another.
const NOW: Moment = Moment::from_nanos(1);
const LATE: Moment = Moment::from_nanos(u64::MAX);
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A job of a model.
struct Job {
    key: Key,
    deed: Deed,
}

/// What a job does when it is polled.
enum Deed {
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
struct Pool {
    dispatch: Dispatch<Job>,
    limit: usize,
    /// Whether threads can be started.
    fertile: bool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    in_flight: AtomicUsize,
    ended: AtomicUsize,
    gone: AtomicUsize,
    /// Rings when somebody is to look at the workers.
    watch: Notify,
}

struct Plan {
    workers: usize,
    limit: usize,
    capacity: usize,
    most_waking: usize,
}

impl Pool {
    fn new(plan: &Plan) -> Arc<Self> {
        Self::of(plan, true)
    }

    fn of(plan: &Plan, fertile: bool) -> Arc<Self> {
        let settings =
            Settings { timeout: Duration::from_secs(1), ..Settings::fixed(plan.limit).with_capacity(plan.capacity) };
        Arc::new(Self {
            dispatch: Dispatch::new(settings, 0, plan.workers, plan.most_waking),
            limit: plan.limit,
            fertile,
            threads: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            watch: Notify::new(),
        })
    }

    fn submit(self: &Arc<Self>, deed: Deed) -> Result<Key, Cause> {
        let (offered, after) = self.dispatch.offer(NOW, Offer::default(), |key, _| (Job { key, deed }, key));
        self.settle(after);
        offered.map_err(|(cause, _)| cause)
    }

    fn settle(self: &Arc<Self>, after: After<Job>) {
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
                let thread = thread::spawn(move || this.work(seat));
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
        let next = |from| self.dispatch.next(seat, from, KEEP_ALIVE, || NOW, |after| self.settle(after));
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
        next
    }

    fn wake(self: &Arc<Self>, job: Job) {
        let after = self.dispatch.ready(NOW, job, false);
        self.settle(after);
    }

    /// Somebody looks at the workers that are awake, and finds that all of them run, or that none does.
    fn look(self: &Arc<Self>, they_run: bool) {
        let (_, after) = self.dispatch.learn(NOW, &[Seen { runs: they_run, since: None }]);
        self.settle(after);
    }

    /// Waits until nothing is queued or in flight.
    fn wait_until_idle(&self) {
        let bell = Arc::new(Bell(Notify::new()));
        let waker = Waker::from(bell.clone());
        while !self.dispatch.poll_idle(&waker) {
            bell.0.wait();
        }
    }

    /// Lets the workers end, and looks whether everything came home.
    fn close(&self, ended: usize, gone: usize) {
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
        assert_eq!(self.ended.load(Ordering::Relaxed), ended, "jobs that ran to their end");
        assert_eq!(self.gone.load(Ordering::Relaxed), gone, "jobs that were given up");
    }
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn hold<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn a_job_submitted_while_the_worker_goes_to_sleep_runs() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 1, most_waking: 1 });
        pool.submit(Deed::End).expect("a permit is free");
        pool.wait_until_idle();
        pool.submit(Deed::End).expect("the permit came home");
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

#[test]
fn two_submitters_and_two_workers_lose_no_job() {
    explore(3, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 1, most_waking: 1 });
        let other = {
            let pool = pool.clone();
            thread::spawn(move || pool.submit(Deed::End).expect("there is room for two"))
        };
        pool.submit(Deed::End).expect("there is room for two");
        other.join().expect("the submitter does not panic");
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

#[test]
fn a_queued_job_starts_when_the_permit_comes_home() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 1, capacity: 1, most_waking: 2 });
        pool.submit(Deed::End).expect("a permit is free");
        pool.submit(Deed::End).expect("there is room in the queue");
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// Each of two jobs blocks its thread until the other has begun, while one worker at most may be waking.
#[test]
fn a_worker_that_arrives_calls_the_next_one() {
    explore(3, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 0, most_waking: 1 });
        let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        pool.submit(Deed::Meet(one.clone(), two.clone())).expect("a permit is free");
        pool.submit(Deed::Meet(two, one)).expect("a permit is free");
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// Each of two jobs blocks its thread until the other has begun, while the workers are taken for some that compute, so
/// that the second may lie down with its job untaken. When none is seen to run any more, it is called again.
#[test]
fn a_level_that_is_too_low_for_jobs_that_block_rises_and_calls_workers() {
    explore(2, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 0, most_waking: 1 });
        let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let watch = {
            let pool = pool.clone();
            thread::spawn(move || pool.look(true))
        };
        pool.submit(Deed::Meet(one.clone(), two.clone())).expect("a permit is free");
        pool.submit(Deed::Meet(two, one)).expect("a permit is free");
        watch.join().expect("whoever looks does not panic");
        (0..3).for_each(|_| pool.look(false));
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// The pool has learned that its jobs compute, and nobody looks any more. Then each of two jobs blocks its thread until
/// the other has begun: somebody is told to look, whoever comes first.
#[test]
fn a_job_that_finds_no_worker_at_a_low_level_begins_the_watch() {
    explore(3, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 0, most_waking: 1 });
        pool.dispatch.lower_level();
        let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        pool.submit(Deed::Meet(one.clone(), two.clone())).expect("a permit is free");
        pool.submit(Deed::Meet(two, one)).expect("a permit is free");
        pool.watch.wait();
        (0..3).for_each(|_| pool.look(false));
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// Workers are taken for too many at any moment: those that lie down leave their jobs to those that stay.
#[test]
fn a_level_that_falls_loses_no_job() {
    explore(2, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 1, most_waking: 1 });
        let watch = {
            let pool = pool.clone();
            thread::spawn(move || pool.look(true))
        };
        for _ in 0..3 {
            pool.submit(Deed::End).expect("there is room for three");
        }
        watch.join().expect("whoever looks does not panic");
        pool.wait_until_idle();
        pool.close(3, 0);
    });
}

#[test]
fn a_job_woken_while_the_worker_goes_to_sleep_is_polled_again() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 0, most_waking: 1 });
        let slot = Arc::new(Mutex::new(None));
        pool.submit(Deed::Await(slot.clone())).expect("a permit is free");
        let job = loop {
            if let Some(job) = hold(&slot).take() {
                break job;
            }
            thread::yield_now();
        };
        pool.wake(job);
        pool.wait_until_idle();
        pool.close(1, 0);
    });
}

/// A job wakes another and then blocks its thread until that has ended: a second worker is there for it.
#[test]
fn a_job_woken_by_one_that_blocks_runs_on_another_worker() {
    explore(3, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 0, most_waking: 1 });
        let slot = Arc::new(Mutex::new(None));
        pool.submit(Deed::Await(slot.clone())).expect("a permit is free");
        while hold(&slot).is_none() {
            thread::yield_now();
        }
        pool.submit(Deed::WakeThenBlock(slot, Arc::new(Notify::new()))).expect("a permit is free");
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// The caller of a queued job leaves while a worker is about to take it: one of the two gets it.
#[test]
fn a_cancelled_job_is_taken_or_cancelled_and_never_both() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 1, most_waking: 1 });
        pool.submit(Deed::End).expect("a permit is free");
        let key = pool.submit(Deed::End).expect("there is room in the queue");
        let (job, after) = pool.dispatch.cancel(NOW, key);
        let cancelled = usize::from(job.is_some());
        pool.settle(after);
        pool.wait_until_idle();
        pool.close(2 - cancelled, 0);
    });
}

#[test]
fn a_late_job_is_taken_or_expired_and_never_both() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 1, most_waking: 1 });
        pool.submit(Deed::End).expect("a permit is free");
        pool.submit(Deed::End).expect("there is room in the queue");
        let after = pool.dispatch.expire(LATE);
        let expired = after.gone.len();
        pool.settle(after);
        pool.wait_until_idle();
        pool.close(2 - expired, expired);
    });
}

/// A drain begins while a job is submitted: the job is refused, or the drain waits for it.
#[test]
fn a_drain_waits_for_every_job_that_was_admitted() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 1, most_waking: 1 });
        let submitter = {
            let pool = pool.clone();
            thread::spawn(move || pool.submit(Deed::End).is_ok())
        };
        pool.dispatch.drain();
        pool.wait_until_idle();
        let ended = pool.ended.load(Ordering::Relaxed);
        let admitted = submitter.join().expect("the submitter does not panic");
        assert_eq!(pool.submit(Deed::End), Err(Cause::Draining));
        assert_eq!(
            ended,
            usize::from(admitted),
            "the drain did not wait for the job, or waited for one that was refused"
        );
        pool.close(usize::from(admitted), 0);
    });
}

/// The deadline of a drain passes while the queue is being worked off.
#[test]
fn a_queue_that_is_given_up_loses_no_job() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 2, most_waking: 1 });
        for _ in 0..3 {
            pool.submit(Deed::End).expect("there is room for three");
        }
        pool.dispatch.drain();
        let after = pool.dispatch.evict_all(NOW, Cause::Draining);
        let given_up = after.gone.len();
        pool.settle(after);
        pool.wait_until_idle();
        pool.close(3 - given_up, given_up);
    });
}

/// The last handle goes while a worker still has a job, or is on its way to sleep.
#[test]
fn a_pool_that_closes_finishes_what_it_has_and_its_workers_end() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 1, most_waking: 1 });
        pool.submit(Deed::End).expect("a permit is free");
        pool.submit(Deed::End).expect("there is room in the queue");
        pool.close(2, 0);
    });
}

/// A job that awaits is woken after the pool has closed and its workers have gone: a worker comes for it.
#[test]
fn a_job_woken_after_the_pool_closed_ends() {
    explore(5, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 0, most_waking: 1 });
        let slot = Arc::new(Mutex::new(None));
        pool.submit(Deed::Await(slot.clone())).expect("a permit is free");
        for thread in pool.dispatch.close() {
            thread.unpark();
        }
        let job = loop {
            if let Some(job) = hold(&slot).take() {
                break job;
            }
            thread::yield_now();
        };
        pool.wake(job);
        pool.wait_until_idle();
        pool.close(1, 0);
    });
}

/// No thread can be started while two submit: both jobs are answered, neither waits for ever.
#[test]
fn without_any_worker_every_job_is_answered() {
    explore(5, || {
        let pool = Pool::of(&Plan { workers: 2, limit: 1, capacity: 1, most_waking: 2 }, false);
        let other = {
            let pool = pool.clone();
            thread::spawn(move || pool.submit(Deed::End).expect("there is room for two"))
        };
        pool.submit(Deed::End).expect("there is room for two");
        other.join().expect("the submitter does not panic");
        pool.close(0, 2);
    });
}
