//! The order of other layers and the pool's, as in `docs/layers.md`: the right orders, and the wrong ones.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::{get as on_get, post};
use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN};
use http::{Request, Response, StatusCode};
use tokio_stream::StreamExt;
use tokio_test::task;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::trace::TraceLayer;
use tower_offload::{Cpu, PoolLayer, Pools};

use crate::fixtures::{Gate, answer, get, in_time, log_of, place, pools_of, request, stats_of, until};

/// Holds the only worker of the pool `cpu`, which has no queue, until the gate opens.
async fn fill(pools: &Pools) -> Gate {
    let gate = Gate::new();
    let held = gate.clone();
    let _detached = pools.submit_to_pool(Cpu, async move { held.pass().await }).expect("the pool is empty");
    gate.arrived(1).await;
    gate
}

fn cors() -> CorsLayer {
    CorsLayer::new().allow_origin(Any).allow_methods(Any)
}

fn from_browser(method: &str) -> Request<Body> {
    let mut request = request(method, "/").map(Body::from);
    request.headers_mut().insert(ORIGIN, "https://example.com".parse().expect("a header value"));
    if method == "OPTIONS" {
        request.headers_mut().insert(ACCESS_CONTROL_REQUEST_METHOD, "POST".parse().expect("a header value"));
    }
    request
}

#[tokio::test]
async fn cors_outside_answers_preflights_without_a_pool_and_lets_browsers_read_rejections() {
    let pools = pools_of(1, 0);
    let app = Router::new().route("/", post(|| async {})).layer(PoolLayer::<Cpu>::new(&pools)).layer(cors());
    let gate = fill(&pools).await;
    let preflight = answer(app.clone(), from_browser("OPTIONS")).await;
    assert_eq!(preflight.status(), StatusCode::OK);
    let rejected = answer(app, from_browser("POST")).await;
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(rejected.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    gate.open(1);
}

#[tokio::test]
async fn wrong_cors_inside_loses_preflights_to_a_full_pool_and_hides_rejections_from_browsers() {
    let pools = pools_of(1, 0);
    let app = Router::new().route("/", post(|| async {})).layer(cors()).layer(PoolLayer::<Cpu>::new(&pools));
    let gate = fill(&pools).await;
    assert_eq!(answer(app.clone(), from_browser("OPTIONS")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer(app, from_browser("POST")).await.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    gate.open(1);
}

/// The lines that a request to a full pool leaves in the log.
async fn log_of_a_rejection(app: impl Fn(&Pools) -> Router) -> String {
    let pools = pools_of(1, 0);
    let gate = fill(&pools).await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    {
        let _default = tracing::subscriber::set_default(log_of(&lines));
        assert_eq!(answer(app(&pools), get("/")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    gate.open(1);
    String::from_utf8(lines.lock().expect("nothing panics with it").clone()).expect("a log is text")
}

#[tokio::test]
async fn tracing_outside_sees_rejections() {
    let app = |pools: &Pools| {
        let router = Router::new().route("/", on_get(|| async {})).layer(PoolLayer::<Cpu>::new(pools));
        router.layer(TraceLayer::new_for_http())
    };
    assert!(log_of_a_rejection(app).await.contains("503"));
}

#[tokio::test]
async fn wrong_tracing_inside_never_hears_of_rejections() {
    let app = |pools: &Pools| {
        let router = Router::new().route("/", on_get(|| async {})).layer(TraceLayer::new_for_http());
        router.layer(PoolLayer::<Cpu>::new(pools))
    };
    assert_eq!(log_of_a_rejection(app).await, "");
}

/// A body that records where it is polled.
async fn told(_: Request<String>) -> Result<Response<Body>, Infallible> {
    let made = place();
    let frames = tokio_stream::iter([made]).map(|made| {
        let text = format!("made in {made}, polled in {}", place());
        Ok::<_, Infallible>(Bytes::from(text))
    });
    Ok(Response::new(Body::from_stream(frames)))
}

/// Compression happens in the response's body, which the connection's task polls. So on neither side does it run in the pool.
#[tokio::test]
async fn compression_runs_on_the_connections_task_on_either_side() {
    let pools = Pools::default();
    let outside = ServiceBuilder::new().layer(CompressionLayer::new()).layer(PoolLayer::<Cpu>::new(&pools));
    let inside = ServiceBuilder::new().layer(PoolLayer::<Cpu>::new(&pools)).layer(CompressionLayer::new());
    assert_eq!(answer(outside.service_fn(told), request("GET", "/")).await.body(), "made in cpu, polled in inline");
    assert_eq!(answer(inside.service_fn(told), request("GET", "/")).await.body(), "made in cpu, polled in inline");
}

async fn authorized(request: axum::extract::Request, next: Next) -> axum::response::Response {
    match request.headers().contains_key(AUTHORIZATION) {
        true => next.run(request).await,
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

#[tokio::test]
async fn authorization_outside_costs_strangers_no_permit() {
    let pools = pools_of(1, 0);
    let router = Router::new().route("/", on_get(|| async {}));
    let right = router.clone().layer(PoolLayer::<Cpu>::new(&pools)).layer(from_fn(authorized));
    let wrong = router.layer(from_fn(authorized)).layer(PoolLayer::<Cpu>::new(&pools));
    assert_eq!(answer(right.clone(), get("/")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 0);
    assert_eq!(answer(wrong.clone(), get("/")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1, "wrong: a stranger takes a worker");
    let gate = fill(&pools).await;
    assert_eq!(answer(right, get("/")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer(wrong, get("/")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    gate.open(1);
}

#[tokio::test]
async fn a_body_limit_outside_refuses_before_the_pool_is_asked() {
    let pools = pools_of(1, 0);
    let app = Router::new()
        .route("/", post(|| async {}))
        .layer(PoolLayer::<Cpu>::new(&pools))
        .layer(RequestBodyLimitLayer::new(8));
    let mut large = request("POST", "/").map(Body::from);
    large.headers_mut().insert("content-length", 9.into());
    assert_eq!(answer(app, large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 0);
}

/// A service that waits at the gate, behind a limit that it shares with others.
fn limited(
    limit: &GlobalConcurrencyLimitLayer,
    gate: &Gate,
) -> impl Service<Request<String>, Response = Response<String>, Error = Infallible, Future: Send> + Clone + Send + use<>
{
    let gate = gate.clone();
    limit.layer(service_fn(move |_: Request<String>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(Response::new("through".to_owned()))
        }
    }))
}

/// The permit of a `ConcurrencyLimit` is taken when a service becomes ready, which is before the pool's queue.
#[tokio::test]
async fn wrong_a_concurrency_limit_inside_is_held_by_queued_requests() {
    let pools = pools_of(1, 10);
    let limit = GlobalConcurrencyLimitLayer::new(2);
    let gate = Gate::new();
    let offloaded = PoolLayer::<Cpu>::new(&pools).layer(limited(&limit, &gate));
    let first = tokio::spawn(answer(offloaded.clone(), request("GET", "/")));
    gate.arrived(1).await;
    let queued = tokio::spawn(answer(offloaded, request("GET", "/")));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    // A queued request has one of the two permits, and a service without a pool waits for that permit.
    let mut other = limited(&limit, &gate);
    let mut ready = task::spawn(other.ready());
    assert!(ready.poll().is_pending());
    gate.open(2);
    in_time(first).await.unwrap();
    in_time(queued).await.unwrap();
    in_time(ready).await.unwrap();
}

#[tokio::test]
async fn the_pools_own_limit_is_taken_by_requests_in_flight_alone() {
    let cpu = tower_offload::PoolConfig::new(1).concurrency(2);
    let pools = Pools::builder().pool(Cpu, cpu).build().unwrap();
    let gate = Gate::new();
    let service = PoolLayer::<Cpu>::new(&pools).layer(crate::rejections::standing(&gate));
    let requests: Vec<_> = (0..3).map(|_| tokio::spawn(answer(service.clone(), request("GET", "/")))).collect();
    gate.arrived(2).await;
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    assert_eq!(stats_of(&pools, "cpu").in_flight, 2);
    gate.open(3);
    for request in requests {
        in_time(request).await.unwrap();
    }
}

/// A service behind the layer is always ready, so a layer that sheds while a service is not ready never sheds.
#[tokio::test]
async fn wrong_load_shed_outside_sheds_nothing() {
    let pools = pools_of(1, 1);
    let gate = fill(&pools).await;
    let layer = ServiceBuilder::new().layer(LoadShedLayer::new()).layer(PoolLayer::<Cpu>::new(&pools));
    let mut service =
        layer.service(service_fn(|_: Request<String>| async { Ok::<_, Infallible>(Response::new(String::new())) }));
    assert!(task::spawn(service.ready()).poll().is_ready());
    let queued = tokio::spawn(service.clone().oneshot(request("GET", "/")));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    let rejected = service.oneshot(request("GET", "/")).await.unwrap();
    assert_eq!(rejected.status(), StatusCode::SERVICE_UNAVAILABLE, "the pool says so, not `LoadShed`");
    gate.open(1);
    in_time(queued).await.unwrap().unwrap();
}

/// axum's own 404 and 405 are answers of the router, which `layer` wraps and `route_layer` does not.
#[tokio::test]
async fn wrong_layer_on_a_method_router_rejects_what_has_no_handler() {
    let pools = pools_of(1, 0);
    let right: Router = Router::new().route("/", post(|| async {}).route_layer(PoolLayer::<Cpu>::new(&pools)));
    let wrong: Router = Router::new().route("/", post(|| async {}).layer(PoolLayer::<Cpu>::new(&pools)));
    let gate = fill(&pools).await;
    assert_eq!(answer(right, get("/")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer(wrong, get("/")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    gate.open(1);
}
