//! Why a task should stop, as its code learns it.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a task should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancelled {
    /// The caller went away.
    CallerLeft,
    /// The task's deadline has passed.
    DeadlinePassed,
    /// A shutdown does not wait for the task any longer.
    CutOff,
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CallerLeft => "the caller of the task went away",
            Self::DeadlinePassed => "the deadline of the task has passed",
            Self::CutOff => "a shutdown cut the task off",
        })
    }
}

impl Error for Cancelled {}

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> Self {
        // Not `Interrupted`, at which loops of the standard library try again.
        let kind = match cancelled {
            Cancelled::DeadlinePassed => io::ErrorKind::TimedOut,
            Cancelled::CallerLeft | Cancelled::CutOff => io::ErrorKind::Other,
        };
        Self::new(kind, cancelled)
    }
}
