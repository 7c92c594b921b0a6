//! A connection that closes while its client still sends is not reset at once.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::AsyncWriteExt;

use crate::harness::{TestServer, app, closed, gate, read_to, send, soon};

const PAUSE: Duration = Duration::from_millis(100);

/// The handler answers before the body has come. A client that writes all of it first must still find the answer.
#[tokio::test]
async fn a_client_that_sends_a_refused_body_for_three_seconds_reads_its_answer() {
    let refuse = Router::new().route("/", post(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "refused") }));
    // The server waits a second for each next byte. On a busy machine the client may pause for longer, but one try of
    // many will not.
    for _ in 0..10 {
        let server = TestServer::start(refuse.clone(), |_| {}).await;
        let mut stream = server.connect().await;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 30000\r\n\r\n").await.unwrap();
        let mut longest = Duration::ZERO;
        let mut sent = Ok(());
        for _ in 0..30 {
            let begun = Instant::now();
            tokio::time::sleep(PAUSE).await;
            sent = sent.and(soon(stream.write_all(&[0; 1000])).await);
            longest = longest.max(begun.elapsed());
        }
        if longest > Duration::from_millis(900) {
            continue;
        }
        sent.unwrap();
        read_to(&mut stream, "refused").await;
        return closed(&mut stream).await;
    }
    panic!("the machine is too busy for this test");
}

/// All that this client sent was read, so nothing can be destroyed: the server does not wait for it.
#[tokio::test]
async fn a_connection_that_has_read_everything_closes_without_waiting_for_its_client() {
    for _ in 0..10 {
        let (gate, mut keeper) = gate();
        let mut server = TestServer::start(app(&gate), |_| {}).await;
        let mut stream = server.connect().await;
        send(&mut stream, "/gate").await;
        keeper.entered().await;
        server.stopped().await;
        keeper.open();
        read_to(&mut stream, "passed").await;
        closed(&mut stream).await;
        // The client keeps its side open until the server has ended.
        if server.report().await.took < Duration::from_millis(700) {
            return;
        }
    }
    panic!("the server waits for its client, or the machine is too busy for this test");
}
