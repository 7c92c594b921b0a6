//! The service that serves the page and its events.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::json;
use tower_service::Service;

use super::board::Board;
use super::body::DashboardBody;
use super::page;
use crate::pools::Pools;

/// A live page of the pools: waits, queues, workers, load and results of the last ten minutes, and the running tasks.
///
/// | request | answer |
/// |---|---|
/// | `GET` or `HEAD` at the place where it is mounted | the page, with the numbers of now |
/// | the same with `Accept: text/event-stream` | the history, then a frame each second, until a [drain](Pools::draining) |
/// | another method | 405 |
/// | another path | 404 |
///
/// ```
/// use axum::Router;
/// use tower_offload::{Dashboard, Pools};
///
/// let pools = Pools::default();
/// let dashboard = Dashboard::new(&pools);
/// let app: Router = Router::new()
///     .route_service("/", dashboard.clone())
///     .nest_service("/pools", dashboard);
/// ```
///
/// The page has no other files and asks no other server. It works behind any prefix that a proxy adds or removes. Do not
/// wrap the dashboard in a [`PoolLayer`](crate::PoolLayer): it must answer while the pools are full.
///
/// It changes nothing, but it shows the names of pools, slots and models to everyone who can ask for it. While
/// [`verbose`](Pools::is_verbose) is on, it also shows the functions, methods and paths of running tasks, and the keys of
/// models; never queries, headers, bodies or errors. Put your middleware for authentication in front of it.
///
/// Build it once and clone it: each dashboard has a sampler of its own, which runs until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Dashboard {
    board: Arc<Board>,
}

/// Keeps nginx from collecting events.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const EVENT_STREAM: &str = "text/event-stream";

impl Dashboard {
    /// The dashboard of these pools. Its history begins now.
    #[must_use]
    pub fn new(pools: &Pools) -> Self {
        Self { board: Board::new(pools) }
    }

    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<DashboardBody> {
        if !matches!(path, "" | "/") {
            return problem(StatusCode::NOT_FOUND, "there is nothing at this path");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "the dashboard can be read only");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = if wants_events(headers) { self.events(method) } else { self.page(method) };
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        response
    }

    fn page(&self, method: &Method) -> Response<DashboardBody> {
        let page = self.board.page();
        let length = page.len();
        let body = if method == Method::HEAD { Bytes::new() } else { page };
        let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", DashboardBody::full(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }

    fn events(&self, method: &Method) -> Response<DashboardBody> {
        let pools = self.board.pools();
        if pools.is_draining() {
            let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("3"));
            return response;
        }
        let body = match *method {
            Method::HEAD => DashboardBody::full(Bytes::new()),
            _ => DashboardBody::events(self.board.events(), pools.draining()),
        };
        let mut response = answer(StatusCode::OK, EVENT_STREAM, body);
        response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        response
    }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(accepts_events)
}

/// Whether a media range of `Accept` names the events. A weight of 0 says that they are not wanted.
fn accepts_events(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case(EVENT_STREAM)) && !parts.any(is_zero_weight)
}

fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim_start().parse() == Ok(0.0_f32))
}

fn problem(status: StatusCode, detail: &str) -> Response<DashboardBody> {
    let title = status.canonical_reason();
    let document = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    answer(status, "application/problem+json", DashboardBody::full(Bytes::from(document.to_string())))
}

fn answer(status: StatusCode, content_type: &'static str, body: DashboardBody) -> Response<DashboardBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl<B> Service<Request<B>> for Dashboard {
    type Response = Response<DashboardBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<DashboardBody>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path(), request.headers())))
    }
}
