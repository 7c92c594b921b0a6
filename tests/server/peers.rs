//! The server notices peers that vanish without closing their connection.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower_offload::server::Server;
use tower_offload::{Config, Io, PoolLayer, Pools};

use crate::harness::{memory, soon};

/// The client sends one request and then nothing more. It does not answer pings either.
#[tokio::test(start_paused = true)]
async fn an_http2_client_that_answers_no_ping_is_gone_within_half_a_minute_and_its_request_cancelled() {
    struct Cancelled(mpsc::UnboundedSender<()>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let (began, mut begins) = mpsc::unbounded_channel();
    let (cancelled, mut cancels) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(move || async move {
            let _cancelled = Cancelled(cancelled);
            began.send(()).ok();
            pending::<()>().await;
        }),
    );
    let (memory, listener) = memory();
    let server = Server::new(&Config::default(), &Pools::default()).listener(listener).shutdown_on(pending());
    tokio::spawn(async move { server.serve(app).await.unwrap() });

    let mut client = memory.connect();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0").await.unwrap();
    // A whole request, GET http://x/, as stream 1.
    client.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01x").await.unwrap();
    begins.recv().await.unwrap();
    let vanished = Instant::now();
    soon(cancels.recv()).await.unwrap();
    let took = vanished.elapsed();
    assert!(took >= Duration::from_secs(20) && took <= Duration::from_secs(31), "{took:?}");
    let mut frames = Vec::new();
    client.read_to_end(&mut frames).await.unwrap();
    let kinds: Vec<u8> = kinds(&frames);
    assert!(kinds.contains(&6), "no PING among {kinds:?}");
}

/// The types of these HTTP/2 frames.
fn kinds(mut frames: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, rest @ ..] = frames {
        kinds.push(*kind);
        frames = &rest[5 + u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    kinds
}

/// The kernel's table shows which timer runs for each socket. 02 is the keep-alive timer.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_tcp_connection_has_keep_alive() {
    let (began, mut begins) = mpsc::unbounded_channel();
    let pools = Pools::default();
    let handler = get(move || async move {
        began.send(()).ok();
        pending::<()>().await;
    });
    let app = Router::new().route("/", handler.route_layer(PoolLayer::<Io>::new(&pools)));
    let server = crate::harness::TestServer::with_pools(app, &pools, |_| {}).await;
    let mut client = server.connect().await;
    crate::harness::send(&mut client, "/").await;
    soon(begins.recv()).await.unwrap();
    let (server, client) = (server.address.port(), client.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let addresses = format!("0100007F:{server:04X} 0100007F:{client:04X} 01 ");
    let line = table.lines().find(|line| line.contains(&addresses)).expect("the connection is in the table");
    let timer = line.split_whitespace().nth(5).unwrap();
    assert!(timer.starts_with("02:"), "{line}");
}
