//! A shutdown under load: the server answers every request that it has accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower_offload::{Pools, StatsService};

use crate::harness::{TestServer, read_to, send, soon};

const CLIENTS: usize = 200;

/// Checks readiness repeatedly, as a balancer does, until it fails.
async fn probe(address: std::net::SocketAddr, counts: Arc<Counts>) {
    loop {
        let mut stream = TcpStream::connect(address).await.expect("readiness fails before the port closes");
        send(&mut stream, "/health/thread-pools/ready").await;
        if read_to(&mut stream, "\r\n").await.contains("503") {
            return counts.unready.store(true, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Counts {
    unready: AtomicBool,
    handled: AtomicUsize,
    answered: AtomicUsize,
}

/// Sends each request on a new connection while the server is ready. Every request must be answered.
async fn reconnect(address: std::net::SocketAddr, counts: Arc<Counts>) {
    while !counts.unready.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).await.expect("the port is open while the server is ready");
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).await.expect("a connection that was made is served");
        let mut answer = [0; 512];
        let mut length = 0;
        while !answer[..length].ends_with(b"done") {
            let read = soon(stream.read(&mut answer[length..])).await.expect("an answer");
            assert!(read > 0, "closed without an answer");
            length += read;
        }
        counts.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends all requests on one connection until the server closes it. The server may close it between two requests, but
/// not within a response.
async fn keep_alive(address: std::net::SocketAddr, counts: Arc<Counts>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    loop {
        if stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_err() {
            return;
        }
        let mut answer = [0; 512];
        let mut length = 0;
        while !answer[..length].ends_with(b"done") {
            match soon(stream.read(&mut answer[length..])).await {
                Ok(0) | Err(_) if length == 0 => return,
                Ok(0) | Err(_) => panic!("half an answer"),
                Ok(read) => length += read,
            }
        }
        counts.answered.fetch_add(1, Ordering::Relaxed);
        if String::from_utf8_lossy(&answer[..length]).contains("connection: close") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_if_clients_heed_readiness() {
    let counts = Arc::new(Counts::default());
    let handled = Arc::clone(&counts);
    let pools = Pools::default();
    let app = Router::new().nest_service("/health/thread-pools", StatsService::new(&pools)).route(
        "/",
        get(move || async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            handled.handled.fetch_add(1, Ordering::Relaxed);
            "done"
        }),
    );
    // Far longer than the clients take to see that readiness fails.
    let delay = Duration::from_secs(10);
    let mut server = TestServer::with_pools(app, &pools, |config| config.server.shutdown_delay = delay).await;
    let mut clients = JoinSet::new();
    clients.spawn(probe(server.address, Arc::clone(&counts)));
    for client in 0..CLIENTS {
        if client % 2 == 0 {
            clients.spawn(reconnect(server.address, Arc::clone(&counts)));
        } else {
            clients.spawn(keep_alive(server.address, Arc::clone(&counts)));
        }
    }
    soon(async {
        while counts.answered.load(Ordering::Relaxed) < 10 * CLIENTS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    server.stop();
    soon(async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    })
    .await;
    let report = server.report().await;
    assert!(report.is_complete() && report.took >= delay, "{report}");
    // Every response that a handler made has arrived.
    assert_eq!(counts.handled.load(Ordering::Relaxed), counts.answered.load(Ordering::Relaxed));
}
