//! What a request asks of its pool, beside an answer: by when, how urgently, and on whose behalf.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The moment after which a request's answer is of no use to its caller.
///
/// Put one on a request's extensions, in middleware before the [`PoolLayer`](crate::PoolLayer): a request that is still
/// queued then is answered with a status of 504, and never starts. The handler finds the same extension, to see the time
/// that is left.
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
///     .layer(PoolLayer::<Cpu>::new(&Pools::default()))
///     .layer(map_request(set_deadline));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

/// How important a request is beside the others of its pool, from most to least. There are these four.
///
/// Put one on a request's extensions, or choose it with [`PoolLayer::priority_by`](crate::PoolLayer::priority_by).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// What the service cannot do without.
    Critical,
    /// Ahead of the ordinary.
    High,
    /// The ordinary.
    #[default]
    Normal,
    /// What can wait: slow while others are busy, never starved.
    Low,
}

/// Everything a request asks of its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// By when.
    pub deadline: Option<Deadline>,
    /// How urgently.
    pub priority: Priority,
    /// On whose behalf: a hash of the caller, where callers are served fairly beside each other.
    pub caller: Option<u64>,
}

/// A text that is no [`Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPriority(());

// === impl Deadline ===

impl Deadline {
    /// The deadline at this moment.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The deadline so long from now; a time too long to be counted is cut to a year.
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
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The priority as a word of lower case.
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

    /// Reads the word, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownPriority> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownPriority(()))
    }
}

// === impl UnknownPriority ===

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a priority is one of `critical`, `high`, `normal`, `low`")
    }
}

impl std::error::Error for UnknownPriority {}
