//! The metrics of all pools, for a metrics endpoint of the application.

use crate::metrics;
use crate::pools::Pools;

impl Pools {
    /// Sets every gauge and counter of the pools in the application's recorder, and then calls `render`.
    ///
    /// Call it in your own `/metrics` endpoint, with a closure that renders the recorder. No other thread sets these
    /// metrics until `render` returns, so a scrape shows each pool at one instant: *submitted = Σ results + queued + in
    /// flight*. Between scrapes, the metrics of a pool are updated half a second after a change.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use metrics_exporter_prometheus::PrometheusBuilder;
    /// use tower_offload::Pools;
    ///
    /// let pools = Pools::default();
    /// let recorder = PrometheusBuilder::new().install_recorder()?;
    /// let metrics = move || async move { pools.publish_metrics(|| recorder.render()) };
    /// let app: Router = Router::new().route("/metrics", get(metrics));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`HISTOGRAMS`](crate::metrics::HISTOGRAMS) gives an exporter the buckets of the histograms.
    pub fn publish_metrics<T>(&self, render: impl FnOnce() -> T) -> T {
        // Held until the text is rendered.
        let publishing = metrics::lock_publishing();
        for pool in self.iter() {
            pool.publish(&publishing);
        }
        self.routes().publish();
        render()
    }
}
