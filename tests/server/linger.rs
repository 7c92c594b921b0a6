//! A connection lingers while its client still sends, instead of being reset.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::io::AsyncWriteExt;

use crate::harness::{TestServer, closed, read_to, soon, with_held_request};

const PAUSE: Duration = Duration::from_millis(100);

/// The handler answers before the body has arrived. A client that writes the whole body before it reads must still get
/// the response.
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

/// The server has read every byte that this client sent, so a close resets nothing, and the server does not linger.
#[tokio::test]
async fn a_connection_that_has_read_everything_closes_without_waiting_for_its_client() {
    for _ in 0..10 {
        let (mut server, mut stream, keeper) = with_held_request(|_| {}).await;
        server.stopped().await;
        keeper.open();
        read_to(&mut stream, "passed").await;
        closed(&mut stream).await;
        // The client keeps its side open meanwhile.
        let report = server.report().await;
        assert_eq!(report.connections_cut_off, 0);
        if report.took < Duration::from_millis(700) {
            return;
        }
    }
    panic!("the server waits for its client, or the machine is too busy for this test");
}
