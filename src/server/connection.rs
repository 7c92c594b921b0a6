//! Serves one connection until it ends, is idle or old, or the server shuts down.

use std::any::Any;
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::activity::{Action, Due, PING_INTERVAL, PING_TIMEOUT, Stage, Timeouts};
use super::connections::{Connection, Order, Registration, Side};
use super::requests::{HttpService, MAX_HEADER_LIST, Requests, Tasks};
use super::socket::Socket;
use crate::body::{PAUSE, was_paused};

/// How many requests a client may have in flight on one HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 200;

/// How many bytes of a body an HTTP/2 client may send before the handler reads them.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same for all bodies of one connection. It has room for the window of every stream, so requests whose bodies are
/// not being read cannot keep the others from sending theirs.
const CONNECTION_WINDOW: u32 = MAX_CONCURRENT_STREAMS * STREAM_WINDOW;

/// Up to this size h2 unpacks the header of a request. `Requests` refuses those that are too large.
///
/// h2 also announces this limit, and closes the connections of clients that exceed it by more than about a third. Theirs
/// may be the requests of others, if they are proxies.
const HEADER_LIST: u32 = 4 * MAX_HEADER_LIST as u32;

/// The part of a connection's task that decides when it is over.
struct Driver<'a> {
    connection: &'a Connection,
    timeouts: Timeouts,
    /// When the connection is too old.
    retires: Option<Instant>,
    stage: Stage,
    timer: Pin<&'a mut Sleep>,
    /// The process was paused. Until the timer fires, the runtime notices what the client did meanwhile.
    resumes: bool,
    watched: Option<Order>,
}

/// Serves one connection to its end. An upgraded one then belongs to the application.
///
/// `socket` returns the TCP or Unix socket under `io`, as [`Listener::socket`](super::Listener::socket) does.
pub(super) async fn serve<Io, A, S>(
    (io, peer): (Io, A),
    socket: fn(&Io) -> &dyn Any,
    registration: Registration,
    timeouts: Timeouts,
    service: S,
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Clone + Send + Sync + 'static,
    S: HttpService,
{
    let connection = Arc::clone(&registration.connection);
    let socket = Socket::new(io, socket, registration);
    let requests = Requests::new(service, Arc::clone(&connection), peer);
    let builder = builder(Tasks::new(Arc::clone(&connection)));
    let mut http = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), requests));
    let now = Instant::now();
    let retires = timeouts.max_age.map(|age| now + spread(age));
    let header = now + timeouts.header_read;
    let timer = pin!(sleep_until(retires.map_or(header, |retires| retires.min(header))));
    let mut driver =
        Driver { connection: &connection, timeouts, retires, stage: Stage::Open, timer, resumes: false, watched: None };
    poll_fn(|cx| driver.poll(http.as_mut(), cx)).await;
}

fn builder(tasks: Tasks) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    // hyper's timeout for headers also runs while a connection is idle between two requests, where a longer keep-alive
    // timeout applies. `Activity` has both.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    // WebSockets over HTTP/2 need the extended CONNECT. The limits on resets are hyper's defaults.
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .enable_connect_protocol();
    builder
}

/// 90% to 110% of `age`, so that connections that were made together do not end together.
fn spread(age: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
    age.mul_f64(0.9 + 0.2 * random)
}

/// Ends a connection whose socket will be reset.
fn reset() -> Poll<()> {
    debug!(target: "tower_offload", "a connection is reset because its client has stopped to read");
    Poll::Ready(())
}

impl Driver<'_> {
    fn poll<C>(&mut self, mut http: Pin<&mut C>, cx: &mut Context<'_>) -> Poll<()>
    where
        C: GracefulConnection<Error = Box<dyn Error + Send + Sync>>,
    {
        match self.order(cx) {
            Order::End => return Poll::Ready(()),
            Order::Finish if self.stage == Stage::Open => self.stage = Stage::Draining,
            Order::Finish | Order::Announce | Order::Serve => {}
        }
        let mut probed = false;
        loop {
            if let Poll::Ready(result) = http.as_mut().poll(cx) {
                if let Err(error) = result {
                    debug!(target: "tower_offload", error, "a connection ended with an error");
                }
                return Poll::Ready(());
            }
            if self.connection.poll_stalled(cx).is_ready() {
                return reset();
            }
            if self.connection.take_poll_again() {
                continue;
            }
            // After a write hyper has room for frames, but takes them when it is polled again. That can be many seconds
            // later if the client reads slowly, and then the client would seem to have stopped.
            if self.connection.is_measured() && self.connection.activity.take_progress() {
                continue;
            }
            self.connection.activity.polled();
            match self.due(cx) {
                None => return Poll::Pending,
                Some(Action::Drop) => return Poll::Ready(()),
                Some(Action::Reset) => {
                    self.connection.set_stuck();
                    return reset();
                }
                // hyper is polled once more, and the socket fails if the client has hung up.
                Some(Action::Look) => self.connection.activity.look(),
                // Before an idle connection is closed, hyper is polled once more, and the socket asks the kernel
                // whether a request has just arrived. A later request finds the connection closed: HTTP/1 cannot
                // announce a close between two requests.
                Some(Action::CloseIdle) if !probed => {
                    self.connection.activity.probe();
                    probed = true;
                }
                Some(action) => {
                    let now = Instant::now();
                    if action == Action::CloseIdle {
                        self.stage = Stage::ClosingIdle(now);
                        self.connection.activity.end_idle();
                    } else {
                        self.stage = Stage::Closing(now);
                    }
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }

    /// The server's last order. The next one wakes the task.
    fn order(&mut self, cx: &Context<'_>) -> Order {
        loop {
            let order = self.connection.order();
            if self.watched == Some(order) {
                return order;
            }
            // An order consumes the registered waker. The task's waker never changes, so one registration for each
            // order is enough.
            self.connection.watch(Side::Task, cx.waker());
            self.watched = Some(order);
        }
    }

    /// The action that is due now. If there is none, the timer wakes the task when one may be due.
    fn due(&mut self, cx: &mut Context<'_>) -> Option<Action> {
        loop {
            if self.stage == Stage::Open && self.retires.is_some_and(|retires| retires <= Instant::now()) {
                self.stage = Stage::Draining;
            }
            let due = self.connection.activity.due(self.stage, &self.timeouts);
            match due {
                Due::Now(action) => return Some(action),
                Due::At(at, _) if at < self.timer.deadline() && !self.resumes => {
                    self.timer.as_mut().reset(at.max(Instant::now()));
                }
                _ => {}
            }
            // Only the timer's own firing moves it to a later time, so a request costs no timer operation.
            if self.timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            let now = Instant::now();
            self.resumes = was_paused(self.timer.deadline().into_std(), now.into_std());
            if self.resumes {
                self.timer.as_mut().reset(now + PAUSE);
                continue;
            }
            let next = match due {
                Due::At(at, action) if at <= now => return Some(action),
                Due::At(at, _) => at,
                Due::Never | Due::Now(_) => now + self.timeouts.keep_alive,
            };
            let retires = self.retires.filter(|retires| *retires > now);
            self.timer.as_mut().reset(retires.map_or(next, |retires| retires.min(next)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::stream::repeat_with;
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Incoming;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::connections::Connections;
    use super::*;
    use crate::body::StallSignal;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const LONG: Duration = Duration::from_secs(60);
    /// Longer than any test.
    const NO_TIMEOUTS: Timeouts = Timeouts { keep_alive: LONG, header_read: LONG, write: LONG, max_age: None };

    /// A connection that is being served, and its client's end.
    async fn served(connections: &Connections, timeouts: Timeouts) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        start(connections, timeouts, stream);
        client
    }

    fn start<Io>(connections: &Connections, timeouts: Timeouts, io: Io)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
        });
        start_service(connections, timeouts, io, service);
    }

    fn start_service<Io>(connections: &Connections, timeouts: Timeouts, io: Io, service: impl HttpService)
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        tokio::spawn(serve((io, ()), |io| io, connections.open(), timeouts, service));
    }

    async fn answer(client: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            answer.push(client.read_u8().await?);
        }
        Ok(String::from_utf8(answer).unwrap())
    }

    /// On one thread, the task gets the order to finish before the runtime learns of the request that the kernel has.
    #[tokio::test]
    async fn a_request_that_only_the_kernel_knows_of_is_served_before_the_connection_is_closed() {
        let connections = Connections::default();
        let mut client = served(&connections, NO_TIMEOUTS).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();

        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        connections.give(Order::Finish);
        let answer = answer(&mut client).await.unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn so_is_one_over_a_unix_socket() {
        let connections = Connections::default();
        let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
        start(&connections, NO_TIMEOUTS, server);
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();

        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        connections.give(Order::Finish);
        answer(&mut client).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_request_that_arrives_together_with_the_keep_alive_timeout_is_served() {
        let keep_alive = Duration::from_millis(50);
        let connections = Connections::default();
        let mut client = served(&connections, Timeouts { keep_alive, ..NO_TIMEOUTS }).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();

        // The runtime is blocked meanwhile, and afterwards finds both.
        std::thread::sleep(2 * keep_alive);
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();
    }

    /// A connection that has sent half of its first header.
    async fn half_a_header() -> (Connections, tokio::io::DuplexStream) {
        let connections = Connections::default();
        let (mut client, server) = tokio::io::duplex(1 << 16);
        start(&connections, NO_TIMEOUTS, server);
        client.write_all(&REQUEST[..10]).await.unwrap();
        tokio::time::sleep(LONG / 2).await;
        (connections, client)
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_of_the_process_a_header_may_be_there_that_the_runtime_has_not_seen() {
        let (_connections, mut client) = half_a_header().await;
        tokio::time::advance(LONG).await;
        tokio::task::yield_now().await;
        client.write_all(&REQUEST[10..]).await.unwrap();
        answer(&mut client).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_is_not_there_after_a_pause_ends_its_connection_soon() {
        let (connections, _client) = half_a_header().await;
        tokio::time::advance(LONG).await;
        let resumed = Instant::now();
        connections.none_open().await;
        assert!((PAUSE..2 * PAUSE).contains(&resumed.elapsed()), "{:?}", resumed.elapsed());
    }

    #[test]
    fn connections_that_were_made_together_retire_within_a_fifth_of_their_age() {
        let ages: Vec<_> = (0..100).map(|_| spread(LONG)).collect();
        assert!(ages.iter().all(|age| (LONG.mul_f64(0.9)..=LONG.mul_f64(1.1)).contains(age)), "{ages:?}");
        let (earliest, latest) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*latest - *earliest > LONG / 10, "{earliest:?} to {latest:?}");
    }

    #[tokio::test]
    async fn dropping_the_connections_ends_them() {
        let connections = Connections::default();
        let mut client = served(&connections, NO_TIMEOUTS).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();
        drop(connections);
        let closed = tokio::time::timeout(LONG / 2, client.read(&mut [0])).await.expect("closed at once");
        assert_eq!(closed.unwrap(), 0);
    }

    /// A server that answers with a body without an end, the stall signal of that body, and how many frames were taken.
    async fn endless(connections: &Connections, version: &str) -> (TcpStream, StallSignal, Arc<AtomicUsize>) {
        let (signal, taken) = (StallSignal::new(LONG), Arc::new(AtomicUsize::new(0)));
        let (inserted, counted) = (signal.clone(), Arc::clone(&taken));
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let taken = Arc::clone(&counted);
            let body = StreamBody::new(repeat_with(move || {
                taken.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1 << 14])))
            }));
            let mut response = Response::new(body);
            response.extensions_mut().insert(inserted.clone());
            async { Ok::<_, Infallible>(response) }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        start_service(connections, NO_TIMEOUTS, stream, service);
        client.write_all(format!("GET / {version}\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        (client, signal, taken)
    }

    /// Without `content-length` the body of HTTP/1.0 ends with the connection, so that a good end would look complete.
    #[tokio::test]
    async fn a_client_that_has_stopped_to_read_is_reset_although_its_body_is_not_polled() {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let connections = Connections::default();
            let (mut client, signal, taken) = endless(&connections, version).await;
            let mut before = 0;
            // Until every buffer on the way is full.
            while before == 0 || taken.load(Ordering::Relaxed) != before {
                before = taken.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            signal.set();
            tokio::time::timeout(LONG, connections.none_open()).await.expect("closed at once");
            let end = client.read_to_end(&mut Vec::new()).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{version}");
        }
    }

    /// Before the stall timeout of the body has ended.
    #[tokio::test]
    async fn a_client_that_takes_nothing_is_reset_after_the_time_for_writes() {
        let connections = Connections::default();
        let signal = StallSignal::new(Duration::from_millis(200));
        let inserted = signal.clone();
        let body =
            || StreamBody::new(repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1 << 14])))));
        let service = tower::service_fn(move |_: Request<Incoming>| {
            let mut response = Response::new(body());
            response.extensions_mut().insert(inserted.clone());
            async { Ok::<_, Infallible>(response) }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let write = Duration::from_millis(200);
        start_service(&connections, Timeouts { write, ..NO_TIMEOUTS }, stream, service);
        client.write_all(REQUEST).await.unwrap();
        tokio::time::timeout(LONG, connections.none_open()).await.expect("closed soon");
        let end = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(signal.is_set(), "the body learns of it");
    }

    #[tokio::test]
    async fn a_stall_signal_counts_for_its_own_response_only() {
        let signal = StallSignal::new(LONG);
        let inserted = signal.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
            if request.uri() == "/signal" {
                response.extensions_mut().insert(inserted.clone());
            }
            async { Ok::<_, Infallible>(response) }
        });
        let connections = Connections::default();
        let (mut client, server) = tokio::io::duplex(1 << 16);
        start_service(&connections, NO_TIMEOUTS, server, service);
        client.write_all(&String::from_utf8_lossy(REQUEST).replace("/ ", "/signal ").into_bytes()).await.unwrap();
        answer(&mut client).await.unwrap();
        signal.set();
        // The task of the connection runs, if it was woken.
        tokio::task::yield_now().await;
        client.write_all(REQUEST).await.unwrap();
        answer(&mut client).await.unwrap();
    }
}
