//! Tasks that await: their worker polls other tasks meanwhile, and a woken task is polled before queued ones start.

use std::sync::mpsc;

use tokio::sync::oneshot;
use tower_offload::TaskHandle;
use tower_offload::{PoolConfig, Pools};

use crate::support::{Gate, Held, PATIENCE, end_of, hold, pools, stats, until};

/// A task that has begun and awaits the sender. Its value is the thread that polled it last.
fn awaiting(pools: &Pools, name: &str) -> (TaskHandle<std::thread::ThreadId>, oneshot::Sender<()>) {
    let begun = Gate::default();
    let begins = begun.clone();
    let (wake, woken) = oneshot::channel();
    let task = async move {
        begins.open();
        woken.await.unwrap();
        std::thread::current().id()
    };
    let handle = pools.submit_to_pool(name, task).unwrap();
    begun.wait();
    (handle, wake)
}

#[test]
fn a_task_that_awaits_gives_its_worker_to_others() {
    let pools = pools("many", PoolConfig::new(1).concurrency(100));
    let tasks: Vec<_> = (0..99).map(|_| awaiting(&pools, "many")).collect();
    let numbers = stats(&pools, "many");
    assert_eq!((numbers.in_flight, numbers.workers), (99, 1));
    assert_eq!(end_of(pools.submit_to_pool("many", || 1).unwrap()).unwrap(), 1);
    for (handle, wake) in tasks {
        wake.send(()).unwrap();
        end_of(handle).unwrap();
    }
}

#[test]
fn with_a_limit_of_one_a_task_that_awaits_keeps_the_next_one_waiting() {
    let pools = pools("one", PoolConfig::new(2).concurrency(1));
    let (first, wake) = awaiting(&pools, "one");
    let second = pools.submit_to_pool("one", || ()).unwrap();
    until("its worker is free", || stats(&pools, "one").active_threads == 0);
    let numbers = stats(&pools, "one");
    assert_eq!((numbers.in_flight, numbers.queued_tasks), (1, 1));
    assert!(!second.is_finished());
    wake.send(()).unwrap();
    end_of(first).unwrap();
    end_of(second).unwrap();
}

#[test]
fn a_woken_task_is_polled_before_the_first_of_the_queue() {
    let pools = pools("first", PoolConfig::new(1).concurrency(2));
    let (sender, receiver) = mpsc::channel();
    let (wake, woken) = oneshot::channel::<()>();
    let begun = Gate::default();
    let (begins, tells) = (begun.clone(), sender.clone());
    let task = async move {
        begins.open();
        woken.await.unwrap();
        tells.send("woken").unwrap();
    };
    let woken = pools.submit_to_pool("first", task).unwrap();
    begun.wait();
    let held = hold(&pools, "first", 1);
    let queued = pools.submit_to_pool("first", move || sender.send("queued").unwrap()).unwrap();
    wake.send(()).unwrap();
    // The held task ends on the one worker, and takes what comes next under the same lock.
    held.into_iter().for_each(Held::release);
    end_of(woken).unwrap();
    end_of(queued).unwrap();
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["woken", "queued"]);
}

/// A runtime that keeps the woken task in a slot of the waking thread fails this: the task waits while that thread
/// blocks.
#[test]
fn a_task_that_wakes_another_and_then_blocks_does_not_hold_it_up() {
    let pools = pools("wtb", PoolConfig::new(2));
    for _ in 0..50 {
        let (other, wake) = awaiting(&pools, "wtb");
        let waker = pools.submit_to_pool("wtb", move || {
            wake.send(()).unwrap();
            let here = std::thread::current().id();
            let there = other.wait_timeout(PATIENCE).expect("the woken task waits for this one").unwrap();
            assert_ne!(here, there);
        });
        end_of(waker.unwrap()).unwrap();
    }
}

#[test]
fn a_task_that_yields_again_and_again_ends() {
    let pools = pools("yield", PoolConfig::new(1).concurrency(3));
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let task = async {
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
            };
            pools.submit_to_pool("yield", task).unwrap()
        })
        .collect();
    tasks.into_iter().for_each(|task| end_of(task).unwrap());
}

#[test]
fn timers_and_tasks_of_the_submitters_runtime_work_in_a_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pools = pools("timer", PoolConfig::new(1));
    let sum = runtime.block_on(pools.run_in_pool("timer", async {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        tokio::spawn(async { 20 }).await.unwrap() + 1
    }));
    assert_eq!(sum.unwrap(), 21);
}
