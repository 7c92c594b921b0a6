//! The terms of a request: its deadline, its priority, and its caller for fair queueing.
//!
//! Middleware before the [`PoolLayer`](crate::PoolLayer) puts a [`Deadline`], a [`Priority`] or a [`Caller`] on a
//! request's extensions:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::{Router, extract::Request, middleware::map_request, routing::get};
//! use tower_offload::{Caller, Cpu, Deadline, PoolLayer, Pools, Priority};
//!
//! async fn terms(mut request: Request) -> Request {
//!     // Set by authentication before this: any client can write a header.
//!     let tenant = request.headers().get("x-tenant").map(Caller::of);
//!     let extensions = request.extensions_mut();
//!     extensions.insert(Deadline::after(Duration::from_secs(5)));
//!     extensions.insert(Priority::High);
//!     if let Some(tenant) = tenant {
//!         extensions.insert(tenant);
//!     }
//!     request
//! }
//!
//! let app: Router = Router::new()
//!     .route("/search", get(|| async { "found" }))
//!     .route_layer(PoolLayer::<Cpu>::new(&Pools::default()))
//!     .layer(map_request(terms));
//! ```

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The moment after which a request's answer is of no use to its caller.
///
/// A request that is still queued at its deadline is answered with a status of 504 and never starts. The handler finds
/// the deadline among the request's extensions and can see the time that is left.
///
/// A deadline is an instant of the system's monotonic clock. `tokio::time::pause` and `advance` do not move it.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Extension, Router, extract::Request, middleware::map_request, routing::get};
/// use tower_offload::{Cpu, Deadline, PoolLayer, Pools};
///
/// async fn search(Extension(deadline): Extension<Deadline>) -> String {
///     format!("{} ms are left", deadline.remaining().as_millis())
/// }
///
/// async fn set_deadline(mut request: Request) -> Request {
///     request.extensions_mut().insert(Deadline::after(Duration::from_secs(5)));
///     request
/// }
///
/// let app: Router = Router::new()
///     .route("/search", get(search))
///     .route_layer(PoolLayer::<Cpu>::new(&Pools::default()))
///     .layer(map_request(set_deadline));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

/// How important a request is among the requests of its pool, from most to least important.
///
/// Put one on a request's extensions, or choose it with [`PoolLayer::priority_by`](crate::PoolLayer::priority_by).
///
/// ```
/// use tower_offload::Priority;
///
/// assert_eq!("High".parse(), Ok(Priority::High));
/// assert!(Priority::Critical < Priority::Low, "the most important is the first");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Priority {
    /// Requests that the service cannot do without.
    Critical,
    /// Requests that start before ordinary ones.
    High,
    /// Ordinary requests.
    #[default]
    Normal,
    /// Requests that can wait. They are slow while the pool is overloaded, and never starve.
    Low,
}

/// The key of a caller for fair queueing: a tenant, a user, an address.
///
/// Put one on a request's extensions, or find it with [`PoolLayer::fair_by`](crate::PoolLayer::fair_by). It is a 64-bit
/// hash of the key: equal keys give equal callers within a process, and two keys that collide count as one caller. The
/// hash differs from process to process, so nobody can choose keys that collide.
///
/// ```
/// use tower_offload::Caller;
///
/// assert_eq!(Caller::of("tenant-7"), Caller::of(&String::from("tenant-7")));
/// assert_ne!(Caller::of("tenant-7"), Caller::of("tenant-8"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller(u64);

/// Everything that a request asks of its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// The moment after which the answer is of no use.
    pub deadline: Option<Deadline>,
    /// How important the request is. [`Priority::Normal`] counts as not set: a request that a task of a pool makes then
    /// has the priority of that task.
    pub priority: Priority,
    /// The caller for fair queueing.
    pub caller: Option<Caller>,
}

/// The error of a text that is not the name of a [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPriority(());

// === impl Deadline ===

impl Deadline {
    /// The deadline at this moment. A moment in the past is a deadline that has passed.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The deadline after this time from now. A time of more than a year is shortened to a year.
    #[must_use]
    pub fn after(span: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        Self(Instant::now() + span.min(YEAR))
    }

    /// The moment itself.
    #[must_use]
    pub const fn moment(self) -> Instant {
        self.0
    }

    /// The time that is left; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

// === impl Priority ===

impl Priority {
    /// Every priority, from most to least important.
    pub const ALL: &'static [Self] = &[Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The priority as a word in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = UnknownPriority;

    /// Parses the word, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        Self::ALL
            .iter()
            .copied()
            .find(|priority| priority.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownPriority(()))
    }
}

// === impl Caller ===

impl Caller {
    /// The caller of this key.
    #[must_use]
    pub fn of<K: Hash + ?Sized>(key: &K) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(HASHER.hash_one(key))
    }

    pub(crate) const fn id(self) -> u64 {
        self.0
    }
}

// === impl UnknownPriority ===

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a priority is one of `critical`, `high`, `normal`, `low`")
    }
}

impl std::error::Error for UnknownPriority {}
