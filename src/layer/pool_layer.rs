//! `PoolLayer`: wraps a service so that its requests run in pools.

use std::hash::Hash;
use std::sync::Arc;

use http::Response;
use tower_layer::Layer;

use super::observe::ObserveLayer;
use super::options::Options;
use super::request_body::Unread;
use super::service::PoolService;
use crate::body::ReadBody;
use crate::config::BodyPolicy;
use crate::error::{Rejection, UnknownPool};
use crate::pool::Pool;
use crate::pools::Pools;
use crate::reject::{AnyRequest, Errors, Http, RejectWith, Responses, SameBody};
use crate::select::{Branch, ByExtension, ByFn, ByRoute, FairBy, Fixed, LeastLoaded, Or, PriorityBy, Target};
use crate::terms::Priority;
use crate::workload::{Marker, PoolName};

/// Wraps any Tower service so that each request's handler runs in a workload pool.
///
/// `W` selects the pool, `R` answers the requests that a pool rejects, `P` is the protocol of the requests, and `B` says
/// whether their bodies are read first. Clones share the same pools and so the same limits, also if axum applies the
/// layer once for each route.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use tower_offload::{Cpu, PoolLayer, Pools};
///
/// async fn hash(body: String) -> String {
///     // Computes for a while; no other request waits for it.
///     body.bytes().fold(5381_u64, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte)).to_string()
/// }
///
/// let pools = Pools::default();
/// let app: Router = Router::new()
///     .route("/hash", post(hash).route_layer(PoolLayer::<Cpu>::new(&pools)))
///     .route("/health", get(|| async { "ok" }));
/// ```
///
/// Use `route_layer` on axum's method routers, as here. `layer`, and both methods of a `Router`, also wrap axum's own 405,
/// and `Router::layer` its 404: they run in the pool too, and a full pool answers them with 503.
///
/// # Choosing the pool
///
/// | constructor | a request runs in |
/// |---|---|
/// | [`new`](Self::new), [`try_new`](Self::try_new), [`for_pool`](Self::for_pool) | one pool |
/// | [`by_route`](Self::by_route), [`by_route_under`](Self::by_route_under) | the pool that the settings give its route |
/// | [`by_extension`](Self::by_extension) | the pool that earlier middleware named on it |
/// | [`by`](Self::by) | the pool that a closure names |
/// | [`least_loaded`](Self::least_loaded) | the less loaded of several pools |
/// | [`with`](Self::with) | the pool that your own [`Select`](crate::select::Select) chooses |
/// | [`or`](Self::or) | the pool of the first layer, or else of the second |
///
/// # A function that returns a layer
///
/// The types of this crate's selectors can be named. A layer with a closure is `PoolLayer<impl Select<…> + Clone>`:
///
/// ```
/// use axum::extract::Request;
/// use tower_offload::select::{ByRoute, Fixed, Or, Select};
/// use tower_offload::{Io, PoolLayer, Pools, Priority};
///
/// fn by_route_or_io(pools: &Pools) -> PoolLayer<Or<ByRoute, Fixed>> {
///     PoolLayer::by_route(pools).or(PoolLayer::<Io>::new(pools))
/// }
///
/// fn low_for_batches(pools: &Pools) -> PoolLayer<impl Select<Request> + Clone + use<>> {
///     by_route_or_io(pools).priority_by(|request: &Request| {
///         request.uri().path().starts_with("/batch").then_some(Priority::Low)
///     })
/// }
///
/// let app: axum::Router = axum::Router::new()
///     .route("/batch", axum::routing::post(|| async { "done" }))
///     .route_layer(low_for_batches(&Pools::default()));
/// ```
///
/// # What runs where
///
/// `call` of the inner service and every poll of its future run on the pool's workers, with the Tokio runtime, the
/// `tracing` span and the dispatcher of the thread that polled the response future first. `poll_ready`, the response
/// future and the response body stay on the connection's task. Tasks that a handler spawns (`tokio::spawn`, a
/// WebSocket's `on_upgrade`) run on the runtime. Tokio's task-locals do not reach the handler: put what it needs on the
/// request's extensions.
///
/// # Slow clients
///
/// A handler's extractors run in the pool too. An extractor that reads the body (`String`, `Json`, `Bytes`) waits there
/// for the client and keeps its permit: as many clients as the limit allows, each of which sends half a body, stop the
/// pool. [`read_body`](Self::read_body) reads the body before the request takes a place in the pool. A response body holds
/// no permit unless its [policy](Self::body) says so, so clients that read slowly do not matter.
///
/// # Without a pool
///
/// A request that no pool is chosen for runs inline, as if the layer were not there. So do requests to gRPC's standard
/// health service ([`Http`](crate::reject::Http)), and a request whose pool the handler around it already runs in. An
/// inline request has no permit: nothing rejects or cancels it, its [`Deadline`](crate::Deadline) is only for its
/// handler to see, and its panic continues in the response future.
///
/// # When a client leaves
///
/// If the response future is dropped, a queued request leaves the queue at once and its handler never runs. An async
/// handler in flight is dropped at its next await. Code that blocks or computes runs to its end, and counts against the
/// limit until then.
///
/// # Panics
///
/// A handler's panic is answered with a status of 500, or continues in the response future after
/// [`resume_panics`](Self::resume_panics). The worker survives it.
#[derive(Clone, Debug)]
pub struct PoolLayer<W, R = Responses, P = Http, B = Unread> {
    selector: W,
    reject: R,
    protocol: P,
    body: B,
    options: Options,
}

impl<M: Marker> PoolLayer<M> {
    /// A layer for the pool that the marker `M` names.
    ///
    /// # Panics
    ///
    /// If there is no such pool: at the line of the caller, with the names of the pools that exist.
    /// [`try_new`](Self::try_new) returns an error instead.
    #[must_use]
    #[track_caller]
    pub fn new(pools: &Pools) -> PoolLayer<Fixed> {
        match Self::try_new(pools) {
            Ok(layer) => layer,
            Err(unknown) => panic!("{unknown}"),
        }
    }

    /// A layer for the pool that the marker `M` names.
    ///
    /// # Errors
    ///
    /// If there is no such pool: the error lists the pools that exist.
    pub fn try_new(pools: &Pools) -> Result<PoolLayer<Fixed>, UnknownPool> {
        Ok(PoolLayer::make(Fixed::new(pools.target(M::POOL)?)))
    }
}

impl PoolLayer<Fixed> {
    /// A layer for this pool. It needs no marker type.
    ///
    /// ```
    /// use tower_offload::{PoolConfig, PoolLayer, Pools};
    ///
    /// let pools = Pools::builder().pool("thumbnails", PoolConfig::new(4)).build()?;
    /// let layer = PoolLayer::for_pool(pools.get("thumbnails")?);
    /// # let _ = layer;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn for_pool(pool: &Pool) -> Self {
        Self::make(Fixed::new(Target::Pool(pool.clone())))
    }
}

impl PoolLayer<ByRoute> {
    /// A layer that selects by the `routes` of the settings, for a router that is not nested.
    ///
    /// Inside axum's `nest`, a layer sees paths without the router's prefix: use
    /// [`by_route_under`](Self::by_route_under) there. A route that has matched none of the first thousand requests is
    /// reported in the log, once, and counted in `workload_pool_routes_unmatched`.
    ///
    /// If the settings have no routes, a warning is logged here: every request runs inline.
    #[must_use]
    pub fn by_route(pools: &Pools) -> Self {
        let layer = Self::make(ByRoute::new(pools, None));
        if !layer.selector.can_match() && !pools.is_disabled() {
            tracing::warn!(
                target: "tower_offload",
                "a layer selects by route, and the settings have no `performance.routes`: it offloads nothing"
            );
        }
        layer
    }

    /// A layer that selects by the `routes` of the settings, for a router that is nested at `prefix`.
    ///
    /// The settings name whole paths (`POST /api/v1/hash: cpu`). The layer puts `prefix` before the path that it sees.
    /// If the router is nested several times, `prefix` is all of it.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_offload::{PoolLayer, Pools, config::Route};
    ///
    /// let pools = Pools::builder().route(Route::new("POST /api/v1/hash", "cpu")?).build()?;
    /// let v1 = Router::new()
    ///     .route("/hash", post(|| async { "hashed" }))
    ///     .route_layer(PoolLayer::by_route_under(&pools, "/api/v1"));
    /// let app: Router = Router::new().nest("/api/v1", v1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// If the settings have no route below `prefix`, a warning is logged here.
    ///
    /// # Panics
    ///
    /// If `prefix` does not begin with `/`: at the line of the caller.
    #[must_use]
    #[track_caller]
    pub fn by_route_under(pools: &Pools, prefix: &str) -> Self {
        assert!(prefix.starts_with('/'), "the prefix of a nested router begins with `/`, and `{prefix}` does not");
        let layer = Self::make(ByRoute::new(pools, Some(prefix.trim_end_matches('/').to_owned())));
        if !layer.selector.can_match() && !pools.is_disabled() {
            tracing::warn!(
                target: "tower_offload",
                "a layer selects by route, and the settings have no route below `{prefix}` in `performance.routes`: it \
                 offloads nothing"
            );
        }
        layer
    }
}

/// Finds the routes that should be offloaded.
impl PoolLayer<()> {
    /// A layer that offloads nothing, and finds the handlers that should be: those that hold a thread of the runtime for
    /// more than a millisecond in one poll.
    ///
    /// Each such route is named once in the log, and listed by [`Pools::slow_routes`] and in the JSON of the stats
    /// endpoint, after three long polls, or after one of more than 100 ms. On Linux, the time in which the thread waited
    /// for a core does not count, so a full machine names no route. The layer costs two readings of the clock for each poll,
    /// and a reading of `/proc` every 10 ms for each thread. Handlers that run in a pool are never named. The bodies of
    /// responses are not observed.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_offload::{PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let app: Router = Router::new()
    ///     .route("/report", get(|| async { std::thread::sleep(std::time::Duration::from_millis(5)) }))
    ///     .layer(PoolLayer::observe(&pools));
    /// # let _ = app;
    /// ```
    ///
    /// Routes have the names that the settings give them; [`name_by`](ObserveLayer::name_by) takes them from elsewhere,
    /// such as axum's `MatchedPath`.
    #[must_use]
    pub fn observe(pools: &Pools) -> ObserveLayer {
        ObserveLayer::new(pools)
    }
}

impl PoolLayer<ByExtension> {
    /// A layer that selects by the [`Workload`](crate::Workload) that earlier middleware put on the request. A request
    /// without one runs inline. If no pool has the name, the request is rejected with a status of 500.
    ///
    /// ```
    /// use axum::{Router, extract::Request, middleware::Next, routing::post};
    /// use tower_offload::{PoolLayer, Pools, Workload};
    ///
    /// let pools = Pools::default();
    /// let app: Router = Router::new()
    ///     .route("/reports", post(|| async { "done" }))
    ///     .route_layer(PoolLayer::by_extension(&pools))
    ///     .route_layer(axum::middleware::from_fn(|mut request: Request, next: Next| async {
    ///         if request.headers().contains_key("x-batch") {
    ///             request.extensions_mut().insert(Workload::CPU);
    ///         }
    ///         next.run(request).await
    ///     }));
    /// ```
    #[must_use]
    pub fn by_extension(pools: &Pools) -> Self {
        Self::make(ByExtension::new(pools.clone()))
    }
}

impl PoolLayer<LeastLoaded> {
    /// A layer that selects the less loaded of two of these pools; [`LeastLoaded`] says how.
    ///
    /// # Errors
    ///
    /// If one of the pools does not exist.
    ///
    /// # Panics
    ///
    /// If there is no name: at the line of the caller.
    #[track_caller]
    pub fn least_loaded<N: PoolName>(pools: &Pools, names: impl IntoIterator<Item = N>) -> Result<Self, UnknownPool> {
        LeastLoaded::new(pools, names).map(Self::make)
    }
}

impl<F> PoolLayer<ByFn<F>> {
    /// A layer that selects by a function of the request; `None` runs it inline. If no pool has the name that the
    /// function returns, the request is rejected with a status of 500.
    ///
    /// ```
    /// use axum::extract::Request;
    /// use tower_offload::{PoolLayer, Pools, Workload};
    ///
    /// let pools = Pools::default();
    /// let layer = PoolLayer::by(&pools, |request: &Request| {
    ///     request.uri().path().starts_with("/admin").then_some(Workload::IO)
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn by<Req, N>(pools: &Pools, function: F) -> Self
    where
        F: Fn(&Req) -> Option<N> + Send + Sync + 'static,
        N: PoolName,
    {
        Self::make(ByFn::new(pools.clone(), function))
    }
}

impl<W> PoolLayer<W> {
    /// A layer with a selector of your own; see [`select`](crate::select#writing-a-selector).
    #[must_use]
    pub fn with(selector: W) -> Self
    where
        W: Clone + Send + Sync + 'static,
    {
        Self::make(selector)
    }

    const fn make(selector: W) -> Self {
        Self { selector, reject: Responses, protocol: Http, body: Unread::NEW, options: Options::NONE }
    }
}

impl<W, R, P, B> PoolLayer<W, R, P, B> {
    /// Asks `other` for the pool of each request that this layer would run inline.
    ///
    /// Each layer keeps its own priorities, callers and options for the requests that it chooses a pool for. The
    /// response to rejections, the protocol, and whether bodies are read are those of this layer, so `other` has none of
    /// these: set them on the result.
    ///
    /// ```
    /// use tower_offload::{Io, PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let layer = PoolLayer::by_extension(&pools).or(PoolLayer::by_route(&pools)).or(PoolLayer::<Io>::new(&pools));
    /// # let _ = layer;
    /// ```
    ///
    /// # Panics
    ///
    /// If the responses of this layer keep their type ([`errors`](Self::errors), [`any_request`](Self::any_request),
    /// [`same_body`](Self::same_body)) and `other` has a policy for [bodies](Self::body), at the line of the caller.
    #[must_use]
    #[track_caller]
    pub fn or<V>(self, other: PoolLayer<V>) -> PoolLayer<Or<W, V>, R, P, B> {
        let options = self.options.clone();
        let kept = Options {
            keeps_responses: options.keeps_responses,
            policy_in_branch: options.has_policy() || other.options.has_policy(),
            ..Options::NONE
        };
        let second = Branch { selector: other.selector, options: other.options };
        let layer = self.select_with(|selector| Or::new(Branch { selector, options }, second));
        PoolLayer { options: kept, ..layer }.checked()
    }

    /// Gives each request that a pool is chosen for the priority that `function` returns.
    ///
    /// `None` leaves the priority to the header that the pool trusts, or else to the [`Priority`] among the request's
    /// extensions, or else to [`Priority::Normal`]. A full pool sheds a queued request to make room for a more
    /// important one.
    ///
    /// ```
    /// use axum::extract::Request;
    /// use tower_offload::{Cpu, PoolLayer, Pools, Priority};
    ///
    /// let layer = PoolLayer::<Cpu>::new(&Pools::default())
    ///     .priority_by(|request: &Request| request.uri().path().starts_with("/batch").then_some(Priority::Low));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn priority_by<Req, F>(self, function: F) -> PoolLayer<PriorityBy<W, F>, R, P, B>
    where
        F: Fn(&Req) -> Option<Priority> + Send + Sync + 'static,
    {
        self.select_with(|selector| PriorityBy::new(selector, function))
    }

    /// Queues callers fairly: a caller with many queued requests does not delay the others.
    ///
    /// `function` finds the key of the caller in the request. Callers of one priority have equal shares of the workers'
    /// time. Requests for which it returns `None` belong to the [`Caller`](crate::Caller) among their extensions. All
    /// requests without a caller count as one caller.
    ///
    /// The method is shuffle sharding: each caller has eight of 64 virtual queues, and the queue that has used the
    /// least time is served next.
    ///
    /// The key is an owned value: it is hashed after `function` has returned. To hash a part of the request without
    /// copying it, return a [`Caller`](crate::Caller):
    ///
    /// ```
    /// use axum::extract::Request;
    /// use tower_offload::{Caller, Db, PoolLayer, Pools};
    ///
    /// let layer = PoolLayer::<Db>::new(&Pools::default())
    ///     .fair_by(|request: &Request| request.headers().get("x-tenant").map(Caller::of));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn fair_by<Req, F, K>(self, function: F) -> PoolLayer<FairBy<W, F>, R, P, B>
    where
        F: Fn(&Req) -> Option<K> + Send + Sync + 'static,
        K: Hash + 'static,
    {
        self.select_with(|selector| FairBy::new(selector, function))
    }

    fn select_with<V>(self, wrap: impl FnOnce(W) -> V) -> PoolLayer<V, R, P, B> {
        let Self { selector, reject, protocol, body, options } = self;
        PoolLayer { selector: wrap(selector), reject, protocol, body, options }
    }

    /// Answers rejections with `function`, which makes a response in the body type of the service.
    ///
    /// ```
    /// use axum::response::{IntoResponse, Response};
    /// use tower_offload::{Cpu, PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let layer = PoolLayer::<Cpu>::new(&pools)
    ///     .reject_with(|rejection| -> Response { (rejection.status(), "come back later").into_response() });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn reject_with<F, RB>(self, function: F) -> PoolLayer<W, RejectWith<F>, P, B>
    where
        F: Fn(Rejection) -> Response<RB> + Clone + Send + Sync + 'static,
    {
        self.reject_by(RejectWith::new(function))
    }

    /// Gives rejections as errors: [`OffloadError`](crate::error::OffloadError).
    ///
    /// HTTP requests keep their deadlines and priorities, and the pool's numbers count their statuses, as by default.
    /// axum's `HandleErrorLayer` takes such errors. For requests that are not HTTP's see
    /// [`any_request`](Self::any_request).
    ///
    /// Responses keep their type, so their bodies are polled on the connection and hold no permit: the `body` section of
    /// the pool's settings has no effect on them.
    ///
    /// ```
    /// use axum::{Router, error_handling::HandleErrorLayer, http::StatusCode, routing::post};
    /// use std::convert::Infallible;
    /// use tower::ServiceBuilder;
    /// use tower_offload::{Cpu, PoolLayer, Pools, error::OffloadError};
    ///
    /// async fn rejected(error: OffloadError<Infallible>) -> (StatusCode, String) {
    ///     (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    /// }
    ///
    /// let layers = ServiceBuilder::new()
    ///     .layer(HandleErrorLayer::new(rejected))
    ///     .layer(PoolLayer::<Cpu>::new(&Pools::default()).errors());
    /// let app: Router = Router::new().route("/hash", post(|| async { "hashed" }).route_layer(layers));
    /// ```
    ///
    /// # Panics
    ///
    /// If the layer has a policy for [bodies](Self::body), at the line of the caller.
    #[must_use]
    #[track_caller]
    pub fn errors(self) -> PoolLayer<W, Errors, P, B> {
        self.reject_by(Errors).keep_responses()
    }

    /// Takes requests of any type, for services that do not speak HTTP, and gives rejections as errors.
    ///
    /// The layer then knows no deadlines and no priorities but those that [`priority_by`](Self::priority_by) gives, and
    /// logs a request by its type. [`protocol`](Self::protocol) takes a [`Protocol`](crate::reject::Protocol) of your
    /// own that knows more.
    ///
    /// Responses keep their type, so their bodies are polled on the connection and hold no permit: the `body` section of
    /// the pool's settings has no effect on them.
    ///
    /// ```
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_offload::{Cpu, PoolLayer, Pools, error::OffloadError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), OffloadError<std::num::ParseIntError>> {
    /// let pools = Pools::default();
    /// let service = ServiceBuilder::new()
    ///     .layer(PoolLayer::<Cpu>::new(&pools).any_request())
    ///     .service(service_fn(|text: &'static str| async move { text.parse::<i32>() }));
    /// assert_eq!(service.clone().oneshot("12").await?, 12);
    /// assert!(matches!(service.oneshot("twelve").await, Err(OffloadError::Inner(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the layer has a policy for [bodies](Self::body), at the line of the caller.
    #[must_use]
    #[track_caller]
    pub fn any_request(self) -> PoolLayer<W, Errors, AnyRequest, B> {
        self.errors().protocol(AnyRequest)
    }

    /// Answers rejections as by default, in the body type of the service, which must be `From<Bytes>`:
    /// `axum::body::Body`, `http_body_util::Full<Bytes>`. The response keeps its type, as tower's `option_layer` needs.
    ///
    /// So the bodies of responses are polled on the connection and hold no permit: the `body` section of the pool's
    /// settings has no effect on them.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower::util::option_layer;
    /// use tower_offload::{Cpu, PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let offload = std::env::var_os("NO_OFFLOAD").is_none();
    /// let app: Router = Router::new()
    ///     .route("/hash", post(|| async { "done" }))
    ///     .route_layer(option_layer(offload.then(|| PoolLayer::<Cpu>::new(&pools).same_body())));
    /// ```
    ///
    /// # Panics
    ///
    /// If the layer has a policy for [bodies](Self::body), at the line of the caller.
    #[must_use]
    #[track_caller]
    pub fn same_body(self) -> PoolLayer<W, SameBody, P, B> {
        self.reject_by(SameBody).keep_responses()
    }

    /// Answers rejections with an [`OnReject`](crate::reject::OnReject) of your own.
    #[must_use]
    pub fn reject_by<S>(self, reject: S) -> PoolLayer<W, S, P, B> {
        let Self { selector, protocol, body, options, .. } = self;
        PoolLayer { selector, reject, protocol, body, options: Options { keeps_responses: false, ..options } }
    }

    #[track_caller]
    fn keep_responses(mut self) -> Self {
        self.options.keeps_responses = true;
        self.checked()
    }

    /// Panics if the layer has a policy for bodies that cannot have an effect.
    #[track_caller]
    fn checked(self) -> Self {
        assert!(
            !self.options.keeps_responses || !self.options.has_policy(),
            "`body` has no effect on a layer with `errors`, `any_request` or `same_body`, because its responses keep their \
             type; leave out one of the two"
        );
        self
    }

    /// Reads requests with a [`Protocol`](crate::reject::Protocol) of your own.
    #[must_use]
    pub fn protocol<Q>(self, protocol: Q) -> PoolLayer<W, R, Q, B> {
        let Self { selector, reject, body, options, .. } = self;
        PoolLayer { selector, reject, protocol, body, options }
    }

    /// Reads the body of each request before the request takes a place in the pool.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use axum::{Router, routing::post};
    /// use tower_offload::{Cpu, PoolLayer, Pools, body::ReadBody};
    ///
    /// let read_body = ReadBody::new(1 << 20).within(Duration::from_secs(10));
    /// let layer = PoolLayer::<Cpu>::new(&Pools::default()).read_body(read_body);
    /// let app: Router = Router::new().route("/digest", post(async |body: String| body).route_layer(layer));
    /// ```
    ///
    /// A request that the pool would reject now is rejected unread, so that nobody uploads in vain. Only a body of up to
    /// 64 KiB that arrived together with the head is read in any case, and keeps its connection. Otherwise the body
    /// is read on the connection's task, where a slow client delays nobody, and then the request is submitted: its
    /// handler finds the whole body. A [`Deadline`](crate::Deadline) that passes meanwhile is answered with a status of
    /// 504. All bodies that are read or queued have their place in one budget of the pools, `performance.body_budget`.
    ///
    /// The inner service gets a `Request<Buffered<B>>`: [`Buffered`](crate::body::Buffered). axum and tonic take any
    /// type of body. See [request bodies](crate::docs::bodies#request-bodies) for services that do not, and for requests whose
    /// bodies must not be read first.
    ///
    /// The body of a request that runs inline is not read.
    #[must_use]
    pub fn read_body(self, read_body: ReadBody) -> PoolLayer<W, R, P, ReadBody> {
        let Self { selector, reject, protocol, options, .. } = self;
        PoolLayer { selector, reject, protocol, body: read_body, options }
    }

    /// Continues a handler's panic in the response future, for example for a `CatchPanicLayer` around this layer.
    #[must_use]
    pub fn resume_panics(mut self) -> Self {
        self.options.resume_panics = true;
        self
    }

    /// Cancels a handler that is in flight when its request's [`Deadline`](crate::Deadline) passes.
    ///
    /// The caller gets a status of 504 at that moment. An async handler is dropped at its next await; a handler that
    /// blocks runs to its end, and its result is dropped. With [`detach`](Self::detach), the caller gets the same status,
    /// and a handler that has begun runs to its end.
    ///
    /// Without this, a deadline only keeps late requests from starting.
    #[must_use]
    pub fn cancel_late(mut self) -> Self {
        self.options.cancel_late = true;
        self
    }

    /// Sets how the bodies of responses are treated, in place of the `body` section of the pool's settings: where they
    /// are polled, whether they hold the permit, and what becomes of a client that stops to read.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_http::compression::CompressionLayer;
    /// use tower_offload::{Cpu, PoolLayer, Pools, body::BodyPolicy};
    ///
    /// // Bodies are compressed by the workers of `cpu`, because the compression is inside of the pool's layer. In the
    /// // settings of a pool that compresses, `nice: 5` keeps the server's own threads quick.
    /// let pools = Pools::default();
    /// let app: Router = Router::new()
    ///     .route("/export", get(|| async { "a,b,c\n".repeat(100_000) }))
    ///     .layer(CompressionLayer::new())
    ///     .layer(PoolLayer::<Cpu>::new(&pools).body(BodyPolicy::in_pool()));
    /// # let _ = app;
    /// ```
    ///
    /// # Panics
    ///
    /// At the line of the caller: if a value of the policy makes no sense, such as a `stall_timeout` of 0; and with
    /// [`errors`](Self::errors), [`any_request`](Self::any_request) or [`same_body`](Self::same_body), because their
    /// responses keep their type, so bodies are polled on the connection and hold no permit.
    #[must_use]
    #[track_caller]
    pub fn body(mut self, policy: BodyPolicy) -> Self {
        let mut mistakes = Vec::new();
        policy.check(&mut |name, checked| mistakes.extend(checked.err().map(|error| format!("{name}: {error}"))));
        assert!(mistakes.is_empty(), "{}", mistakes.join("; "));
        self.options.body = Some(Arc::new(policy));
        self.checked()
    }

    /// Tells clients how long a request was queued and how long it ran, in milliseconds:
    /// `server-timing: queue;dur=12.300, run;dur=45.100`. The developer tools of browsers show it.
    ///
    /// The run is that of the handler up to its response's head. Rejections and inline requests have no such header. It
    /// is off by default, because it shows strangers how loaded the server is.
    #[must_use]
    pub fn server_timing(mut self) -> Self {
        self.options.server_timing = true;
        self
    }

    /// Opens the spans `pool.queue` and `pool.run` within the span of the request, with the pool's name in the field
    /// `pool`: traces show how long a request waited for its pool, and how long its handler ran.
    ///
    /// `pool.queue` ends when the handler begins, or when the request is rejected. `pool.run` is the handler's own span,
    /// up to its response's head. Both have the level `INFO` and the target `tower_offload`.
    #[must_use]
    pub fn spans(mut self) -> Self {
        self.options.spans = true;
        self
    }

    /// Runs a handler to its end although its client has left, for example to make a payment whose response nobody
    /// reads. A queued handler keeps its position, but does not start after its deadline.
    ///
    /// Without this, a queued request leaves the queue when its client leaves, and an async handler is dropped at its
    /// next await.
    #[must_use]
    pub fn detach(mut self) -> Self {
        self.options.detach = true;
        self
    }
}

impl<S, W: Clone, R: Clone, P: Clone, B: Clone> Layer<S> for PoolLayer<W, R, P, B> {
    type Service = PoolService<S, W, R, P, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let selector = Arc::new(self.selector.clone());
        let (reject, protocol, body) = (self.reject.clone(), self.protocol.clone(), self.body.clone());
        PoolService::new(inner, selector, reject, protocol, body, self.options.clone())
    }
}
