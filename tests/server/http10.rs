//! Without `content-length`, the body of an HTTP/1.0 response ends with its connection. The end of a connection whose body
//! is not complete must not look like the end of the body.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_offload::body::BodyPolicy;
use tower_offload::{Io, PoolLayer, Pools};

use crate::harness::{SHORT, TestServer, read_to, soon};

/// A body of one frame. It panics when it is polled after it has let its poller wait.
struct Panics(u8);

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"first"))))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => panic!("in the body"),
        }
    }
}

/// Streams: `/whole`, `/fails` and `/panics` go on after the first frame as their names say, `/endless` waits.
fn streams() -> Router {
    let first = || stream::iter([Ok::<_, io::Error>("first")]);
    let fails =
        move || async move { Body::from_stream(first().chain(stream::iter([Err(io::Error::other("broken"))]))) };
    Router::new()
        .route("/whole", get(move || async move { Body::from_stream(first().chain(stream::iter([Ok("second")]))) }))
        .route("/fails", get(fails))
        .route("/panics", get(|| async { Body::new(Panics(0)) }))
        .route("/endless", get(move || async move { Body::from_stream(first().chain(stream::pending())) }))
}

async fn ask(server: &TestServer, request: &str) -> TcpStream {
    let mut stream = server.connect().await;
    stream.write_all(format!("{request} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Reads to the end, or to the error.
async fn read(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_body_that_fails_midway_resets_the_connection_wherever_it_is_polled() {
    let pools = Pools::default();
    let policies = [BodyPolicy::on_connection(), BodyPolicy::on_connection().hold(), BodyPolicy::in_pool()];
    let apps = policies.map(|policy| streams().layer(PoolLayer::<Io>::new(&pools).body(policy)));
    for app in apps.into_iter().chain([streams()]) {
        let server = TestServer::start(app, |_| {}).await;
        for path in ["/fails", "/panics"] {
            let end = read(&mut ask(&server, &format!("GET {path}")).await).await;
            assert_eq!(end.expect_err(path).kind(), io::ErrorKind::ConnectionReset);
        }
        let whole = read(&mut ask(&server, "GET /whole").await).await.unwrap();
        assert!(whole.ends_with("\r\n\r\nfirstsecond"), "{whole}");
        let head = read(&mut ask(&server, "HEAD /fails").await).await.unwrap();
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_a_shutdown_cuts_off_resets_the_connection() {
    let mut server = TestServer::start(streams(), |config| config.server.shutdown_timeout = SHORT).await;
    let mut stream = ask(&server, "GET /endless").await;
    read_to(&mut stream, "first").await;
    server.stop();
    assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(server.report().await.requests_cut_off, 1);
}
