//! `LoadReport`: its forms, and where it is.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::report::LoadReport;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

/// The message of the standard, with the fields that balancers read.
#[derive(Clone, PartialEq, Message)]
struct OrcaLoadReport {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(map = "string, double", tag = "8")]
    named_metrics: HashMap<String, f64>,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

fn pools() -> Pools {
    let pool = PoolConfig::new(1).queue_capacity(0);
    Pools::builder().pool("cpu", pool.clone()).pool("io", pool).build().expect("the settings are valid")
}

fn app(pools: &Pools) -> Router {
    Router::new()
        .route("/cpu", post(|| async { "done" }).route_layer(PoolLayer::<Cpu>::new(pools)))
        .route("/health", get(|| async { "ok" }))
        .layer(LoadReport::new(pools).by(["cpu"]).expect("it exists").named_metrics())
}

async fn reported(app: &Router, method: &str, path: &str, format: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(format) = format {
        request = request.header("endpoint-load-metrics-format", format);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let values: Vec<_> = response.headers().get_all("endpoint-load-metrics").iter().collect();
    assert_eq!(values.len(), 1, "{values:?}");
    (response.status(), values[0].to_str().unwrap().to_owned())
}

/// The numbers of the text, by name.
fn numbers(text: &str) -> HashMap<String, f64> {
    let fields = text.strip_prefix("TEXT ").expect("its form").split(',');
    fields
        .map(|field| field.split_once('=').expect("a value"))
        .map(|(k, v)| (k.to_owned(), v.parse().unwrap()))
        .collect()
}

fn decoded(base64: &str) -> OrcaLoadReport {
    let letter = |letter| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".find(letter);
    let bits: Vec<_> = base64.trim_end_matches('=').chars().map(|c| letter(c).expect("a letter") as u32).collect();
    let bytes = bits.chunks(4).flat_map(|chunk| {
        let joined = chunk.iter().fold(0, |bits, next| bits << 6 | next) << (6 * (4 - chunk.len()));
        (0..chunk.len() - 1).map(move |byte| (joined >> (16 - 8 * byte)) as u8)
    });
    OrcaLoadReport::decode(&*bytes.collect::<Vec<_>>()).expect("it is the message")
}

#[tokio::test]
async fn an_idle_server_reports_the_least_that_is_not_taken_for_nothing() {
    let (status, text) = reported(&app(&pools()), "GET", "/health", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, "TEXT application_utilization=0.0100,rps_fractional=0.010,eps=0.000,named_metrics.cpu=0.0000");
}

/// The value for a request that asks for no form.
async fn text_of(report: LoadReport) -> String {
    let service = report.layer(service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty()))));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    response.headers()["endpoint-load-metrics"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn pools_have_their_names_in_a_report_that_was_told_so_and_in_no_other() {
    let (pools, idle) = (pools(), "TEXT application_utilization=0.0100,rps_fractional=0.010,eps=0.000");
    assert_eq!(text_of(LoadReport::new(&pools)).await, idle);
    assert_eq!(text_of(LoadReport::new(&pools).by(["cpu"]).unwrap()).await, idle);
    let named = LoadReport::new(&pools).named_metrics().by(["cpu"]).unwrap();
    assert_eq!(text_of(named).await, format!("{idle},named_metrics.cpu=0.0000"));
    assert_eq!(text_of(LoadReport::new(&Pools::disabled())).await, idle, "no number is negative");
}

#[tokio::test]
async fn bodies_keep_their_length_and_their_end() {
    let service = LoadReport::new(&pools())
        .layer(service_fn(async |request: Request<Body>| Ok::<_, Infallible>(Response::new(request.into_body()))));
    for (text, length) in [("", 0), ("done", 4)] {
        let response = service.clone().oneshot(Request::new(Body::from(text))).await.unwrap();
        assert_eq!((response.body().size_hint().exact(), response.body().is_end_stream()), (Some(length), length == 0));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
    }
}

#[tokio::test]
async fn the_request_chooses_the_form() {
    let app = app(&pools());
    for (asked, prefix) in [
        ("text", "TEXT "),
        ("TEXT", "TEXT "),
        ("json", "JSON {"),
        ("JSON", "JSON {"),
        ("BIN", "BIN "),
        ("xml", "TEXT "),
    ] {
        let (_, value) = reported(&app, "GET", "/health", Some(asked)).await;
        assert!(value.starts_with(prefix), "{asked}: {value}");
    }
    let (_, json) = reported(&app, "GET", "/health", Some("json")).await;
    let json: serde_json::Value = serde_json::from_str(json.strip_prefix("JSON ").unwrap()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "application_utilization": 0.01, "rps_fractional": 0.01, "eps": 0.0, "named_metrics": { "cpu": 0.0 }
        })
    );
    let (_, binary) = reported(&app, "GET", "/health", Some("bin")).await;
    let expected = OrcaLoadReport {
        cpu_utilization: 0.0,
        rps_fractional: 0.01,
        eps: 0.0,
        named_metrics: HashMap::from([("cpu".to_owned(), 0.0)]),
        application_utilization: 0.01,
    };
    assert_eq!(decoded(binary.strip_prefix("BIN ").unwrap()), expected);
}

/// A balancer that believed a fast rejection would send more.
#[tokio::test]
async fn a_server_that_rejects_reports_its_errors_and_more_than_it_can_do() {
    let pools = pools();
    let app = app(&pools);
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let holder = pools
        .submit_to_pool("cpu", async move {
            let _ = begun.send(());
            let _ = held.await;
        })
        .unwrap();
    begins.await.unwrap();
    let ask = async {
        loop {
            let (status, text) = reported(&app, "POST", "/cpu", None).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "a rejection has the report");
            let numbers = numbers(&text);
            if numbers["application_utilization"] > 2.0 && numbers["eps"] > 1.0 {
                break numbers;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let numbers = tokio::time::timeout(std::time::Duration::from_secs(30), ask).await.expect("the load is noticed");
    assert!(numbers["rps_fractional"] >= numbers["eps"], "{numbers:?}");
    assert_eq!(numbers["named_metrics.cpu"], numbers["application_utilization"]);
    release.send(()).unwrap();
    holder.await.unwrap();
}

#[tokio::test]
async fn a_server_that_drains_is_full() {
    let pools = pools();
    let app = app(&pools);
    pools.announce_drain();
    let drained = async {
        while numbers(&reported(&app, "GET", "/health", None).await.1)["application_utilization"] < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), drained).await.expect("the next report says so");
}

#[tokio::test]
async fn grpc_has_the_report_in_its_trailers() {
    let service = LoadReport::new(&pools()).layer(service_fn(|request: Request<Body>| async move {
        if request.uri().path() == "/headers.only" {
            let response = Response::builder().header("grpc-status", "12").body(Body::empty());
            return Ok::<_, Infallible>(response.unwrap());
        }
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let frames = [Ok::<_, axum::Error>(Frame::data("message".into())), Ok(Frame::trailers(trailers))];
        Ok(Response::new(Body::new(StreamBody::new(tokio_stream::iter(frames)))))
    }));
    let ask = |path: &str| {
        let request = Request::post(path).header("content-type", "application/grpc").body(Body::empty()).unwrap();
        service.clone().oneshot(request)
    };
    let response = ask("/a.Service/Method").await.unwrap();
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    let report = decoded(trailers["endpoint-load-metrics-bin"].to_str().unwrap());
    assert_eq!(report.application_utilization, 0.01);
    assert!(report.named_metrics.is_empty(), "nobody asked for the names of the pools");
    let only = ask("/headers.only").await.unwrap();
    assert_eq!(decoded(only.headers()["endpoint-load-metrics-bin"].to_str().unwrap()).application_utilization, 0.01);
    assert!(!only.headers().contains_key("endpoint-load-metrics"));
}

#[test]
fn pools_that_are_not_there_are_refused() {
    let unknown = LoadReport::new(&pools()).by(["cpu", "gpu"]).unwrap_err();
    assert!(unknown.to_string().contains("gpu"), "{unknown}");
    assert!(LoadReport::new(&Pools::disabled()).by(["gpu"]).is_ok());
}
