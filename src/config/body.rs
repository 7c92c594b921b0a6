//! How a pool treats the bodies of its responses.

use std::time::Duration;

use bytes::Bytes;

use super::byte_size;
use super::rules;

/// How a pool treats the bodies of its responses: where they are polled, whether they hold the permit, and what becomes
/// of a client that stops to read.
///
/// The `body` section of a pool's settings sets it for all responses of the pool, and
/// [`PoolLayer::body`](crate::PoolLayer::body) for those of one layer.
///
/// ```
/// use std::time::Duration;
/// use tower_offload::{Inference, PoolLayer, Pools, body::BodyPolicy};
///
/// // The pool's workers poll the tokens, and a generation holds its permit to the last one.
/// let policy = BodyPolicy::in_pool().hold().stall_timeout(Duration::from_secs(10));
/// let layer = PoolLayer::<Inference>::new(&Pools::default()).body(policy);
/// # let _ = layer;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyPolicy {
    /// The threads that poll bodies: those of the connection by default.
    pub run: RunBody,
    /// Whether the permit is held until the client has taken the last frame; not by default.
    pub hold: bool,
    /// How many bytes of a body that is polled in the pool may wait for the client; 64 KiB by default.
    pub buffer: usize,
    /// How long a client may take nothing of a body that waits for it; 30 s by default. Then the body ends with an
    /// error, and its permit is released.
    pub stall_timeout: Duration,
    /// The end of a body that is open when the pools drain; by default it finishes.
    pub on_drain: OnDrain,
}

/// The threads that poll the bodies of responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunBody {
    /// On the connection, by a thread of the runtime. In YAML: `connection`.
    #[default]
    Connection,
    /// In the pool, by its workers. In YAML: `pool`.
    Pool,
}

/// The end of a body that is open when a drain is announced.
///
/// Only a body of unknown length can be ended early. A body with a `Content-Length` is always finished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDrain {
    /// The body continues, and the shutdown waits for it. In YAML: `finish`.
    #[default]
    Finish,
    /// The body ends in good order after the frame that was taken last. In YAML: `end`.
    End,
    /// The same, with these bytes as the last frame: for server-sent events `event: close\ndata:\n\n`, for example.
    EndWith(Bytes),
}

impl BodyPolicy {
    pub(super) const DEFAULT: Self = Self {
        run: RunBody::Connection,
        hold: false,
        buffer: 64 * 1024,
        stall_timeout: Duration::from_secs(30),
        on_drain: OnDrain::Finish,
    };

    /// Bodies are polled on the connection.
    #[must_use]
    pub const fn on_connection() -> Self {
        Self::DEFAULT
    }

    /// Bodies are polled in the pool. Use this for bodies that compute, such as compressed ones.
    #[must_use]
    pub const fn in_pool() -> Self {
        Self { run: RunBody::Pool, ..Self::DEFAULT }
    }

    /// Holds the permit until the client has taken the last frame of the body, or has left.
    #[must_use]
    pub const fn hold(mut self) -> Self {
        self.hold = true;
        self
    }

    /// Sets how many bytes of a body that is polled in the pool may wait for the client. Each frame counts with its
    /// bytes and 128 more. Frames are not split, so the last one may exceed the limit, and four frames always have room.
    #[must_use]
    pub const fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = bytes;
        self
    }

    /// Sets how long a client may take nothing of a body that waits for it.
    #[must_use]
    pub const fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Sets how a body ends that is open when the pools drain.
    #[must_use]
    pub fn on_drain(mut self, action: OnDrain) -> Self {
        self.on_drain = action;
        self
    }

    /// Passes each setting, by its name, to `note`, with the error if it makes no sense.
    pub(crate) fn check(&self, note: &mut impl FnMut(&str, Result<(), String>)) {
        note("body.buffer", byte_size::BUFFER.check(self.buffer));
        note("body.stall_timeout", rules::check_time(self.stall_timeout));
    }
}

/// Bodies are polled on the connection, and the permit ends with the response's head.
impl Default for BodyPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}
