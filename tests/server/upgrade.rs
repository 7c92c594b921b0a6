//! WebSockets: upgraded connections are served, never idle, and cut off at the deadline. All of it in virtual time.

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::{any, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::harness::{MemoryServer, SHORT, closed, exchange, read_to, soon};

fn app() -> Router {
    let echo = any(|upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    });
    Router::new().route("/echo", echo).route("/", get(|| async { "hello" }))
}

async fn upgrade(server: &MemoryServer) -> DuplexStream {
    let mut stream = server.connect();
    let request = "GET /echo HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_to(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    stream
}

/// Sends a text and reads it back. Frames of a client are masked, here with zeros; frames of a server are not.
async fn echo(stream: &mut DuplexStream, text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
    stream.write_all(&frame).await.unwrap();
    let mut answer = vec![0; 2 + text.len()];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [&[0x81, length], text.as_bytes()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_never_idle() {
    let server = MemoryServer::start(app(), |config| {
        config.performance.keep_alive_timeout = SHORT;
        config.server.header_read_timeout = SHORT;
    });
    let mut websocket = upgrade(&server).await;
    echo(&mut websocket, "one").await;
    for _ in 0..2 {
        let mut idle = server.connect();
        exchange(&mut idle).await;
        closed(&mut idle).await;
    }
    echo(&mut websocket, "two").await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_cut_off_at_the_deadline() {
    let server = MemoryServer::start(app(), |config| config.server.shutdown_timeout = SHORT);
    let mut websocket = upgrade(&server).await;
    echo(&mut websocket, "one").await;
    let served = server.stopped().await;
    echo(&mut websocket, "two").await;
    closed(&mut websocket).await;
    let report = soon(served).await.unwrap();
    assert_eq!((report.connections_finished, report.connections_cut_off), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_ends_in_time_is_finished() {
    let server = MemoryServer::start(app(), |_| {});
    let mut websocket = upgrade(&server).await;
    echo(&mut websocket, "one").await;
    let served = server.stopped().await;
    drop(websocket);
    let report = soon(served).await.unwrap();
    assert_eq!((report.connections_finished, report.connections_cut_off), (2, 0));
}
