//! How an application tests its handlers, as `docs/testing.md` shows it.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_offload::{Cpu, Deadline, PoolConfig, PoolLayer, Pools};

use crate::fixtures::{answer, place, request, stats_of};

/// The application of these tests: one route, in the pool `cpu`.
fn app(pools: &Pools) -> Router {
    Router::new().route("/", get(|| async { place() }).route_layer(PoolLayer::<Cpu>::new(pools)))
}

fn ask() -> Request<Body> {
    Request::get("/").body(Body::empty()).expect("the parts are valid")
}

#[tokio::test]
async fn a_handler_answers_oneshot_from_its_pool() {
    assert_eq!(answer(app(&Pools::default()), ask()).await.body(), "cpu");
}

#[tokio::test]
async fn with_disabled_pools_a_handler_runs_in_the_test_itself() {
    assert_eq!(answer(app(&Pools::disabled()), ask()).await.body(), "inline");
}

#[tokio::test]
async fn a_pool_is_full_while_a_test_holds_its_only_worker() {
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1).queue_capacity(0)).build().unwrap();
    let (started, has_started) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let held = pools
        .submit_to_pool(Cpu, async move {
            let _ = started.send(());
            let _ = released.await;
        })
        .unwrap();
    has_started.await.unwrap();
    let rejected = app(&pools).oneshot(ask()).await.unwrap();
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    release.send(()).unwrap();
    held.await.unwrap();
    assert_eq!(app(&pools).oneshot(ask()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_pool_is_slow_while_its_queue_timeout_is_short_and_its_worker_held() {
    let cpu = PoolConfig::new(1).queue_timeout(Duration::from_millis(1));
    let pools = Pools::builder().pool(Cpu, cpu).build().unwrap();
    let _held = pools.submit_to_pool(Cpu, pending::<()>()).unwrap();
    let late = answer(app(&pools), ask()).await;
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(late.body().contains("queue_timeout"));
}

#[tokio::test]
async fn a_pool_drains_after_shutdown() {
    let pools = Pools::default();
    pools.shutdown(Duration::ZERO).await;
    let rejected = answer(app(&pools), ask()).await;
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(rejected.body().contains("draining"));
}

/// A deadline follows the system's clock, also while Tokio's clock is paused.
#[tokio::test(start_paused = true)]
async fn a_deadline_does_not_follow_tokios_paused_clock() {
    let deadline = Deadline::after(Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(!deadline.has_passed());
    assert!(Deadline::after(Duration::ZERO).has_passed());
}

/// The queue timeout of a pool follows the system's clock too. Tokio advances a paused clock when all its tasks wait, and does
/// not know of a pool's tasks. So a test that waits for the queue timeout must not pause Tokio's clock.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_jumps_while_a_pool_works() {
    let pools = Pools::default();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let work = pools.run_in_pool(Cpu, move || receiver.recv());
    let begun = tokio::time::Instant::now();
    let late = tokio::time::timeout(Duration::from_secs(3600), work).await;
    assert!(late.is_err() && begun.elapsed() >= Duration::from_secs(3600), "an hour, at once");
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_again_waits_for_the_pool() {
    tokio::time::resume();
    let pools = Pools::default();
    let answered = tokio::time::timeout(Duration::from_secs(20), answer(app(&pools), ask())).await;
    assert_eq!(answered.unwrap().body(), "cpu");
    tokio::time::pause();
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1);
}

/// The layer alone, without axum.
#[tokio::test]
async fn a_service_is_tested_without_a_server() {
    let service = tower::ServiceBuilder::new().layer(PoolLayer::<Cpu>::new(&Pools::default())).service_fn(
        |request: Request<String>| async move {
            Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
        },
    );
    assert_eq!(answer(service, request("GET", "/").map(|_| "echo".to_owned())).await.body(), "echo");
}
