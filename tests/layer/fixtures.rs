//! Shared by the tests: small pools, handlers that return where they run, a gate that holds them, and a real server.

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt, service_fn};
use tower_offload::{PoolConfig, PoolStats, Pools};

#[path = "../pool/events.rs"]
mod events;

use self::events::keep_events_enabled;

/// The pools `cpu` and `io`, each with this many workers and this queue capacity.
pub(crate) fn pools_of(workers: usize, queue_capacity: usize) -> Pools {
    let config = PoolConfig::new(workers).queue_capacity(queue_capacity);
    Pools::builder().pool("cpu", config.clone()).pool("io", config).build().expect("the settings are valid")
}

pub(crate) fn stats_of(pools: &Pools, name: &str) -> PoolStats {
    pools.get(name).expect("the pool exists").stats()
}

/// The name of the pool that runs this code, or `inline`.
pub(crate) fn place() -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let pool = name.strip_prefix("offload-").and_then(|rest| rest.rsplit_once('-'));
    match pool {
        Some((pool, number)) if number.parse::<u32>().is_ok() => pool.to_owned(),
        _ => "inline".to_owned(),
    }
}

/// A handler for axum that returns the name of the pool it runs in.
pub(crate) async fn where_am_i() -> String {
    place()
}

/// A service that responds with text.
pub(crate) trait TextService<B = String>:
    Service<Request<B>, Response = Response<String>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, B> TextService<B> for S where
    S: Service<Request<B>, Response = Response<String>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service that responds with the name of the pool that it is called in.
pub(crate) fn locator<B: 'static>() -> impl TextService<B> {
    service_fn(|_: Request<B>| {
        let place = place();
        async move { Ok(Response::new(place)) }
    })
}

pub(crate) fn request(method: &str, uri: &str) -> Request<String> {
    Request::builder().method(method).uri(uri).body(String::new()).expect("the parts are valid")
}

pub(crate) fn get(uri: &str) -> Request<Body> {
    request("GET", uri).map(Body::from)
}

/// The response of `service`, with its whole body.
pub(crate) async fn answer<S, Req, B>(service: S, request: Req) -> Response<String>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    whole(service.oneshot(request).await.expect("the service answers")).await
}

/// The response with its whole body.
pub(crate) async fn whole<B>(response: Response<B>) -> Response<String>
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("the body is whole").to_bytes();
    Response::from_parts(parts, String::from_utf8(bytes.into()).expect("the body is text"))
}

pub(crate) fn json(response: &Response<String>) -> serde_json::Value {
    serde_json::from_str(response.body()).expect("the body is JSON")
}

/// Holds handlers until a test lets them pass, and tells the test that they have arrived.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Reports that a handler has arrived, and waits until it may pass.
    pub(crate) async fn pass(&self) {
        self.arrived.add_permits(1);
        self.open.acquire().await.expect("the gate is never closed").forget();
    }

    /// Waits until this many more handlers have arrived.
    pub(crate) async fn arrived(&self, handlers: u32) {
        in_time(self.arrived.acquire_many(handlers)).await.expect("the gate is never closed").forget();
    }

    /// How many handlers have arrived that `arrived` was not called for.
    pub(crate) fn waiting(&self) -> usize {
        self.arrived.available_permits()
    }

    /// Lets this many handlers pass.
    pub(crate) fn open(&self, handlers: usize) {
        self.open.add_permits(handlers);
    }
}

/// Fails the test if `future` hangs. The time decides nothing else.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this takes less than 20 seconds")
}

/// Waits until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Serves `app` on a free port for as long as the runtime lives.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    (listener, address)
}

pub(crate) type HttpClient = Client<HttpConnector, Body>;

pub(crate) fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn http2_client() -> HttpClient {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// A subscriber that writes the lines of a log.
pub(crate) fn log_of(lines: &Arc<Mutex<Vec<u8>>>) -> impl tracing::Subscriber + Send + Sync + use<> {
    struct Writer(Arc<Mutex<Vec<u8>>>);

    impl Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics here").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    keep_events_enabled();
    let lines = lines.clone();
    tracing_subscriber::fmt()
        .with_writer(move || Writer(lines.clone()))
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish()
}
