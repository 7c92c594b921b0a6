//! Selectors: they choose the pool of a request, its priority and its caller.
//!
//! [`PoolLayer`](crate::PoolLayer) makes the selectors of this module: one pool for every request ([`Fixed`]), the
//! routes of the settings ([`ByRoute`]), a request's extension ([`ByExtension`]), a closure ([`ByFn`]), or the less
//! loaded of several pools ([`LeastLoaded`]). [`PoolLayer::or`](crate::PoolLayer::or) combines two of them. Names of
//! pools that are known when the layer is made are resolved then, and not for each request.
//!
//! # Writing a selector
//!
//! Implement [`Select`] if a closure is not enough, for example because the selector holds resolved pools:
//!
//! ```
//! use http::Request;
//! use tower_offload::select::{Select, Selection, Target};
//! use tower_offload::{PoolLayer, Pools, Priority};
//!
//! /// Large uploads run in a pool, with low priority.
//! #[derive(Clone)]
//! struct BySize { large: Target, threshold: u64 }
//!
//! impl<B: http_body::Body> Select<Request<B>> for BySize {
//!     fn select(&self, request: &Request<B>) -> Selection {
//!         if request.body().size_hint().lower() < self.threshold {
//!             return Selection::inline();
//!         }
//!         Selection::new(self.large.clone()).priority(Priority::Low)
//!     }
//! }
//!
//! let pools = Pools::default();
//! let layer = PoolLayer::with(BySize { large: pools.target("io")?, threshold: 1 << 20 });
//! # let _ = layer;
//! # Ok::<(), tower_offload::error::UnknownPool>(())
//! ```

mod extension;
mod fair;
mod fixed;
mod function;
mod least_loaded;
mod or;
mod priority;
mod route;
mod selection;
mod target;

use std::sync::Arc;

use crate::error::UnknownPool;
use crate::pools::Pools;
use crate::workload::PoolName;

pub use self::extension::ByExtension;
pub use self::fair::FairBy;
pub use self::fixed::Fixed;
pub use self::function::ByFn;
pub use self::least_loaded::LeastLoaded;
pub use self::or::Or;
pub use self::priority::PriorityBy;
pub use self::route::ByRoute;
pub use self::selection::Selection;
pub use self::target::Target;

pub(crate) use self::or::Branch;
pub(crate) use self::selection::Options;

/// Chooses where a request runs.
///
/// The [module's documentation](self) has an example. [`PoolLayer::with`](crate::PoolLayer::with) takes a selector that
/// is [`Clone`]; put yours into an [`Arc`] if it is not.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not select a pool for requests of type `{Req}`",
    note = "a closure given to `by`, `priority_by` or `fair_by` takes a reference to the request type of the service, \
            `&http::Request<B>` with the service's own body type `B`",
    note = "`by_route` and `by_extension` select for `http::Request<B>` alone",
    note = "the layer of a marker such as `Cpu` is a `PoolLayer<Fixed>`"
)]
pub trait Select<Req>: Send + Sync + 'static {
    /// Chooses the target, the priority and the caller of `request`.
    fn select(&self, request: &Req) -> Selection;
}

impl<W: Select<Req> + ?Sized, Req> Select<Req> for Arc<W> {
    fn select(&self, request: &Req) -> Selection {
        (**self).select(request)
    }
}

impl Pools {
    /// The target for requests to the pool of this name: resolve it once, and clone it for each request.
    ///
    /// It is [`Target::Inline`] if the pools are [disabled](Self::disabled).
    ///
    /// # Errors
    ///
    /// If there is no such pool: the error lists the pools that exist.
    pub fn target(&self, name: impl PoolName) -> Result<Target, UnknownPool> {
        Ok(self.choose(name)?.map_or(Target::Inline, Target::Pool))
    }
}
