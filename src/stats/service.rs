//! The stats endpoint: a Tower service, for axum and for hyper.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode};
use tower_service::Service;

use super::answer;
use super::json::{Document, Readiness, ScaleNumbers};
use crate::body::FullBody;
use crate::error::UnknownPool;
use crate::pool::Pool;
use crate::pools::Pools;
use crate::workload::PoolName;

/// The last segment of the endpoint's usual path.
const BASE: &str = "/thread-pools";

/// The endpoint that shows the pools.
///
/// | request | answer |
/// |---|---|
/// | `GET /health/thread-pools` | the numbers of all pools as JSON; only while `verbose` is on |
/// | `POST /health/thread-pools/log-status` | writes the [status block](Pools::log_current_status) to the log; only while `verbose` is on |
/// | `GET /health/thread-pools/ready` | 200, or 503 while the application drains or a pool of [`ready_by`](Self::ready_by) is overloaded |
/// | `GET /health/thread-pools/scale` | the [load](crate::load) of the process and of each pool, for autoscalers |
///
/// Another method is a 405, another path a 404; while `verbose` is off the first two paths are a 404. They show
/// functions, methods and paths of running tasks, and never queries, headers or bodies. Do not expose them to the
/// public.
///
/// ```
/// use axum::Router;
/// use tower_offload::{Pools, StatsService};
///
/// let pools = Pools::builder().verbose(true).build()?;
/// let app: Router = Router::new().nest_service("/health/thread-pools", StatsService::new(&pools));
/// # Ok::<(), tower_offload::pools::BuildError>(())
/// ```
///
/// # Readiness
///
/// Readiness fails as soon as a drain is announced: under `server::serve` by its signal, elsewhere by
/// [`Pools::announce_drain`]. `server::serve` still serves requests for `server.shutdown_delay` after the signal.
///
/// By default, overload does not make a server unready: one overloaded pool would remove the whole server from its
/// balancer, and a load that overloads all servers would remove all of them. [`ready_by`](Self::ready_by) names the
/// pools whose overload makes the server unready. Do not use this endpoint as a liveness probe: an overloaded server is
/// alive.
///
/// # Paths
///
/// The service can be nested at any path and depth: after `nest_service("/admin/pools", …)`, `/admin/pools/ready` is
/// the readiness. If it sees whole paths (in hyper, on a single route, as a fallback), everything before
/// `/thread-pools` counts as a prefix: `/api/health/thread-pools/ready` is the readiness too.
#[derive(Clone, Debug)]
pub struct StatsService {
    pools: Pools,
    /// The pools whose overload makes the server unready.
    ready_by: Arc<[Pool]>,
}

impl StatsService {
    /// The endpoint for these pools.
    #[must_use]
    pub fn new(pools: &Pools) -> Self {
        Self { pools: pools.clone(), ready_by: Arc::default() }
    }

    /// Makes the server unready while one of these pools is overloaded.
    ///
    /// # Errors
    ///
    /// If one of the pools does not exist. [Disabled](Pools::disabled) pools accept every name, and are always ready.
    pub fn ready_by<N: PoolName>(mut self, names: impl IntoIterator<Item = N>) -> Result<Self, UnknownPool> {
        if !self.pools.is_disabled() {
            let chosen: Result<_, _> = names.into_iter().map(|name| self.pools.get(name).cloned()).collect();
            self.ready_by = chosen?;
        }
        Ok(self)
    }

    fn answer(&self, method: &Method, path: &str) -> Response<FullBody> {
        // A router that nests the service has removed the prefix or a part of it.
        let path = path.rsplit_once(BASE).map_or(path, |(_, below)| below);
        let verbose = self.pools.is_verbose();
        match (path, method) {
            ("/ready", &Method::GET | &Method::HEAD) => self.readiness(),
            ("/ready", _) => answer::method_not_allowed("GET, HEAD"),
            ("/scale", &Method::GET | &Method::HEAD) => {
                answer::json(StatusCode::OK, &ScaleNumbers::of(&self.pools.load()))
            }
            ("/scale", _) => answer::method_not_allowed("GET, HEAD"),
            ("" | "/", &Method::GET | &Method::HEAD) if verbose => {
                answer::json(StatusCode::OK, &Document::of(&self.pools.stats(), &self.pools.slow_routes()))
            }
            ("" | "/", _) if verbose => answer::method_not_allowed("GET, HEAD"),
            ("/log-status", &Method::POST) if verbose => {
                self.pools.log_current_status();
                answer::json(StatusCode::OK, &serde_json::json!({ "status": "logged" }))
            }
            ("/log-status", _) if verbose => answer::method_not_allowed("POST"),
            _ => answer::not_found(),
        }
    }

    fn readiness(&self) -> Response<FullBody> {
        let stats: Vec<_> = self.ready_by.iter().map(Pool::numbers).collect();
        let readiness = Readiness::of(self.pools.is_draining(), &stats);
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer::json(status, &readiness)
    }
}

impl<B> Service<Request<B>> for StatsService {
    type Response = Response<FullBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<FullBody>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}
