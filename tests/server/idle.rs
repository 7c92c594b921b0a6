//! The server closes idle connections after the keep-alive timeout, and no connection that has a request in flight.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;

use crate::harness::{SHORT, TestServer, app, closed, exchange, gate, hello, read_to, request, send, soon};

/// Waits until the server has closed two idle connections, one after the other. Each timeout has then passed twice.
async fn two_timeouts(server: &TestServer) {
    for _ in 0..2 {
        let mut idle = server.connect().await;
        exchange(&mut idle).await;
        closed(&mut idle).await;
    }
}

#[tokio::test]
async fn an_idle_http1_connection_is_closed_after_the_keep_alive_timeout() {
    let server = TestServer::start(hello(), |config| config.performance.keep_alive_timeout = SHORT).await;
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    let sent = Instant::now();
    exchange(&mut stream).await;
    closed(&mut stream).await;
    assert!(sent.elapsed() >= SHORT, "closed after {:?}", sent.elapsed());
}

#[tokio::test]
async fn an_http1_connection_is_not_idle_while_its_handler_runs() {
    let (gate, mut keeper) = gate();
    let server = TestServer::start(app(&gate), |config| config.performance.keep_alive_timeout = SHORT).await;
    let mut stream = server.connect().await;
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

#[tokio::test]
async fn an_http1_connection_is_not_idle_while_its_response_streams() {
    let (gate, mut keeper) = gate();
    let server = TestServer::start(app(&gate), |config| config.performance.keep_alive_timeout = SHORT).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/stream").await;
    read_to(&mut stream, "first\r\n").await;
    keeper.entered().await;
    two_timeouts(&server).await;
    keeper.open();
    read_to(&mut stream, "second\r\n0\r\n\r\n").await;
    closed(&mut stream).await;
}

#[tokio::test]
async fn an_http1_connection_between_requests_outlives_the_header_timeout() {
    let server = TestServer::start(hello(), |config| config.server.header_read_timeout = SHORT).await;
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    for _ in 0..2 {
        closed(&mut server.connect().await).await;
    }
    exchange(&mut stream).await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_although_it_pings() {
    let server = TestServer::start(hello(), |config| config.performance.keep_alive_timeout = SHORT).await;
    let (mut client, connection) = server
        .http2(|builder| {
            builder.keep_alive_interval(Duration::from_millis(20)).keep_alive_while_idle(true);
        })
        .await;
    let sent = Instant::now();
    soon(client.send_request(request(server.address, "/"))).await.unwrap().into_body().collect().await.unwrap();
    soon(connection).await.unwrap().unwrap();
    assert!(sent.elapsed() >= SHORT, "closed after {:?}", sent.elapsed());
}

#[tokio::test]
async fn an_http2_connection_without_a_request_is_idle() {
    let server = TestServer::start(hello(), |config| config.performance.keep_alive_timeout = SHORT).await;
    let (_client, connection) = server.http2(|_| {}).await;
    soon(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_http2_connection_is_not_idle_while_a_stream_is_open() {
    let (gate, mut keeper) = gate();
    let server = TestServer::start(app(&gate), |config| config.performance.keep_alive_timeout = SHORT).await;
    let (mut client, connection) = server.http2(|_| {}).await;
    let streaming = soon(client.send_request(request(server.address, "/stream"))).await.unwrap();
    keeper.entered().await;
    let waiting = tokio::spawn(client.send_request(request(server.address, "/gate")));
    keeper.entered().await;
    two_timeouts(&server).await;
    keeper.open();
    let streamed = soon(streaming.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(streamed, "firstsecond");
    let passed = soon(waiting).await.unwrap().unwrap();
    assert_eq!(soon(passed.into_body().collect()).await.unwrap().to_bytes(), "passed");
    soon(connection).await.unwrap().unwrap();
}
