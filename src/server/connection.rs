//! Serves one connection until it ends, is idle for too long, or the server shuts down.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{Builder, UpgradeableConnection};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::activity::{Action, Due, Stage, Timeouts};
use super::connections::{Connection, Order, Registration, Side};
use super::requests::Requests;
use super::socket::Socket;

/// How many requests a client may have in flight on one HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 200;

/// How connections are served; one value for all of them.
#[derive(Debug)]
pub(super) struct Http {
    builder: Builder<TokioExecutor>,
    timeouts: Timeouts,
}

/// The part of a connection's task that decides when it is over.
struct Driver<'a> {
    connection: &'a Connection,
    timeouts: &'a Timeouts,
    stage: Stage,
    timer: Pin<&'a mut Sleep>,
    watched: Option<Order>,
}

impl Http {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // hyper's own header timeout also runs while a connection is idle between requests, where a keep-alive timeout
        // that is longer must hold. Both are kept by `Activity`.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
        // WebSockets over HTTP/2 need the extended CONNECT. The limits on resets stay at hyper's own.
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .enable_connect_protocol();
        Self { builder, timeouts }
    }

    /// Serves one connection to its end. An upgraded one is left to its new owner.
    pub(super) async fn serve<S, B>(
        &self,
        stream: TcpStream,
        connection: Arc<Connection>,
        registration: Registration,
        service: S,
    ) where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let socket = Socket::new(stream, Arc::clone(&connection), registration);
        let requests = Requests::new(service, Arc::clone(&connection));
        let mut http = pin!(self.builder.serve_connection_with_upgrades(TokioIo::new(socket), requests));
        let timer = pin!(sleep_until(Instant::now() + self.timeouts.header_read));
        let mut driver =
            Driver { connection: &connection, timeouts: &self.timeouts, stage: Stage::Open, timer, watched: None };
        poll_fn(|cx| driver.poll(http.as_mut(), cx)).await;
    }
}

impl Driver<'_> {
    fn poll<S, B>(
        &mut self,
        mut http: Pin<&mut UpgradeableConnection<'_, TokioIo<Socket>, Requests<S>, TokioExecutor>>,
        cx: &mut Context<'_>,
    ) -> Poll<()>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.order(cx) {
            Order::End => return Poll::Ready(()),
            Order::Finish if self.stage == Stage::Open => self.stage = Stage::Draining,
            Order::Finish | Order::Serve => {}
        }
        let mut probed = false;
        loop {
            if let Poll::Ready(result) = http.as_mut().poll(cx) {
                if let Err(error) = result {
                    debug!(target: "tower_offload", error, "a connection ended with an error");
                }
                return Poll::Ready(());
            }
            match self.due(cx) {
                None => return Poll::Pending,
                Some(Action::Drop) => return Poll::Ready(()),
                // Before an idle connection is closed, HTTP is polled once more, and the socket looks whether a
                // request has just arrived. One that comes after that look finds the connection closed: HTTP/1 has no
                // way to tell the client beforehand.
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

    /// The server's last order, and the task's waker where the next one finds it.
    fn order(&mut self, cx: &Context<'_>) -> Order {
        loop {
            let order = self.connection.order();
            if self.watched == Some(order) {
                return order;
            }
            // An order takes the waker with it. The task's waker never changes, so once for each order is enough.
            self.connection.watch(Side::Task, cx.waker());
            self.watched = Some(order);
        }
    }

    /// What is to be done now. If nothing, the timer wakes the task when something may be.
    fn due(&mut self, cx: &mut Context<'_>) -> Option<Action> {
        let activity = &self.connection.activity;
        loop {
            let due = activity.due(self.stage, self.timeouts);
            match due {
                Due::Now(action) => return Some(action),
                Due::At(at, _) if at < self.timer.deadline() => self.timer.as_mut().reset(at),
                _ => {}
            }
            // The timer is only ever moved forward by its own firing, so a request costs no timer operation.
            if self.timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            let now = Instant::now();
            match due {
                Due::At(at, action) if at <= now => return Some(action),
                Due::At(at, _) => self.timer.as_mut().reset(at),
                Due::Never | Due::Now(_) => self.timer.as_mut().reset(now + self.timeouts.keep_alive),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::super::connections::Connections;
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const LONG: Duration = Duration::from_secs(60);

    /// A connection that is being served, and its client's end.
    async fn served(connections: &Connections, timeouts: Timeouts) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let (connection, registration) = connections.open(peer);
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
        });
        let http = Http::new(timeouts);
        tokio::spawn(async move { http.serve(stream, connection, registration, service).await });
        client
    }

    async fn answer(client: &mut TcpStream) -> io::Result<String> {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            answer.push(client.read_u8().await?);
        }
        Ok(String::from_utf8(answer).unwrap())
    }

    /// On one thread the task that is told to finish runs before the runtime hears of the request that the kernel has.
    #[tokio::test]
    async fn a_request_that_only_the_kernel_knows_of_is_served_before_the_connection_is_closed() {
        let connections = Connections::default();
        let mut client = served(&connections, Timeouts { keep_alive: LONG, header_read: LONG }).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();

        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        connections.give(Order::Finish);
        let answer = answer(&mut client).await.unwrap();
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_request_that_arrives_together_with_the_keep_alive_timeout_is_served() {
        let keep_alive = Duration::from_millis(50);
        let connections = Connections::default();
        let mut client = served(&connections, Timeouts { keep_alive, header_read: LONG }).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();

        // The runtime stands still meanwhile, and finds both when it goes on.
        std::thread::sleep(2 * keep_alive);
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();
    }

    #[tokio::test]
    async fn dropping_the_connections_ends_them() {
        let connections = Connections::default();
        let mut client = served(&connections, Timeouts { keep_alive: LONG, header_read: LONG }).await;
        assert_eq!(client.try_write(REQUEST).unwrap(), REQUEST.len());
        answer(&mut client).await.unwrap();
        drop(connections);
        let closed = tokio::time::timeout(LONG / 2, client.read(&mut [0])).await.expect("closed at once");
        assert_eq!(closed.unwrap(), 0);
    }
}
