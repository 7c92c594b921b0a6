//! Scenes with more threads than loom can explore, under many random schedules of shuttle. In the *crowd*, everything
//! happens at once on one pool: submitters, callers that leave, wakers, the sampler, the timers, tasks that wait for a
//! task of the same pool, tasks that wait for room, and a drain. In the *meeting*, a sampler repeats until the limit
//! has risen.
//!
//! `RUSTFLAGS="--cfg tower_offload_shuttle" cargo test --lib --release schedules`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Barrier;
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, Runner};

use super::model::{Body, LATE, Plan, Pool, Slot, TaskRef, awaits, ends, waits_for, yields};

const SUBMITTERS: usize = 4;
const TASKS: usize = 4;

fn explore(scheduler: impl Scheduler + 'static, scene: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.max_time = Some(Duration::from_secs(60));
    let runs = Runner::new(scheduler, config).run(scene);
    println!("{runs} schedules");
    assert!(runs > 100, "{runs} schedules are too few to say anything");
}

/// A task of any kind. `inner` counts the tasks that it submits.
fn body(slot: Arc<Slot>, inner: &Arc<AtomicUsize>) -> Body {
    match thread_rng().gen_range(0..5) {
        0 => ends(),
        1 => yields(),
        2 => awaits(slot, yields()),
        kind => {
            let inner = inner.clone();
            waits_for(move || {
                inner.fetch_add(1, Relaxed);
                if kind == 3 { yields() } else { awaits(slot.clone(), ends()) }
            })
        }
    }
}

/// A sampler that runs whenever the pool starts it. At each sample it finds all workers runnable if `runnable` is true,
/// and all of them blocked if not. It ends when it is started after `over` was set.
fn sampler(
    pool: &Arc<Pool>,
    over: &Arc<AtomicBool>,
    mut runnable: impl FnMut() -> bool + Send + 'static,
) -> JoinHandle<()> {
    let (pool, over) = (pool.clone(), over.clone());
    thread::spawn(move || {
        loop {
            pool.sampler.wait();
            if over.load(Relaxed) {
                break;
            }
            while pool.sample(runnable()).is_some() {
                thread::yield_now();
            }
        }
    })
}

/// Each task that was admitted runs to its end, or is cancelled or rejected.
fn crowd() {
    let pool = Pool::new(&Plan { workers: 3, limit: 3, capacity: 2, cores: 1 });
    if thread_rng().gen_bool(0.5) {
        pool.dispatch.lower_limit();
    }
    let slots: Arc<Vec<_>> = Arc::new((0..SUBMITTERS * TASKS).map(|_| Arc::<Slot>::default()).collect());
    let (admitted, inner) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let over = Arc::new(AtomicBool::new(false));

    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|submitter| {
            let (pool, slots) = (pool.clone(), slots.clone());
            let (admitted, inner) = (admitted.clone(), inner.clone());
            thread::spawn(move || {
                for task in 0..TASKS {
                    let body = body(slots[submitter * TASKS + task].clone(), &inner);
                    let Ok(task) = pool.submit(body) else { continue };
                    admitted.fetch_add(1, Relaxed);
                    match thread_rng().gen_range(0..3) {
                        0 => pool.leave(&task),
                        1 => pool.wait_for(&task),
                        _ => {}
                    }
                }
            })
        })
        .collect();

    let patient = {
        let (pool, admitted) = (pool.clone(), admitted.clone());
        thread::spawn(move || {
            if let Some(task) = pool.submit_patiently(ends) {
                admitted.fetch_add(1, Relaxed);
                pool.wait_for(&task);
            }
        })
    };
    let waker = {
        let (pool, slots, over) = (pool.clone(), slots.clone(), over.clone());
        thread::spawn(move || {
            while !over.load(Relaxed) {
                slots.iter().filter_map(|slot| slot.take()).for_each(|task| pool.wake(&task));
                thread::yield_now();
            }
        })
    };
    let sampler = sampler(&pool, &over, || thread_rng().gen_bool(0.5));
    let timer = {
        let pool = pool.clone();
        thread::spawn(move || {
            pool.perform(pool.dispatch.expire(LATE));
            if thread_rng().gen_bool(0.5) {
                pool.time_passes();
            }
        })
    };

    let drains_early = thread_rng().gen_bool(0.5);
    if drains_early {
        pool.drain();
    }
    submitters.into_iter().for_each(|submitter| submitter.join().expect("no submitter panics"));
    patient.join().expect("the submitter that waits for room does not panic");
    timer.join().expect("the timer does not panic");
    pool.drain();
    pool.wait_until_idle(0);
    over.store(true, Relaxed);
    pool.sampler.notify();
    waker.join().expect("the waker does not panic");
    sampler.join().expect("the sampler does not panic");
    pool.close_all(admitted.load(Relaxed) + inner.load(Relaxed));
}

/// Each of four tasks blocks its worker until all four have begun. The first samples find the workers runnable, as if
/// the tasks computed, so the limit falls to one worker, and the others park although tasks wait. All later samples
/// find the workers blocked.
fn meeting() {
    const TASKS: usize = 4;
    let pool = Pool::new(&Plan { workers: TASKS, limit: TASKS, capacity: 0, cores: 1 });
    if thread_rng().gen_bool(0.5) {
        pool.dispatch.lower_limit();
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut runnable_samples = thread_rng().gen_range(0..4);
    let sampler = sampler(&pool, &over, move || {
        let runnable = runnable_samples > 0;
        runnable_samples -= i32::from(runnable);
        runnable
    });
    let all = Arc::new(Barrier::new(TASKS));
    for _ in 0..TASKS {
        let all = all.clone();
        let task = move |_: &Arc<Pool>, _: &TaskRef| {
            all.wait();
            Poll::Ready(())
        };
        pool.submit(Box::new(task)).expect("a permit is free");
    }
    pool.wait_until_idle(0);
    over.store(true, Relaxed);
    pool.sampler.notify();
    sampler.join().expect("the sampler does not panic");
    pool.close(TASKS, 0);
}

#[test]
fn a_crowd_loses_no_task_under_schedules_at_random() {
    explore(RandomScheduler::new(20_000), crowd);
}

/// Probabilistic concurrency testing (Burckhardt and others, ASPLOS 2010): few preemptions at random points.
#[test]
fn a_crowd_loses_no_task_under_schedules_with_few_preemptions() {
    explore(PctScheduler::new(3, 20_000), crowd);
}

#[test]
fn a_limit_that_is_too_low_for_tasks_that_block_rises_and_wakes_workers() {
    explore(RandomScheduler::new(5_000), meeting);
    explore(PctScheduler::new(3, 5_000), meeting);
}
