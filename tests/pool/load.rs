//! The load of pools that compute, block, reject, and rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tower_offload::load::PoolLoad;
use tower_offload::{Config, PoolConfig, Pools};

use crate::support::{Held, end_of, hold, pools, until};

fn load(pools: &Pools, name: &str) -> PoolLoad {
    pools.get(name).unwrap().load()
}

/// Keeps a pool computing with as many tasks at a time, until this is dropped.
struct Computing {
    stop: Arc<AtomicBool>,
    callers: Vec<thread::JoinHandle<()>>,
}

impl Computing {
    fn begin(pools: &Pools, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (pools, stop) = (pools.clone(), stop.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    end_of(pools.submit_to_pool("cpu", || compute(Duration::from_millis(20))).unwrap()).unwrap();
                }
            })
        };
        Self { callers: (0..tasks).map(caller).collect(), stop }
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            caller.join().unwrap();
        }
    }
}

fn compute(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn a_pool_that_can_do_no_more_says_so() {
    let pools = pools("cpu", PoolConfig::new(30));
    let _computing = Computing::begin(&pools, 60);
    until("the load is full", || load(&pools, "cpu").ratio >= 0.9 && pools.load().ratio >= 0.9);
}

#[cfg(target_os = "linux")]
#[test]
fn the_cpu_time_of_workers_counts_although_few_permits_are_in_use() {
    let pools = pools("cpu", PoolConfig::new(4000));
    let _computing = Computing::begin(&pools, 4);
    // Other tests may have the cores as well.
    until("workers compute", || load(&pools, "cpu").cpu > 0.1);
    let found = load(&pools, "cpu");
    assert!(found.permits < 0.01 && found.ratio == found.cpu, "{found:?}");
}

#[test]
fn a_pool_whose_permits_are_all_held_by_blocked_tasks_is_full_and_uses_no_cpu() {
    let pools = pools("io", PoolConfig::new(3));
    let held = hold(&pools, "io", 3);
    until("the permits are in use", || load(&pools, "io").permits >= 0.9);
    let found = load(&pools, "io");
    assert!(found.permits < 1.05 && found.cpu < 0.1, "{found:?}");
    held.into_iter().for_each(Held::release);
}

#[test]
fn rejected_tasks_are_part_of_the_load() {
    let pools = pools("io", PoolConfig::new(1).queue_capacity(0));
    let begun = Instant::now();
    until("two seconds have passed", || {
        let held = hold(&pools, "io", 1);
        for _ in 0..9 {
            assert!(pools.submit_to_pool("io", || ()).is_err());
        }
        thread::sleep(Duration::from_millis(5));
        held.into_iter().for_each(Held::release);
        begun.elapsed() > Duration::from_secs(2)
    });
    let found = load(&pools, "io");
    // Ten arrive for each that is started, and the permit is in use for most of the time, unless the machine is slow.
    assert!((2.0..=10.5).contains(&found.permits), "it would be at most 1 without those: {found:?}");
}

#[test]
fn the_load_of_the_process_is_that_of_the_pools_that_count() {
    let config = Config::default().pool("io", PoolConfig::new(1)).scale_by(["cpu"]).scale_target(0.5);
    let pools = Pools::new(&config).unwrap();
    let held = hold(&pools, "io", 1);
    until("the pool is full", || load(&pools, "io").ratio >= 0.9);
    let all = pools.load();
    assert!(all.ratio < 0.1 && all.target == 0.5, "{all:?}");
    assert!(all.pool("io").unwrap().ratio >= 0.9 && all.pool("no").is_none());
    held.into_iter().for_each(Held::release);
}

#[test]
fn pools_that_never_worked_have_no_load() {
    assert_eq!(Pools::disabled().load().ratio, 0.0);
    let load = Pools::default().load();
    assert_eq!((load.ratio, load.cpu, load.bound_by, load.pools.len()), (0.0, 0.0, None, 5));
}
