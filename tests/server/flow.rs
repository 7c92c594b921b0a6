//! HTTP/2 flow control: unread bodies do not block the other requests of their connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::harness::{TestServer, gate, soon};

/// The window of each stream.
const WINDOW: usize = 256 << 10;
/// The number of bodies that no handler reads.
const HELD: usize = 40;

/// A body as long as the window of its stream. hyper polls for the next frame once it has sent the last one.
struct Upload {
    left: usize,
    sent: mpsc::UnboundedSender<()>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            self.sent.send(()).ok();
            return Poll::Ready(None);
        }
        self.left -= 1 << 14;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1 << 14])))))
    }
}

#[tokio::test]
async fn a_body_is_read_although_every_other_stream_of_its_connection_has_an_unread_one() {
    let (gate, mut keeper) = gate();
    let app = Router::new()
        .route(
            "/held",
            post(move |body: axum::body::Body| async move {
                gate.pass().await;
                body.collect().await.unwrap().to_bytes().len().to_string()
            }),
        )
        .route("/", post(|body: Bytes| async move { body.len().to_string() }))
        .layer(DefaultBodyLimit::disable());
    let server = TestServer::start(app, |_| {}).await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) = soon(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    let (sent, mut sends) = mpsc::unbounded_channel();
    let mut upload = |path: &str| {
        let body = Upload { left: WINDOW, sent: sent.clone() };
        client.send_request(Request::post(format!("http://localhost{path}")).body(body).unwrap())
    };
    let held: Vec<_> = (0..HELD).map(|_| tokio::spawn(upload("/held"))).collect();
    for _ in 0..HELD {
        keeper.entered().await;
        soon(sends.recv()).await.unwrap();
    }
    let read = soon(upload("/")).await.unwrap();
    assert_eq!(read.into_body().collect().await.unwrap().to_bytes(), WINDOW.to_string());
    keeper.open();
    for held in held {
        let read = soon(held).await.unwrap().unwrap();
        assert_eq!(soon(read.into_body().collect()).await.unwrap().to_bytes(), WINDOW.to_string());
    }
}
