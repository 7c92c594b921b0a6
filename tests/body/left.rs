//! A client that leaves while its request is queued is noticed, whatever its body looks like.

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolLayer};

use crate::fixtures::{Gate, in_time, pools_of, serve, stats_of, until};

/// Leaves the queue of a server of axum, and checks that the handler did not run.
async fn leave(request: &str) {
    let pools = pools_of(1, 10);
    let gate = Gate::new();
    let (held, handled) = (gate.clone(), Gate::new());
    let layer = || PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1 << 20));
    let handler = {
        let handled = handled.clone();
        move |_: Bytes| async move { handled.pass().await }
    };
    let app = Router::new()
        .route("/hold", get(move || async move { held.pass().await }).layer(layer()))
        .route("/", post(handler.clone()).get(handler).layer(layer()));
    let address = serve(app).await;
    let mut holder = in_time(TcpStream::connect(address)).await.unwrap();
    holder.write_all(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    gate.arrived(1).await;
    let mut client = in_time(TcpStream::connect(address)).await.unwrap();
    in_time(client.write_all(request.as_bytes())).await.unwrap();
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    drop(client);
    until(|| stats_of(&pools, "cpu").queued_tasks == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 1);
    gate.open(1);
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    assert_eq!(handled.waiting(), 0, "the handler ran for nobody");
}

const POST: &str = "POST / HTTP/1.1\r\nhost: x\r\n";

#[tokio::test]
async fn without_a_body() {
    leave("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
}

#[tokio::test]
async fn with_a_short_body() {
    leave(&format!("{POST}content-length: 5\r\n\r\nhello")).await;
}

#[tokio::test]
async fn with_a_chunked_body() {
    leave(&format!("{POST}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
}

#[tokio::test]
async fn with_trailers() {
    leave(&format!("{POST}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\netag: whole\r\n\r\n")).await;
}

#[tokio::test]
async fn with_a_large_body() {
    leave(&format!("{POST}content-length: 500000\r\n\r\n{}", "x".repeat(500_000))).await;
}

#[tokio::test]
async fn with_an_expectation() {
    leave(&format!("{POST}expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello")).await;
}
