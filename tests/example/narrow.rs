//! A connection to the example server whose client takes 1 KiB of each response at a time.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::process::Example;

/// Connects over HTTP/2.
pub(crate) async fn connect(example: &Example) -> http2::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(example.address()).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}
