//! A client that hangs up while its request waits has its request cancelled, whatever it has sent before.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{iter, pending as pending_stream};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower_offload::body::ReadBody;
use tower_offload::server::Server;
use tower_offload::{Config, Cpu, PoolConfig, PoolLayer, Pools};

use crate::harness::{FOR_EVER, Gate, GateKeeper, TestServer, closed, gate, read_to, send, soon};

/// What a client may have sent before it hangs up.
fn forms() -> Vec<(&'static str, String)> {
    let post = "POST / HTTP/1.1\r\nhost: localhost\r\n";
    let get = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let small = format!("{post}content-length: 5\r\n\r\nhello");
    vec![
        ("no body", get.to_owned()),
        ("a small body", small.clone()),
        ("a part of a body", format!("{post}content-length: 100\r\n\r\nhello")),
        ("no byte of a body", format!("{post}content-length: 100\r\n\r\n")),
        ("a large body", format!("{post}content-length: 60000\r\n\r\n{}", "x".repeat(60_000))),
        ("a chunked body", chunked.clone()),
        ("a body that waits for a 100", format!("{post}content-length: 5\r\nexpect: 100-continue\r\n\r\n")),
        ("a request behind it", format!("{get}{get}")),
        ("a part of a request behind it", format!("{get}GET / HT")),
        ("a body and requests behind it", format!("{small}{chunked}{get}")),
        ("an unread body and a request behind it", format!("{chunked}{get}")),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Leave {
    /// Closes both directions.
    Close,
    /// Closes its sending side, and keeps reading.
    Half,
    Reset,
}

const LEAVES: [Leave; 3] = [Leave::Close, Leave::Half, Leave::Reset];

impl Leave {
    /// Leaves, and returns what must be kept meanwhile.
    async fn leave(self, mut client: TcpStream) -> Option<TcpStream> {
        match self {
            Self::Close => None,
            Self::Half => {
                client.shutdown().await.unwrap();
                Some(client)
            }
            Self::Reset => {
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                None
            }
        }
    }
}

/// A pool with one permit, which a request for `/gate` holds.
struct Held {
    pools: Pools,
    server: TestServer,
    calls: Arc<AtomicUsize>,
    holder: TcpStream,
    keeper: GateKeeper,
}

impl Held {
    async fn start() -> Self {
        let config = PoolConfig::new(1).queue_capacity(100).queue_timeout(2 * FOR_EVER);
        let pools = Pools::builder().pool("cpu", config).build().unwrap();
        let (gate, mut keeper) = gate();
        let calls = Arc::new(AtomicUsize::new(0));
        let server = TestServer::with_pools(offloaded(&pools, &gate, &calls), &pools, |_| {}).await;
        let mut holder = server.connect().await;
        send(&mut holder, "/gate").await;
        keeper.entered().await;
        Self { pools, server, calls, holder, keeper }
    }

    fn queued(&self) -> usize {
        self.pools.get("cpu").unwrap().stats().queued_tasks
    }

    async fn until_queued(&self, count: usize, what: &str) {
        let queued = timeout(FOR_EVER, async {
            while self.queued() != count {
                tokio::task::yield_now().await;
            }
        });
        queued.await.unwrap_or_else(|_| panic!("{what}: {} are queued, not {count}", self.queued()));
    }

    /// Ends the request that holds the permit. No other request may have run.
    async fn end(mut self, cancelled: u64) {
        self.keeper.open();
        read_to(&mut self.holder, "passed").await;
        soon(async {
            while self.pools.get("cpu").unwrap().stats().in_flight != 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let counts = self.pools.get("cpu").unwrap().stats().counts;
        assert_eq!((counts.ok, counts.cancelled, self.calls.load(Ordering::SeqCst)), (1, cancelled, 0));
    }
}

fn offloaded(pools: &Pools, gate: &Gate, calls: &Arc<AtomicUsize>) -> Router {
    let (gate, calls) = (gate.clone(), Arc::clone(calls));
    let handler = move |_: Bytes| async move { calls.fetch_add(1, Ordering::SeqCst).to_string() };
    let held = move || async move {
        gate.pass().await;
        "passed"
    };
    Router::new()
        .route("/", any(handler))
        .route("/gate", get(held))
        .route_layer(PoolLayer::<Cpu>::new(pools))
        .layer(DefaultBodyLimit::disable())
}

async fn write(client: &mut (impl AsyncWrite + Unpin), what: &str, request: &str) {
    soon(client.write_all(request.as_bytes())).await.unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[tokio::test]
async fn a_queued_request_whose_client_hangs_up_leaves_the_queue_whatever_it_has_sent() {
    let tried = LEAVES.iter().flat_map(|leave| forms().into_iter().map(move |form| (*leave, form)));
    join_all(tried.map(|(leave, (what, request))| async move {
        let held = Held::start().await;
        let mut client = held.server.connect().await;
        write(&mut client, what, &request).await;
        held.until_queued(1, what).await;
        let kept = leave.leave(client).await;
        held.until_queued(0, &format!("{leave:?} after {what}")).await;
        if let Some(mut kept) = kept {
            closed(&mut kept).await;
        }
        held.end(1).await;
    }))
    .await;
}

/// A handler that waits for ever, and reports its begin and its end.
pub(crate) fn waiting() -> (Router, mpsc::UnboundedReceiver<()>, mpsc::UnboundedReceiver<()>) {
    struct Cancelled(mpsc::UnboundedSender<()>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.send(()).ok();
        }
    }
    let (began, begins) = mpsc::unbounded_channel();
    let (cancelled, cancels) = mpsc::unbounded_channel();
    // The request, and with it its body, is there until the handler is dropped.
    let handler = move |request: axum::extract::Request| async move {
        let _kept = (Cancelled(cancelled), request);
        began.send(()).ok();
        pending::<()>().await;
    };
    (Router::new().route("/", any(handler)), begins, cancels)
}

#[tokio::test]
async fn a_request_in_flight_whose_client_hangs_up_is_dropped_whatever_it_has_sent() {
    let tried = LEAVES.iter().flat_map(|leave| forms().into_iter().map(move |form| (*leave, form)));
    join_all(tried.map(|(leave, (what, request))| async move {
        let (app, mut begins, mut cancels) = waiting();
        let server = TestServer::start(app, |_| {}).await;
        let mut client = server.connect().await;
        write(&mut client, what, &request).await;
        soon(begins.recv()).await.unwrap();
        let kept = leave.leave(client).await;
        let cancelled = timeout(FOR_EVER, cancels.recv()).await;
        assert!(cancelled.is_ok(), "{leave:?} after {what} is not noticed");
        drop(kept);
    }))
    .await;
}

#[tokio::test]
async fn a_client_that_stays_is_answered() {
    let held = Held::start().await;
    let mut clients = Vec::new();
    for (what, request) in forms() {
        let mut client = held.server.connect().await;
        write(&mut client, what, &request).await;
        clients.push(client);
    }
    held.until_queued(clients.len(), "all").await;
    // The server looks every half second.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(held.queued(), clients.len());
    held.keeper.open();
    for client in &mut clients {
        write(client, "the rest", &"x".repeat(100)).await;
        read_to(client, "HTTP/1.1 ").await;
    }
}

/// HTTP/2 reads the connection whatever is unread of a body.
#[tokio::test]
async fn over_http2_a_reset_stream_and_a_lost_connection_cancel_queued_requests() {
    let held = Held::start().await;
    let stream = held.server.connect().await.into_std().unwrap();
    let socket = stream.try_clone().unwrap();
    let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
    let (client, connection) = soon(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    let upload = || {
        // Longer than the window of a stream, so the client waits for the server to read.
        let request = Request::post("http://localhost/").body(Full::new(Bytes::from(vec![b'x'; 1 << 20]))).unwrap();
        tokio::spawn(client.clone().send_request(request))
    };
    let (reset, lost) = (upload(), upload());
    held.until_queued(2, "both").await;
    reset.abort();
    held.until_queued(1, "one was reset").await;
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    held.until_queued(0, "the connection is lost").await;
    let lost = soon(lost).await.unwrap();
    assert!(lost.is_err(), "{lost:?}");
    held.end(2).await;
}

/// A server whose pool reads bodies before it takes requests.
async fn reading() -> (Pools, TestServer) {
    let pools = Pools::builder().pool("cpu", PoolConfig::new(1)).build().unwrap();
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1 << 22).within(2 * FOR_EVER));
    let app = Router::new().route("/", post(|_: Bytes| async {}).route_layer(layer));
    let server = TestServer::with_pools(app, &pools, |_| {}).await;
    (pools, server)
}

/// Waits until an upload counts, and checks that it is not among those that were refused.
async fn until_cancelled(pools: &Pools) {
    let counts = || pools.get("cpu").unwrap().stats().counts;
    soon(async {
        while counts().submitted == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((counts().cancelled, counts().rejected), (1, 0));
}

#[tokio::test]
async fn an_upload_that_breaks_off_counts_as_cancelled() {
    for leave in LEAVES {
        let (pools, server) = reading().await;
        let mut client = server.connect().await;
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n";
        write(&mut client, "a head", head).await;
        read_to(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
        write(&mut client, "a part of a body", "hello").await;
        let _kept = leave.leave(client).await;
        until_cancelled(&pools).await;
    }
}

#[tokio::test]
async fn so_does_one_over_http2_whose_stream_is_reset() {
    const FRAMES: usize = 32;
    let (pools, server) = reading().await;
    let io = TokioIo::new(server.connect().await);
    let (mut client, connection) = soon(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    // More than the window of a stream, so the last frame is asked for when the server has begun to read.
    let (asked, mut all_asked) = mpsc::unbounded_channel();
    let frames = iter(0..FRAMES).map(move |frame| {
        asked.send(frame).ok();
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1 << 14])))
    });
    let body = BodyExt::boxed(StreamBody::new(frames.chain(pending_stream())));
    let upload = tokio::spawn(client.send_request(Request::post("http://localhost/").body(body).unwrap()));
    while soon(all_asked.recv()).await != Some(FRAMES - 1) {}
    upload.abort();
    until_cancelled(&pools).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_client_that_hangs_up_on_a_unix_socket_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (app, mut begins, mut cancels) = waiting();
    let server = Server::new(&Config::default(), &Pools::default()).listener(listener).shutdown_on(pending());
    tokio::spawn(server.serve(app));
    for (what, request) in forms() {
        let mut client = tokio::net::UnixStream::connect(&path).await.unwrap();
        write(&mut client, what, &request).await;
        soon(begins.recv()).await.unwrap();
        drop(client);
        assert!(timeout(FOR_EVER, cancels.recv()).await.is_ok(), "{what}");
    }
}
