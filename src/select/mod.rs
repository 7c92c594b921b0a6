//! Which pool a request runs in: by the type of the layer, by route, by extension, by closure, or one after the other.
//!
//! Names of pools are resolved when the layer is made, wherever they are known by then.

mod choice;
mod extension;
mod function;
mod marker;
mod or;
mod route;
mod target;
mod terms;

use crate::pools::Pools;
use crate::terms::Priority;

pub use self::extension::ByExtension;
pub use self::function::ByFn;
pub use self::or::Or;
pub use self::route::ByRoute;
pub use self::target::Target;
pub use self::terms::{FairBy, PriorityBy};

pub(crate) use self::choice::Choice;

/// Answers which pool a request runs in.
///
/// The markers ([`Cpu`](crate::Cpu) and its like), [`ByRoute`], [`ByExtension`] and [`ByFn`] are the selectors at hand.
/// Write your own where the choice needs what a closure cannot hold comfortably:
///
/// ```
/// use http::Request;
/// use tower_offload::{Pools, PoolLayer, Select, Target};
///
/// /// Large uploads get a pool of their own.
/// struct BySize { large: Target, threshold: u64 }
///
/// impl<B: http_body::Body> Select<Request<B>> for BySize {
///     fn select(&self, request: &Request<B>, _own: &Target) -> Target {
///         match request.body().size_hint().lower() >= self.threshold {
///             true => self.large.clone(),
///             false => Target::Inline,
///         }
///     }
/// }
///
/// let pools = Pools::default();
/// let layer = PoolLayer::with(BySize { large: pools.target("io"), threshold: 1 << 20 });
/// # let _ = layer;
/// ```
pub trait Select<Req> {
    /// Where `request` runs. `own` is the pool that the layer was made for, if it was made for one.
    fn select(&self, request: &Req, own: &Target) -> Target;

    /// How important `request` is; `None` leaves that to the header that the pool trusts, or to its
    /// [`Priority`] extension.
    fn priority(&self, request: &Req) -> Option<Priority> {
        let _ = request;
        None
    }

    /// A hash of whoever sent `request`, where callers are to be served fairly beside each other.
    fn caller(&self, request: &Req) -> Option<u64> {
        let _ = request;
        None
    }
}

impl Pools {
    /// Where requests for the pool of this name run, to be resolved once and cloned for each request.
    #[must_use]
    pub fn target(&self, name: impl crate::PoolName) -> Target {
        Target::resolve(self, name)
    }
}
