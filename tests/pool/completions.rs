//! How callers are told that their jobs have ended: many together while short jobs wait, and nobody late.

use std::collections::HashSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tower_offload::pool::JobHandle;
use tower_offload::{PoolConfig, Pools};

use crate::children::in_child;
use crate::support::{Gate, Held, end_of, hold, pools, stats, until, until_at_rest};

/// A pool of one worker in which many jobs can wait for long.
fn patient(name: &str) -> Pools {
    let minute = Duration::from_secs(60);
    let config = PoolConfig::new(1).queue_capacity(10_000).queue_timeout(minute).queue_target(minute..=minute);
    pools(name, config)
}

/// Submits a job, and waits for it with a waker that calls `told`.
fn submit(
    pools: &Pools,
    name: &str,
    job: impl FnOnce() + Send + 'static,
    told: impl Fn() + Send + Sync + 'static,
) -> JobHandle<()> {
    let mut handle = pools.submit_to_pool(name, job).unwrap();
    let _ = Pin::new(&mut handle).poll(&mut Context::from_waker(&caller(told)));
    handle
}

/// A waker that calls `told`.
fn caller(told: impl Fn() + Send + Sync + 'static) -> Waker {
    struct Caller<F>(F);
    impl<F: Fn() + Send + Sync> Wake for Caller<F> {
        fn wake(self: Arc<Self>) {
            self.0();
        }
    }
    Waker::from(Arc::new(Caller(told)))
}

/// Takes 20 µs.
fn short() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(20) {}
}

#[test]
fn callers_of_short_jobs_are_told_together_while_others_wait() {
    let pools = patient("many");
    // On a busy machine short jobs may seem long, for they are interrupted.
    until("some are told at the same moment", || {
        let held = hold(&pools, "many", 1);
        let (ended, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let handles: Vec<_> = (0..2_000)
            .map(|_| {
                let (ends, seen, told) = (ended.clone(), ended.clone(), told.clone());
                let job = move || {
                    short();
                    ends.fetch_add(1, Ordering::Relaxed);
                };
                submit(&pools, "many", job, move || told.lock().unwrap().push(seen.load(Ordering::Relaxed)))
            })
            .collect();
        held.into_iter().for_each(Held::release);
        until("all are told", || told.lock().unwrap().len() == handles.len());
        let moments: HashSet<_> = told.lock().unwrap().iter().copied().collect();
        moments.len() < handles.len() / 2
    });
}

/// The long job even waits for what the caller of the short one does when it is told.
fn nobody_waits_for_the_long_job(name: &str) {
    let pools = patient(name);
    let held = hold(&pools, name, 1);
    let quiet = |job: fn()| submit(&pools, name, job, || ());
    let mut handles: Vec<_> = (0..2_000).map(|_| quiet(short)).collect();
    for _ in 0..20 {
        let gate = Gate::default();
        let opens = gate.clone();
        handles.push(submit(&pools, name, short, move || opens.open()));
        handles.push(submit(&pools, name, move || gate.wait(), || ()));
        handles.extend((0..200).map(|_| quiet(short)));
    }
    held.into_iter().for_each(Held::release);
    // Who waits for a handle takes the place of its caller.
    until_at_rest(&pools, name);
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
}

#[test]
fn nobody_waits_for_the_long_job_that_follows_short_ones() {
    nobody_waits_for_the_long_job("late");
}

#[test]
fn nor_where_a_waker_holds_up_the_thread_that_keeps_the_time() {
    let test = "completions::nor_where_a_waker_holds_up_the_thread_that_keeps_the_time";
    in_child(
        test,
        |_| (),
        || {
            let pools = pools("held", PoolConfig::new(1));
            let held = hold(&pools, "held", 1);
            let (comes, goes) = (Gate::default(), Gate::default());
            let (called, leaves) = (comes.clone(), goes.clone());
            let mut shutdown = pin!(pools.shutdown(Duration::from_millis(1)));
            let waker = caller(move || {
                called.open();
                leaves.wait();
            });
            assert!(shutdown.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            comes.wait();
            nobody_waits_for_the_long_job("late");
            goes.open();
            held.into_iter().for_each(Held::release);
        },
    );
}

/// A handle may go from one task to another while its job ends.
#[test]
fn who_waits_last_is_told() {
    let pools = patient("last");
    for _ in 0..2_000 {
        let mut handle = pools.submit_to_pool("last", || ()).unwrap();
        let told = Gate::default();
        let opens = told.clone();
        let mut waits = |waker| Pin::new(&mut handle).poll(&mut Context::from_waker(waker)).is_pending();
        if waits(Waker::noop()) && waits(&caller(move || opens.open())) {
            told.wait();
        }
    }
}

#[test]
fn callers_whose_wakers_panic_harm_nobody() {
    let pools = patient("bombs");
    let held = hold(&pools, "bombs", 1);
    let told = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..500)
        .map(|number| {
            let told = told.clone();
            submit(&pools, "bombs", short, move || {
                told.fetch_add(1, Ordering::Relaxed);
                assert!(number % 2 == 0, "this caller's waker panics");
            })
        })
        .collect();
    held.into_iter().for_each(Held::release);
    until("all are told", || told.load(Ordering::Relaxed) == handles.len());
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
    until_at_rest(&pools, "bombs");
    assert_eq!((stats(&pools, "bombs").counts.ok, stats(&pools, "bombs").workers), (501, 1));
}
