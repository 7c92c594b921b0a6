//! Bodies on the wire, over HTTP/1: expectations, lengths that lie, trailers, and slow clients.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolLayer, Pools};

use crate::fixtures::{Gate, in_time, place, pools_of, serve, stats_of, until};

struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        Self(in_time(TcpStream::connect(address)).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        in_time(self.0.write_all(text.as_bytes())).await.unwrap();
    }

    /// Reads until the text ends with `end`.
    async fn read_to(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match in_time(self.0.read_u8()).await {
                Ok(byte) => text.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    async fn head(&mut self) -> String {
        self.read_to("\r\n\r\n").await
    }

    /// Reads until the server closes the connection.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        in_time(self.0.read_to_end(&mut text)).await.ok();
        String::from_utf8(text).unwrap()
    }
}

/// A server whose handlers read bodies of up to ten bytes first.
async fn server(pools: &Pools, gate: &Gate, read_body: ReadBody) -> SocketAddr {
    let gate = gate.clone();
    let echo = async |body: Body| {
        let whole = body.collect().await.unwrap();
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let text = String::from_utf8(whole.to_bytes().into()).unwrap();
        format!("{} {text} {trailers:?}", place())
    };
    let app = Router::new()
        .route("/", post(echo).get(|| async { place() }))
        .route("/hold", get(move || async move { gate.pass().await }))
        .layer(PoolLayer::<Cpu>::new(pools).read_body(read_body));
    serve(app).await
}

async fn start() -> (Pools, SocketAddr) {
    let pools = pools_of(1, 0);
    let address = server(&pools, &Gate::new(), ReadBody::new(10)).await;
    (pools, address)
}

const POST: &str = "POST / HTTP/1.1\r\nhost: x\r\n";

#[tokio::test]
async fn a_client_that_expects_to_continue_is_told_so_when_its_body_is_read() {
    let (pools, address) = start().await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}expect: 100-continue\r\ncontent-length: 5\r\n\r\n")).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 0);
    client.send("hello").await;
    assert!(client.read_to("cpu hello {}").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_that_expects_to_continue_is_refused_without_sending_its_body() {
    let (_, address) = start().await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}expect: 100-continue\r\ncontent-length: 11\r\n\r\n")).await;
    let refused = client.rest().await;
    assert!(refused.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n") && refused.contains("body_too_large"), "{refused}");

    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let address = server(&pools, &gate, ReadBody::new(10)).await;
    let mut holder = Raw::connect(address).await;
    holder.send("GET /hold HTTP/1.1\r\nhost: x\r\n\r\n").await;
    gate.arrived(1).await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}expect: 100-continue\r\ncontent-length: 5\r\n\r\n")).await;
    let refused = client.rest().await;
    assert!(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n") && refused.contains("queue_full"), "{refused}");
    gate.open(1);
}

#[tokio::test]
async fn a_request_without_a_body_is_handled_at_once() {
    let (_, address) = start().await;
    let mut client = Raw::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(client.read_to("\r\n\r\ncpu").await.starts_with("HTTP/1.1 200 OK"));
    client.send("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-length: 3"), "{head}");
    client.send(&format!("{POST}content-length: 0\r\n\r\n")).await;
    assert!(client.read_to("cpu  {}").await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_chunked_body_arrives_with_its_trailers_and_its_connection_goes_on() {
    let (_, address) = start().await;
    let mut client = Raw::connect(address).await;
    let chunked = format!("{POST}transfer-encoding: chunked\r\ntrailer: etag\r\n\r\n");
    for _ in 0..2 {
        client.send(&chunked).await;
        for part in ["2\r\nhe\r\n", "3\r\nl", "lo\r\n", "0\r\netag: whole\r\n", "\r\n"] {
            client.send(part).await;
        }
        let response = client.read_to("}").await;
        assert!(response.ends_with("cpu hello {\"etag\": \"whole\"}"), "{response}");
    }
}

#[tokio::test]
async fn a_body_that_grows_beyond_the_limit_is_refused_while_it_is_sent() {
    let (pools, address) = start().await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}transfer-encoding: chunked\r\n\r\n9\r\n123456789\r\n2\r\nab\r\n")).await;
    let refused = client.rest().await;
    assert!(refused.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n"), "{refused}");
    assert_eq!(stats_of(&pools, "cpu").counts.rejected, 1);
}

#[tokio::test]
async fn a_body_that_is_shorter_than_its_length_ends_its_own_request_only() {
    let (pools, address) = start().await;
    let mut other = Raw::connect(address).await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}content-length: 9\r\n\r\nshort")).await;
    in_time(client.0.shutdown()).await.unwrap();
    let ended = client.rest().await;
    assert!(ended.is_empty() || ended.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{ended}");
    other.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(other.read_to("\r\n\r\ncpu").await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
}

/// What follows the body is the beginning of another request, which is none.
#[tokio::test]
async fn a_body_that_is_longer_than_its_length_is_cut_there() {
    let (_, address) = start().await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}content-length: 5\r\n\r\nhello and \x01 more\r\n\r\n")).await;
    let responses = client.rest().await;
    assert!(responses.starts_with("HTTP/1.1 200 OK\r\n") && responses.contains("cpu hello {}"), "{responses}");
    assert!(responses.contains("HTTP/1.1 400 Bad Request\r\n"), "{responses}");
}

#[tokio::test]
async fn a_slow_client_is_refused_and_its_connection_closed() {
    let pools = pools_of(1, 0);
    let read_body = ReadBody::new(10).min_rate(1 << 30, Duration::from_millis(50));
    let address = server(&pools, &Gate::new(), read_body).await;
    let mut client = Raw::connect(address).await;
    client.send(&format!("{POST}content-length: 9\r\n\r\nslow")).await;
    let refused = client.rest().await;
    assert!(refused.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n") && refused.contains("body_timeout"), "{refused}");
    until(|| stats_of(&pools, "cpu").counts.rejected == 1).await;
}
