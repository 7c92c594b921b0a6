//! The names of pools, and markers that name a pool at compile time.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of a workload pool.
///
/// Cheap to clone. Put one on a request's extensions to choose its pool with
/// [`PoolLayer::by_extension`](crate::PoolLayer::by_extension), or return one from the closure of
/// [`PoolLayer::by`](crate::PoolLayer::by).
///
/// ```
/// use tower_offload::{Cpu, Workload};
///
/// assert_eq!(Workload::of(Cpu), Workload::CPU);
/// assert_eq!(Workload::from("thumbnails").as_str(), "thumbnails");
/// assert_eq!(Workload::CPU, "cpu");
/// ```
#[derive(Clone)]
pub struct Workload(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Workload {
    /// `io`: files, sockets, and other work that waits.
    pub const IO: Self = Self::from_static("io");
    /// `cpu`: work that computes.
    pub const CPU: Self = Self::from_static("cpu");
    /// `inference`: model inference.
    pub const INFERENCE: Self = Self::from_static("inference");
    /// `embedding`: embedding models.
    pub const EMBEDDING: Self = Self::from_static("embedding");
    /// `db`: database queries.
    pub const DB: Self = Self::from_static("db");

    /// A name that is known at compile time.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        Self(Repr::Static(name))
    }

    /// The name that a marker stands for.
    #[must_use]
    pub fn of<M: Marker>(_marker: M) -> Self {
        Self::from_static(M::POOL)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(name) => name,
            Repr::Shared(name) => name,
        }
    }
}

/// A type that names a pool, for [`PoolLayer::new`](crate::PoolLayer::new).
///
/// ```
/// use tower_offload::{Marker, PoolConfig, PoolLayer, Pools};
///
/// struct Thumbnails;
///
/// impl Marker for Thumbnails {
///     const POOL: &'static str = "thumbnails";
/// }
///
/// # fn main() -> Result<(), tower_offload::pools::BuildError> {
/// let pools = Pools::builder().pool(Thumbnails, PoolConfig::new(4)).build()?;
/// let layer = PoolLayer::<Thumbnails>::new(&pools);
/// # Ok(())
/// # }
/// ```
pub trait Marker {
    /// The name of the pool.
    const POOL: &'static str;
}

macro_rules! markers {
    ($($(#[$doc:meta])* $marker:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $marker;

        impl Marker for $marker {
            const POOL: &'static str = $name;
        }
    )*};
}

markers! {
    /// Marks the `io` pool: files, sockets, and other work that mostly waits.
    Io = "io";
    /// Marks the `cpu` pool: work that computes.
    Cpu = "cpu";
    /// Marks the `inference` pool: model inference.
    Inference = "inference";
    /// Marks the `embedding` pool: embedding models.
    Embedding = "embedding";
    /// Marks the `db` pool: database queries.
    Db = "db";
}

/// Names a pool: a string, a [`Workload`], or a [`Marker`].
pub trait PoolName {
    /// The name.
    fn pool_name(&self) -> &str;

    /// The name as an owned value.
    fn to_workload(&self) -> Workload {
        Workload::from(self.pool_name())
    }
}

macro_rules! names {
    ($($name:ty),*) => {$(
        impl PoolName for $name {
            fn pool_name(&self) -> &str {
                self.as_ref()
            }
        }
    )*};
}

// A blanket implementation for `&N` would overlap with the one for markers.
names!(&str, String, &String);

impl PoolName for Workload {
    fn pool_name(&self) -> &str {
        self.as_str()
    }

    fn to_workload(&self) -> Workload {
        self.clone()
    }
}

impl PoolName for &Workload {
    fn pool_name(&self) -> &str {
        self.as_str()
    }

    fn to_workload(&self) -> Workload {
        (*self).clone()
    }
}

impl<M: Marker> PoolName for M {
    fn pool_name(&self) -> &str {
        M::POOL
    }

    fn to_workload(&self) -> Workload {
        Workload::from_static(M::POOL)
    }
}

// === impl Workload ===

impl From<&str> for Workload {
    fn from(name: &str) -> Self {
        Self(Repr::Shared(name.into()))
    }
}

impl From<String> for Workload {
    fn from(name: String) -> Self {
        Self(Repr::Shared(name.into()))
    }
}

impl AsRef<str> for Workload {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Workload {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Workload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Workload {}

impl PartialEq<str> for Workload {
    fn eq(&self, name: &str) -> bool {
        self.as_str() == name
    }
}

impl PartialEq<&str> for Workload {
    fn eq(&self, name: &&str) -> bool {
        self.as_str() == *name
    }
}

impl PartialOrd for Workload {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Workload {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl std::hash::Hash for Workload {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
