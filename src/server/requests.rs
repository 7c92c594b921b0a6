//! Counts the requests in flight on one connection, from their header to the last byte of their response.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use pin_project::pin_project;

use super::connections::{Connection, Order};

/// The address that a request's connection comes from: an extension of every request that the server serves.
///
/// It is the client's own address, or that of the last proxy before this server.
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
/// What needs axum's `ConnectInfo` gets it from a layer:
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
pub struct PeerAddr(pub SocketAddr);

/// A Tower service as hyper wants it, counting its requests.
#[derive(Debug)]
pub(super) struct Requests<S> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
}

/// The response future of [`Requests`].
#[pin_project]
#[derive(Debug)]
pub(super) struct CountedFuture<F> {
    #[pin]
    future: F,
    in_flight: Option<InFlight>,
    connection: Arc<Connection>,
    /// The client asked for a tunnel with `CONNECT`.
    connect: bool,
    version: Version,
}

/// A response body that holds its request's place among those in flight.
#[pin_project]
#[derive(Debug)]
pub(super) struct CountedBody<B> {
    #[pin]
    body: B,
    _in_flight: Option<InFlight>,
}

/// A request's place among those in flight; its drop gives it back.
#[derive(Debug)]
struct InFlight {
    connection: Arc<Connection>,
}

// === impl Requests ===

impl<S> Requests<S> {
    pub(super) fn new(service: S, connection: Arc<Connection>) -> Self {
        Self { service: TowerToHyperService::new(service), connection }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Requests<S>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<<TowerToHyperService<S> as hyper::service::Service<Request<Incoming>>>::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(PeerAddr(self.connection.peer));
        self.connection.activity.request_began();
        CountedFuture {
            in_flight: Some(InFlight { connection: Arc::clone(&self.connection) }),
            connection: Arc::clone(&self.connection),
            connect: request.method() == Method::CONNECT,
            version: request.version(),
            future: self.service.call(request),
        }
    }
}

// === impl CountedFuture ===

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        let in_flight = this.in_flight.take();
        let mut response = response?;
        let tunnel = *this.connect && response.status().is_success();
        if tunnel || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if *this.version == Version::HTTP_2 {
                // The tunnel is one stream of the connection, and hyper does not say when it ends. So this count is
                // never given back: from here on the connection is not idle.
                this.connection.activity.request_began();
            } else {
                this.connection.upgrade();
            }
        } else if *this.version <= Version::HTTP_11 && this.connection.order() != Order::Serve {
            // hyper says so as well, if it was told to close before the response was ready.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| CountedBody { body, _in_flight: in_flight })))
    }
}

// === impl CountedBody ===

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.activity.request_ended();
    }
}
