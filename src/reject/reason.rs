//! Reason → HTTP status and gRPC code, in one table.

use http::StatusCode;

#[cfg(any(feature = "axum", feature = "tonic"))]
use crate::error::Cancelled;
use crate::error::{Reason, Rejection};

/// The gRPC codes of rejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcCode {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

pub(super) const fn answer_to(reason: Reason) -> (StatusCode, GrpcCode) {
    match reason {
        Reason::QueueFull | Reason::QueueTimeout | Reason::Shed | Reason::StreamsFull | Reason::BodyBudget => {
            (StatusCode::SERVICE_UNAVAILABLE, GrpcCode::ResourceExhausted)
        }
        Reason::Draining | Reason::NoWorkers => (StatusCode::SERVICE_UNAVAILABLE, GrpcCode::Unavailable),
        Reason::BadHeader | Reason::BodyError => (StatusCode::BAD_REQUEST, GrpcCode::InvalidArgument),
        Reason::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, GrpcCode::ResourceExhausted),
        Reason::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, GrpcCode::DeadlineExceeded),
        Reason::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, GrpcCode::DeadlineExceeded),
        Reason::UnknownPool | Reason::Panicked | Reason::CutOff => {
            (StatusCode::INTERNAL_SERVER_ERROR, GrpcCode::Internal)
        }
    }
}

/// The reason that a [`PoolLayer`](crate::PoolLayer) would give for a task that stopped so.
#[cfg(any(feature = "axum", feature = "tonic"))]
pub(super) const fn reason_of(cancelled: Cancelled) -> Reason {
    match cancelled {
        Cancelled::DeadlinePassed => Reason::DeadlineExceeded,
        Cancelled::CallerLeft | Cancelled::CutOff => Reason::CutOff,
    }
}

impl Rejection {
    /// The HTTP status of this rejection: 503 if trying again helps, 504 if a deadline passed, 400 for a header or a
    /// body that cannot be read, 413 for a body that is too large, 408 for a body that came too slowly, and 500 otherwise.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        answer_to(self.reason()).0
    }
}
