//! One open stream of a pool: it is counted, and the times of its frames are recorded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::admission::Timestamp;
use crate::metrics::TaskTimes;
use crate::pool::{Shared, record_times};
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
        pool.streams.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
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
        // The time from one frame to the next, or from the task's submission to the first.
        let record = |times: &mut TaskTimes| match last {
            Some(last) => times.record_frame_gap(now, now.since(last)),
            None => times.record_first_frame(now, now.since(self.submitted)),
        };
        // This calls the application's recorder. A thread that is no worker uses the histograms that the pool shares.
        shielded(|| record_times(record).unwrap_or_else(|| record(&mut lock(&self.pool.stream_times))));
    }

    /// The client is no longer behind: the time until now is not the producer's.
    pub(crate) fn resume(&mut self) {
        if self.last.is_some() {
            self.last = Some(self.pool.now());
        }
    }
}
