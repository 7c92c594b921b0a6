//! Tunnels over HTTP/2: a connection is not idle while one is open, and idle once it has ended.

use std::convert::Infallible;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tower_offload::server::Server;
use tower_offload::{Config, Pools};

use crate::harness::{FOR_EVER, SHORT, closed, soon};

/// Answers an extended CONNECT with a tunnel that echoes.
async fn tunnel(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let (mut from, mut to) = split(TokioIo::new(upgraded));
            copy(&mut from, &mut to).await.ok();
            to.shutdown().await.ok();
        }
    });
    Ok(Response::new(Empty::new()))
}

#[tokio::test]
async fn a_connection_is_idle_once_its_tunnel_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = Config::default();
    config.performance.keep_alive_timeout = SHORT;
    config.server.header_read_timeout = SHORT;
    let server = Server::new(&config, &Pools::default()).listener(listener).shutdown_on(std::future::pending());
    tokio::spawn(server.serve(tower::service_fn(tunnel)));

    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::connect("http://localhost/").body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("echo"));
    let response = soon(client.send_request(request)).await.unwrap();
    assert!(response.status().is_success());
    let mut tunnel = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
    for _ in 0..3 {
        tunnel.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        soon(tunnel.read_exact(&mut echo)).await.unwrap();
        // As long as an idle connection lasts.
        closed(&mut TcpStream::connect(address).await.unwrap()).await;
        assert!(!connection.is_finished());
    }
    let ended = Instant::now();
    drop(tunnel);
    soon(connection).await.unwrap().unwrap();
    assert!(ended.elapsed() < FOR_EVER / 2, "{:?}", ended.elapsed());
}
