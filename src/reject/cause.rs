//! Cause → HTTP status and gRPC code, in one table.

use http::StatusCode;

use crate::error::{Cause, Rejection};

/// The gRPC codes of rejections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcCode {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
}

pub(super) const fn answer_to(cause: Cause) -> (StatusCode, GrpcCode) {
    match cause {
        Cause::QueueFull | Cause::QueueTimeout | Cause::Shed => {
            (StatusCode::SERVICE_UNAVAILABLE, GrpcCode::ResourceExhausted)
        }
        Cause::Draining | Cause::NoWorkers => (StatusCode::SERVICE_UNAVAILABLE, GrpcCode::Unavailable),
        Cause::BadHeader => (StatusCode::BAD_REQUEST, GrpcCode::InvalidArgument),
        Cause::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, GrpcCode::DeadlineExceeded),
        Cause::UnknownPool | Cause::Panicked | Cause::CutOff => (StatusCode::INTERNAL_SERVER_ERROR, GrpcCode::Internal),
    }
}

impl Rejection {
    /// The HTTP status of this rejection: 503 if trying again helps, 504 if a deadline passed, 400 for a header that cannot
    /// be read, and 500 otherwise.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        answer_to(self.cause()).0
    }
}
