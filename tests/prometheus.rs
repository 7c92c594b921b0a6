//! A real Prometheus scrapes the example server under load, and the test queries its samples.
//!
//! Needs `prometheus` and `promtool` on the path, and is ignored unless asked for:
//! `cargo test --all-features --test prometheus -- --ignored`.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

#[path = "example/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use self::process::{Client, Example, Folder};

/// The longest time that any step may take.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running Prometheus. Dropping the value kills it.
struct Prometheus {
    _process: Child,
    client: Client,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `target` four times a second, and evaluates the rules as often.
    fn start(folder: &Folder, target: SocketAddr, rules: &str) -> Self {
        std::fs::write(folder.path("rules.yaml"), rules).unwrap();
        let config = json!({
            "global": { "scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms" },
            "rule_files": ["rules.yaml"],
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
    let prometheus = Prometheus::start(&folder, example.address(), "{}");
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
    let (begun, mut scrapes) = (Instant::now(), 0);
    while scrapes < 20 {
        let answer = prometheus.client.try_get(&format!("/api/v1/query?query={}", encoded(rest))).await.unwrap().json();
        let samples = answer["data"]["result"].as_array().unwrap();
        assert!(samples.iter().all(|sample| sample["value"][1] == "0"), "{answer}");
        // After a scrape that took too long, as it may on a slow machine, there are none.
        if !samples.is_empty() {
            assert_eq!(samples.len(), 5, "{answer}");
            scrapes += 1;
        }
        assert!(begun.elapsed() < PATIENCE, "{scrapes} scrapes had samples; the last answer: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    drop(clients);
    assert_eq!(prometheus.until("workload_pool_workers_active", |active| active == 0.0).await, 5);
    assert_eq!(prometheus.until("workload_pool_in_flight", |tasks| tasks == 0.0).await, 5);
    example.stop().await;
}

/// The rules of `deploy/`, with times that suit a test.
fn quick_rules() -> String {
    let rules = include_str!("../deploy/rules.yaml").replace("[5m]", "[5s]").replace("[1m]", "[2s]");
    let quick = |line: &str| match line.split_once("for: ") {
        Some((indent, time)) if time.ends_with('m') => format!("{indent}for: 1s\n"),
        _ => format!("{line}\n"),
    };
    rules.lines().map(quick).collect()
}

/// The expressions of the board's panels, for all pools and instances.
fn expressions_of_the_board() -> Vec<String> {
    let board: Value = serde_json::from_str(include_str!("../deploy/grafana.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expression = |target: &Value| {
        let text = target["expr"].as_str().unwrap().replace("$__rate_interval", "5s");
        text.replace("$instance", ".*").replace("$pool", ".*")
    };
    targets.map(expression).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Prometheus"]
async fn the_board_and_the_rules_show_a_server_that_gets_too_much() {
    const CLIENTS: usize = 80;
    let folder = Folder::new();
    let small = folder.config().replace("cpu_workers: 30", "cpu: {workers: 2, queue_capacity: 40}");
    assert_ne!(small, folder.config());
    folder.configure(&small);
    let example = Example::start(&folder).await;
    let prometheus = Prometheus::start(&folder, example.address(), &quick_rules());

    let mut clients = load(&example);
    for _ in 0..CLIENTS {
        let client = example.client();
        clients.spawn(async move {
            loop {
                let _ = client.try_post("/v1/hash", &json!({ "password": "correct horse" })).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let client = example.client();
    let lines = format!("{}\n", json!({ "input": vec![0; 64] })).repeat(1000);
    clients.spawn(async move {
        loop {
            client.send(http::Method::POST, "/v1/classify/stream", "", lines.clone().into()).await;
        }
    });

    for alert in ["WorkloadPoolOverloaded", "WorkloadPoolRejecting", "WorkloadPoolShortOfCapacity"] {
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",pool=\"cpu\"}}");
        prometheus.until(&firing, |_| true).await;
    }
    let records: Vec<_> =
        quick_rules().lines().filter_map(|line| Some(line.split_once("record: ")?.1.to_owned())).collect();
    assert_eq!((records.len(), expressions_of_the_board().len()), (7, 26));
    for expression in records.iter().chain(&expressions_of_the_board()) {
        // Pools without tasks have no quantiles.
        prometheus.until(&format!("({expression}) > -1"), f64::is_finite).await;
    }
    drop(clients);
    example.stop().await;
}

#[tokio::test]
#[ignore = "needs a Prometheus"]
async fn every_alert_fires_when_it_should() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rules_test.yaml");
    let output = Command::new("promtool").args(["test", "rules", rules]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let alerts =
        |text: &str, key: &str| text.lines().filter_map(|line| Some(line.split_once(key)?.1.to_owned())).collect();
    let all: BTreeSet<String> = alerts(include_str!("../deploy/rules.yaml"), "- alert: ");
    let firing: BTreeSet<String> = alerts(include_str!("../deploy/rules_test.yaml"), "- alertname: ");
    assert_eq!(all, firing, "each alert has a test in which it fires");
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
