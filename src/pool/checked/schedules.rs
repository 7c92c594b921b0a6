//! A crowd on one pool, under many schedules that shuttle makes up: submitters, callers who leave, wakers, whoever
//! watches the level, the timer, and a drain in the middle. What is too much for loom to try in full.
//!
//! `RUSTFLAGS="--cfg tower_offload_shuttle" cargo test --lib --release schedules`

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;
use shuttle::{Config, Runner};

use super::model::{Deed, LATE, Plan, Pool, hold};
use crate::admission::Outcome;

const SUBMITTERS: usize = 4;
const JOBS: usize = 4;

fn explore(scheduler: impl Scheduler + 'static, scene: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.max_time = Some(Duration::from_secs(60));
    let runs = Runner::new(scheduler, config).run(scene);
    println!("{runs} schedules");
    assert!(runs > 100, "{runs} schedules are too few to say anything");
}

/// Everything that a pool can meet, at once. Each job that was admitted runs to its end or is given up.
fn crowd() {
    let pool = Pool::new(&Plan { workers: 3, limit: 3, capacity: 2, most_waking: 1 });
    if thread_rng().gen_bool(0.5) {
        pool.dispatch.lower_level();
    }
    let slots: Arc<Vec<_>> = Arc::new((0..SUBMITTERS * JOBS).map(|_| Arc::new(Mutex::new(None))).collect());
    let (admitted, cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let over = Arc::new(AtomicBool::new(false));

    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|submitter| {
            let (pool, slots) = (pool.clone(), slots.clone());
            let (admitted, cancelled) = (admitted.clone(), cancelled.clone());
            thread::spawn(move || {
                for job in 0..JOBS {
                    let waits = thread_rng().gen_bool(0.5);
                    let slot = slots[submitter * JOBS + job].clone();
                    let deed = if waits { Deed::Await(slot) } else { Deed::End };
                    let Ok(key) = pool.submit(deed) else { continue };
                    admitted.fetch_add(1, Ordering::Relaxed);
                    if thread_rng().gen_bool(0.3) {
                        let (job, after) = pool.dispatch.cancel(super::model::NOW, key, Outcome::Cancelled);
                        cancelled.fetch_add(usize::from(job.is_some()), Ordering::Relaxed);
                        pool.settle(after);
                    }
                }
            })
        })
        .collect();

    let waker = {
        let (pool, slots, over) = (pool.clone(), slots.clone(), over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for slot in slots.iter() {
                    let job = hold(slot).take();
                    job.into_iter().for_each(|job| pool.wake(job));
                }
                thread::yield_now();
            }
        })
    };
    let watch = {
        let (pool, over) = (pool.clone(), over.clone());
        thread::spawn(move || {
            loop {
                pool.watch.wait();
                if over.load(Ordering::Relaxed) {
                    break;
                }
                while pool.look(thread_rng().gen_bool(0.5)).is_some() {
                    thread::yield_now();
                }
            }
        })
    };
    let timer = {
        let pool = pool.clone();
        thread::spawn(move || {
            let after = pool.dispatch.expire(LATE);
            pool.settle(after);
            if thread_rng().gen_bool(0.5) {
                pool.time_passes();
            }
        })
    };

    let drains_early = thread_rng().gen_bool(0.5);
    if drains_early {
        pool.dispatch.drain();
    }
    submitters.into_iter().for_each(|submitter| submitter.join().expect("no submitter panics"));
    timer.join().expect("the timer does not panic");
    pool.dispatch.drain();
    pool.wait_until_idle();
    over.store(true, Ordering::Relaxed);
    pool.watch.notify();
    waker.join().expect("the waker does not panic");
    watch.join().expect("whoever watches does not panic");
    let (admitted, cancelled) = (admitted.load(Ordering::Relaxed), cancelled.load(Ordering::Relaxed));
    pool.close_all(admitted - cancelled);
}

#[test]
fn a_crowd_loses_no_job_under_schedules_at_random() {
    explore(RandomScheduler::new(20_000), crowd);
}

/// Few preemptions, at the worst moments: probabilistic concurrency testing (Burckhardt and others, ASPLOS 2010).
#[test]
fn a_crowd_loses_no_job_under_schedules_with_few_preemptions() {
    explore(PctScheduler::new(3, 20_000), crowd);
}
