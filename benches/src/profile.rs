//! Empty tasks and nothing else, for a profiler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ways::{self, Ours, Task, Way};

const TASKS: u32 = 100_000;

/// Runs `callers` callers until together they have run 100,000 empty tasks in the default `cpu` pool.
pub fn run(callers: u32) {
    let runtime = ways::runtime();
    let pools = ways::pools(ways::default_cpu());
    let begun = Arc::new(AtomicU32::new(0));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (way, begun) = (Ours(pools.clone()), begun.clone());
            runtime.spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < TASKS {
                    way.run(Task::EMPTY).await;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for caller in callers {
            caller.await.expect("a caller does not panic");
        }
    });
    for pool in pools.stats() {
        if pool.counts.submitted > 0 {
            println!("{}: {} tasks, {} workers", pool.name, pool.counts.submitted, pool.workers);
        }
    }
}
