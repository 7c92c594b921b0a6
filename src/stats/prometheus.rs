//! The metrics endpoint: Prometheus' text from `metrics-exporter-prometheus`, with buckets for the pools' histograms.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tower_service::Service;

use super::answer;
use crate::body::FullBody;
use crate::metrics::HISTOGRAMS;
use crate::pools::Pools;
use crate::timer;

/// The endpoint that Prometheus scrapes: `GET`, at whatever path it is mounted.
///
/// ```
/// use axum::Router;
/// use tower_offload::{MetricsService, Pools};
///
/// let pools = Pools::default();
/// let app: Router = Router::new().route_service("/metrics", MetricsService::install(&pools)?);
/// # Ok::<(), tower_offload::stats::InstallError>(())
/// ```
///
/// Each scrape shows each pool at one instant.
#[derive(Clone)]
pub struct MetricsService {
    pools: Pools,
    exporter: PrometheusHandle,
    _upkeep: Arc<Upkeep>,
}

/// The error of a recorder that could not be installed, because the application has installed one before.
#[derive(Debug)]
pub struct InstallError {
    source: BuildError,
}

/// Lets the exporter aggregate the samples of its histograms at intervals. Otherwise it would keep them until the next
/// scrape.
struct Upkeep {
    exporter: PrometheusHandle,
}

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

impl MetricsService {
    /// Installs the Prometheus recorder for the whole application, with [`HISTOGRAMS`] for the pools' buckets,
    /// and serves it. Metrics that the application records through the `metrics` facade appear as well.
    ///
    /// # Errors
    ///
    /// If the application has installed a recorder before. If it is a Prometheus recorder, pass its handle to
    /// [`with_handle`](Self::with_handle).
    pub fn install(pools: &Pools) -> Result<Self, InstallError> {
        let builder = HISTOGRAMS.iter().try_fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
            builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
        });
        let exporter = builder.and_then(PrometheusBuilder::install_recorder);
        let exporter = exporter.map_err(|source| InstallError { source })?;
        Ok(Self::with_handle(pools, exporter))
    }

    /// Serves the Prometheus recorder that the application has installed itself.
    ///
    /// ```
    /// use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    /// use tower_offload::{MetricsService, Pools, metrics};
    ///
    /// let mut builder = PrometheusBuilder::new().add_global_label("service", "thumbnails");
    /// for (name, buckets) in metrics::HISTOGRAMS {
    ///     builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)?;
    /// }
    /// let exporter = builder.install_recorder()?;
    /// let metrics = MetricsService::with_handle(&Pools::default(), exporter);
    /// # let _ = metrics;
    /// # Ok::<(), metrics_exporter_prometheus::BuildError>(())
    /// ```
    ///
    /// The handle's type is that of `metrics-exporter-prometheus` 0.18: a later one comes with a later major version of
    /// this crate.
    #[must_use]
    pub fn with_handle(pools: &Pools, exporter: PrometheusHandle) -> Self {
        let upkeep = Arc::new(Upkeep { exporter: exporter.clone() });
        let weak = Arc::downgrade(&upkeep);
        timer::METRICS.set(Instant::now() + UPKEEP_INTERVAL, move || weak.upgrade().map(|upkeep| upkeep.run()));
        let service = Self { pools: pools.clone(), exporter, _upkeep: upkeep };
        service.pools.publish_metrics(|| ());
        service
    }
}

impl<B> Service<Request<B>> for MetricsService {
    type Response = Response<FullBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<FullBody>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(match *request.method() {
            Method::GET | Method::HEAD => {
                let text = self.pools.publish_metrics(|| self.exporter.render());
                answer::ok("text/plain; version=0.0.4; charset=utf-8", text)
            }
            _ => answer::method_not_allowed("GET, HEAD"),
        }))
    }
}

impl fmt::Debug for MetricsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsService").field("pools", &self.pools).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Runs the upkeep, and returns the time of the next run.
    fn run(&self) -> Instant {
        self.exporter.run_upkeep();
        Instant::now() + UPKEEP_INTERVAL
    }
}

// === impl InstallError ===

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the Prometheus recorder could not be installed; if the application has its own, use `with_handle`")
    }
}

impl Error for InstallError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
