//! Measures a request: the times of `Server-Timing`, and the spans `pool.queue` and `pool.run`.

use std::time::{Duration, Instant};

use tracing::Span;
use tracing::span::Entered;

use super::options::Options;
use crate::workload::Workload;

/// The part of a call that exists only with `server_timing` or `spans`. It is not boxed: the thread that submits a
/// request would allocate the box, and a worker would free it, which costs more than the place that this takes.
#[derive(Debug)]
pub(super) struct Trace {
    /// The times of the submission and of the first poll, if the response shows them.
    submitted: Option<Instant>,
    began: Option<Instant>,
    spans: Spans,
}

/// The first span is open until the call begins, the second until it ends.
#[derive(Debug)]
enum Spans {
    Off,
    Queue { pool: Workload, _span: Span },
    Run(Span),
}

impl Trace {
    /// The trace of a request that is submitted now. Called in the span of the request.
    pub(super) fn begin(options: &Options, pool: &Workload) -> Option<Self> {
        if !options.server_timing && !options.spans {
            return None;
        }
        let spans = if options.spans {
            let span = tracing::info_span!(target: "tower_offload", "pool.queue", %pool);
            Spans::Queue { pool: pool.clone(), _span: span }
        } else {
            Spans::Off
        };
        Some(Self { submitted: options.server_timing.then(Instant::now), began: None, spans })
    }

    /// The call is polled, in the span of the request.
    pub(super) fn poll(&mut self) -> Option<Entered<'_>> {
        if self.submitted.is_some() {
            self.began.get_or_insert_with(Instant::now);
        }
        if let Spans::Queue { pool, .. } = &self.spans {
            let pool = pool.clone();
            // The first span ends before the second begins.
            self.spans = Spans::Off;
            self.spans = Spans::Run(tracing::info_span!(target: "tower_offload", "pool.run", %pool));
        }
        match &self.spans {
            Spans::Run(span) => Some(span.enter()),
            _ => None,
        }
    }

    /// How long the call was queued, and how long it ran until now, if the response shows it.
    pub(super) fn times(&self) -> Option<(Duration, Duration)> {
        let (submitted, began) = self.submitted.zip(self.began)?;
        Some((began.saturating_duration_since(submitted), began.elapsed()))
    }
}
