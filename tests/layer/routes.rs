//! Routes of the settings: on nested routers, and those that match nothing.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{get as on_get, post};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{Layer, Service};
use tower_offload::config::Route;
use tower_offload::pools::PoolsBuilder;
use tower_offload::{PoolLayer, Pools};

use crate::fixtures::{answer, get, locator, log_of, place, request, where_am_i};

fn pools_with(routes: &[(&str, &str)]) -> Pools {
    let routes = routes.iter().map(|(pattern, pool)| Route::new(pattern, *pool).expect("the pattern is valid"));
    routes.fold(Pools::builder(), PoolsBuilder::route).build().expect("the settings are valid")
}

#[tokio::test]
async fn a_nested_router_offloads_by_whole_paths_under_its_prefix() {
    let pools = pools_with(&[
        ("POST /api/v1/hash", "cpu"),
        ("/api/v1", "io"),
        ("/api/v1/users/{id}", "db"),
        ("/api/{version}/any", "embedding"),
        ("/hash", "inference"),
    ]);
    let v1 = Router::new()
        .route("/", on_get(where_am_i))
        .route("/hash", post(where_am_i).get(where_am_i))
        .route("/users/{id}", on_get(where_am_i))
        .route("/any", on_get(where_am_i))
        .route("/other", on_get(where_am_i))
        .route_layer(PoolLayer::by_route_under(&pools, "/api/v1/"));
    let app = Router::new().nest("/api/v1", v1);
    for (path, pool) in [
        ("/api/v1", "io"),
        ("/api/v1/users/7", "db"),
        ("/api/v1/users/7?with=query", "db"),
        ("/api/v1/any", "embedding"),
        ("/api/v1/other", "inline"),
        ("/api/v1/hash", "inline"),
    ] {
        assert_eq!(answer(app.clone(), get(path)).await.body(), pool, "{path}");
    }
    let hashed = answer(app, request("POST", "/api/v1/hash").map(axum::body::Body::from)).await;
    assert_eq!(hashed.body(), "cpu");
}

/// A nested service sees `/` for its prefix, with a slash at the end or without.
#[tokio::test]
async fn the_prefix_itself_matches_with_and_without_a_slash_at_its_end() {
    let pools = pools_with(&[("/plain", "cpu"), ("/slash/", "io")]);
    let of = |prefix: &str| PoolLayer::by_route_under(&pools, prefix).layer(locator());
    assert_eq!(answer(of("/plain"), request("GET", "/")).await.body(), "cpu");
    assert_eq!(answer(of("/slash"), request("GET", "/")).await.body(), "io");
    assert_eq!(answer(of("/plain"), request("GET", "/more")).await.body(), "inline");
}

#[tokio::test]
async fn routers_that_are_nested_twice_have_the_whole_prefix() {
    let pools = pools_with(&[("/a/b/c", "cpu")]);
    let inner = Router::new().route("/c", on_get(where_am_i)).layer(PoolLayer::by_route_under(&pools, "/a/b"));
    let app = Router::new().nest("/a", Router::new().nest("/b", inner));
    assert_eq!(answer(app, get("/a/b/c")).await.body(), "cpu");
}

/// A router that is nested below a parameter: the parameter of the prefix stands for that of the route.
#[tokio::test]
async fn a_prefix_may_have_parameters() {
    let pools = pools_with(&[("/users/{id}/files/{*path}", "io")]);
    let files = Router::new()
        .route("/files/{*path}", on_get(async |_: axum::extract::Request| place()))
        .layer(PoolLayer::by_route_under(&pools, "/users/{user}"));
    let app = Router::new().nest("/users/{user}", files);
    assert_eq!(answer(app, get("/users/7/files/a/b")).await.body(), "io");
}

#[test]
#[should_panic(expected = "the prefix of a nested router begins with `/`, and `api` does not")]
fn a_prefix_begins_with_a_slash() {
    let _ = PoolLayer::by_route_under(&Pools::default(), "api");
}

fn logged(run: impl FnOnce()) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(log_of(&lines), run);
    String::from_utf8(lines.lock().expect("nothing panics with it").clone()).expect("a log is text")
}

#[test]
fn a_layer_under_a_prefix_without_routes_warns() {
    let pools = pools_with(&[("/api/v1/hash", "cpu")]);
    assert_eq!(logged(|| drop(PoolLayer::by_route_under(&pools, "/api/v1"))), "");
    let log = logged(|| drop(PoolLayer::by_route_under(&pools, "/api/v2")));
    assert!(log.contains("WARN") && log.contains("no route below `/api/v2`"), "{log}");
    assert_eq!(logged(|| drop(PoolLayer::by_route_under(&Pools::disabled(), "/api/v2"))), "");
}

/// Three mistakes: a wrong letter, a slash at the end, and a layer on a nested router that does not know its prefix.
#[test]
fn a_route_that_matches_none_of_a_thousand_requests_is_reported_once_by_name() {
    let pools =
        pools_with(&[("POST /v1/hahs", "cpu"), ("/v1/slash/", "cpu"), ("/api/nested", "io"), ("/v1/right", "db")]);
    let (mut outer, mut nested) =
        (PoolLayer::by_route(&pools).layer(locator()), PoolLayer::by_route(&pools).layer(locator()));
    let mut ask = |times: usize| {
        for number in 0..times {
            let path = ["/v1/hash", "/v1/slash", "/nested", "/v1/right"][number % 4];
            let service = if path == "/nested" { &mut nested } else { &mut outer };
            drop(service.call(request("POST", path)));
        }
    };
    assert_eq!(logged(|| ask(999)), "");
    let log = logged(|| ask(1));
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    for (line, route) in lines.into_iter().zip(["POST /v1/hahs", "/v1/slash/", "/api/nested"]) {
        assert!(line.contains("WARN") && line.contains(&format!("`{route}`")), "{line}");
    }
    assert_eq!(logged(|| ask(2000)), "");
}

#[test]
fn routes_that_match_are_never_reported() {
    let pools = pools_with(&[("/a", "cpu"), ("GET /b", "io")]);
    let mut service = PoolLayer::by_route(&pools).layer(locator());
    let log = logged(|| {
        for path in ["/b", "/a"].into_iter().cycle().take(3000) {
            drop(service.call(request("HEAD", path)));
        }
    });
    assert_eq!(log, "");
}

#[test]
fn routes_without_a_match_are_counted_until_they_have_one() {
    let pools = pools_with(&[("/a", "cpu"), ("/b", "cpu"), ("/c", "db")]);
    let recorder = PrometheusBuilder::new().build_recorder();
    let exporter = recorder.handle();
    let mut service = PoolLayer::by_route(&pools).layer(locator());
    metrics::with_local_recorder(&recorder, || {
        let unmatched = |pool: &str| {
            let text = pools.publish_metrics(|| exporter.render());
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("workload_pool_routes_unmatched{{pool=\"{pool}\"}}")));
            line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
        };
        assert_eq!(
            (unmatched("cpu").as_deref(), unmatched("db").as_deref(), unmatched("io")),
            (Some("2"), Some("1"), None)
        );
        drop(service.call(request("GET", "/b")));
        assert_eq!((unmatched("cpu").as_deref(), unmatched("db").as_deref()), (Some("1"), Some("1")));
        drop(service.call(request("GET", "/c")));
        assert_eq!((unmatched("cpu").as_deref(), unmatched("db").as_deref()), (Some("1"), Some("0")));
    });
}
