//! Listeners other than that of TCP.
#![cfg(unix)]

use std::os::unix::net::SocketAddr;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tower_offload::server::{PeerAddr, Server};
use tower_offload::{Config, Pools};

use crate::harness::{closed, exchange, hello, read_to, send, soon};

#[tokio::test]
async fn a_unix_listener_is_served_and_shut_down_like_any_other() {
    async fn peer(Extension(PeerAddr(address)): Extension<PeerAddr<SocketAddr>>) -> String {
        format!("unnamed: {}", address.is_unnamed())
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new(&Config::default(), &Pools::default())
        .listener(listener)
        .shutdown_on(async { stopped.await.unwrap() });
    let served = tokio::spawn(server.serve(hello().merge(Router::new().route("/peer", get(peer)))));

    let mut stream = UnixStream::connect(&path).await.unwrap();
    send(&mut stream, "/peer").await;
    read_to(&mut stream, "unnamed: true").await;
    exchange(&mut stream).await;
    stop.send(()).unwrap();
    closed(&mut stream).await;
    let report = soon(served).await.unwrap().unwrap();
    assert_eq!((report.connections_finished, report.connections_cut_off), (1, 0));
}
