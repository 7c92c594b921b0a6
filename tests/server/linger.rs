//! Unread bodies: a connection lingers while its client still sends, instead of being reset, and announces its close.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
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

/// A proxy would otherwise send the next request on a connection that is about to be closed.
#[tokio::test]
async fn a_response_before_an_unread_body_announces_the_close() {
    let app =
        Router::new().route("/", post(|| async { "unread" })).route("/later", post(|_: Body| async { "dropped" }));
    let server = TestServer::start(app, |_| {}).await;
    let expect = "expect: 100-continue\r\n";
    for (what, expect, status) in [
        ("POST /", "", "200 OK"),
        ("POST /", expect, "200 OK"),
        ("POST /later", "", "200 OK"),
        ("POST /nowhere", "", "404 Not Found"),
        ("PUT /", "", "405 Method Not Allowed"),
    ] {
        let mut stream = server.connect().await;
        let request = format!("{what} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n{expect}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_to(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{what}: {head}");
        assert!(head.contains("\r\nconnection: close\r\n"), "{what}: {head}");
    }
}

#[tokio::test]
async fn a_connection_serves_on_after_an_unread_body_that_has_arrived_and_after_one_that_was_read() {
    let app = Router::new().route("/", post(|| async { "unread" })).route("/read", post(|body: String| async { body }));
    let server = TestServer::start(app, |_| {}).await;
    let mut stream = server.connect().await;
    for (path, answer) in [("/", "unread"), ("/read", "hello"), ("/", "unread")] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_to(&mut stream, answer).await;
        assert!(!response.contains("connection: close"), "{response}");
    }
}
