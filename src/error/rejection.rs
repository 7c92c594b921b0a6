//! `Rejection`: a task that a pool rejected or could not finish, and the reason.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::workload::Workload;

/// Why a pool gave no result for a task.
///
/// [`Rejection::started`] says whether the task had started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The queue was at its capacity.
    QueueFull,
    /// The task waited in the queue for the whole queue timeout.
    QueueTimeout,
    /// The pool is overloaded and shed this task, or its queue was full and a more important task took the place.
    Shed,
    /// The task's own deadline passed.
    DeadlineExceeded,
    /// The pool is draining: it finishes the accepted tasks and rejects new ones.
    Draining,
    /// As many streams are open as the pool may have.
    StreamsFull,
    /// The pool has no worker and none could be started.
    NoWorkers,
    /// No pool has this name.
    UnknownPool,
    /// A header that the pool trusts cannot be read, and the pool rejects such requests.
    BadHeader,
    /// The request's body is larger than the limit.
    BodyTooLarge,
    /// The request's body did not arrive in time, or not fast enough.
    BodyTimeout,
    /// The bodies of other requests take up the memory for bodies.
    BodyBudget,
    /// The request's body could not be read to its end.
    BodyError,
    /// The task panicked.
    Panicked,
    /// The task started, and was dropped before it ended.
    CutOff,
}

/// A task that a pool rejected or could not finish: the pool, the reason, and the time after which to try again.
///
/// A [`PoolLayer`](crate::PoolLayer) turns it into an HTTP or gRPC response. With the feature `axum` it is an axum
/// response, and with the feature `tonic` a `tonic::Status`, so that handlers use `?`.
#[derive(Clone, Debug)]
pub struct Rejection {
    pool: Workload,
    reason: Reason,
    retry_after: Option<Duration>,
    started: bool,
    /// Replaces the reason's sentence in `Display`.
    detail: Option<Box<str>>,
}

// === impl Reason ===

impl Reason {
    /// The reason as a word in lower case with underscores: the `reason` of a response.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Shed => "shed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Draining => "draining",
            Self::StreamsFull => "streams_full",
            Self::NoWorkers => "no_workers",
            Self::UnknownPool => "unknown_pool",
            Self::BadHeader => "bad_header",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBudget => "body_budget",
            Self::BodyError => "body_error",
            Self::Panicked => "panicked",
            Self::CutOff => "cut_off",
        }
    }

    const fn started(self) -> bool {
        matches!(self, Self::Panicked | Self::CutOff)
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::QueueFull => "its queue is full",
            Self::QueueTimeout => "the task waited longer than the queue timeout",
            Self::Shed => "it is overloaded",
            Self::DeadlineExceeded => "the task's deadline has passed",
            Self::Draining => "it is shutting down",
            Self::StreamsFull => "it has as many open streams as it may have",
            Self::NoWorkers => "it has no worker and none could be started",
            Self::UnknownPool => "there is no such pool",
            Self::BadHeader => "a header cannot be read",
            Self::BodyTooLarge => "the request's body is too large",
            Self::BodyTimeout => "the request's body took too long to arrive",
            Self::BodyBudget => "the bodies of other requests take up the memory for bodies",
            Self::BodyError => "the request's body could not be read to its end",
            Self::Panicked => "the task panicked",
            Self::CutOff => "the task was cut off",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

// === impl Rejection ===

impl Rejection {
    /// A rejection like those that pools make, for tests of an [`OnReject`](crate::reject::OnReject).
    /// [`started`](Self::started) follows from the reason.
    #[must_use]
    pub const fn new(pool: Workload, reason: Reason, retry_after: Option<Duration>) -> Self {
        Self { pool, reason, retry_after, started: reason.started(), detail: None }
    }

    /// The pool that rejected the task.
    #[must_use]
    pub const fn pool(&self) -> &Workload {
        &self.pool
    }

    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// How long the caller should wait before it tries again; `None` if waiting does not help.
    ///
    /// [`retry_after_seconds`](Self::retry_after_seconds) is the value for a `Retry-After` header.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the task may have started. If it has not, running it again is safe.
    #[must_use]
    pub const fn started(&self) -> bool {
        self.started
    }

    pub(crate) fn with_detail(self, detail: &impl fmt::Display) -> Self {
        Self { detail: Some(detail.to_string().into()), ..self }
    }

    /// The same rejection with this time to wait before another attempt.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same rejection of a task that has started, or has not.
    #[must_use]
    pub fn with_started(self, started: bool) -> Self {
        Self { started, ..self }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, reason, detail, .. } = self;
        write!(f, "pool `{pool}` gave no answer: {}", detail.as_deref().unwrap_or(reason.sentence()))
    }
}

impl Error for Rejection {}
