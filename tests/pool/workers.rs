//! The workers: they start as tasks need them, end when they are idle, and have the name and `nice` value of their
//! pool.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tower_offload::pools::BuildError;
use tower_offload::{PoolConfig, Pools};

use crate::children::in_child;
use crate::support::{
    Gate, Held, PATIENCE, end_of, hold, pools, stats, threads_of, until, until_asleep, until_at_rest, until_it_lasts,
};

#[test]
fn an_idle_pool_has_no_thread() {
    let pools = pools("idle", PoolConfig::new(50));
    assert_eq!((stats(&pools, "idle").workers, threads_of("idle")), (0, 0));
}

#[test]
fn a_light_load_uses_one_worker() {
    let pools = pools("light", PoolConfig::new(8));
    let mut threads = HashSet::new();
    for _ in 0..500 {
        threads.insert(end_of(pools.submit_to_pool("light", || thread::current().id()).unwrap()).unwrap());
        until_at_rest(&pools, "light");
    }
    assert_eq!((threads.len(), stats(&pools, "light").workers), (1, 1));
}

#[test]
fn the_worker_that_slept_last_is_woken_first() {
    let pools = pools("stack", PoolConfig::new(4));
    hold(&pools, "stack", 4).into_iter().for_each(Held::release);
    until_asleep("stack", 4);
    let mut threads = HashSet::new();
    for _ in 0..100 {
        threads.insert(end_of(pools.submit_to_pool("stack", || thread::current().id()).unwrap()).unwrap());
        until_at_rest(&pools, "stack");
    }
    assert_eq!((threads.len(), stats(&pools, "stack").workers), (1, 4));
}

#[test]
fn workers_start_as_tasks_need_them_and_never_more_than_the_pool_may_have() {
    let pools = pools("grow", PoolConfig::new(3));
    let mut all = Vec::new();
    for workers in 1..=3 {
        all.extend(hold(&pools, "grow", 1));
        assert_eq!(stats(&pools, "grow").workers, workers);
    }
    let queued: Vec<_> = (0..20).map(|_| pools.submit_to_pool("grow", || ()).unwrap()).collect();
    assert_eq!(stats(&pools, "grow").workers, 3);
    assert_eq!(threads_of("grow"), 3);
    all.into_iter().for_each(Held::release);
    queued.into_iter().for_each(|handle| end_of(handle).unwrap());
}

#[test]
fn a_worker_is_named_after_its_pool_and_its_number() {
    let pools = pools("thumbnails", PoolConfig::new(2));
    let names: HashSet<_> = (0..2)
        .map(|_| {
            let named = Gate::default();
            let (sender, receiver) = std::sync::mpsc::channel();
            let holds = named.clone();
            let task = move || {
                sender.send(thread::current().name().unwrap().to_owned()).unwrap();
                holds.wait();
            };
            let handle = pools.submit_to_pool("thumbnails", task).unwrap();
            let name = receiver.recv().unwrap();
            (name, named, handle)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(name, gate, handle)| {
            gate.open();
            end_of(handle).unwrap();
            name
        })
        .collect();
    assert_eq!(names, HashSet::from(["offload-thumbnails-1".to_owned(), "offload-thumbnails-2".to_owned()]));
}

#[test]
fn idle_workers_end_and_come_back_when_they_are_needed() {
    let pools = pools("ends", PoolConfig::new(4).keep_alive(Duration::from_millis(20)));
    for _ in 0..3 {
        hold(&pools, "ends", 4).into_iter().for_each(Held::release);
        until("all workers have ended", || stats(&pools, "ends").workers == 0 && threads_of("ends") == 0);
    }
    assert_eq!(stats(&pools, "ends").counts.ok, 12);
}

/// Workers end and are called at the same moments, over and over.
#[test]
fn no_task_is_lost_between_a_worker_that_ends_and_one_that_starts() {
    let pools = pools("tiny", PoolConfig::new(2).keep_alive(Duration::from_millis(1)));
    for round in 0..600_u64 {
        // From none to three times the time after which an idle worker ends.
        let pause = Duration::from_micros(round * 5);
        let handle = pools.submit_to_pool("tiny", move || round).unwrap();
        assert_eq!(end_of(handle).unwrap(), round);
        thread::sleep(pause);
    }
    let counts = stats(&pools, "tiny").counts;
    assert_eq!((counts.submitted, counts.ok), (600, 600));
}

/// Code of the application may keep the handle of the thread on which it ran.
#[test]
fn a_worker_that_is_unparked_by_others_goes_on_as_before() {
    let pools = pools("unpark", PoolConfig::new(2).keep_alive(Duration::from_millis(50)));
    let worker = end_of(pools.submit_to_pool("unpark", thread::current).unwrap()).unwrap();
    for _ in 0..1_000 {
        worker.unpark();
        let (other, token) = (worker.clone(), worker.clone());
        let handle = pools.submit_to_pool("unpark", move || other.unpark()).unwrap();
        token.unpark();
        end_of(handle).unwrap();
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stops = stop.clone();
    let disturber = thread::spawn(move || {
        while !stops.load(std::sync::atomic::Ordering::Relaxed) {
            worker.unpark();
            thread::yield_now();
        }
    });
    until("idle workers end all the same", || stats(&pools, "unpark").workers == 0);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    disturber.join().unwrap();
    assert_eq!(stats(&pools, "unpark").counts.ok, 1_001);
}

#[cfg(target_os = "linux")]
fn nice_of_this_thread() -> i32 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn every_worker_has_the_nice_value_of_its_pool_and_no_other_thread_has() {
    let before = nice_of_this_thread();
    let pools = pools("nice", PoolConfig::new(2).nice(before + 3));
    let held = hold(&pools, "nice", 1);
    for _ in 0..2 {
        assert_eq!(end_of(pools.submit_to_pool("nice", nice_of_this_thread).unwrap()).unwrap(), before + 3);
    }
    held.into_iter().for_each(Held::release);
    assert_eq!(end_of(pools.submit_to_pool("io", nice_of_this_thread).unwrap()).unwrap(), before);
    assert_eq!(nice_of_this_thread(), before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_starts_one_of_another_pool_does_not_hand_its_nice_value_on() {
    let before = nice_of_this_thread();
    let [low, plain, lower] = ["low", "plain", "lower"];
    let pools = Pools::builder()
        .pool(low, PoolConfig::new(1).nice(before + 5))
        .pool(plain, PoolConfig::new(1))
        .pool(lower, PoolConfig::new(1).nice(before + 2))
        .build()
        .unwrap();
    let inside = pools.clone();
    let seen = pools.submit_to_pool(low, move || {
        [plain, lower].map(|other| inside.submit_to_pool(other, nice_of_this_thread).unwrap().wait().unwrap())
    });
    assert_eq!(end_of(seen.unwrap()).unwrap(), [before, before + 2]);
}

/// Runs in a child process that gives up root's privileges, if it has them.
#[cfg(target_os = "linux")]
#[test]
fn a_nice_value_that_may_not_be_set_stops_the_start() {
    use std::os::unix::process::CommandExt;

    in_child(
        "workers::a_nice_value_that_may_not_be_set_stops_the_start",
        |command| {
            if rustix::process::geteuid().is_root() {
                command.uid(65_534).gid(65_534);
            }
        },
        || {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nice);
            let error = Pools::builder().pool("fast", PoolConfig::new(1).nice(-20)).build();
            if limit.current.is_none_or(|limit| limit >= 40) {
                // This system allows every process to raise its priority.
                return assert!(error.is_ok());
            }
            let error = error.unwrap_err();
            assert!(matches!(error, BuildError::Nice { nice: -20, .. }), "{error}");
            let text = error.to_string();
            assert!(text.starts_with("performance.thread_pools.fast.nice: "), "{text}");
            assert!(text.contains(" nice -20: ") && text.ends_with("the capability `CAP_SYS_NICE`"), "{text}");
        },
    );
}

/// Submits tasks that compute, one after the other from each of `tasks` threads, until `stop`.
fn compute(pools: &Pools, name: &'static str, tasks: usize, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    (0..tasks)
        .map(|_| {
            let (pools, stop) = (pools.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let task = || {
                        let begun = Instant::now();
                        while begun.elapsed() < Duration::from_millis(1) {}
                    };
                    end_of(pools.submit_to_pool(name, task).unwrap()).unwrap();
                }
            })
        })
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn workers_that_compute_are_no_more_than_the_cores_and_others_come_when_they_block() {
    let cores = thread::available_parallelism().unwrap().get();
    let most = 4 * cores;
    let pools = pools("level", PoolConfig::new(most).queue_target(PATIENCE..=PATIENCE));
    // At first all workers are active: no sample has seen their tasks compute.
    hold(&pools, "level", most).into_iter().for_each(Held::release);

    let stop = Arc::new(AtomicBool::new(false));
    let clients = compute(&pools, "level", 2 * most, &stop);
    until_it_lasts("no more workers compute than there are cores", || {
        let stats = stats(&pools, "level");
        stats.in_flight + stats.queued_tasks > cores && stats.active_threads <= cores
    });
    // As many tasks that block as the pool has workers, behind those that compute.
    hold(&pools, "level", most).into_iter().for_each(Held::release);
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// The pool's samples found that its tasks compute. Then long tasks take every core, and samples look the same as
/// before.
#[cfg(target_os = "linux")]
#[test]
fn tasks_that_block_find_workers_while_long_ones_take_every_core() {
    let cores = thread::available_parallelism().unwrap().get();
    let most = 4 * cores;
    let pools = pools("long", PoolConfig::new(most).queue_target(PATIENCE..=PATIENCE));
    hold(&pools, "long", most).into_iter().for_each(Held::release);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = compute(&pools, "long", 2 * most, &stop);
    until_it_lasts("no more workers compute than there are cores", || {
        let stats = stats(&pools, "long");
        stats.in_flight + stats.queued_tasks > cores && stats.active_threads <= cores
    });
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());

    let stop = Arc::new(AtomicBool::new(false));
    let long: Vec<_> = (0..=cores)
        .map(|_| {
            let stop = stop.clone();
            let task = move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            pools.submit_to_pool("long", task).unwrap()
        })
        .collect();
    hold(&pools, "long", most - long.len()).into_iter().for_each(Held::release);
    stop.store(true, Ordering::Relaxed);
    long.into_iter().for_each(|handle| end_of(handle).unwrap());
}
