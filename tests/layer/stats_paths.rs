//! The stats endpoint: where it can stand (nested at any depth, on a route, as a fallback, alone), and what it shows.

use axum::Router;
use http::StatusCode;
use tower_offload::{PoolConfig, Pools, StatsService};

use crate::fixtures::{answer, request};

fn stats() -> StatsService {
    StatsService::new(&Pools::builder().verbose(true).build().expect("the settings are valid"))
}

async fn status(app: &Router, method: &str, path: &str) -> StatusCode {
    answer(app.clone(), request(method, path).map(axum::body::Body::from)).await.status()
}

async fn answers_below(app: &Router, base: &str) {
    for (method, path) in [("GET", ""), ("POST", "/log-status"), ("GET", "/ready"), ("GET", "/scale")] {
        assert_eq!(status(app, method, &format!("{base}{path}")).await, 200, "{method} {base}{path}");
    }
    for (method, path) in [("POST", ""), ("GET", "/log-status"), ("POST", "/ready"), ("POST", "/scale")] {
        assert_eq!(status(app, method, &format!("{base}{path}")).await, 405, "{method} {base}{path}");
    }
    for path in ["/none", "/ready/none", "/scale/io", "s"] {
        assert_eq!(status(app, "GET", &format!("{base}{path}")).await, 404, "{base}{path}");
    }
}

#[tokio::test]
async fn it_answers_at_whatever_path_it_is_nested() {
    let nested = |path: &str| Router::new().nest_service(path, stats());
    answers_below(&nested("/health/thread-pools"), "/health/thread-pools").await;
    answers_below(&nested("/admin/pools"), "/admin/pools").await;
    answers_below(&nested("/api/health/thread-pools"), "/api/health/thread-pools").await;
    answers_below(&Router::new().nest("/api", nested("/health/thread-pools")), "/api/health/thread-pools").await;
    answers_below(&Router::new().nest("/a", Router::new().nest("/b", nested("/pools"))), "/a/b/pools").await;
}

#[tokio::test]
async fn it_finds_its_own_path_where_the_prefix_is_not_taken_off() {
    let routed =
        |path: &str| Router::new().route_service(path, stats()).route_service(&format!("{path}/{{*rest}}"), stats());
    answers_below(&routed("/health/thread-pools"), "/health/thread-pools").await;
    answers_below(&routed("/api/health/thread-pools"), "/api/health/thread-pools").await;
    answers_below(&Router::new().nest_service("/health", stats()), "/health/thread-pools").await;
    answers_below(&Router::new().nest_service("/api", stats()), "/api/health/thread-pools").await;
    let fallback = Router::new().fallback_service(stats());
    answers_below(&fallback, "/health/thread-pools").await;
    answers_below(&Router::new().nest("/api", fallback), "/api/health/thread-pools").await;
}

#[tokio::test]
async fn nested_it_answers_with_and_without_its_own_path() {
    let app = Router::new().nest_service("/admin/pools", stats());
    answers_below(&app, "/admin/pools/health/thread-pools").await;
}

#[tokio::test]
async fn pools_appear_in_the_order_of_the_settings() {
    let names = ["zip", "db", "archive"];
    let builder = Pools::builder().without_built_in_pools().verbose(true);
    let builder = names.iter().fold(builder, |builder, name| builder.pool(*name, PoolConfig::new(1)));
    let stats = StatsService::new(&builder.build().expect("the settings are valid"));
    let app = Router::new().nest_service("/pools", stats);
    let response = answer(app, request("GET", "/pools").map(axum::body::Body::from)).await;
    let text = response.into_body();
    let places = names.map(|name| text.find(&format!("\"{name}\":{{\"max_workers\":1,")).expect("each pool is shown"));
    assert!(places.is_sorted(), "{text}");
}

#[tokio::test]
async fn the_load_is_shown_without_verbose_and_has_no_task_in_it() {
    let pools = Pools::builder().pool("cpu", PoolConfig::new(1)).build().expect("the settings are valid");
    let response = answer(StatsService::new(&pools), request("GET", "/health/thread-pools/scale")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let shown: serde_json::Value = serde_json::from_str(response.body()).expect("it is JSON");
    let idle = serde_json::json!({
        "load": 0.0, "target": 0.7, "factor": 0.0, "bound_by": null,
        "pools": { "io": 0.0, "cpu": 0.0, "inference": 0.0, "embedding": 0.0, "db": 0.0 },
    });
    assert_eq!(shown, idle);
}

/// KEDA and Prometheus' adapter find what the manifests name.
#[tokio::test]
async fn the_manifests_name_what_is_there() {
    let manifest = |name: &str| {
        let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the manifest is there")
    };
    let keda = manifest("keda.yaml");
    let path = keda.split(":3000").nth(1).and_then(|rest| rest.lines().next()).expect("there is a URL");
    let location = keda.split("valueLocation: ").nth(1).and_then(|rest| rest.lines().next()).expect("there is a place");
    let pools = Pools::default();
    let response = answer(StatsService::new(&pools), request("GET", path)).await;
    let shown: serde_json::Value = serde_json::from_str(response.body()).expect("it is JSON");
    assert!(shown[location].is_f64(), "{location}: {shown}");
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = metrics::with_local_recorder(&recorder, || pools.publish_metrics(|| recorder.handle().render()));
    for manifest in [&keda, &manifest("hpa.yaml")] {
        assert!(manifest.contains("workload_load_ratio"));
    }
    assert!(metrics.lines().any(|line| line == "workload_load_ratio 0"), "{metrics}");
}
