//! The numbers of one instant obey the law: submitted = Σ results + queued + in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tower_offload::PoolConfig;

use crate::support::{check_numbers, end_of, hold, pools, stats, until_at_rest};

#[test]
fn the_numbers_agree_at_every_instant_under_load() {
    let pools = pools("law", PoolConfig::new(3).concurrency(5).queue_capacity(8));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (pools, stop) = (pools.clone(), stop.clone());
            thread::spawn(move || {
                let mut answers = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let handles: Vec<_> = (0..4)
                        .map(|number| {
                            let task = async move {
                                if number == client {
                                    tokio::task::yield_now().await;
                                }
                            };
                            pools.submit_to_pool("law", task)
                        })
                        .collect();
                    answers += handles.len() as u64;
                    for (number, handle) in handles.into_iter().enumerate() {
                        match handle {
                            Ok(handle) if number == 3 => handle.cancel(),
                            Ok(handle) => end_of(handle).unwrap(),
                            Err(_) => {}
                        }
                    }
                }
                answers
            })
        })
        .collect();
    let mut seen = 0;
    for _ in 0..20_000 {
        let stats = stats(&pools, "law");
        check_numbers(&stats);
        assert!(stats.counts.submitted >= seen);
        seen = stats.counts.submitted;
    }
    stop.store(true, Ordering::Relaxed);
    let submitted: u64 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    until_at_rest(&pools, "law");
    let counts = stats(&pools, "law").counts;
    assert_eq!((counts.submitted, counts.ended()), (submitted, submitted));
}

#[test]
#[expect(clippy::float_cmp, reason = "halves and wholes are exact")]
fn utilization_is_the_share_of_the_workers_that_are_active() {
    let pools = pools("half", PoolConfig::new(4));
    assert_eq!(stats(&pools, "half").utilization(), 0.0);
    let held = hold(&pools, "half", 2);
    assert_eq!(stats(&pools, "half").utilization(), 0.5);
    let more = hold(&pools, "half", 2);
    assert_eq!(stats(&pools, "half").utilization(), 1.0);
    held.into_iter().chain(more).for_each(crate::support::Held::release);
}
