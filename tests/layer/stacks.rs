//! The layer among other layers of tower and tower-http, inside and outside of them.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get as on_get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::buffer::BufferLayer;
use tower::util::{BoxCloneSyncService, option_layer};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::DecompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_offload::error::OffloadError;
use tower_offload::{Cpu, Io, PoolLayer, Pools};

use crate::fixtures::{Gate, answer, get, in_time, json, locator, place, pools_of, request, stats_of, until};

/// A page that is large enough to be compressed, with the place where it was made.
async fn page(_: Request<String>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(format!("{} {}", place(), "page ".repeat(500)).into()))
}

fn gzipped(method: &str) -> Request<String> {
    let mut request = request(method, "/");
    request.headers_mut().insert("accept-encoding", "gzip".parse().expect("a header value"));
    request
}

#[tokio::test]
async fn trace_timeout_and_compression_stack_on_either_side() {
    let pools = Pools::default();
    let outside = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(60)))
        .layer(CompressionLayer::new())
        .layer(PoolLayer::<Cpu>::new(&pools))
        .service_fn(page);
    let inside = ServiceBuilder::new()
        .layer(PoolLayer::<Io>::new(&pools))
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(60)))
        .layer(CompressionLayer::new())
        .service_fn(page);
    let compressed = outside.clone().oneshot(gzipped("GET")).await.unwrap();
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    let length = compressed.into_body().collect().await.unwrap().to_bytes().len();
    assert!(length < 200, "{length}");
    let whole = answer(DecompressionLayer::new().layer(outside), request("GET", "/")).await;
    assert!(whole.body().starts_with("cpu page"));
    assert_eq!(whole.body().len(), 4 + 2500);
    let whole = answer(DecompressionLayer::new().layer(inside), request("GET", "/")).await;
    assert!(whole.body().starts_with("io page"));
    assert_eq!(whole.body().len(), 3 + 2500);
}

/// In Tokio's virtual time, so that no timeout passes before its request is in the pool.
#[tokio::test(start_paused = true)]
async fn a_timeout_around_the_layer_cancels_what_is_in_the_pool() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    let app = Router::new()
        .route("/", on_get(async move || held.pass().await))
        .layer(PoolLayer::<Cpu>::new(&pools))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(5)));
    let (in_flight, queued) =
        in_time(async { tokio::join!(answer(app.clone(), get("/")), answer(app, get("/"))) }).await;
    assert_eq!(in_flight.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(queued.status(), StatusCode::GATEWAY_TIMEOUT);
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    let stats = stats_of(&pools, "cpu");
    assert_eq!((stats.queued_tasks, stats.counts.cancelled), (0, 2));
}

#[tokio::test]
async fn a_timeout_inside_the_layer_runs_from_the_start_of_the_handler() {
    let pools = pools_of(1, 1);
    let service = ServiceBuilder::new()
        .layer(PoolLayer::<Cpu>::new(&pools))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_millis(1)))
        .service(service_fn(|_: Request<String>| std::future::pending::<Result<Response<String>, Infallible>>()));
    let answered = in_time(answer(service, request("GET", "/"))).await;
    assert_eq!(answered.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(stats_of(&pools, "cpu").counts.error, 1);
}

async fn panics(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    panic!("in the handler")
}

#[tokio::test]
async fn catch_panic_inside_the_layer_answers_before_the_pool_sees_a_panic() {
    let pools = pools_of(1, 1);
    let service =
        ServiceBuilder::new().layer(PoolLayer::<Cpu>::new(&pools)).layer(CatchPanicLayer::new()).service_fn(panics);
    let answered = answer(service, get("/")).await;
    assert_eq!((answered.status().as_u16(), answered.body().as_str()), (500, "Service panicked"));
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.panicked, counts.error), (0, 1));
}

#[tokio::test]
async fn catch_panic_outside_the_layer_sees_panics_that_are_resumed() {
    let told = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        Response::new(Body::from(format!("told: {text}")))
    };
    let pools = pools_of(1, 1);
    let resumed = ServiceBuilder::new()
        .layer(CatchPanicLayer::custom(told))
        .layer(PoolLayer::<Cpu>::new(&pools).resume_panics())
        .service_fn(panics);
    assert_eq!(answer(resumed, get("/")).await.body(), "told: in the handler");
    let answered = ServiceBuilder::new()
        .layer(CatchPanicLayer::custom(told))
        .layer(PoolLayer::<Cpu>::new(&pools))
        .service_fn(panics);
    assert_eq!(json(&answer(answered, get("/")).await)["reason"], "panicked");
    assert_eq!(stats_of(&pools, "cpu").counts.panicked, 2);
}

#[tokio::test]
async fn the_layer_is_optional_where_the_body_keeps_its_type() {
    let pools = Pools::default();
    let with = |on: bool| option_layer(on.then(|| PoolLayer::<Cpu>::new(&pools).same_body()));
    let app = |on| Router::new().route("/", on_get(async || place())).layer(with(on));
    assert_eq!(answer(app(true), get("/")).await.body(), "cpu");
    assert_eq!(answer(app(false), get("/")).await.body(), "inline");
    let built = |on: bool| {
        let layer = on.then(|| PoolLayer::<Cpu>::new(&pools).same_body());
        ServiceBuilder::new().option_layer(layer).service_fn(page)
    };
    assert!(answer(built(true), request("GET", "/")).await.body().starts_with("cpu "));
    assert!(answer(built(false), request("GET", "/")).await.body().starts_with("inline "));
}

#[tokio::test]
async fn rejections_in_the_services_own_body_type_are_the_same() {
    let pools = pools_of(1, 1);
    in_time(pools.shutdown(Duration::from_secs(60))).await;
    let with_type = |content_type: &str| {
        let mut request = request("POST", "/");
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        request
    };
    for content_type in ["application/json", "application/grpc"] {
        let own = PoolLayer::<Cpu>::new(&pools).layer(service_fn(page));
        let same = PoolLayer::<Cpu>::new(&pools).same_body().layer(service_fn(page));
        let (mut own, mut same) =
            (answer(own, with_type(content_type)).await, answer(same, with_type(content_type)).await);
        // `Retry-After` has jitter.
        for header in ["retry-after", "grpc-retry-pushback-ms"] {
            assert_eq!(own.headers_mut().remove(header).is_some(), same.headers_mut().remove(header).is_some());
        }
        assert_eq!((own.status(), own.headers(), own.body()), (same.status(), same.headers(), same.body()));
    }
}

#[tokio::test]
async fn buffer_works_on_either_side() {
    let pools = Pools::default();
    let outside = ServiceBuilder::new()
        .layer(BufferLayer::new(4))
        .layer(PoolLayer::<Cpu>::new(&pools))
        .service(locator::<String>());
    let inside = ServiceBuilder::new()
        .layer(PoolLayer::<Cpu>::new(&pools))
        .layer(BufferLayer::new(4))
        .service(locator::<String>());
    for _ in 0..10 {
        assert_eq!(in_time(answer(outside.clone(), request("GET", "/"))).await.body(), "cpu");
        // The buffer's task calls the service, so only the wait for its response is offloaded here.
        assert_eq!(in_time(answer(inside.clone(), request("GET", "/"))).await.body(), "inline");
    }
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 20);
}

#[tokio::test]
async fn boxed_services_are_offloaded_and_offloaded_services_boxed() {
    let pools = Pools::default();
    let layer = PoolLayer::<Cpu>::new(&pools);
    let inside = layer.layer(locator::<String>().boxed_clone());
    assert_eq!(answer(inside, request("GET", "/")).await.body(), "cpu");
    let outside = layer.layer(locator::<String>());
    assert_eq!(answer(outside.clone().boxed(), request("GET", "/")).await.body(), "cpu");
    assert_eq!(answer(outside.clone().boxed_clone(), request("GET", "/")).await.body(), "cpu");
    assert_eq!(answer(BoxCloneSyncService::new(outside), request("GET", "/")).await.body(), "cpu");
    let built = ServiceBuilder::new().boxed_clone().layer(layer).service(locator::<String>());
    assert_eq!(answer(built, request("GET", "/")).await.body(), "cpu");
}

#[tokio::test]
async fn towers_own_limits_work_on_either_side() {
    let pools = Pools::default();
    let slow = |gate: &Gate| {
        let gate = gate.clone();
        service_fn(move |number: u32| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok::<_, BoxError>(number)
            }
        })
    };
    let gate = Gate::new();
    let inside = ServiceBuilder::new()
        .layer(PoolLayer::<Cpu>::new(&pools).any_request())
        .load_shed()
        .concurrency_limit(1)
        .service(slow(&gate));
    let outside = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .map_err(OffloadError::into_boxed)
        .layer(PoolLayer::<Cpu>::new(&pools).any_request())
        .service(slow(&gate));
    let held = tokio::spawn(inside.clone().oneshot(1));
    gate.arrived(1).await;
    let shed = inside.clone().oneshot(2).await.unwrap_err();
    assert!(matches!(shed, OffloadError::Inner(error) if error.is::<tower::load_shed::error::Overloaded>()));
    gate.open(1);
    assert_eq!(in_time(held).await.unwrap().unwrap(), 1);
    let held = tokio::spawn(outside.clone().oneshot(3));
    gate.arrived(1).await;
    let shed = outside.clone().oneshot(4).await.unwrap_err();
    assert!(shed.is::<tower::load_shed::error::Overloaded>());
    gate.open(1);
    assert_eq!(in_time(held).await.unwrap().unwrap(), 3);
}
