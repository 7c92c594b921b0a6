//! A server that exports its traces, and the metrics of its pools, by OTLP: to a collector of OpenTelemetry, or to
//! anything else that takes OTLP over gRPC.
//!
//! ```sh
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 cargo run -p checks --example otlp -- 127.0.0.1:3000
//! curl -d 'correct horse' http://127.0.0.1:3000/digest
//! ```
//!
//! A request's trace is then:
//!
//! ```text
//! POST /digest         the request's span, in the caller's trace if it sent the header `traceparent`
//! ├── pool.queue       how long the request waited for its pool
//! └── pool.run         how long its handler ran, up to its response's head
//!     └── digest       the handler's own spans
//! ```

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::MatchedPath;
use axum::routing::post;
use http::{HeaderMap, Request};
use metrics::KeyName;
use metrics_exporter_otel::OpenTelemetryRecorder;
use opentelemetry::global;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::net::TcpListener;
use tower_http::trace::TraceLayer;
use tower_offload::{Config, Cpu, PoolLayer, Pools, server};
use tracing::{Level, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What exports. Both send what they have collected when they are shut down.
struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Telemetry {
    /// Exports to `OTEL_EXPORTER_OTLP_ENDPOINT`, every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds: OpenTelemetry's usual
    /// environment variables configure it.
    fn install() -> Result<Self, Box<dyn Error>> {
        let resource = Resource::builder().with_service_name("digests").build();

        let exporter = SpanExporter::builder().with_tonic().build()?;
        let traces = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.clone()).build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        let to_traces = tracing_opentelemetry::layer().with_tracer(traces.tracer("digests"));
        // An exporter whose own requests are traced would never come to rest. A target is the beginning of a name.
        let exporters = ["h2", "hyper", "opentelemetry", "tonic"];
        let targets =
            Targets::new().with_default(Level::INFO).with_targets(exporters.map(|name| (name, LevelFilter::OFF)));
        tracing_subscriber::registry().with(to_traces).with(targets).try_init()?;

        let exporter = MetricExporter::builder().with_tonic().build()?;
        let metrics = SdkMeterProvider::builder().with_periodic_exporter(exporter).with_resource(resource).build();
        let recorder = OpenTelemetryRecorder::new(metrics.meter("tower-offload"));
        // Without these, the first bucket would end at five seconds.
        for (name, bounds) in tower_offload::metrics::HISTOGRAMS {
            recorder.set_histogram_bounds(&KeyName::from_const_str(name), bounds.to_vec());
        }
        metrics::set_global_recorder(recorder)?;
        Ok(Self { traces, metrics })
    }

    fn shutdown(self) -> Result<(), Box<dyn Error>> {
        self.traces.shutdown()?;
        self.metrics.shutdown()?;
        Ok(())
    }
}

/// The span of a request: a child of the caller's, if the caller has sent one.
fn request_span<B>(request: &Request<B>) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let name = format!("{} {route}", request.method());
    let span = info_span!("request", otel.name = name, otel.kind = "server", http.route = route);
    let caller = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(request.headers())));
    // It fails if traces are not exported, and then nothing is lost.
    let _ = span.set_parent(caller);
    span
}

/// The headers of a request, as OpenTelemetry reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Computes for some milliseconds.
async fn digest(text: String) -> String {
    let _computing = info_span!("digest", length = text.len()).entered();
    let mut digest = 0_u64;
    for turn in 0..200_000 {
        let mut hasher = DefaultHasher::new();
        (digest, turn, &text).hash(&mut hasher);
        digest = hasher.finish();
    }
    format!("{digest:016x}\n")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = Telemetry::install()?;
    let config = Config::default();
    let pools = Pools::new(&config)?;
    let app = Router::new()
        .route("/digest", post(digest).route_layer(PoolLayer::<Cpu>::new(&pools).spans()))
        // Outside of the pool, so that rejected requests are traced as well.
        .layer(TraceLayer::new_for_http().make_span_with(request_span));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    server::Server::new(&config, &pools).listener(listener).serve(app).await?;
    // The pools have drained, so the last numbers are in.
    telemetry.shutdown()
}
