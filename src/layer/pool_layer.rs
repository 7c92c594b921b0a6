//! `PoolLayer`: wraps a service so that its requests run in pools.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tower_layer::Layer;

use super::options::Options;
use super::service::PoolService;
use crate::error::UnknownPool;
use crate::pools::Pools;
use crate::reject::{Errors, RejectWith, Responses, SameBody};
use crate::select::{ByExtension, ByFn, ByRoute, Choice, FairBy, Or, PriorityBy, Target};
use crate::terms::Priority;
use crate::workload::{Marker, PoolName};

/// Wraps any Tower service so that each request's handler runs in the workload pool that `W` selects.
///
/// `W` is a marker such as [`Cpu`](crate::Cpu) for one pool, or one of the selectors that the other constructors make.
/// `R` answers the requests that a pool rejects. The layer is cheap to clone, and all clones share the same pools and so
/// the same limits, also where axum applies it once for each route.
///
/// # What runs where
///
/// `call` of the wrapped service and every poll of its future run on the pool's workers, with the Tokio runtime, the
/// `tracing` span and the dispatcher of the thread that polled the response future first. `poll_ready`, the response
/// future and the response body stay with the connection. What a handler spawns itself (`tokio::spawn`, a WebSocket's
/// `on_upgrade`) runs where it always did, and Tokio's task-locals do not reach the handler: put what it needs on the
/// request's extensions.
///
/// # Slow clients
///
/// A handler's extractors run in the pool too. One that reads the body (`String`, `Json`, `Bytes`) waits there for the
/// client to send it, and keeps its place in flight: as many clients as the limit, each of which sends half a body, stop
/// the pool. Read the body in middleware around this layer, bounded in size and time, as `read_first` of the example
/// server does; a `TimeoutLayer` around this one bounds it too. How fast a client reads the response is no matter: the
/// response's body is not the pool's.
///
/// # Without a pool
///
/// A request that no pool is chosen for runs where it stands, as if the layer were not there; so does one whose pool the
/// handler around it already runs in. Such a request takes no place in a pool: nothing refuses or cancels it, its
/// [`Deadline`](crate::Deadline) is for its handler to see and no more, and its panic goes on in the response future.
///
/// # When a client leaves
///
/// If the response future is dropped, a request that is queued leaves the queue at once and its handler never runs. An
/// async handler in flight is dropped at its next await. Code that blocks or computes goes on to its end, and counts
/// against the limit until then.
///
/// # Panics
///
/// A handler's panic is answered with a status of 500, or goes on in the response future after
/// [`resume_panics`](Self::resume_panics). The worker survives it.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use tower_offload::{Cpu, PoolLayer, Pools};
///
/// async fn hash(body: String) -> String {
///     // Burns CPU for a while; nobody else waits for it.
///     body.bytes().fold(5381_u64, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte)).to_string()
/// }
///
/// let pools = Pools::default();
/// let app: Router = Router::new()
///     .route("/hash", post(hash).layer(PoolLayer::<Cpu>::new(&pools)))
///     .route("/health", get(|| async { "ok" }));
/// ```
pub struct PoolLayer<W, R = Responses> {
    choice: Arc<Choice<W>>,
    reject: R,
    options: Options,
}

impl<M: Marker> PoolLayer<M> {
    /// A layer for the pool that the marker `M` names.
    ///
    /// If there is no such pool, that is logged as an error here, and every request is answered with a status of 500:
    /// [`try_new`](Self::try_new) tells it at the start.
    #[must_use]
    pub fn new(pools: &Pools) -> Self {
        Self::try_new(pools).unwrap_or_else(|unknown| {
            tracing::error!(target: "tower_offload", "a layer has no pool to run its requests in: {unknown}");
            Self::for_marker(pools)
        })
    }

    /// A layer for the pool that the marker `M` names.
    ///
    /// # Errors
    ///
    /// If there is no such pool: the error lists those there are.
    pub fn try_new(pools: &Pools) -> Result<Self, UnknownPool> {
        if !pools.is_disabled() {
            pools.get(M::POOL)?;
        }
        Ok(Self::for_marker(pools))
    }

    fn for_marker(pools: &Pools) -> Self {
        Self::make(M::default(), Target::resolve(pools, M::POOL))
    }
}

impl PoolLayer<ByRoute> {
    /// A layer that selects by the `routes` of the settings. It sees whole paths only on the outermost router: inside
    /// axum's `nest`, the prefix is gone.
    ///
    /// If the settings have no route, that is logged as a warning here: every request runs where it arrives.
    #[must_use]
    pub fn by_route(pools: &Pools) -> Self {
        if pools.routes().is_empty() && !pools.is_disabled() {
            tracing::warn!(
                target: "tower_offload",
                "a layer selects by route, and the settings have no `performance.routes`: it offloads nothing"
            );
        }
        Self::make(ByRoute::new(pools), Target::Inline)
    }
}

impl PoolLayer<ByExtension> {
    /// A layer that selects by the [`Workload`](crate::Workload) that earlier middleware put on the request.
    ///
    /// ```
    /// use axum::{Router, extract::Request, middleware::Next, routing::post};
    /// use tower_offload::{PoolLayer, Pools, Workload};
    ///
    /// let pools = Pools::default();
    /// let app: Router = Router::new()
    ///     .route("/reports", post(|| async { "done" }))
    ///     .layer(PoolLayer::by_extension(&pools))
    ///     .layer(axum::middleware::from_fn(|mut request: Request, next: Next| async {
    ///         if request.headers().contains_key("x-batch") {
    ///             request.extensions_mut().insert(Workload::CPU);
    ///         }
    ///         next.run(request).await
    ///     }));
    /// ```
    #[must_use]
    pub fn by_extension(pools: &Pools) -> Self {
        Self::make(ByExtension::new(pools.clone()), Target::Inline)
    }
}

impl<F> PoolLayer<ByFn<F>> {
    /// A layer that selects by a function of the request; `None` runs it inline.
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
        F: Fn(&Req) -> Option<N>,
        N: PoolName,
    {
        Self::make(ByFn::new(pools.clone(), function), Target::Inline)
    }
}

impl<W> PoolLayer<W> {
    /// A layer with a selector of your own; see [`Select`](crate::Select).
    #[must_use]
    pub fn with(selector: W) -> Self {
        Self::make(selector, Target::Inline)
    }

    fn make(selector: W, own: Target) -> Self {
        Self { choice: Arc::new(Choice { selector, own }), reject: Responses, options: Options::default() }
    }
}

impl<W, R> PoolLayer<W, R> {
    /// Asks `other` for the requests that this layer would run inline. How rejections are answered stays as it is here.
    ///
    /// ```
    /// use tower_offload::{Io, PoolLayer, Pools};
    ///
    /// let pools = Pools::default();
    /// let layer = PoolLayer::by_extension(&pools).or(PoolLayer::by_route(&pools)).or(PoolLayer::<Io>::new(&pools));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn or<V, S>(self, other: PoolLayer<V, S>) -> PoolLayer<Or<W, V>, R> {
        self.select_with(|choice| Or::new(choice, other.choice))
    }

    /// Gives each request the priority that `function` answers; `None` leaves it to the header that the pool trusts, else
    /// to a [`Priority`] among the request's extensions, and else to [`Priority::Normal`]. A full pool makes room for what
    /// is more important.
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
    pub fn priority_by<Req, F>(self, function: F) -> PoolLayer<PriorityBy<W, F>, R>
    where
        F: Fn(&Req) -> Option<Priority>,
    {
        self.select_with(|choice| PriorityBy::new(choice, function))
    }

    /// Serves callers fairly beside each other: however many requests one of them has queued, the others' do not wait
    /// behind them: each caller has a hand of eight out of 64 virtual queues, which are served in turn. `function` takes
    /// the caller from the request; requests for which it answers `None` share a place.
    ///
    /// ```
    /// use axum::extract::Request;
    /// use tower_offload::{Db, PoolLayer, Pools};
    ///
    /// let layer = PoolLayer::<Db>::new(&Pools::default())
    ///     .fair_by(|request: &Request| request.headers().get("x-tenant").cloned());
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn fair_by<Req, F, K>(self, function: F) -> PoolLayer<FairBy<W, F>, R>
    where
        F: Fn(&Req) -> Option<K>,
        K: Hash,
    {
        self.select_with(|choice| FairBy::new(choice, function))
    }

    fn select_with<V>(self, wrap: impl FnOnce(Arc<Choice<W>>) -> V) -> PoolLayer<V, R> {
        let choice = Choice { selector: wrap(self.choice), own: Target::Inline };
        PoolLayer { choice: Arc::new(choice), reject: self.reject, options: self.options }
    }

    /// Answers rejections with what `function` makes of them: a response of the service's own type.
    ///
    /// ```
    /// use axum::response::{IntoResponse, Response};
    /// use tower_offload::{Cpu, PoolLayer, Pools, Rejection};
    ///
    /// let pools = Pools::default();
    /// let layer = PoolLayer::<Cpu>::new(&pools)
    ///     .reject_with(|rejection: Rejection| -> Response { (rejection.status(), "come back later").into_response() });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn reject_with<F>(self, function: F) -> PoolLayer<W, RejectWith<F>> {
        self.reject_by(RejectWith::new(function))
    }

    /// Gives rejections as errors: for services that do not speak HTTP.
    ///
    /// It knows nothing of HTTP: the headers that a pool trusts and a `Deadline` or `Priority` among the extensions have no
    /// effect, and so [`cancel_late`](Self::cancel_late) has none; a response counts as `ok` whatever its status; and
    /// tasks are logged by the request's type. For HTTP use [`reject_with`](Self::reject_with), or a
    /// [`Reject`](crate::Reject) of your own, whose error axum's `HandleErrorLayer` can take.
    ///
    /// ```
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_offload::{Cpu, OffloadError, PoolLayer, Pools};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), OffloadError<std::num::ParseIntError>> {
    /// let pools = Pools::default();
    /// let service = ServiceBuilder::new()
    ///     .layer(PoolLayer::<Cpu>::new(&pools).errors())
    ///     .service(service_fn(|text: &'static str| async move { text.parse::<i32>() }));
    /// assert_eq!(service.clone().oneshot("12").await?, 12);
    /// assert!(matches!(service.oneshot("twelve").await, Err(OffloadError::Inner(_))));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn errors(self) -> PoolLayer<W, Errors> {
        self.reject_by(Errors)
    }

    /// Answers rejections as by default, in the body type of the service, which is then one that can be made from bytes:
    /// `axum::body::Body`, `http_body_util::Full<Bytes>`. So the response keeps its type, as tower's `option_layer` asks.
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
    ///     .layer(option_layer(offload.then(|| PoolLayer::<Cpu>::new(&pools).same_body())));
    /// ```
    #[must_use]
    pub fn same_body(self) -> PoolLayer<W, SameBody> {
        self.reject_by(SameBody)
    }

    /// Answers rejections in a way of your own; see [`Reject`](crate::Reject).
    #[must_use]
    pub fn reject_by<S>(self, reject: S) -> PoolLayer<W, S> {
        PoolLayer { choice: self.choice, reject, options: self.options }
    }

    /// Lets a handler's panic go on in the response future, for example to a `CatchPanicLayer` around this one.
    #[must_use]
    pub fn resume_panics(mut self) -> Self {
        self.options.resume_panics = true;
        self
    }

    /// Cancels a handler that is in flight when its request's [`Deadline`](crate::Deadline) passes: the caller gets a
    /// status of 504 then, an async handler is dropped at its next await, and one that blocks goes on unheard.
    ///
    /// Without this, a deadline keeps late requests from starting, and leaves those alone that have started.
    #[must_use]
    pub fn cancel_late(mut self) -> Self {
        self.options.cancel_late = true;
        self
    }
}

impl<S, W, R: Clone> Layer<S> for PoolLayer<W, R> {
    type Service = PoolService<S, W, R>;

    fn layer(&self, inner: S) -> Self::Service {
        PoolService::new(inner, self.choice.clone(), self.reject.clone(), self.options)
    }
}

impl<W, R: Clone> Clone for PoolLayer<W, R> {
    fn clone(&self) -> Self {
        Self { choice: self.choice.clone(), reject: self.reject.clone(), options: self.options }
    }
}

impl<W: fmt::Debug, R: fmt::Debug> fmt::Debug for PoolLayer<W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLayer")
            .field("selector", &self.choice.selector)
            .field("own", &self.choice.own)
            .field("reject", &self.reject)
            .field("options", &self.options)
            .finish()
    }
}
