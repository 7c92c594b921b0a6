//! Models of the wake protocol: loom runs them through every interleaving of their threads, up to a bound on
//! preemptions.
//!
//! `RUSTFLAGS="--cfg tower_offload_loom" cargo test --lib --release models`

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use loom::sync::Notify;
use loom::thread::{self, JoinHandle};

use super::completions::{Completions, Outlook};
use super::model::{Deed, LATE, NOW, Plan, Pool, hold};
use crate::admission::Outcome;
use crate::error::Cause;
use crate::timer::Alarm;

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A thread that does something to the pool beside the model's own.
fn beside<T: 'static>(pool: &Arc<Pool>, deed: impl FnOnce(&Arc<Pool>) -> T + 'static) -> JoinHandle<T> {
    let pool = pool.clone();
    thread::spawn(move || deed(&pool))
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
        let other = beside(&pool, |pool| pool.submit(Deed::End).expect("there is room for two"));
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
        let watch = beside(&pool, |pool| _ = pool.look(true));
        pool.submit(Deed::Meet(one.clone(), two.clone())).expect("a permit is free");
        pool.submit(Deed::Meet(two, one)).expect("a permit is free");
        watch.join().expect("whoever looks does not panic");
        (0..3).for_each(|_| _ = pool.look(false));
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// The time of a worker that sleeps, or is about to, is up while a job is submitted: it takes the job, or leaves, and
/// another comes.
#[test]
fn a_worker_whose_time_is_up_leaves_no_job_behind() {
    explore(4, || {
        let pool = Pool::new(&Plan { workers: 1, limit: 1, capacity: 0, most_waking: 1 });
        pool.submit(Deed::End).expect("a permit is free");
        pool.wait_until_idle();
        let clock = beside(&pool, |pool| pool.time_passes());
        pool.submit(Deed::End).expect("the permit came home");
        clock.join().expect("the clock does not panic");
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
        (0..3).for_each(|_| _ = pool.look(false));
        pool.wait_until_idle();
        pool.close(2, 0);
    });
}

/// Workers are taken for too many at any moment: those that lie down leave their jobs to those that stay.
#[test]
fn a_level_that_falls_loses_no_job() {
    explore(2, || {
        let pool = Pool::new(&Plan { workers: 2, limit: 2, capacity: 1, most_waking: 1 });
        let watch = beside(&pool, |pool| _ = pool.look(true));
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
        let (job, after) = pool.dispatch.cancel(NOW, key, Outcome::Cancelled);
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
        let submitter = beside(&pool, |pool| pool.submit(Deed::End).is_ok());
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
        let other = beside(&pool, |pool| pool.submit(Deed::End).expect("there is room for two"));
        pool.submit(Deed::End).expect("there is room for two");
        other.join().expect("the submitter does not panic");
        pool.close(0, 2);
    });
}

/// A worker has ended two short jobs, the second of which may be held back, and goes on with one that waits for what that
/// caller does when it is told.
#[test]
fn a_caller_that_is_held_back_does_not_wait_for_the_next_job() {
    struct Caller(Notify);
    impl Wake for Caller {
        fn wake(self: Arc<Self>) {
            self.0.notify();
        }
    }
    explore(5, || {
        let completions = Arc::new(Completions::default());
        let outlook = Some(Outlook { now: NOW, usual: Duration::ZERO, waiting: 2 });
        let mut timers = Vec::new();
        let mut end = |caller| {
            if completions.hold_or_wake(caller, outlook) {
                let completions = completions.clone();
                timers.push(thread::spawn(move || while completions.clone().ring().is_some() {}));
            }
        };
        end(Waker::noop().clone());
        let caller = Arc::new(Caller(Notify::new()));
        end(caller.clone().into());
        caller.0.wait();
        timers.into_iter().for_each(|timer| timer.join().expect("the timer does not panic"));
    });
}
