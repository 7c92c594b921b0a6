//! `ModelError`: why a caller got no model.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{MakeError, Rejection, TaskError};

/// Why a caller got no result from [`Models`](crate::slots::Models).
///
/// With the feature `axum` it is an axum response, and with the feature `tonic` it turns into a `tonic::Status`.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelError {
    /// The pool rejected the task or could not finish it, the task panicked, or its deadline passed while it waited for
    /// the model.
    Task(TaskError),
    /// The model could not be loaded. [`MakeError::retry_after`] is the time after which the next attempt is made.
    Load {
        /// The model's key.
        key: Arc<str>,
        /// The error of the load.
        error: MakeError,
    },
    /// The model is larger than the whole budget.
    TooLarge {
        /// The model's key.
        key: Arc<str>,
        /// Its weight.
        bytes: u64,
        /// The budget.
        budget: u64,
    },
    /// The key cannot name a model: it is empty, is longer than 256 bytes, has control characters, or is a path that may
    /// lead out of a folder. On Windows, `:` and the names of devices are such paths too.
    BadKey {
        /// The key.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The model was unloaded while the caller waited for it.
    Unloaded(Arc<str>),
}

impl ModelError {
    /// The error of the load, if that is the reason.
    #[must_use]
    pub const fn load_error(&self) -> Option<&MakeError> {
        match self {
            Self::Load { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Whether the task was rejected before it started, by the pool or because too many callers wait for models: running it
    /// again is safe.
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

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(error) => error.fmt(f),
            Self::Load { key, error } => write!(f, "the model `{key}` could not be loaded: {}", error.inner()),
            Self::TooLarge { key, bytes, budget } => {
                write!(f, "the model `{key}` has {bytes} bytes, and the budget of all models is {budget}")
            }
            Self::BadKey { key, reason } => write!(f, "{key:?} cannot be the key of a model: {reason}"),
            Self::Unloaded(key) => write!(f, "the model `{key}` was unloaded"),
        }
    }
}

impl Error for ModelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Task(error) => error.source(),
            Self::Load { error, .. } => error.source(),
            _ => None,
        }
    }
}

impl From<TaskError> for ModelError {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

impl From<Rejection> for ModelError {
    fn from(rejection: Rejection) -> Self {
        Self::Task(rejection.into())
    }
}
