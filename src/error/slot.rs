//! `SlotError` and `MakeError`: why a task got no value of a slot.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Rejection, TaskError};
use crate::workload::Workload;

/// Why a task got no result from [`Slots`](crate::slots::Slots).
///
/// With the feature `axum` it is an axum response, and with the feature `tonic` it turns into a `tonic::Status`.
#[derive(Debug)]
#[non_exhaustive]
pub enum SlotError {
    /// The pool rejected the task or could not finish it, or the task panicked.
    Task(TaskError),
    /// A new value was needed, and could not be made.
    Make(MakeError),
    /// The task has a value of these slots already: it would need a second one for one permit.
    Nested(Workload),
    /// The code does not run in a task of this pool, so it has no permit that entitles it to a value.
    Outside(Workload),
    /// The slots were dropped before the swap ended.
    Closed,
}

/// A value that could not be made. Cheap to clone: every task that needed the value gets the same error.
#[derive(Clone, Debug)]
pub struct MakeError {
    source: Arc<dyn Error + Send + Sync>,
    retry_after: Option<Duration>,
}

// === impl SlotError ===

impl SlotError {
    /// The error of the value that could not be made, if that is the reason.
    #[must_use]
    pub const fn make_error(&self) -> Option<&MakeError> {
        match self {
            Self::Make(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the pool rejected the task before it started: running it again is safe.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Task(error) if error.is_rejected())
    }

    /// Whether the task panicked.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        matches!(self, Self::Task(error) if error.is_panic())
    }
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(error) => error.fmt(f),
            Self::Make(error) => error.fmt(f),
            Self::Nested(pool) => {
                write!(f, "the task has a value of these slots of pool `{pool}` already; pass that one on")
            }
            Self::Outside(pool) => {
                write!(f, "a slot of pool `{pool}` was asked for outside of a task of this pool; use `run`")
            }
            Self::Closed => f.write_str("the slots were dropped before the swap ended"),
        }
    }
}

impl Error for SlotError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Task(error) => error.source(),
            Self::Make(error) => error.source(),
            _ => None,
        }
    }
}

impl From<TaskError> for SlotError {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

impl From<Rejection> for SlotError {
    fn from(rejection: Rejection) -> Self {
        Self::Task(rejection.into())
    }
}

impl From<MakeError> for SlotError {
    fn from(error: MakeError) -> Self {
        Self::Make(error)
    }
}

// === impl MakeError ===

impl MakeError {
    /// The error of a value that could not be made. For tests of code that handles one.
    #[must_use]
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Arc::from(error.into()), retry_after: None }
    }

    pub(crate) fn with_retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// The error that the application's function returned; if it panicked, the [`Panic`](super::Panic).
    #[must_use]
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }

    /// The time after which another attempt is made. Until then, every task that needs a new value gets this error.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value could not be made: {}", self.source)
    }
}

impl Error for MakeError {
    /// The source of the inner error, because `Display` already shows the inner error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}
