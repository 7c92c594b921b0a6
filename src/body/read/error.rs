//! Why a body was not read to its end.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::error::Reason;

/// Why the body of a request was not read to its end. `Display` tells the client what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// It is larger than the limit. Of a gRPC request, its first message is.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// It is larger than the limit of a layer around this one, such as tower-http's `RequestBodyLimitLayer`.
    LimitedElsewhere,
    /// It did not arrive in time.
    TooLate {
        /// The time that it had.
        within: Duration,
    },
    /// It arrived too slowly.
    TooSlow {
        /// The least rate that is allowed.
        bytes_per_second: u64,
    },
    /// Nothing of it arrived for the stall timeout of a [`StreamBody`](super::StreamBody).
    Stalled {
        /// The stall timeout.
        timeout: Duration,
    },
    /// The budget has no room for it.
    OverBudget,
    /// The deadline of the request passed.
    DeadlinePassed,
    /// The client left, or sent what HTTP does not allow.
    BrokenOff,
}

impl ReadError {
    /// The reason for which a pool rejects the request.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::TooLarge { .. } | Self::LimitedElsewhere => Reason::BodyTooLarge,
            Self::TooLate { .. } | Self::TooSlow { .. } | Self::Stalled { .. } => Reason::BodyTimeout,
            Self::OverBudget => Reason::BodyBudget,
            Self::DeadlinePassed => Reason::DeadlineExceeded,
            Self::BrokenOff => Reason::BodyError,
        }
    }

    /// How long the client should wait before it tries again; `None` if waiting does not help.
    pub(crate) const fn retry_after(self) -> Option<Duration> {
        match self {
            // The least that `Retry-After` can say: bodies leave the memory as fast as requests are served.
            Self::OverBudget => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

impl Error for ReadError {}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the request's body is larger than {limit} bytes"),
            Self::LimitedElsewhere => f.write_str("the request's body is larger than the limit of another layer"),
            Self::TooLate { within } => write!(f, "the request's body took longer than {within:?} to arrive"),
            Self::TooSlow { bytes_per_second } => {
                write!(f, "the request's body arrived at fewer than {bytes_per_second} bytes a second")
            }
            Self::Stalled { timeout } => write!(f, "nothing of the request's body arrived for {timeout:?}"),
            Self::OverBudget => f.write_str("the bodies of other requests take up the memory for bodies"),
            Self::DeadlinePassed => f.write_str("the request's deadline passed before its body had arrived"),
            Self::BrokenOff => f.write_str("the request's body could not be read to its end"),
        }
    }
}
