//! What a pool believes of a request's headers.

use http::HeaderName;

/// Which headers of a request a pool believes; by default none, since any client can write what it likes.
///
/// A client that is believed can go ahead of all others and have their queued requests shed. So switch on what a proxy
/// or clients of your own set, and let the proxy take it off what comes from outside.
///
/// ```
/// use http::HeaderName;
/// use tower_offload::PoolConfig;
/// use tower_offload::config::{Malformed, Trust};
///
/// let trust = Trust::default()
///     .deadline(HeaderName::from_static("x-request-timeout"))
///     .grpc_timeout(true)
///     .malformed(Malformed::Refuse);
/// PoolConfig::new(4).trust(trust).validate("cpu")?;
/// # Ok::<(), tower_offload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trust {
    /// The header that says how much time is left for the request: `1.5` (seconds), or with a unit, `250ms`, `30s`,
    /// `2m`. A task whose time is over never starts, and its caller is told so.
    pub deadline: Option<HeaderName>,
    /// Whether the header `grpc-timeout`, which gRPC clients send with their deadline, is believed in the same way.
    pub grpc_timeout: bool,
    /// The header that says how important the request is: `critical`, `high`, `normal` or `low`.
    pub priority: Option<HeaderName>,
    /// What becomes of a request whose header cannot be read.
    pub malformed: Malformed,
}

/// What becomes of a request if a header that is believed cannot be read, or says something absurd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// It is served as if the header were not there. In YAML: `ignore`.
    #[default]
    Ignore,
    /// It is refused, and its caller is told why. In YAML: `refuse`.
    Refuse,
}

// === impl Trust ===

impl Trust {
    /// Sets the header that says how much time is left.
    #[must_use]
    pub fn deadline(mut self, header: HeaderName) -> Self {
        self.deadline = Some(header);
        self
    }

    /// Sets whether `grpc-timeout` is believed.
    #[must_use]
    pub const fn grpc_timeout(mut self, believed: bool) -> Self {
        self.grpc_timeout = believed;
        self
    }

    /// Sets the header that says how important the request is.
    #[must_use]
    pub fn priority(mut self, header: HeaderName) -> Self {
        self.priority = Some(header);
        self
    }

    /// Sets what becomes of a request whose header cannot be read.
    #[must_use]
    pub const fn malformed(mut self, malformed: Malformed) -> Self {
        self.malformed = malformed;
        self
    }

    /// The fields that contradict the rest, with the reason.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (field, header) in [("deadline", &self.deadline), ("priority", &self.priority)] {
            // Its units are others: `5m` is 5 ms there.
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
