//! The server of these tests, its clients, and a gate that holds its handlers.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower_offload::server::{Listener, Server, ShutdownReport};
use tower_offload::{Config, Pools};

/// Far longer than any step takes, even on a loaded machine. A test that waits this long hangs.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

/// The value of a timeout that a test lets pass.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    cut_off: Option<oneshot::Sender<()>>,
    served: JoinHandle<ShutdownReport>,
}

impl TestServer {
    pub(crate) async fn start(app: Router, configure: impl FnOnce(&mut Config)) -> Self {
        Self::with_pools(app, &Pools::default(), configure).await
    }

    pub(crate) async fn with_pools(app: Router, pools: &Pools, configure: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (cut_off, is_cut_off) = oneshot::channel();
        let server = Server::new(&patient(configure), pools)
            .listener(listener)
            .shutdown_on(triggered(stopped))
            .cut_off_on(triggered(is_cut_off));
        let served = tokio::spawn(async move { server.serve(app).await.unwrap() });
        Self { address, stop: Some(stop), cut_off: Some(cut_off), served }
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).expect("the server runs");
    }

    /// Begins the shutdown, and waits until the connections have their order to finish. The app must answer `/` with
    /// `hello`. The report counts one more finished connection.
    pub(crate) async fn stopped(&mut self) {
        let mut idle = self.connect().await;
        exchange(&mut idle).await;
        self.stop();
        closed(&mut idle).await;
    }

    pub(crate) fn cut_off(&mut self) {
        self.cut_off.take().expect("cut off once").send(()).expect("the server runs");
    }

    pub(crate) async fn report(self) -> ShutdownReport {
        soon(self.served).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.address)).await.unwrap()
    }

    pub(crate) async fn http2(
        &self,
        configure: impl FnOnce(&mut http2::Builder<TokioExecutor>),
    ) -> (http2::SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
        let io = TokioIo::new(self.connect().await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        configure(&mut builder);
        let (client, connection) = soon(builder.handshake(io)).await.unwrap();
        (client, tokio::spawn(connection))
    }

    /// Waits until the server refuses new connections.
    pub(crate) async fn refuses(&self) {
        soon(async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Completes when the message arrives. A dropped sender does not complete it.
async fn triggered(receiver: oneshot::Receiver<()>) {
    if receiver.await.is_err() {
        pending::<()>().await;
    }
}

/// A listener whose connections are in memory. Its server can run in virtual time.
pub(crate) struct MemoryListener(mpsc::UnboundedReceiver<DuplexStream>);

/// Connects to a [`MemoryListener`].
pub(crate) struct Memory(mpsc::UnboundedSender<DuplexStream>);

pub(crate) fn memory() -> (Memory, MemoryListener) {
    let (connect, connections) = mpsc::unbounded_channel();
    (Memory(connect), MemoryListener(connections))
}

impl Memory {
    pub(crate) fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(1 << 16);
        self.0.send(server).ok();
        client
    }
}

impl Listener for MemoryListener {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(stream) => (stream, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A server whose connections are in memory, so that it can run in virtual time.
pub(crate) struct MemoryServer {
    memory: Memory,
    stop: oneshot::Sender<()>,
    served: JoinHandle<ShutdownReport>,
}

impl MemoryServer {
    pub(crate) fn start(app: Router, configure: impl FnOnce(&mut Config)) -> Self {
        let (memory, listener) = memory();
        let (stop, stopped) = oneshot::channel();
        let server = Server::new(&patient(configure), &Pools::default()).listener(listener);
        let server = server.shutdown_on(triggered(stopped)).cut_off_on(pending());
        let served = tokio::spawn(async move { server.serve(app).await.unwrap() });
        Self { memory, stop, served }
    }

    pub(crate) fn connect(&self) -> DuplexStream {
        self.memory.connect()
    }

    /// As [`TestServer::stopped`]. Returns the report to come.
    pub(crate) async fn stopped(self) -> JoinHandle<ShutdownReport> {
        let mut idle = self.connect();
        exchange(&mut idle).await;
        self.stop.send(()).expect("the server runs");
        closed(&mut idle).await;
        self.served
    }
}

/// Settings whose timeouts do not pass in a test, unless it sets them.
fn patient(configure: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.performance.keep_alive_timeout = FOR_EVER;
    config.server.header_read_timeout = FOR_EVER;
    config.server.shutdown_timeout = FOR_EVER;
    configure(&mut config);
    config
}

/// A server with a request for `/gate` in flight, the connection of that request, and the keeper of the gate.
pub(crate) async fn with_held_request(configure: impl FnOnce(&mut Config)) -> (TestServer, TcpStream, GateKeeper) {
    let (gate, mut keeper) = gate();
    let server = TestServer::start(app(&gate), configure).await;
    let mut stream = server.connect().await;
    send(&mut stream, "/gate").await;
    keeper.entered().await;
    (server, stream, keeper)
}

/// Fails a test that would hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(FOR_EVER, future).await.expect("this must not take for ever")
}

/// A gate that holds handlers until the test opens it, and reports each handler that arrives.
#[derive(Clone)]
pub(crate) struct Gate {
    entered: mpsc::UnboundedSender<()>,
    open: tokio::sync::watch::Receiver<bool>,
}

pub(crate) struct GateKeeper {
    entered: mpsc::UnboundedReceiver<()>,
    open: tokio::sync::watch::Sender<bool>,
}

pub(crate) fn gate() -> (Gate, GateKeeper) {
    let (entered, enters) = mpsc::unbounded_channel();
    let (opener, open) = tokio::sync::watch::channel(false);
    (Gate { entered, open }, GateKeeper { entered: enters, open: opener })
}

impl Gate {
    pub(crate) async fn pass(mut self) {
        self.entered.send(()).ok();
        self.open.wait_for(|open| *open).await.ok();
    }
}

impl GateKeeper {
    pub(crate) async fn entered(&mut self) {
        soon(self.entered.recv()).await.expect("a handler may still come");
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }
}

/// `/` answers at once, and `/gate` when the gate is open. `/stream` sends the first half of its body at once, and the
/// second half when the gate is open.
pub(crate) fn app(gate: &Gate) -> Router {
    let (for_gate, for_stream) = (gate.clone(), gate.clone());
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/gate",
            get(move || async move {
                for_gate.pass().await;
                "passed"
            }),
        )
        .route(
            "/stream",
            get(move || async move {
                let (halves, body) = mpsc::unbounded_channel();
                halves.send(Ok::<_, io::Error>("first")).unwrap();
                tokio::spawn(async move {
                    for_stream.pass().await;
                    halves.send(Ok("second")).ok();
                });
                Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(body))
            }),
        )
}

/// An app without a gate.
pub(crate) fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    soon(stream.write_all(request.as_bytes())).await.unwrap();
}

/// Reads until the text ends with `end`, and returns the text.
pub(crate) async fn read_to(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        match soon(stream.read_u8()).await {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Sends a request for `/` and reads the whole answer.
pub(crate) async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    send(stream, "/").await;
    read_to(stream, "\r\n\r\nhello").await
}

/// Waits until the server closes the connection. No more bytes may arrive before that.
pub(crate) async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    match soon(stream.read_to_end(&mut rest)).await {
        Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), ""),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

pub(crate) fn request(address: SocketAddr, path: &str) -> http::Request<Empty<Bytes>> {
    http::Request::get(format!("http://{address}{path}")).body(Empty::new()).unwrap()
}
