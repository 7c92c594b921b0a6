//! Everywhere a layer that reads bodies can stand.

use axum::Router;
use axum::body::Body;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodRouter, post};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_http::map_request_body::MapRequestBodyLayer;
use tower_offload::body::{Buffered, ReadBody};

use crate::fixtures::{answer, in_time};

async fn text(body: String) -> String {
    body
}

fn request() -> Request<Body> {
    Request::post("/").body(Body::from("sent")).unwrap()
}

#[tokio::test]
async fn it_stands_around_routers_methods_and_handlers_of_axum() {
    let read_body = || ReadBody::new(100);
    let methods: MethodRouter = post(text).layer(read_body());
    for app in [
        Router::new().route("/", post(text)).layer(read_body()),
        Router::new().route("/", post(text)).route_layer(read_body()),
        Router::new().route("/", methods),
        Router::new().route("/", post(axum::handler::Handler::layer(text, read_body()))),
        Router::new().route("/", post(text).route_layer(ServiceBuilder::new().layer(read_body()))),
    ] {
        assert_eq!(answer(app, request()).await.body(), "sent");
    }
}

/// axum's `from_fn` takes `Request<axum::body::Body>` only. In a `ServiceBuilder` it needs one more line.
#[tokio::test]
async fn a_service_that_takes_one_type_of_body_needs_one_more_line() {
    let layers = ServiceBuilder::new()
        .layer(ReadBody::new(100))
        .layer(MapRequestBodyLayer::new(Body::new))
        .layer(from_fn(async |request: axum::extract::Request, next: Next| next.run(request).await));
    let app = Router::new().route("/", post(text)).layer(layers);
    assert_eq!(answer(app, request()).await.body(), "sent");
    // Where each layer is added to the router, axum converts the bodies.
    let app = Router::new()
        .route("/", post(text))
        .layer(from_fn(async |request: axum::extract::Request, next: Next| next.run(request).await))
        .layer(ReadBody::new(100));
    assert_eq!(answer(app, request()).await.body(), "sent");
}

#[tokio::test]
async fn it_stands_around_services_of_hyper() {
    let service = ServiceBuilder::new().layer(ReadBody::new(100)).service(service_fn(
        async |request: Request<Buffered<Incoming>>| {
            let bytes = request.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Response::new(http_body_util::Full::new(bytes)))
        },
    ));
    let (listener, address) = crate::fixtures::listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(service);
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service).await
    });
    let request = Request::post(format!("http://{address}/")).body(Body::from("sent")).unwrap();
    let response = in_time(crate::fixtures::client().request(request)).await.unwrap();
    assert_eq!(crate::fixtures::whole(response).await.body(), "sent");
}

#[tokio::test]
async fn it_stands_before_services_that_take_any_body() {
    let folder = tempfile::tempdir().unwrap();
    let files =
        ServiceBuilder::new().layer(ReadBody::new(100)).service(tower_http::services::ServeDir::new(folder.path()));
    let response = files.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::METHOD_NOT_ALLOWED);
}
