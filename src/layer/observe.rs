//! `ObserveLayer`: offloads nothing, and finds the routes that should be offloaded.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Method, Request};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::run_delay;
use crate::inner_service::inner_service;
use crate::pool::is_worker;
use crate::pools::Pools;
use crate::select::ByRoute;

/// A poll that takes longer holds its thread for too long: other requests wait for it.
const LONG: Duration = Duration::from_millis(1);

/// Offloads nothing, and finds the routes whose handlers hold a thread of the runtime for more than a millisecond; made by
/// [`PoolLayer::observe`](crate::PoolLayer::observe).
///
/// `N` names routes: [`Routes`] by the routes of the settings, [`NameBy`] by a closure.
#[derive(Clone, Debug)]
pub struct ObserveLayer<N = Routes> {
    pools: Pools,
    names: N,
}

/// A service whose polls are timed; made by [`ObserveLayer`].
#[derive(Clone, Debug)]
pub struct ObserveService<S, N = Routes> {
    inner: S,
    pools: Pools,
    names: N,
}

/// The future of [`ObserveService`].
#[pin_project]
pub struct ObserveFuture<F> {
    #[pin]
    future: F,
    route: Route,
}

/// A request's route, and where it is counted.
struct Route {
    pools: Pools,
    method: Method,
    name: Option<Arc<str>>,
}

/// Names the route of a request.
pub trait NameRoute<Req> {
    /// The route's name. It must not be the path: clients choose paths, and the names are kept.
    fn name(&self, request: &Req) -> Option<Arc<str>>;
}

/// Names routes by the `routes` of the settings.
#[derive(Clone, Debug)]
pub struct Routes(ByRoute);

/// Names routes by a closure.
#[derive(Clone)]
pub struct NameBy<F>(F);

impl ObserveLayer {
    pub(super) fn new(pools: &Pools) -> Self {
        Self { pools: pools.clone(), names: Routes(ByRoute::new(pools, None)) }
    }
}

impl<N> ObserveLayer<N> {
    /// Names each request's route by a closure. Without this, routes have the names of the settings, and all requests to
    /// other routes of a method count as one.
    ///
    /// With axum, the name is the `MatchedPath`. Apply the layer with `layer` or `route_layer`:
    ///
    /// ```
    /// use axum::extract::{MatchedPath, Request};
    /// use axum::{Router, routing::get};
    /// use tower_offload::{PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let observe = PoolLayer::observe(&pools)
    ///     .name_by(|request: &Request| Some(request.extensions().get::<MatchedPath>()?.as_str().to_owned()));
    /// let app: Router = Router::new().route("/reports/{id}", get(|| async { "done" })).layer(observe);
    /// # let _ = app;
    /// ```
    ///
    /// Do not return the request's path: at most 64 names are kept, and each should stand for many requests.
    #[must_use]
    pub fn name_by<Req, F, S>(self, function: F) -> ObserveLayer<NameBy<F>>
    where
        F: Fn(&Req) -> Option<S> + Clone + Send + Sync + 'static,
        S: Into<Arc<str>>,
    {
        ObserveLayer { pools: self.pools, names: NameBy(function) }
    }
}

impl<S, N: Clone> Layer<S> for ObserveLayer<N> {
    type Service = ObserveService<S, N>;

    fn layer(&self, inner: S) -> Self::Service {
        ObserveService { inner, pools: self.pools.clone(), names: self.names.clone() }
    }
}

impl<B> NameRoute<Request<B>> for Routes {
    fn name(&self, request: &Request<B>) -> Option<Arc<str>> {
        self.0.name(request.method(), request.uri().path())
    }
}

impl<B, F, S> NameRoute<Request<B>> for NameBy<F>
where
    F: Fn(&Request<B>) -> Option<S>,
    S: Into<Arc<str>>,
{
    fn name(&self, request: &Request<B>) -> Option<Arc<str>> {
        (self.0)(request).map(Into::into)
    }
}

impl<S, N> ObserveService<S, N> {
    inner_service!();
}

impl<S, N, B> Service<Request<B>> for ObserveService<S, N>
where
    S: Service<Request<B>>,
    N: NameRoute<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let name = self.names.name(&request);
        let route = Route { pools: self.pools.clone(), method: request.method().clone(), name };
        let future = route.timed(|| self.inner.call(request));
        ObserveFuture { future, route }
    }
}

impl<F: Future> Future for ObserveFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.route.timed(|| this.future.poll(cx))
    }
}

impl Route {
    fn timed<T>(&self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        run_delay::begin(begun);
        let value = call();
        let took = begun.elapsed();
        if took > LONG {
            self.report(took);
        }
        value
    }

    #[cold]
    fn report(&self, took: Duration) {
        // A worker may be held for as long as it takes.
        if is_worker() {
            return;
        }
        let held = run_delay::held(took);
        if held <= LONG {
            return;
        }
        let name = self.name.as_deref().unwrap_or("(a route without a name)");
        self.pools.observed().long_poll(&format!("{} {name}", named(&self.method)), held);
    }
}

/// Clients choose methods, and the names are kept. Methods that HTTP does not define count as one.
fn named(method: &Method) -> &str {
    const DEFINED: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    if DEFINED.contains(method) { method.as_str() } else { "(another method)" }
}

impl<F> fmt::Debug for ObserveFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveFuture").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for NameBy<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameBy").finish_non_exhaustive()
    }
}
