//! A real Prometheus scrapes the example server under load, and the test queries its samples.
//!
//! Needs `prometheus` and `promtool` on the path, and is ignored unless asked for:
//! `cargo test --all-features --test prometheus -- --ignored`.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

#[path = "example/process.rs"]
mod process;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use self::process::{Client, Example, Folder};

/// The longest time that any step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus. Dropping the value kills it.
struct Prometheus {
    _process: Child,
    client: Client,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `target` four times a second.
    fn start(folder: &Folder, target: SocketAddr) -> Self {
        let config = json!({
            "global": { "scrape_interval": "250ms", "scrape_timeout": "250ms" },
            "scrape_configs": [{ "job_name": "example", "static_configs": [{ "targets": [target.to_string()] }] }],
        });
        // JSON is YAML.
        std::fs::write(folder.path("prometheus.yml"), config.to_string()).unwrap();
        let address = free_address();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path("series").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("`prometheus` is installed");
        Self { _process: process, client: Client::of(address) }
    }

    /// Repeats the query until the answer has samples and `right` holds for all of them. Returns the number of samples.
    async fn until(&self, query: &str, right: impl Fn(f64) -> bool) -> usize {
        let start = Instant::now();
        let path = format!("/api/v1/query?query={}", encoded(query));
        let mut last = Value::Null;
        while start.elapsed() < PATIENCE {
            // Prometheus refuses connections until it has started.
            if let Ok(answer) = self.client.try_get(&path).await
                && answer.text().starts_with('{')
            {
                last = answer.json();
                let samples = last["data"]["result"].as_array().cloned().unwrap_or_default();
                let value = |sample: &Value| sample["value"][1].as_str().and_then(|value| value.parse().ok());
                if !samples.is_empty() && samples.iter().all(|sample| value(sample).is_some_and(&right)) {
                    return samples.len();
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("`{query}` never came right; the last answer: {last}");
    }
}

/// An address that no socket listens on now.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).unwrap()
}

fn encoded(query: &str) -> String {
    query
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") })
        .collect()
}

/// Clients that hash passwords and ask for notes until they are dropped.
fn load(example: &Example) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let client = example.client();
        clients.spawn(async move {
            loop {
                let _ = client.try_post("/v1/hash", &json!({ "password": "correct horse" })).await;
                let _ = client.try_get("/v1/notes?q=horse").await;
            }
        });
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Prometheus"]
async fn prometheus_scrapes_consistent_counts_of_pools_under_load() {
    let folder = Folder::new();
    let example = Example::start(&folder).await;
    let prometheus = Prometheus::start(&folder, example.address());
    prometheus.until("up{job=\"example\"}", |up| up == 1.0).await;

    let clients = load(&example);
    prometheus.until("workload_pool_workers_active{pool=\"cpu\"}", |active| active > 0.0).await;
    prometheus.until("workload_pool_utilization_ratio{pool=\"cpu\"}", |ratio| ratio > 0.0 && ratio <= 1.0).await;
    prometheus.until("workload_pool_tasks_total{pool=\"cpu\",result=\"ok\"}", |tasks| tasks > 10.0).await;
    prometheus.until("workload_pool_run_seconds_count{pool=\"cpu\"}", |tasks| tasks > 10.0).await;
    let median = "histogram_quantile(0.5, rate(workload_pool_run_seconds_bucket{pool=\"cpu\"}[2s]))";
    prometheus.until(median, |seconds| seconds > 0.000_1 && seconds < 10.0).await;
    prometheus.until("workload_pool_queue_wait_seconds_count{pool=\"db\"}", |tasks| tasks > 10.0).await;

    // In each scrape, submitted tasks = results + queued + in flight.
    let rest = "workload_pool_tasks_submitted_total \
        - on(pool) sum by(pool)(workload_pool_tasks_total) \
        - on(pool) workload_pool_queue_depth - on(pool) workload_pool_in_flight";
    for _ in 0..20 {
        let answer = prometheus.client.try_get(&format!("/api/v1/query?query={}", encoded(rest))).await.unwrap().json();
        let samples = answer["data"]["result"].as_array().unwrap();
        assert_eq!(samples.len(), 5, "{answer}");
        assert!(samples.iter().all(|sample| sample["value"][1] == "0"), "{answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    drop(clients);
    assert_eq!(prometheus.until("workload_pool_workers_active", |active| active == 0.0).await, 5);
    assert_eq!(prometheus.until("workload_pool_in_flight", |tasks| tasks == 0.0).await, 5);
    example.stop().await;
}

#[tokio::test]
#[ignore = "needs a Prometheus"]
async fn promtool_reports_no_problem_with_the_metrics() {
    let folder = Folder::new();
    let example = Example::start(&folder).await;
    let client = example.client();
    client.post("/v1/hash", &json!({ "password": "correct horse" })).await.ok();
    let text = client.get("/metrics").await.text();
    assert!(text.contains("workload_pool_run_seconds_bucket"), "{text}");

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`promtool` is installed");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    example.stop().await;
}
