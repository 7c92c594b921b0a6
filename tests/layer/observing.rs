//! `PoolLayer::observe`: which handlers hold a thread of the runtime.

use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::routing::{any, get, post};
use tower::ServiceExt;
use tower_offload::config::Route;
use tower_offload::{Cpu, PoolLayer, Pools, StatsService};

use crate::fixtures::{answer, request};

/// For longer than the layer relies on a reading of the time that the thread has waited for a core. Such a wait may make
/// the poll seem shorter.
async fn blocks() -> &'static str {
    thread::sleep(Duration::from_millis(40));
    "it blocked"
}

async fn awaits() -> &'static str {
    tokio::time::sleep(Duration::from_millis(3)).await;
    "it waited"
}

fn matched(request: &Request) -> Option<String> {
    Some(request.extensions().get::<MatchedPath>()?.as_str().to_owned())
}

async fn ask(app: &Router, method: &str, path: &str, times: usize) {
    for _ in 0..times {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert!(app.clone().oneshot(request).await.unwrap().status().is_success());
    }
}

fn named(pools: &Pools) -> Vec<String> {
    pools.slow_routes().into_iter().map(|route| route.route).collect()
}

#[tokio::test]
async fn routes_whose_handlers_block_are_named_and_others_are_not() {
    let pools = Pools::builder().verbose(true).build().unwrap();
    let app = Router::new()
        .route("/reports/{id}", get(blocks))
        .route("/waits", get(awaits))
        .layer(PoolLayer::observe(&pools).name_by(matched));
    ask(&app, "GET", "/waits", 2).await;
    for id in 0..5 {
        ask(&app, "GET", &format!("/reports/{id}"), 1).await;
    }
    assert_eq!(named(&pools), ["GET /reports/{id}"]);
    let route = &pools.slow_routes()[0];
    assert!(route.long_polls == 5 && route.longest >= Duration::from_millis(20), "{route:?}");
    let response = answer(StatsService::new(&pools), request("GET", "/health/thread-pools")).await;
    let shown: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    let shown = &shown["slow_routes"][0];
    assert_eq!((&shown["route"], &shown["long_polls"]), (&"GET /reports/{id}".into(), &5.into()));
    assert!(shown["longest_seconds"].as_f64().unwrap() >= 0.02);
}

#[tokio::test]
async fn a_handler_that_runs_in_a_pool_holds_no_thread_of_the_runtime() {
    let pools = Pools::default();
    let inside = PoolLayer::observe(&pools).name_by(matched);
    let app =
        Router::new().route("/inside", get(blocks).route_layer(inside).route_layer(PoolLayer::<Cpu>::new(&pools)));
    ask(&app, "GET", "/inside", 5).await;
    let outside = PoolLayer::observe(&pools).name_by(matched);
    let app =
        Router::new().route("/outside", get(blocks).route_layer(PoolLayer::<Cpu>::new(&pools)).route_layer(outside));
    ask(&app, "GET", "/outside", 5).await;
    assert_eq!(named(&pools), Vec::<String>::new());
}

#[tokio::test]
async fn routes_have_the_names_of_the_settings_and_never_those_of_the_client() {
    let pools = Pools::builder().route(Route::new("POST /v1/{id}", "cpu").unwrap()).build().unwrap();
    let app = Router::new()
        .route("/v1/{id}", post(blocks))
        .route("/other/{id}", any(blocks))
        .layer(PoolLayer::observe(&pools));
    for id in ["secret", "private", "personal"] {
        ask(&app, "POST", &format!("/v1/{id}"), 1).await;
        ask(&app, "GET", &format!("/other/{id}"), 1).await;
        ask(&app, &id.to_uppercase(), "/other/1", 1).await;
    }
    let mut names = named(&pools);
    names.sort();
    assert_eq!(names, ["(another method) (a route without a name)", "GET (a route without a name)", "POST /v1/{id}"]);
}
