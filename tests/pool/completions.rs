//! How callers are told that their jobs have ended: many together while short jobs wait, and nobody late.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tower_offload::{JobHandle, PoolConfig, Pools};

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
    struct Caller<F>(F);
    impl<F: Fn() + Send + Sync> Wake for Caller<F> {
        fn wake(self: Arc<Self>) {
            self.0();
        }
    }
    let mut handle = pools.submit_to_pool(name, job).unwrap();
    let waker = Waker::from(Arc::new(Caller(told)));
    assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
    handle
}

/// Takes 20 µs.
fn short() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(20) {}
}

#[test]
fn callers_of_short_jobs_are_told_together_while_others_wait() {
    let pools = patient("many");
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
    assert!(moments.len() < handles.len() / 2, "at {} moments", moments.len());
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
}

/// The long job even waits for what the caller of the short one does when it is told.
#[test]
fn nobody_waits_for_the_long_job_that_follows_short_ones() {
    let pools = patient("late");
    let held = hold(&pools, "late", 1);
    let quiet = |job: fn()| submit(&pools, "late", job, || ());
    let mut handles: Vec<_> = (0..2_000).map(|_| quiet(short)).collect();
    for _ in 0..20 {
        let gate = Gate::default();
        let opens = gate.clone();
        handles.push(submit(&pools, "late", short, move || opens.open()));
        handles.push(submit(&pools, "late", move || gate.wait(), || ()));
        handles.extend((0..200).map(|_| quiet(short)));
    }
    held.into_iter().for_each(Held::release);
    // Who waits for a handle takes the place of its caller.
    until_at_rest(&pools, "late");
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
}

#[test]
fn a_caller_whose_waker_panics_harms_nobody() {
    let pools = patient("bombs");
    let held = hold(&pools, "bombs", 1);
    let handles: Vec<_> =
        (0..500).map(|_| submit(&pools, "bombs", short, || panic!("the caller's waker panics"))).collect();
    held.into_iter().for_each(Held::release);
    until_at_rest(&pools, "bombs");
    handles.into_iter().for_each(|handle| end_of(handle).unwrap());
    assert_eq!((stats(&pools, "bombs").counts.ok, stats(&pools, "bombs").workers), (501, 1));
}
