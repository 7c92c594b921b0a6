//! The stats endpoint: a plain Tower service, for axum and for bare hyper.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower_service::Service;

use super::{answer, json};
use crate::body::Whole;
use crate::pools::Pools;

/// The path that the endpoint has by itself.
const BASE: &str = "/health/thread-pools";

/// The endpoint that shows the pools.
///
/// `GET /health/thread-pools` answers with their numbers as JSON, `POST /health/thread-pools/log-status` writes the
/// [status block](Pools::log_current_status) to the log. Both are there only while `verbose` is on; without it, every
/// path is a 404. It shows functions, methods and paths of what runs, never queries, headers or bodies: still, keep it
/// from strangers.
///
/// ```
/// use axum::Router;
/// use tower_offload::{Pools, StatsService};
///
/// let pools = Pools::builder().verbose(true).build()?;
/// let app: Router = Router::new().nest_service("/health/thread-pools", StatsService::new(&pools));
/// # Ok::<(), tower_offload::BuildError>(())
/// ```
///
/// In bare hyper it takes the whole path: give it the requests below `/health/thread-pools`.
#[derive(Clone, Debug)]
pub struct StatsService {
    pools: Pools,
}

impl StatsService {
    /// The endpoint for these pools.
    #[must_use]
    pub fn new(pools: &Pools) -> Self {
        Self { pools: pools.clone() }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Whole> {
        // Where it is nested, the router has taken the prefix off.
        let path = path.strip_prefix(BASE).unwrap_or(path);
        match (path, method) {
            _ if !self.pools.is_verbose() => answer::not_found(),
            ("" | "/", &Method::GET | &Method::HEAD) => answer::json(&json::document(&self.pools.stats())),
            ("" | "/", _) => answer::method_not_allowed("GET, HEAD"),
            ("/log-status", &Method::POST) => {
                self.pools.log_current_status();
                answer::json(&serde_json::json!({ "status": "logged" }))
            }
            ("/log-status", _) => answer::method_not_allowed("POST"),
            _ => answer::not_found(),
        }
    }
}

impl<B> Service<Request<B>> for StatsService {
    type Response = Response<Whole>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Whole>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}
