//! The server closes idle connections after the keep-alive timeout, and no connection that has a request in flight. All of
//! it in virtual time, so that no timeout passes while a test does something else.

use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::harness::{MemoryServer, SHORT, app, closed, exchange, gate, hello, read_to, send, soon};

/// A server that closes idle connections soon.
fn impatient(app: Router) -> MemoryServer {
    MemoryServer::start(app, |config| config.performance.keep_alive_timeout = SHORT)
}

async fn http2(
    server: &MemoryServer,
    configure: impl FnOnce(&mut Builder<TokioExecutor>),
) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    configure(&mut builder);
    let (client, connection) = soon(builder.handshake(TokioIo::new(server.connect()))).await.unwrap();
    (client, tokio::spawn(connection))
}

fn request(path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("http://localhost{path}")).body(Empty::new()).unwrap()
}

/// Waits until the server has closed two idle connections, one after the other. Each timeout has then passed twice.
async fn two_timeouts(server: &MemoryServer) {
    for _ in 0..2 {
        let mut idle = server.connect();
        exchange(&mut idle).await;
        closed(&mut idle).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_http1_connection_is_closed_after_the_keep_alive_timeout() {
    let server = impatient(hello());
    let mut stream = server.connect();
    exchange(&mut stream).await;
    let sent = Instant::now();
    exchange(&mut stream).await;
    closed(&mut stream).await;
    assert!(sent.elapsed() >= SHORT, "closed after {:?}", sent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_is_not_idle_while_its_handler_runs() {
    let (gate, mut keeper) = gate();
    let server = impatient(app(&gate));
    let mut stream = server.connect();
    send(&mut stream, "/gate").await;
    keeper.entered().await;
    two_timeouts(&server).await;
    keeper.open();
    read_to(&mut stream, "passed").await;
    let answered = Instant::now();
    exchange(&mut stream).await;
    closed(&mut stream).await;
    assert!(answered.elapsed() >= SHORT, "closed after {:?}", answered.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_is_not_idle_while_its_response_streams() {
    let (gate, mut keeper) = gate();
    let server = impatient(app(&gate));
    let mut stream = server.connect();
    send(&mut stream, "/stream").await;
    read_to(&mut stream, "first\r\n").await;
    keeper.entered().await;
    two_timeouts(&server).await;
    keeper.open();
    read_to(&mut stream, "second\r\n0\r\n\r\n").await;
    closed(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_between_requests_outlives_the_header_timeout() {
    let server = MemoryServer::start(hello(), |config| config.server.header_read_timeout = SHORT);
    let mut stream = server.connect();
    exchange(&mut stream).await;
    for _ in 0..2 {
        closed(&mut server.connect()).await;
    }
    exchange(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_closed_although_it_pings() {
    let server = impatient(hello());
    let pings = |builder: &mut Builder<TokioExecutor>| {
        builder.keep_alive_interval(Duration::from_millis(20)).keep_alive_while_idle(true);
    };
    let (mut client, connection) = http2(&server, pings).await;
    let sent = Instant::now();
    soon(client.send_request(request("/"))).await.unwrap().into_body().collect().await.unwrap();
    soon(connection).await.unwrap().unwrap();
    assert!(sent.elapsed() >= SHORT, "closed after {:?}", sent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_without_a_request_is_idle() {
    let server = impatient(hello());
    let (_client, connection) = http2(&server, |_| {}).await;
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_not_idle_while_a_stream_is_open() {
    let (gate, mut keeper) = gate();
    let server = impatient(app(&gate));
    let (mut client, connection) = http2(&server, |_| {}).await;
    let streaming = soon(client.send_request(request("/stream"))).await.unwrap();
    keeper.entered().await;
    let waiting = tokio::spawn(client.send_request(request("/gate")));
    keeper.entered().await;
    two_timeouts(&server).await;
    keeper.open();
    let streamed = soon(streaming.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(streamed, "firstsecond");
    let passed = soon(waiting).await.unwrap().unwrap();
    assert_eq!(soon(passed.into_body().collect()).await.unwrap().to_bytes(), "passed");
    soon(connection).await.unwrap().unwrap();
}
