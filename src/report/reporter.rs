//! The report of the moment, made at most every 50 ms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::clock::Clock;
use super::orca::Report;
use crate::load::Scale;
use crate::pools::Pools;

pub(super) const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");
pub(super) const TRAILER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");

/// How old a report may be: less than is promised, because the clock may be late.
const LIFETIME: Duration = Duration::from_millis(40);

/// The form that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    Binary,
    /// Binary, in a trailer.
    Grpc,
}

#[derive(Debug)]
pub(super) struct Reporter {
    pools: Pools,
    scale: Scale,
    named: bool,
    clock: Clock,
    /// The time at which the report was made.
    made: AtomicU64,
    values: RwLock<Arc<Values>>,
}

/// The report in every form.
#[derive(Debug)]
struct Values {
    text: HeaderValue,
    json: HeaderValue,
    binary: HeaderValue,
    grpc: HeaderValue,
}

impl Format {
    /// The form that the headers of a request ask for; text, if they ask for none that is known.
    pub(super) fn asked(headers: &HeaderMap) -> Self {
        let asked = headers.get(FORMAT).map_or(&[][..], HeaderValue::as_bytes);
        if asked.eq_ignore_ascii_case(b"json") {
            Self::Json
        } else if asked.eq_ignore_ascii_case(b"bin") {
            Self::Binary
        } else {
            Self::Text
        }
    }
}

impl Reporter {
    pub(super) fn new(pools: &Pools, scale: Scale, named: bool) -> Self {
        let clock = Clock::start();
        let made = AtomicU64::new(clock.nanos());
        let values = RwLock::new(Arc::new(Values::of(&report(pools, &scale, named))));
        Self { pools: pools.clone(), scale, named, clock, made, values }
    }

    pub(super) const fn pools(&self) -> &Pools {
        &self.pools
    }

    pub(super) const fn scale(&self) -> &Scale {
        &self.scale
    }

    pub(super) const fn is_named(&self) -> bool {
        self.named
    }

    /// The report in this form, at most 50 ms old, or as old as it takes another thread to make it.
    pub(super) fn value(&self, format: Format) -> HeaderValue {
        let now = self.clock.nanos();
        let made = self.made.load(Ordering::Relaxed);
        let is_old = now.saturating_sub(made) >= LIFETIME.as_nanos() as u64;
        // One thread makes it, and the others go on with the old one.
        if is_old && self.made.compare_exchange(made, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let values = Arc::new(Values::of(&report(&self.pools, &self.scale, self.named)));
            *self.values.write().unwrap_or_else(PoisonError::into_inner) = values;
        }
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        match format {
            Format::Text => &values.text,
            Format::Json => &values.json,
            Format::Binary => &values.binary,
            Format::Grpc => &values.grpc,
        }
        .clone()
    }
}

impl Values {
    fn of(report: &Report) -> Self {
        let value = |text: String| HeaderValue::try_from(text).expect("a report is visible ASCII");
        let binary = report.binary();
        Self {
            text: value(report.text()),
            json: value(report.json()),
            binary: value(format!("BIN {binary}")),
            grpc: value(binary),
        }
    }
}

fn report(pools: &Pools, scale: &Scale, named: bool) -> Report {
    let load = scale.load(pools.iter().map(crate::pool::Pool::load).collect());
    let counted = || load.pools.iter().filter(|pool| scale.counts(&pool.name));
    // A server that drains takes no more requests, however idle it is.
    let utilization = if pools.is_draining() { load.ratio.max(1.0) } else { load.ratio };
    Report::new(
        utilization,
        counted().map(|pool| pool.arrivals_per_second).sum(),
        // A sum of no numbers is -0.
        counted().map(|pool| pool.failures_per_second).sum::<f64>() + 0.0,
        counted().filter(|_| named).map(|pool| (pool.name.to_string(), pool.ratio)).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_made_anew_when_it_is_old_and_not_before() {
        let pools = Pools::default();
        let reporter = Reporter::new(&pools, Scale::default(), false);
        let shows_the_drain = || reporter.value(Format::Text).to_str().unwrap().contains("utilization=1.0000");
        pools.announce_drain();
        // The last report is of the future, so it is not old.
        let later = reporter.clock.nanos() + Duration::from_secs(3600).as_nanos() as u64;
        reporter.made.store(later, Ordering::Relaxed);
        assert!(!shows_the_drain());
        reporter.made.store(0, Ordering::Relaxed);
        while reporter.clock.nanos() < LIFETIME.as_nanos() as u64 {
            std::thread::yield_now();
        }
        assert!(shows_the_drain());
        assert!(reporter.made.load(Ordering::Relaxed) < later);
    }
}
