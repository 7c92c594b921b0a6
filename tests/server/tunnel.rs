//! Tunnels over HTTP/2: a connection is not idle while a tunnel is open, and is idle once the tunnel has ended.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::time::{Instant, sleep, timeout};
use tower_offload::server::Server;
use tower_offload::{Config, Pools};

use crate::harness::memory;

const KEEP_ALIVE: Duration = Duration::from_secs(30);

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

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_once_its_tunnel_has_ended() {
    let (memory, listener) = memory();
    let mut config = Config::default();
    config.performance.keep_alive_timeout = KEEP_ALIVE;
    let server = Server::new(&config, &Pools::default()).listener(listener).shutdown_on(std::future::pending());
    tokio::spawn(server.serve(tower::service_fn(tunnel)));

    let (mut client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(memory.connect())).await.unwrap();
    let mut connection = tokio::spawn(connection);
    let mut request = Request::connect("http://localhost/").body(Empty::<Bytes>::new()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("echo"));
    let response = client.send_request(request).await.unwrap();
    assert!(response.status().is_success());
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for _ in 0..3 {
        sleep(10 * KEEP_ALIVE).await;
        tunnel.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        tunnel.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
    }
    let ended = Instant::now();
    drop(tunnel);
    timeout(10 * KEEP_ALIVE, &mut connection).await.expect("the idle connection is closed").unwrap().unwrap();
    assert!(ended.elapsed() >= KEEP_ALIVE, "{:?}", ended.elapsed());
}
