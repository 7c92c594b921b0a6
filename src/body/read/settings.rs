//! `ReadBody`: how request bodies are read before their requests are handled.

use std::time::Duration;

use super::pace::{Pace, Rate};
use crate::budget::Budget;

/// Reads the bodies of requests before the requests are handled; see [request bodies](crate::docs::bodies#request-bodies).
///
/// With [`PoolLayer::read_body`](crate::PoolLayer::read_body), a body is read before its request takes a place in the
/// pool, and all bodies have their place in the budget of the pools. The same settings are also a Tower layer. That has no
/// budget unless [`budget`](Self::budget) sets one:
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::post};
/// use tower_offload::body::{Budget, ReadBody};
///
/// let budget = Budget::new(256 << 20);
/// let read_body = ReadBody::new(1 << 20).within(Duration::from_secs(10)).budget(&budget);
/// let app: Router = Router::new().route("/", post(async |body: String| body)).layer(read_body);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ReadBody {
    pub(super) limit: usize,
    /// Whether all messages of a stream are read, and not the first one alone.
    pub(super) whole: bool,
    pub(super) pace: Pace,
    pub(super) budget: Option<Budget>,
}

impl ReadBody {
    /// Reads bodies of up to `limit` bytes. They must arrive within 30 seconds, and after the first five of these at
    /// 240 bytes a second or more on average.
    ///
    /// A larger body is rejected with a status of 413: unread, if its length is announced.
    ///
    /// Of a request of gRPC, or of a stream of Connect, the first message is read, and `limit` is that of this message. The
    /// rest of the body follows to the handler as it arrives. Where no client streams, read such requests
    /// [`whole`](Self::whole), too.
    pub const fn new(limit: usize) -> Self {
        // Kestrel's defaults for the rate.
        let rate = Rate { bytes_per_second: 240, grace: Duration::from_secs(5) };
        Self { limit, whole: false, pace: Pace { within: Duration::from_secs(30), rate }, budget: None }
    }

    /// Rejects a body with a status of 408 if it has not arrived within this time.
    pub const fn within(mut self, time: Duration) -> Self {
        self.pace.within = time;
        self
    }

    /// Rejects a body with a status of 408 if fewer bytes a second arrive on average. The client gets `grace` in
    /// advance. A rate of 0 allows any pace.
    pub const fn min_rate(mut self, bytes_per_second: u32, grace: Duration) -> Self {
        self.pace.rate = Rate { bytes_per_second: bytes_per_second as u64, grace };
        self
    }

    /// Reads all bodies whole, also those of requests that claim to be gRPC or a stream of Connect. For services whose
    /// clients do not stream.
    ///
    /// The `content-type` of a request says that it is one of gRPC, and any client can write that. A handler that knows no
    /// streams then waits for the rest of the body, as a unary call waits for its end, and holds its permit for as long as
    /// the client likes. Where clients stream, [`StreamBody`](super::StreamBody) around the layer bounds that wait.
    pub const fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Rejects a body with a status of 503 if this budget has no room for it: unread, if its length is announced.
    ///
    /// Bodies count from the time at which they are read until the handler takes their bytes, or drops them.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }
}
