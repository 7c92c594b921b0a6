//! The time until a full pool rejects one caller's task, compared with the round trip of an empty task.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tower::util::ServiceExt;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};
use tower_resilience_bulkhead::BulkheadLayer;

use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::ways::{self, Ours, Task};

const ADMITTED: &str = "ours, admitted and run";
const SPAN: Duration = Duration::from_millis(100);
/// Tries between two looks at the clock.
const BATCH: u32 = 20;

pub fn run(harness: &mut Harness) {
    let name = "rejection, of an empty task by a full pool";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(SPAN);
    let runtime = ways::runtime();
    let open = ways::pools(ways::default_cpu());
    let full =
        Pools::builder().pool(Cpu, PoolConfig::new(1).queue_capacity(0)).build().expect("the settings are right");
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let held = full
        .submit_to_pool(Cpu, move || {
            let _ = gate.recv();
        })
        .expect("the pool is empty");

    let never = || service_fn(|_: ()| std::future::pending::<Result<(), Infallible>>());
    let layer = PoolLayer::<Cpu>::new(&full).any_request().layer(never());
    let http = service_fn(|_: axum::http::Request<()>| {
        std::future::pending::<Result<axum::http::Response<String>, Infallible>>()
    });
    let http = PoolLayer::<Cpu>::new(&full).layer(http);
    let load_shed = ServiceBuilder::new().load_shed().concurrency_limit(1).service(never());
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full().build();
    let bulkhead = bulkhead.expect("the limit is not zero").layer(never());
    let semaphore = Arc::new(Semaphore::new(0));
    // One call each is in flight for good.
    let _in_flight = (runtime.spawn(load_shed.clone().oneshot(())), runtime.spawn(bulkhead.clone().oneshot(())));
    std::thread::sleep(Duration::from_millis(20));

    let cases = vec![
        Case { name: OURS, sample: Box::new(|| vec![refused(&runtime, span, || full.run_in_pool(Cpu, || ()))]) },
        Case { name: "ours, as a layer", sample: Box::new(|| vec![refused(&runtime, span, || call(&layer, ()))]) },
        Case {
            name: "ours, as a layer, with an HTTP response",
            sample: Box::new(|| {
                let ask = || async {
                    let Ok(response) = call(&http, axum::http::Request::new(())).await;
                    if response.status().is_success() { Ok(()) } else { Err(()) }
                };
                vec![refused(&runtime, span, ask)]
            }),
        },
        Case {
            name: ADMITTED,
            sample: Box::new(|| {
                vec![1e9 / ways::measure(&runtime, &[Ours(open.clone())], Task::EMPTY, 1, span).tasks_per_second]
            }),
        },
        Case {
            name: "LoadShed + ConcurrencyLimit",
            sample: Box::new(|| vec![refused(&runtime, span, || call(&load_shed, ()))]),
        },
        Case {
            name: "resilience-bulkhead",
            sample: Box::new(|| vec![refused(&runtime, span, || call(&bulkhead, ()))]),
        },
        Case {
            name: "semaphore, try_acquire",
            sample: Box::new(|| vec![refused(&runtime, span, || std::future::ready(semaphore.try_acquire()))]),
        },
    ];
    let columns = [Column { name: "an answer", unit: "ns" }];
    let target = Target {
        text: "at least 20 times cheaper than an admitted empty task",
        reached: |medians| medians.ratio_to(ADMITTED, 0) <= 1.0 / 20.0,
    };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: OURS, target: Some(target) });
    drop(release);
    let _ = held.wait();
}

/// Calls a clone of the service, as a server does for each request.
fn call<S: Service<R> + Clone, R>(
    service: &S,
    request: R,
) -> impl Future<Output = Result<S::Response, S::Error>> + use<S, R> {
    service.clone().oneshot(request)
}

/// Nanoseconds until one caller is refused.
fn refused<F, T, E>(runtime: &Runtime, span: Duration, ask: impl Fn() -> F) -> f64
where
    F: Future<Output = Result<T, E>>,
{
    runtime.block_on(async {
        let began = Instant::now();
        for batches in 1_u32.. {
            for _ in 0..BATCH {
                assert!(ask().await.is_err(), "what is full refuses");
            }
            if began.elapsed() >= span {
                return began.elapsed().as_secs_f64() * 1e9 / f64::from(batches * BATCH);
            }
        }
        f64::NAN
    })
}
