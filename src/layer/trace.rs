//! Measures a request: the times of `Server-Timing`, and the spans `pool.queue` and `pool.run`.

use std::time::{Duration, Instant};

use tracing::Span;
use tracing::span::Entered;

use super::options::Options;
use crate::workload::Workload;

/// The part of a call that exists only with `server_timing` or `spans`.
#[derive(Debug)]
pub(super) struct Trace {
    submitted: Instant,
    began: Option<Instant>,
    timing: bool,
    spans: Option<Spans>,
}

/// The first span is open until the call begins, the second until it ends.
#[derive(Debug)]
struct Spans {
    pool: Workload,
    queue: Option<Span>,
    run: Span,
}

impl Trace {
    /// The trace of a request that is submitted now. Called in the span of the request.
    pub(super) fn begin(options: &Options, pool: &Workload) -> Option<Box<Self>> {
        if !options.server_timing && !options.spans {
            return None;
        }
        let spans = options.spans.then(|| Spans {
            pool: pool.clone(),
            queue: Some(tracing::info_span!(target: "tower_offload", "pool.queue", %pool)),
            run: Span::none(),
        });
        Some(Box::new(Self { submitted: Instant::now(), began: None, timing: options.server_timing, spans }))
    }

    /// The call is polled, in the span of the request.
    pub(super) fn poll(&mut self) -> Option<Entered<'_>> {
        let first = self.began.is_none();
        self.began.get_or_insert_with(Instant::now);
        let Spans { pool, queue, run } = self.spans.as_mut()?;
        if first {
            *queue = None;
            *run = tracing::info_span!(target: "tower_offload", "pool.run", %pool);
        }
        Some(run.enter())
    }

    /// How long the call was queued, and how long it ran until now, if the response shows it.
    pub(super) fn times(&self) -> Option<(Duration, Duration)> {
        let began = self.began.filter(|_| self.timing)?;
        Some((began.saturating_duration_since(self.submitted), began.elapsed()))
    }
}
