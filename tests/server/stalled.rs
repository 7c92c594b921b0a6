//! Readers of bodies: a stalled one is reset, a slow one is not.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_offload::body::BodyPolicy;
use tower_offload::{Io, PoolConfig, PoolLayer, PoolStats, Pools};

use crate::harness::{MemoryServer, TestServer, send, soon};

/// A pool for `permits` bodies, and a server of bodies without an end.
async fn endless(permits: usize, policy: BodyPolicy) -> (Pools, TestServer) {
    let pools = Pools::builder().pool("io", PoolConfig::new(2).concurrency(permits)).build().unwrap();
    let body = || async {
        let frames = std::iter::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1 << 14])));
        Body::from_stream(tokio_stream::iter(frames))
    };
    let app = Router::new().route("/", get(body).route_layer(PoolLayer::<Io>::new(&pools).body(policy)));
    let server = TestServer::with_pools(app, &pools, |_| {}).await;
    (pools, server)
}

fn stats(pools: &Pools) -> PoolStats {
    pools.get("io").unwrap().stats()
}

/// A client that asks for a body, and has read nothing yet.
async fn ask(server: &TestServer) -> TcpStream {
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    client
}

/// Waits until this many readers have been given up.
async fn until_stalled(pools: &Pools, readers: u64) {
    soon(async {
        while stats(pools).counts.stalled != readers {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((stats(pools).in_flight, stats(pools).streams), (0, 0));
}

const POLICIES: [BodyPolicy; 2] = [BodyPolicy::in_pool().hold(), BodyPolicy::on_connection().hold()];

#[tokio::test]
async fn readers_that_stop_are_reset_and_their_permits_are_released() {
    const READERS: usize = 30;
    for policy in POLICIES {
        let (pools, server) = endless(READERS, policy.stall_timeout(Duration::from_millis(300))).await;
        let mut clients = Vec::new();
        for _ in 0..READERS {
            clients.push(ask(&server).await);
        }
        until_stalled(&pools, READERS as u64).await;
        for mut client in clients {
            let end = soon(client.read_to_end(&mut Vec::new())).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

/// hyper does not poll the body of a client that opens no window, so it does not see the body's error.
#[tokio::test]
async fn over_http2_the_streams_of_readers_that_open_no_window_are_reset_and_the_connection_serves_on() {
    for policy in POLICIES {
        let (pools, server) = endless(1, policy.stall_timeout(Duration::from_millis(300))).await;
        let (mut client, _connection) = server.http2(|builder| _ = builder.initial_stream_window_size(0)).await;
        for readers in 1..=3 {
            let request = Request::get("http://localhost/").body(Empty::new()).unwrap();
            let mut response = soon(client.send_request(request)).await.unwrap();
            let frame = soon(response.frame()).await.unwrap();
            let error = frame.expect_err("no frame has room in the window");
            assert!(format!("{error:?}").contains("Reset(") && format!("{error:?}").contains("CANCEL"), "{error:?}");
            until_stalled(&pools, readers).await;
        }
    }
}

/// Reads 400 KB a second for four times the stall timeout.
async fn read_slowly(client: &mut TcpStream, timeout: Duration) -> io::Result<()> {
    let begun = Instant::now();
    let mut buffer = vec![0; 20_000];
    while begun.elapsed() < 4 * timeout {
        client.read_exact(&mut buffer).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The kernel could take megabytes at once, and then nothing for longer than the stall timeout.
#[tokio::test]
async fn a_slow_but_steady_reader_is_not_taken_for_a_stalled_one() {
    let timeout = Duration::from_secs(1);
    for policy in POLICIES {
        let (_pools, server) = endless(1, policy.stall_timeout(timeout)).await;
        // On a busy machine the client itself may pause, but one try of many will not.
        let mut tries = 0..5;
        while read_slowly(&mut ask(&server).await, timeout).await.is_err() {
            assert!(tries.next().is_some(), "the reader is taken for a stalled one, or the machine is too busy");
        }
    }
}

/// More than the connections of a [`MemoryServer`] hold.
const LARGE: usize = 100_000;

/// A server whose responses are complete in memory, and no matter of a pool.
fn large() -> MemoryServer {
    MemoryServer::start(Router::new().route("/", get(|| async { vec![b'x'; LARGE] })), |_| {})
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_a_plain_response_is_disconnected() {
    let mut client = large().connect();
    send(&mut client, "/").await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let mut taken = Vec::new();
    client.read_to_end(&mut taken).await.unwrap();
    assert!(!taken.is_empty() && taken.len() < LARGE, "it has {} bytes", taken.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_little_of_it_now_and_then_gets_all_of_it() {
    let mut client = large().connect();
    send(&mut client, "/").await;
    let mut taken = vec![0; 2000];
    for _ in 0..LARGE / taken.len() {
        tokio::time::sleep(Duration::from_secs(25)).await;
        client.read_exact(&mut taken).await.unwrap();
    }
}
