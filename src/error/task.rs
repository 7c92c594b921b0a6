//! `TaskError`: the error of a closure or a future in a pool.

use std::error::Error;
use std::fmt;

use super::{Panic, Rejection, UnknownPool};

/// The error of a closure or future that gave no value.
///
/// With the feature `axum` it is an axum response, and with the feature `tonic` it turns into a `tonic::Status`.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// The pool rejected the task before it started: running it again is safe.
    Rejected(Rejection),
    /// The task started, and was dropped before it ended.
    CutOff(Rejection),
    /// The task panicked.
    Panicked(Panic),
    /// No pool has the requested name.
    UnknownPool(UnknownPool),
}

impl TaskError {
    /// Whether the pool rejected the task before it started: running it again is safe.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether the task started, and was dropped before it ended.
    #[must_use]
    pub const fn is_cut_off(&self) -> bool {
        matches!(self, Self::CutOff(_))
    }

    /// Whether the task panicked.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) | Self::CutOff(rejection) => rejection.fmt(f),
            Self::Panicked(panic) => panic.fmt(f),
            Self::UnknownPool(unknown) => unknown.fmt(f),
        }
    }
}

impl Error for TaskError {
    /// The source of the inner error, because `Display` already shows the inner error.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) | Self::CutOff(rejection) => rejection.source(),
            Self::Panicked(panic) => panic.source(),
            Self::UnknownPool(unknown) => unknown.source(),
        }
    }
}

impl From<Rejection> for TaskError {
    fn from(rejection: Rejection) -> Self {
        if rejection.started() { Self::CutOff(rejection) } else { Self::Rejected(rejection) }
    }
}

impl From<UnknownPool> for TaskError {
    fn from(unknown: UnknownPool) -> Self {
        Self::UnknownPool(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{OffloadError, Reason};
    use crate::workload::Workload;

    fn of(reason: Reason) -> Rejection {
        Rejection::new(Workload::CPU, reason, None)
    }

    #[test]
    fn a_rejection_of_a_task_that_started_is_cut_off_and_not_rejected() {
        assert!(TaskError::from(of(Reason::QueueFull)).is_rejected());
        assert!(TaskError::from(of(Reason::DeadlineExceeded)).is_rejected());
        for started in [of(Reason::DeadlineExceeded).with_started(true), of(Reason::CutOff)] {
            let error = TaskError::from(started);
            assert!(error.is_cut_off() && !error.is_rejected(), "{error:?}");
        }
    }

    #[test]
    fn display_is_a_sentence_and_debug_shows_the_fields() {
        let error = TaskError::from(of(Reason::QueueFull));
        assert_eq!(error.to_string(), "pool `cpu` gave no answer: its queue is full");
        let shown = format!("{error:?}");
        assert!(shown.starts_with("Rejected(Rejection {") && shown.contains("started: false"), "{shown}");
        let shown = format!("{:?}", OffloadError::<String>::Rejected(of(Reason::QueueFull)));
        assert!(shown.contains("reason: QueueFull"), "{shown}");
        let unknown = UnknownPool::new(Workload::from("cpus"), vec![Workload::CPU]);
        assert_eq!(unknown.to_string(), "there is no pool `cpus`; the pools are `cpu`");
        assert!(format!("{unknown:?}").starts_with("UnknownPool {"));
        let panic = TaskError::Panicked(Panic::new(Box::new("no such picture")));
        assert_eq!(panic.to_string(), "the task panicked: no such picture");
        assert_eq!(format!("{panic:?}"), "Panicked(Panic(\"no such picture\"))");
    }
}
