//! The stages of a shutdown, mostly in virtual time: readiness, the delay, the timeout, and `Pools::draining`.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_offload::server::{Server, ShutdownReport};
use tower_offload::{Config, Pools, StatsService};

use crate::harness::{Memory, TestServer, closed, exchange, memory, read_to, send};

const DELAY: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(25);

struct Stages {
    memory: Memory,
    stop: oneshot::Sender<()>,
    cut_off: oneshot::Sender<()>,
    served: JoinHandle<ShutdownReport>,
}

/// A server in memory. `/` answers `hello`, `/stuck` never answers.
fn start(pools: &Pools, delay: Duration) -> Stages {
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/stuck", get(pending::<()>))
        .nest_service("/health/thread-pools", StatsService::new(pools));
    let mut config = Config::default();
    config.server.shutdown_delay = delay;
    config.server.shutdown_timeout = TIMEOUT;
    let (memory, listener) = memory();
    let ((stop, stopped), (cut_off, is_cut_off)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
    let server = Server::new(&config, pools)
        .listener(listener)
        .shutdown_on(async { stopped.await.unwrap() })
        .cut_off_on(async {
            if is_cut_off.await.is_err() {
                pending::<()>().await;
            }
        });
    let served = tokio::spawn(async move { server.serve(app).await.unwrap() });
    Stages { memory, stop, cut_off, served }
}

async fn ready(stream: &mut DuplexStream) -> bool {
    send(stream, "/health/thread-pools/ready").await;
    let head = read_to(stream, "\r\n\r\n").await;
    let ready = head.starts_with("HTTP/1.1 200 ");
    let body = read_to(stream, "}").await + &read_to(stream, "}").await;
    assert_eq!(body.contains("\"reason\":\"draining\""), !ready, "{body}");
    ready
}

/// Lets the server's tasks run, without an advance of virtual time.
async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_fails_from_the_signal_on_and_everything_is_served_until_the_delay_is_over() {
    let pools = Pools::default();
    let Stages { memory, stop, cut_off: _cut_off, served } = start(&pools, DELAY);
    assert!(ready(&mut memory.connect()).await);
    let mut idle = memory.connect();
    assert!(!exchange(&mut idle).await.contains("connection: close"));
    let signalled = Instant::now();
    stop.send(()).unwrap();
    settled().await;
    while signalled.elapsed() < DELAY - Duration::from_millis(1) {
        assert!(!ready(&mut memory.connect()).await);
        exchange(&mut memory.connect()).await;
        tokio::time::sleep(DELAY / 20).await;
    }
    closed(&mut idle).await;
    let report = served.await.unwrap();
    assert!(report.is_complete(), "{report}");
    assert!((DELAY..DELAY + Duration::from_millis(100)).contains(&report.took), "{report}");
}

/// A proxy that keeps a connection must not choose it for a request at the moment at which the delay is over.
#[tokio::test(start_paused = true)]
async fn an_http1_connection_that_is_used_during_the_delay_announces_its_close_and_closes() {
    let Stages { memory, stop, cut_off: _cut_off, served } = start(&Pools::default(), DELAY);
    let mut kept = memory.connect();
    assert!(!exchange(&mut kept).await.contains("connection: close"));
    let signalled = Instant::now();
    stop.send(()).unwrap();
    settled().await;
    let answer = exchange(&mut kept).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    closed(&mut kept).await;
    assert_eq!(signalled.elapsed(), Duration::ZERO);
    assert!(served.await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn the_timeout_counts_from_the_signal_and_includes_the_delay() {
    let Stages { memory, stop, cut_off: _cut_off, served } = start(&Pools::default(), DELAY);
    let mut stuck = memory.connect();
    send(&mut stuck, "/stuck").await;
    settled().await;
    stop.send(()).unwrap();
    let report = served.await.unwrap();
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (1, 1));
    assert!((TIMEOUT..TIMEOUT + Duration::from_millis(200)).contains(&report.took), "{report}");
}

#[tokio::test(start_paused = true)]
async fn the_second_trigger_ends_the_delay_too() {
    let Stages { memory, stop, cut_off, served } = start(&Pools::default(), DELAY);
    let mut stuck = memory.connect();
    send(&mut stuck, "/stuck").await;
    settled().await;
    stop.send(()).unwrap();
    settled().await;
    assert!(!served.is_finished());
    cut_off.send(()).unwrap();
    let report = served.await.unwrap();
    assert_eq!((report.connections_cut_off, report.requests_cut_off), (1, 1));
    assert!(report.took < Duration::from_secs(1), "{report}");
}

#[test]
fn by_default_a_process_is_gone_before_kubernetes_kills_it() {
    let server = Config::default().server;
    assert_eq!((server.shutdown_delay, server.shutdown_timeout), (Duration::ZERO, Duration::from_secs(25)));
}

#[tokio::test(start_paused = true)]
async fn draining_completes_with_the_signal_and_not_before() {
    let pools = Pools::default();
    let Stages { memory, stop, cut_off: _cut_off, served } = start(&pools, DELAY);
    let (early, mut late) = (tokio::spawn(pools.draining()), tokio::spawn(pools.draining()));
    exchange(&mut memory.connect()).await;
    settled().await;
    assert!(!early.is_finished() && !pools.is_draining());
    let signalled = Instant::now();
    stop.send(()).unwrap();
    early.await.unwrap();
    (&mut late).await.unwrap();
    pools.draining().await;
    assert!(pools.is_draining());
    assert_eq!(signalled.elapsed(), Duration::ZERO, "the delay comes after it");
    let task = pools.submit_to_pool("cpu", || ());
    drop(task.expect("the pools still take tasks"));
    // The loop does not await: Tokio would consider the runtime idle and advance the virtual time.
    while pools.get("cpu").unwrap().stats().in_flight > 0 {
        std::thread::yield_now();
    }
    assert!(served.await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_of_the_pools_announces_the_drain_as_well() {
    let pools = Pools::disabled();
    let draining = pools.draining();
    drop(pools.shutdown(Duration::ZERO));
    tokio::time::timeout(DELAY, draining).await.expect("it is announced");
}

#[tokio::test(start_paused = true)]
async fn pools_that_are_dropped_do_not_drain() {
    let draining = Pools::disabled().draining();
    tokio::time::timeout(DELAY, draining).await.unwrap_err();
}

/// A stream of events that ends when the pools drain.
fn events(pools: &Pools) -> Router {
    let pools = pools.clone();
    let events = move || {
        let hello = stream::once(async { Ok::<_, Infallible>(Event::default().data("hello")) });
        let endless = hello.chain(stream::pending()).take_until(pools.draining());
        async { Sse::new(endless) }
    };
    Router::new().route("/", get(events))
}

/// How soon a server must end. On a loaded machine a try can take longer, so the fastest of a few tries counts.
const SOON: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_stream_of_events_that_ends_on_draining_lets_the_server_end_at_once() {
    for _ in 0..10 {
        let pools = Pools::default();
        let mut server = TestServer::with_pools(events(&pools), &pools, |_| {}).await;
        let mut stream = server.connect().await;
        send(&mut stream, "/").await;
        read_to(&mut stream, "hello\n\n\r\n").await;
        server.stop();
        // The client keeps its side open meanwhile.
        let report = server.report().await;
        assert!(report.is_complete(), "{report}");
        if report.took < SOON {
            return;
        }
    }
    panic!("the stream holds the shutdown, or the machine is too busy for this test");
}

#[tokio::test]
async fn so_does_one_over_http2() {
    for _ in 0..10 {
        let pools = Pools::default();
        let mut server = TestServer::with_pools(events(&pools), &pools, |_| {}).await;
        let (mut client, _connection) = server.http2(|_| {}).await;
        let response = client.send_request(crate::harness::request(server.address, "/")).await.unwrap();
        server.stop();
        response.into_body().collect().await.unwrap();
        let report = server.report().await;
        assert!(report.is_complete(), "{report}");
        if report.took < SOON {
            return;
        }
    }
    panic!("the stream holds the shutdown, or the machine is too busy for this test");
}
