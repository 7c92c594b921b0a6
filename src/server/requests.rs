//! Counts the requests in flight on one connection, each from its header to the last byte of its response.

use std::cell::OnceCell;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use pin_project::pin_project;
use tokio::task_local;

use super::connections::{Connection, Order};
use crate::body::StallSignal;

type BoxError = Box<dyn Error + Send + Sync>;

/// How many bytes the fields of an HTTP/2 request's header may have, with 32 more for each field. hyper's default is
/// 16 KiB: less than balancers let pass, and less than a user's cookies and tokens may take.
pub(super) const MAX_HEADER_LIST: usize = 64 << 10;

/// A Tower service that answers HTTP requests, such as an axum `Router` or a tonic `Routes`.
///
/// Every service with these bounds implements it.
pub trait HttpService:
    tower_service::Service<
        Request<Incoming>,
        Response = Response<<Self as HttpService>::Body>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of its responses.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// The address of a request's peer: an extension of every request that the server serves.
///
/// The peer is the client, or the last proxy in front of this server. Its address is a [`SocketAddr`] over TCP, and a
/// [`std::os::unix::net::SocketAddr`] over a Unix socket; other listeners say what it is (`Listener::Addr`).
///
/// ```
/// use axum::Extension;
/// use tower_offload::server::PeerAddr;
///
/// async fn whoami(Extension(PeerAddr(address)): Extension<PeerAddr>) -> String {
///     address.ip().to_string()
/// }
/// # let _: axum::Router = axum::Router::new().route("/", axum::routing::get(whoami));
/// ```
///
/// A layer passes it on to extractors that need axum's `ConnectInfo`:
///
/// ```
/// use axum::{Extension, extract::{ConnectInfo, Request}, middleware::map_request};
/// use tower_offload::server::PeerAddr;
///
/// async fn connect_info(Extension(PeerAddr(address)): Extension<PeerAddr>, mut request: Request) -> Request {
///     request.extensions_mut().insert(ConnectInfo(address));
///     request
/// }
///
/// let app: axum::Router = axum::Router::new().layer(map_request(connect_info));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr<A = SocketAddr>(pub A);

/// A Tower service in the form that hyper takes. It counts the requests of HTTP/1.
#[derive(Debug)]
pub(super) struct Requests<S, A> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
    peer: PeerAddr<A>,
}

/// Spawns the tasks of an HTTP/2 connection and counts them. Each request is a task until its response has been sent,
/// and each tunnel is one until it ends.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    connection: Arc<Connection>,
}

task_local! {
    /// The stall signal of the response that this task of an HTTP/2 connection sends.
    static STALL: OnceCell<StallSignal>;
}

/// A task of an HTTP/2 connection: hyper's, until the client has stopped to read its response.
#[pin_project]
struct CountedTask<F> {
    #[pin]
    task: F,
    _in_flight: InFlight,
}

/// The response future of [`Requests`].
#[pin_project]
pub(super) struct CountedFuture<F, B> {
    #[pin]
    state: State<F, B>,
    /// None for HTTP/2.
    in_flight: Option<InFlight>,
    /// The request has a body over HTTP/1, which may be unread when the response is there.
    has_body: bool,
    /// The client asked for a tunnel with `CONNECT`.
    connect: bool,
    /// The request is of HTTP/1.0, which has no chunks.
    http10: bool,
}

#[pin_project(project = StateProj)]
enum State<F, B> {
    /// The header is too large.
    TooLarge,
    Called {
        #[pin]
        future: F,
    },
    /// The service has answered, and the request is dropped.
    Answered { response: Option<Response<B>> },
}

/// A response body that keeps its request among those in flight.
#[pin_project]
#[derive(Debug)]
pub(super) struct CountedBody<B> {
    /// None if the service was not called.
    #[pin]
    body: Option<B>,
    _in_flight: Option<InFlight>,
}

/// Counts one request as in flight until it is dropped.
#[derive(Debug)]
struct InFlight {
    connection: Arc<Connection>,
}

// === impl Requests ===

impl<S, A> Requests<S, A> {
    pub(super) fn new(service: S, connection: Arc<Connection>, peer: A) -> Self {
        Self { service: TowerToHyperService::new(service), connection, peer: PeerAddr(peer) }
    }
}

impl<S, A> hyper::service::Service<Request<Incoming>> for Requests<S, A>
where
    S: HttpService,
    A: Clone + Send + Sync + 'static,
{
    type Response = Response<CountedBody<S::Body>>;
    type Error = S::Error;
    type Future = CountedFuture<TowerToHyperServiceFuture<S, Request<Incoming>>, S::Body>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let http1 = request.version() <= Version::HTTP_11;
        let has_body = !request.body().is_end_stream();
        CountedFuture {
            in_flight: http1.then(|| InFlight::new(&self.connection, has_body)),
            has_body: http1 && has_body,
            connect: request.method() == Method::CONNECT,
            http10: request.version() == Version::HTTP_10,
            state: if !http1 && is_too_large(request.headers()) {
                State::TooLarge
            } else {
                State::Called { future: self.service.call(request) }
            },
        }
    }
}

fn is_too_large(headers: &HeaderMap) -> bool {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
    bytes > MAX_HEADER_LIST
}

// === impl Tasks ===

impl Tasks {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let task = CountedTask { task, _in_flight: InFlight::new(&self.connection, true) };
        tokio::spawn(STALL.scope(OnceCell::new(), task));
    }
}

// === impl CountedTask ===

impl<F: Future> Future for CountedTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.project().task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // hyper does not poll the body of a client that opens no window. To drop its task resets the stream.
        STALL.with(|stall| stall.get().map_or(Poll::Pending, |stall| stall.poll_set(cx)))
    }
}

// === impl CountedFuture ===

impl<F, B, E> Future for CountedFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut response = match this.state.as_mut().project() {
            StateProj::TooLarge => {
                let mut response = Response::new(CountedBody { body: None, _in_flight: None });
                *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Poll::Ready(Ok(response));
            }
            StateProj::Called { future } => {
                let response = ready!(future.poll(cx))?;
                if let (Some(in_flight), true) = (&*this.in_flight, *this.has_body) {
                    // hyper finds out what is unread of the body when it is polled with the request dropped. It then
                    // reads a rest that has arrived, or announces in the response that it closes the connection.
                    this.state.set(State::Answered { response: Some(response) });
                    in_flight.connection.poll_again();
                    return Poll::Pending;
                }
                response
            }
            StateProj::Answered { response } => response.take().expect("a response is given once"),
        };
        let in_flight = this.in_flight.take();
        let stall = response.extensions_mut().remove::<StallSignal>();
        if let Some(InFlight { connection }) = &in_flight {
            connection.watch_stall(stall);
            connection.set_delimits_body(*this.http10 && !has_length(&response));
            let tunnel = *this.connect && response.status().is_success();
            if tunnel || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                connection.upgrade();
            } else if connection.order() != Order::Serve {
                // hyper sets this header as well, unless the response was ready before hyper was to close.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        } else if let Some(stall) = stall {
            STALL.with(|task| task.set(stall)).expect("a task sends one response");
        }
        Poll::Ready(Ok(response.map(|body| CountedBody { body: Some(body), _in_flight: in_flight })))
    }
}

fn has_length<B: Body>(response: &Response<B>) -> bool {
    response.headers().contains_key(CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

// === impl CountedBody ===

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.as_pin_mut().map_or(Poll::Ready(None), |body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

// === impl InFlight ===

impl InFlight {
    fn new(connection: &Arc<Connection>, has_body: bool) -> Self {
        connection.activity.request_began(has_body);
        Self { connection: Arc::clone(connection) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.activity.request_ended();
        self.connection.unwatch_stall();
    }
}
