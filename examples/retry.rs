//! Retries requests that a full pool rejected before they started, and no others, with tower's `retry`.
//!
//! ```sh
//! cargo run --example retry
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower::retry::Policy;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_offload::error::OffloadError;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

/// Retries a request that never started, `attempts` times at most. A request that started may have had effects.
#[derive(Clone)]
struct NeverStarted {
    attempts: u32,
}

impl<Req: Clone, Res, E> Policy<Req, Res, OffloadError<E>> for NeverStarted {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(&mut self, _request: &mut Req, result: &mut Result<Res, OffloadError<E>>) -> Option<Self::Future> {
        let Err(OffloadError::Rejected(rejection)) = result else { return None };
        if rejection.started() || self.attempts == 0 {
            return None;
        }
        self.attempts -= 1;
        // A client would wait for the whole time. This example waits for 20 ms at most.
        let wait = rejection.retry_after().unwrap_or_default();
        Some(Box::pin(tokio::time::sleep(wait.min(Duration::from_millis(20)))))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

static RUNS: AtomicU32 = AtomicU32::new(0);

async fn square(number: u32) -> Result<u32, BoxError> {
    RUNS.fetch_add(1, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(10));
    assert_ne!(number, 13, "thirteen");
    Ok(number * number)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // One worker and no queue: of two requests at the same time, the second is rejected.
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1).queue_capacity(0)).build()?;
    let service = ServiceBuilder::new()
        .retry(NeverStarted { attempts: 100 })
        .layer(PoolLayer::<Cpu>::new(&pools).any_request())
        .service(service_fn(square));

    let requests = (1..=5).map(|number| tokio::spawn(ask(service.clone(), number)));
    for request in requests.collect::<Vec<_>>() {
        println!("square: {}", request.await??);
    }
    let rejected = pools.get(Cpu)?.stats().counts.rejected;
    println!("each ran once: {} runs; some were rejected first: {}", RUNS.load(Ordering::Relaxed), rejected > 0);

    // A task that panicked had started, so it is not retried.
    let before = RUNS.load(Ordering::Relaxed);
    let panicked = ask(service, 13).await.expect_err("it panics");
    println!("after {} run: {panicked}", RUNS.load(Ordering::Relaxed) - before);
    Ok(())
}

async fn ask<S>(mut service: S, number: u32) -> Result<u32, BoxError>
where
    S: Service<u32, Response = u32, Error = OffloadError<BoxError>>,
{
    let ready = service.ready().await.map_err(OffloadError::into_boxed)?;
    ready.call(number).await.map_err(OffloadError::into_boxed)
}
