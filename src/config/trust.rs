//! The request headers that a pool trusts.

use http::HeaderName;

/// The request headers that a pool trusts; by default none, because any client can send any header.
///
/// A trusted client can overtake all others and cause their queued requests to be shed. So trust only headers that your
/// own proxy or clients set, and let the proxy remove them from requests that come from outside.
///
/// ```
/// use http::HeaderName;
/// use tower_offload::PoolConfig;
/// use tower_offload::config::{Malformed, Trust};
///
/// let trust = Trust::default()
///     .deadline(HeaderName::from_static("x-request-timeout"))
///     .grpc_timeout(true)
///     .malformed(Malformed::Reject);
/// PoolConfig::new(4).trust(trust).validate("cpu")?;
/// # Ok::<(), tower_offload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trust {
    /// The header with the time that is left for the request: `1.5` (seconds), or with a unit, `250ms`, `30s`, `2m`. A
    /// task that is still queued when this time is over is rejected with
    /// [`DeadlineExceeded`](crate::Reason::DeadlineExceeded).
    pub deadline: Option<HeaderName>,
    /// Whether `grpc-timeout`, the header with a gRPC client's deadline, is trusted in the same way.
    pub grpc_timeout: bool,
    /// The header with the request's priority: `critical`, `high`, `normal` or `low`.
    pub priority: Option<HeaderName>,
    /// Whether a request is rejected if a trusted header cannot be read.
    pub malformed: Malformed,
}

/// The treatment of a request with a trusted header that cannot be read or appears twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// The request is served as if the header were absent. In YAML: `ignore`.
    #[default]
    Ignore,
    /// The request is rejected with [`BadHeader`](crate::Reason::BadHeader). In YAML: `reject`.
    Reject,
}

// === impl Trust ===

impl Trust {
    /// Sets the header with the time that is left for the request.
    #[must_use]
    pub fn deadline(mut self, header: HeaderName) -> Self {
        self.deadline = Some(header);
        self
    }

    /// Sets whether `grpc-timeout` is trusted.
    #[must_use]
    pub const fn grpc_timeout(mut self, trusted: bool) -> Self {
        self.grpc_timeout = trusted;
        self
    }

    /// Sets the header with the request's priority.
    #[must_use]
    pub fn priority(mut self, header: HeaderName) -> Self {
        self.priority = Some(header);
        self
    }

    /// Sets whether a request is rejected if a trusted header cannot be read.
    #[must_use]
    pub const fn malformed(mut self, malformed: Malformed) -> Self {
        self.malformed = malformed;
        self
    }

    /// The fields that contradict the rest, with the reason.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (field, header) in [("deadline", &self.deadline), ("priority", &self.priority)] {
            // Its units differ: there, `5m` is 5 ms.
            if header.as_ref().is_some_and(|header| header == "grpc-timeout") {
                let message = "`grpc-timeout` is read in a way of its own; write `grpc_timeout: true` for it";
                faults.push((field, message.to_owned()));
            }
        }
        if let Some(header) = &self.priority
            && faults.is_empty()
            && self.deadline.as_ref() == Some(header)
        {
            faults.push(("priority", format!("`{header}` is also the header of `deadline`; give each its own")));
        }
        faults
    }
}
