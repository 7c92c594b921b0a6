//! A collector of OpenTelemetry gets the traces and the metrics of `examples/otlp.rs`.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

mod collector;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use self::collector::{Collector, has_label, label};

/// The time after which a step counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

const REQUESTS: u64 = 5;

/// The example, exporting to a collector. Dropping the value kills it.
struct Example {
    child: Child,
    address: SocketAddr,
}

impl Example {
    /// Cargo builds the examples before it runs the tests.
    async fn start(collector: &Collector) -> Self {
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/otlp");
        assert!(program.exists(), "{} is not built: `cargo build -p checks --examples` does", program.display());
        let mut child = Command::new(program)
            .arg("127.0.0.1:0")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address()))
            .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, address }
    }

    /// Posts a text with these headers, and gives the response.
    async fn digest(&self, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST /digest HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 13\r\n{headers}\r\ncorrect horse"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut response)).await.unwrap().unwrap();
        response
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    async fn stop(mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::SIGTERM).unwrap();
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success());
    }
}

/// The only span of this name.
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

#[tokio::test]
async fn the_spans_of_a_pool_are_in_the_callers_trace() {
    let collector = Collector::start().await;
    let example = Example::start(&collector).await;
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let response = example.digest(&format!("traceparent: 00-{trace}-{caller}-01\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    example.stop().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let [request, queue, run, inner] =
        ["POST /digest", "pool.queue", "pool.run", "digest"].map(|name| only(&spans, name));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for span in &spans {
        assert_eq!(hex(&span.trace_id), trace, "{}", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
    }
    assert_eq!(hex(&request.parent_span_id), caller);
    assert_eq!(queue.parent_span_id, request.span_id);
    assert_eq!(run.parent_span_id, request.span_id);
    assert_eq!(inner.parent_span_id, run.span_id);
    assert_eq!([queue, run].map(|span| label(&span.attributes, "pool")), ["cpu", "cpu"]);

    // The request waits, then it runs, and both happen within its span.
    assert!(request.start_time_unix_nano <= queue.start_time_unix_nano);
    assert!(queue.end_time_unix_nano <= run.start_time_unix_nano);
    assert!(run.start_time_unix_nano <= inner.start_time_unix_nano);
    assert!(inner.end_time_unix_nano <= run.end_time_unix_nano);
    assert!(run.end_time_unix_nano <= request.end_time_unix_nano);
    assert_eq!(collector.service(), "digests");
}

#[tokio::test]
async fn the_metrics_of_a_pool_are_exported_while_it_works_and_when_it_ends() {
    let collector = Collector::start().await;
    let example = Example::start(&collector).await;
    for _ in 0..REQUESTS {
        example.digest("").await;
    }
    let submitted = |collector: &Collector| sum(collector, "workload_pool_tasks_submitted_total", &[("pool", "cpu")]);
    timeout(PATIENCE, collector.until(|collector| submitted(collector) == Some(REQUESTS))).await.unwrap();
    // The counters are set again and again, and still have their values.
    let later = collector.exports() + 10;
    timeout(PATIENCE, collector.until(|collector| collector.exports() >= later)).await.unwrap();
    assert_eq!(submitted(&collector), Some(REQUESTS));
    example.digest("").await;
    example.stop().await;

    assert_eq!(submitted(&collector), Some(REQUESTS + 1));
    let ok = [("pool", "cpu"), ("result", "ok")];
    assert_eq!(sum(&collector, "workload_pool_tasks_total", &ok), Some(REQUESTS + 1));
    assert_eq!(sum(&collector, "workload_pool_tasks_submitted_total", &[("pool", "db")]), Some(0));
    assert_eq!(gauge(&collector, "workload_pool_workers_max", "cpu"), Some(30.0));
    assert_eq!(gauge(&collector, "workload_pool_in_flight", "cpu"), Some(0.0));
    let run = histogram(&collector, "workload_pool_run_seconds", "cpu").unwrap();
    assert_eq!(run.count, REQUESTS + 1);
    assert!(run.sum.unwrap() > 0.0);
    assert_eq!(run.explicit_bounds.first(), Some(&0.000_025), "the buckets are the crate's: {run:?}");
    assert_eq!(histogram(&collector, "workload_pool_queue_wait_seconds", "cpu").unwrap().count, REQUESTS + 1);
    let described = collector.metric("workload_pool_run_seconds").unwrap();
    assert_eq!((described.unit.as_str(), described.description.is_empty()), ("s", false));
}

fn sum(collector: &Collector, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let Data::Sum(sum) = collector.metric(name)?.data? else { panic!("{name} is no sum") };
    assert!(sum.is_monotonic, "{name}");
    let has = |point: &&NumberDataPoint| labels.iter().all(|(key, value)| has_label(&point.attributes, key, value));
    match sum.data_points.iter().find(has)?.value? {
        number_data_point::Value::AsInt(value) => Some(value.try_into().unwrap()),
        number_data_point::Value::AsDouble(value) => panic!("{name} is {value}"),
    }
}

fn gauge(collector: &Collector, name: &str, pool: &str) -> Option<f64> {
    let Data::Gauge(gauge) = collector.metric(name)?.data? else { panic!("{name} is no gauge") };
    match gauge.data_points.iter().find(|point| has_label(&point.attributes, "pool", pool))?.value? {
        number_data_point::Value::AsDouble(value) => Some(value),
        number_data_point::Value::AsInt(value) => panic!("{name} is {value}"),
    }
}

fn histogram(collector: &Collector, name: &str, pool: &str) -> Option<HistogramDataPoint> {
    let Data::Histogram(histogram) = collector.metric(name)?.data? else { panic!("{name} is no histogram") };
    histogram.data_points.into_iter().find(|point| has_label(&point.attributes, "pool", pool))
}
