//! The server closes connections that reach their maximum age, and no request is lost.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};
use tower_offload::server::Server;
use tower_offload::{Config, Pools};

use crate::harness::{Memory, closed, memory, read_to, send};

const AGE: Duration = Duration::from_secs(600);
const KEEP_ALIVE: Duration = Duration::from_secs(3600);
const WORK: Duration = Duration::from_secs(7);

/// A server in virtual time. Its handler takes some seconds.
fn start() -> Memory {
    let app = Router::new().route(
        "/",
        get(|| async {
            sleep(WORK).await;
            "hello"
        }),
    );
    let mut config = Config::default();
    config.server.max_connection_age = Some(AGE);
    config.performance.keep_alive_timeout = KEEP_ALIVE;
    let (memory, listener) = memory();
    let server = Server::new(&config, &Pools::default()).listener(listener).shutdown_on(std::future::pending());
    tokio::spawn(async move { server.serve(app).await.unwrap() });
    memory
}

/// Asserts that a connection closed at its maximum age, give or take 10%, plus the time of a request in flight.
fn assert_aged(age: Duration) {
    assert!((AGE.mul_f64(0.9)..=AGE.mul_f64(1.1) + WORK).contains(&age), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn an_http1_connection_ends_with_the_response_after_its_age() {
    let memory = start();
    let mut stream = memory.connect();
    let opened = Instant::now();
    loop {
        assert!(opened.elapsed() < 2 * AGE, "it is never closed");
        send(&mut stream, "/").await;
        let head = read_to(&mut stream, "\r\n\r\nhello").await;
        if head.contains("connection: close\r\n") {
            break;
        }
    }
    assert_aged(opened.elapsed());
    closed(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_at_its_age_though_it_could_be_idle_for_longer() {
    let memory = start();
    let mut stream = memory.connect();
    let opened = Instant::now();
    send(&mut stream, "/").await;
    read_to(&mut stream, "\r\n\r\nhello").await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_aged(opened.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_finishes_its_streams_after_its_age() {
    let memory = start();
    let io = TokioIo::new(memory.connect());
    let opened = Instant::now();
    let (mut client, connection) =
        http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answered = 0;
    while !connection.is_finished() {
        assert!(opened.elapsed() < 2 * AGE, "it is never closed");
        let request = http::Request::get("http://localhost/").body(Empty::new()).unwrap();
        match client.send_request(request).await {
            Ok(response) => {
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
                answered += 1;
            }
            // hyper's client did not send this request.
            Err(error) => assert!(error.is_canceled() || error.is_closed(), "{error:?}"),
        }
    }
    connection.await.unwrap().unwrap();
    assert_aged(opened.elapsed());
    assert!(answered > 10, "{answered}");
}
