//! A shutdown finishes requests in flight, closes idle connections, and cuts off the rest at the timeout.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_offload::server::Server;
use tower_offload::{Config, Pools};

use crate::harness::{
    FOR_EVER, SHORT, TestServer, app, closed, exchange, gate, hello, read_to, request, send, soon, with_held_request,
};

#[tokio::test]
async fn a_request_in_flight_is_answered_and_new_connections_are_refused() {
    let (mut server, mut stream, keeper) = with_held_request(|_| {}).await;
    server.stop();
    server.refuses().await;
    keeper.open();
    let answer = read_to(&mut stream, "passed").await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    closed(&mut stream).await;
    drop(stream);
    let report = server.report().await;
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (0, 0));
    assert!(report.connections_finished >= 1);
    assert!(report.is_complete());
}

#[tokio::test]
async fn a_response_that_streams_is_finished() {
    let (gate, mut keeper) = gate();
    let mut server = TestServer::start(app(&gate), |_| {}).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/stream").await;
    keeper.entered().await;
    server.stopped().await;
    keeper.open();
    read_to(&mut stream, "second\r\n0\r\n\r\n").await;
    closed(&mut stream).await;
    drop(stream);
    assert!(server.report().await.is_complete());
}

#[tokio::test]
async fn an_http2_stream_in_flight_is_finished() {
    let (gate, mut keeper) = gate();
    let mut server = TestServer::start(app(&gate), |_| {}).await;
    let (mut client, connection) = server.http2(|_| {}).await;
    let answer = tokio::spawn(client.send_request(request(server.address, "/gate")));
    keeper.entered().await;
    server.stopped().await;
    keeper.open();
    let answer = soon(answer).await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "passed");
    soon(connection).await.unwrap().unwrap();
    let report = server.report().await;
    assert_eq!((report.connections_finished, report.connections_cut_off), (2, 0));
}

#[tokio::test]
async fn idle_connections_are_closed_at_once() {
    let mut server = TestServer::start(hello(), |_| {}).await;
    let mut http1 = server.connect().await;
    exchange(&mut http1).await;
    let (mut client, http2) = server.http2(|_| {}).await;
    soon(client.send_request(request(server.address, "/"))).await.unwrap().into_body().collect().await.unwrap();
    server.stop();
    closed(&mut http1).await;
    soon(http2).await.unwrap().unwrap();
    let report = server.report().await;
    assert_eq!((report.connections_finished, report.connections_cut_off), (2, 0));
    assert!(report.took < FOR_EVER / 2, "{:?}", report.took);
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_served() {
    const CLIENTS: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "/").await;
        streams.push(stream);
    }
    let mut config = Config::default();
    config.server.shutdown_timeout = FOR_EVER;
    let server = Server::new(&config, &Pools::default()).listener(listener).shutdown_on(async {});
    let served = tokio::spawn(server.serve(hello()));
    for mut stream in streams {
        read_to(&mut stream, "hello").await;
        closed(&mut stream).await;
    }
    assert!(soon(served).await.unwrap().unwrap().is_complete());
}

#[tokio::test]
async fn a_connection_made_a_moment_ago_may_bring_its_first_request() {
    // On a loaded machine, the test may not get to send its request within the second. One try of many does.
    for _ in 0..100 {
        let mut server = TestServer::start(hello(), |_| {}).await;
        let connected = Instant::now();
        let mut stream = server.connect().await;
        server.stopped().await;
        let sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        if connected.elapsed() > Duration::from_millis(900) {
            continue;
        }
        sent.unwrap();
        read_to(&mut stream, "hello").await;
        return;
    }
    panic!("the machine is too busy for this test");
}

#[tokio::test]
async fn a_connection_that_never_brings_a_request_does_not_hold_the_shutdown() {
    let mut server = TestServer::start(hello(), |_| {}).await;
    let mut stream = server.connect().await;
    // The server accepts connections in order, so it has accepted `stream` once it answers a later one.
    exchange(&mut server.connect().await).await;
    server.stop();
    closed(&mut stream).await;
    assert!(server.report().await.is_complete());
}

#[tokio::test]
async fn a_header_that_is_half_sent_may_be_finished() {
    let mut server = TestServer::start(hello(), |_| {}).await;
    let mut stream = server.connect().await;
    exchange(&mut stream).await;
    stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    server.stopped().await;
    stream.write_all(b"st: localhost\r\n\r\n").await.unwrap();
    read_to(&mut stream, "hello").await;
    closed(&mut stream).await;
    drop(stream);
    assert!(server.report().await.is_complete());
}

#[tokio::test]
async fn the_deadline_cuts_off_and_says_so() {
    let (mut server, mut http1, mut keeper) = with_held_request(|config| config.server.shutdown_timeout = SHORT).await;
    let (mut client, http2) = server.http2(|_| {}).await;
    let streams = [(); 2].map(|()| tokio::spawn(client.send_request(request(server.address, "/gate"))));
    keeper.entered().await;
    keeper.entered().await;
    server.stop();
    closed(&mut http1).await;
    for stream in streams {
        soon(stream).await.unwrap().unwrap_err();
    }
    let _ = soon(http2).await.unwrap();
    let report = server.report().await;
    assert_eq!((report.connections_finished, report.connections_cut_off, report.requests_cut_off), (0, 2, 3));
    assert!(report.took >= SHORT, "{:?}", report.took);
    assert!(!report.is_complete());
}

#[tokio::test]
async fn the_second_trigger_ends_at_once() {
    let (mut server, mut stream, _keeper) = with_held_request(|_| {}).await;
    server.stopped().await;
    server.cut_off();
    closed(&mut stream).await;
    let report = server.report().await;
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (1, 1));
    assert!(report.took < FOR_EVER, "{:?}", report.took);
}

#[tokio::test]
async fn a_server_can_be_cut_off_without_a_shutdown_before() {
    let (mut server, mut stream, _keeper) = with_held_request(|_| {}).await;
    server.cut_off();
    closed(&mut stream).await;
    assert_eq!(server.report().await.requests_cut_off, 1);
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let (gate, mut keeper) = gate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(Server::new(&Config::default(), &Pools::default()).listener(listener).serve(app(&gate)));
    let mut stream = TcpStream::connect(address).await.unwrap();
    send(&mut stream, "/gate").await;
    keeper.entered().await;
    serving.abort();
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_at_the_deadline() {
    // The response is larger than the buffers of both sockets.
    let large = axum::Router::new().route("/", axum::routing::get(|| async { vec![0_u8; 64 << 20] }));
    let mut server = TestServer::start(large, |config| config.server.shutdown_timeout = SHORT).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/").await;
    read_to(&mut stream, "\r\n\r\n").await;
    server.stop();
    let report = server.report().await;
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (1, 1));
    let mut rest = Vec::new();
    match soon(stream.read_to_end(&mut rest)).await {
        Ok(_) => assert!(rest.len() < 64 << 20),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn tasks_that_no_request_waits_for_are_finished_after_the_connections() {
    let pools = Pools::default();
    let (gate, mut keeper) = gate();
    let task = pools.submit_to_pool("io", async move { gate.pass().await }).unwrap();
    keeper.entered().await;
    let mut server = TestServer::with_pools(hello(), &pools, |_| {}).await;
    server.stopped().await;
    keeper.open();
    let report = server.report().await;
    soon(task).await.unwrap();
    assert_eq!((report.pools.finished(), report.pools.cut_off()), (1, 0));
    assert!(report.is_complete());
}

/// Stops a server while a pool runs a task that never ends, and checks that the task is cut off.
async fn cut_off_a_task() {
    let pools = Pools::default();
    let (gate, mut keeper) = gate();
    let _task = pools.submit_to_pool("io", async move { gate.pass().await }).unwrap();
    keeper.entered().await;
    let mut server = TestServer::with_pools(hello(), &pools, |config| config.server.shutdown_timeout = SHORT).await;
    server.stop();
    let report = server.report().await;
    assert_eq!((report.pools.finished(), report.pools.cut_off()), (0, 1));
    assert!(!report.is_complete());
}

#[tokio::test]
async fn tasks_that_take_too_long_are_cut_off_and_reported() {
    cut_off_a_task().await;
}

#[tokio::test]
async fn the_second_trigger_does_not_wait_for_tasks_either() {
    let pools = Pools::default();
    let (gate, mut keeper) = gate();
    let _task = pools.submit_to_pool("io", async move { gate.pass().await }).unwrap();
    keeper.entered().await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let other = pools.submit_to_pool("db", receiver).unwrap();
    let mut server = TestServer::with_pools(hello(), &pools, |_| {}).await;
    server.stopped().await;
    soon(async {
        while !pools.get("db").unwrap().stats().draining {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sender.send(()).unwrap();
    soon(other).await.unwrap().unwrap();
    server.cut_off();
    let report = server.report().await;
    assert_eq!((report.pools.finished(), report.pools.cut_off()), (1, 1), "what it finished before counts");
    assert!(report.took < FOR_EVER, "{:?}", report.took);
}

/// A waker that blocks the thread that calls it.
struct Keeper(Mutex<(Sender<()>, Receiver<()>)>);

impl Wake for Keeper {
    fn wake(self: Arc<Self>) {
        let (comes, goes) = &*self.0.lock().unwrap();
        comes.send(()).unwrap();
        // Returns when the test drops the sender.
        let _ = goes.recv();
    }
}

/// The timer thread of the pools calls wakers of the application. A waker that blocks must not delay the deadline.
#[tokio::test]
async fn the_deadline_holds_although_the_thread_that_keeps_the_time_is_held_up() {
    let others = Pools::default();
    let _other = others.submit_to_pool("io", std::future::pending::<()>()).unwrap();
    let (comes, has_come) = channel();
    let (_until_the_end, goes) = channel();
    let keeper = Waker::from(Arc::new(Keeper(Mutex::new((comes, goes)))));
    let mut shutdown = pin!(others.shutdown(SHORT));
    assert!(shutdown.as_mut().poll(&mut Context::from_waker(&keeper)).is_pending());
    tokio::task::spawn_blocking(move || has_come.recv_timeout(FOR_EVER)).await.unwrap().expect("it rings");
    cut_off_a_task().await;
}
