//! A collector in this process: OTLP's two gRPC services, which keep what they get.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A running collector.
#[derive(Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    received: Arc<Received>,
}

#[derive(Default)]
struct Received {
    traces: Mutex<Vec<ExportTraceServiceRequest>>,
    metrics: Mutex<Vec<ExportMetricsServiceRequest>>,
    more: Notify,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let this = Self { address: listener.local_addr().unwrap(), received: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(this.clone()))
            .add_service(MetricsServiceServer::new(this.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        this
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let traces = lock(&self.received.traces);
        let resources = traces.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The name of the service that sent the first spans.
    pub(crate) fn service(&self) -> String {
        let traces = lock(&self.received.traces);
        label(&traces[0].resource_spans[0].resource.as_ref().unwrap().attributes, "service.name").to_owned()
    }

    /// The latest of the metrics of this name.
    pub(crate) fn metric(&self, name: &str) -> Option<Metric> {
        let metrics = lock(&self.received.metrics);
        let resources = metrics.iter().rev().flat_map(|request| &request.resource_metrics);
        let mut all = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
        all.find(|metric| metric.name == name).cloned()
    }

    /// How often metrics were exported so far.
    pub(crate) fn exports(&self) -> usize {
        lock(&self.received.metrics).len()
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let more = self.received.more.notified();
            if is_so(self) {
                return;
            }
            more.await;
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        lock(&self.received.traces).push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        lock(&self.received.metrics).push(request.into_inner());
        self.received.more.notify_one();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// The text of this label.
pub(crate) fn label<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{key} is {other:?} in {attributes:?}"),
    }
}

pub(crate) fn has_label(attributes: &[KeyValue], key: &str, value: &str) -> bool {
    label(attributes, key) == value
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
