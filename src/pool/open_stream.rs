//! One open stream of a pool: it is counted, and the times of its frames are recorded.

use std::sync::Arc;

use super::local;
use super::shared::Shared;
use crate::admission::Timestamp;
use crate::shield::shielded;
use crate::sync::lock_std as lock;

/// Counts a stream as open until this is dropped.
pub(crate) struct OpenStream(Arc<Shared>);

/// The times of the frames of one stream, as its producer makes them.
pub(crate) struct FrameTimes {
    pool: Arc<Shared>,
    submitted: Timestamp,
    last: Option<Timestamp>,
}

impl OpenStream {
    pub(super) fn new(pool: Arc<Shared>) -> Self {
        pool.streams.opened();
        Self(pool)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.closed();
    }
}

impl FrameTimes {
    pub(super) fn new(pool: Arc<Shared>, submitted: Timestamp) -> Self {
        Self { pool, submitted, last: None }
    }

    /// Records a frame that was just produced.
    pub(crate) fn record(&mut self) {
        let now = self.pool.now();
        let last = self.last.replace(now);
        // This calls the application's recorder.
        shielded(|| self.record_at(now, last));
    }

    fn record_at(&self, now: Timestamp, last: Option<Timestamp>) {
        // No worker polls a body on its connection.
        if let Some(last) = last {
            let gap = now.since(last);
            let recorded = local::record_frame_gap(now, gap);
            recorded.unwrap_or_else(|| lock(&self.pool.stream_times).record_frame_gap(now, gap));
        } else {
            let after = now.since(self.submitted);
            let recorded = local::record_first_frame(now, after);
            recorded.unwrap_or_else(|| lock(&self.pool.stream_times).record_first_frame(now, after));
        }
    }

    /// The client is no longer behind: the time until now is not the producer's.
    pub(crate) fn resume(&mut self) {
        if self.last.is_some() {
            self.last = Some(self.pool.now());
        }
    }
}
