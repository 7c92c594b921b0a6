//! The memory of 100,000 queued tasks, without the data that they carry.
//!
//! Each way is measured in a separate process, by its resident memory: the allocator's overhead is included.

use std::convert::Infallible;
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use axum::http::{Request, Response};
use tokio::sync::{Semaphore, oneshot};
use tower::{Layer, Service, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

use crate::child::{self, Process};
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::ways::{self, Speed};

const TASKS: usize = 100_000;
const OURS_LAYER: &str = "ours, as a layer, beside the request";
const KINDS: [&str; 6] =
    [OURS, OURS_LAYER, "spawn_blocking", "spawn_blocking + semaphore", "dedicated runtime", "rayon + oneshot"];

pub fn run(harness: &mut Harness, speed: Speed) {
    let name = "queued, memory of 100,000 waiting tasks";
    let cases = KINDS.map(|kind| {
        let sample = move || vec![Process::start("memory", kind, speed).number()];
        Case { name: kind, sample: Box::new(sample) }
    });
    let columns = [Column { name: "a task", unit: "bytes" }];
    let target = Target {
        text: "at most 600 bytes",
        reached: |medians| [OURS, OURS_LAYER].iter().all(|ours| medians.of(ours, 0) <= 600.0),
    };
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &columns,
        cases: cases.into(),
        baseline: OURS,
        target: Some(target),
    });
}

/// Queues the tasks while another holds the only worker, and reports the bytes that each takes.
pub fn play(kind: &str) -> ! {
    let (_release, gate) = mpsc::channel::<()>();
    let hold = move || {
        let _ = gate.recv();
    };
    match kind {
        OURS => {
            let pools = pools();
            let _held = pools.submit_to_pool(Cpu, hold).expect("the pool is empty");
            tell_growth(|| pools.submit_to_pool(Cpu, || ()).expect("the queue is long enough"))
        }
        OURS_LAYER => {
            let pools = pools();
            let _held = pools.submit_to_pool(Cpu, hold).expect("the pool is empty");
            let handler = service_fn(|_: Request<String>| async { Ok::<_, Infallible>(Response::new(String::new())) });
            let service = PoolLayer::<Cpu>::new(&pools).layer(handler);
            let mut context = Context::from_waker(Waker::noop());
            tell_growth_beside(size_of::<Request<String>>(), || {
                let mut answer = Box::pin(service.clone().call(Request::new(String::new())));
                assert!(answer.as_mut().poll(&mut context).is_pending(), "it waits");
                answer
            })
        }
        "spawn_blocking" | "spawn_blocking + semaphore" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .max_blocking_threads(1)
                .build()
                .expect("no more is needed");
            let _held = runtime.spawn_blocking(hold);
            if kind == "spawn_blocking" {
                tell_growth(|| runtime.spawn_blocking(|| ()))
            } else {
                // The Tokio task that wants a permit waits, as a connection's task would.
                let limit = Arc::new(Semaphore::new(0));
                tell_growth(|| {
                    let limit = limit.clone();
                    runtime.spawn(async move {
                        let permit = limit.acquire_owned().await.expect("the semaphore is never closed");
                        let _ = tokio::task::spawn_blocking(move || drop(permit)).await;
                    })
                })
            }
        }
        "dedicated runtime" => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("no more is needed");
            let _held = runtime.spawn(async move { hold() });
            tell_growth(|| runtime.spawn(async {}))
        }
        "rayon + oneshot" => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("no more is needed");
            pool.spawn(hold);
            tell_growth(|| {
                let (sender, receiver) = oneshot::channel::<()>();
                pool.spawn(move || {
                    let _ = sender.send(());
                });
                receiver
            })
        }
        other => panic!("there is no way `{other}`"),
    }
}

/// A `cpu` pool of one worker with room for every task.
pub fn pools() -> Pools {
    let cpu = ways::patient(PoolConfig::new(1)).queue_capacity(2 * TASKS).queue_timeout(Duration::from_secs(3600));
    Pools::builder().pool(Cpu, cpu).build().expect("the settings are right")
}

/// Tells how much memory each task takes while all of them wait, and ends the process: none of them need run.
///
/// The handles that the caller keeps do not count.
fn tell_growth<T>(submit: impl FnMut() -> T) -> ! {
    tell_growth_beside(0, submit)
}

/// The same, without the `request` bytes that belong to each request.
#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
fn tell_growth_beside<T>(request: usize, mut submit: impl FnMut() -> T) -> ! {
    // Written to, so that the system has given it before the first look.
    let mut kept: Vec<Option<T>> = (0..TASKS).map(|_| None).collect();
    let before = resident();
    for place in &mut kept {
        *place = Some(submit());
    }
    child::tell(resident().saturating_sub(before) as f64 / TASKS as f64 - request as f64);
    std::process::exit(0)
}

/// The memory of this process that is in use, in bytes; 0 where the system does not tell.
fn resident() -> u64 {
    of_process("self", "VmRSS:")
}

/// A line of the memory of a process, in bytes: `VmRSS:` is what is in use, `VmHWM:` the most that was.
pub fn of_process(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
