//! Metrics in an application that has its own recorder and endpoint.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::thread;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tower::{Layer, ServiceExt};
use tower_offload::batch::Batch;
use tower_offload::metrics::HISTOGRAMS;
use tower_offload::{PoolConfig, PoolLayer, Pools};

use crate::fixtures::{answer, locator, request};

/// The samples of the pool `cpu` in a scrape.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| line.starts_with("workload_pool_") && line.contains("pool=\"scraped\""));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name.replace("pool=\"scraped\"", "").replace(['{', '}'], ""), value.parse().expect("a number"))
        })
        .collect()
}

/// A pool that no other test of this process has.
const POOL: &str = "scraped";

/// Without `MetricsService`, and before the pool publishes its numbers at its own interval.
#[test]
fn every_number_is_in_a_scrape_of_the_applications_own() {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in HISTOGRAMS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets).unwrap();
    }
    let recorder = builder.build_recorder();
    let exporter = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::set_global_recorder(recorder).expect("no other test of this process installs one");
    let pools = Pools::builder().pool(POOL, PoolConfig::new(3).queue_capacity(7).max_streams(5)).build().unwrap();
    for done in 1..=2_u8 {
        let layer = PoolLayer::for_pool(pools.get(POOL).unwrap());
        runtime.block_on(answer(layer.layer(locator()), request("GET", "/")));
        let text = pools.publish_metrics(|| exporter.render());
        let samples = samples(&text);
        let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name} in {text}"));
        assert_eq!(value("workload_pool_workers_max"), 3.0);
        assert_eq!(value("workload_pool_queue_capacity"), 7.0);
        assert_eq!(value("workload_pool_concurrency_limit"), 3.0);
        assert_eq!(value("workload_pool_streams_limit"), 5.0);
        assert_eq!(value("workload_pool_tasks_submitted_total"), f64::from(done));
        assert_eq!(value("workload_pool_tasks_total,result=\"ok\""), f64::from(done));
        assert_eq!(value("workload_pool_run_seconds_count"), f64::from(done));
        assert_eq!(value("workload_pool_queue_wait_seconds_count"), f64::from(done));
        for gauge in [
            "workers",
            "workers_active",
            "in_flight",
            "permits_in_use",
            "queue_depth",
            "utilization_ratio",
            "overloaded",
            "streams",
            "stream_buffered_bytes",
        ] {
            value(&format!("workload_pool_{gauge}"));
        }
        assert!(!samples.keys().any(|name| name.contains("batch")), "the pool has no batches: {text}");
    }
    let batch = Batch::builder(&pools, POOL).run(|items: Vec<u8>| items.into_iter().map(Ok::<_, Infallible>).collect());
    let batch = batch.expect("the limits make sense");
    let samples_before = samples(&pools.publish_metrics(|| exporter.render()));
    assert_eq!(samples_before["workload_pool_batches_total,result=\"ok\""], 0.0);
    runtime.block_on(batch.oneshot(7)).expect("it is not rejected");
    let samples = samples(&pools.publish_metrics(|| exporter.render()));
    assert_eq!(samples["workload_pool_batches_total,result=\"ok\""], 1.0);
    assert_eq!(samples["workload_pool_batch_items_bucket,le=\"1\""], 1.0);
    assert_eq!(samples["workload_pool_batch_seconds_count"], 1.0);

    // Once the workers of the pool have let it go, its gauges are 0.
    drop(pools);
    let start = Instant::now();
    let gauges = || {
        let samples = self::samples(&exporter.render());
        ["workers_max", "concurrency_limit", "queue_capacity", "streams_limit"]
            .map(|name| samples[&format!("workload_pool_{name}")])
    };
    while gauges() != [0.0; 4] {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", gauges());
        thread::sleep(Duration::from_millis(1));
    }
    // A later pool of the name counts on.
    let pools = Pools::builder().pool(POOL, PoolConfig::new(1)).build().unwrap();
    runtime.block_on(pools.run_in_pool(POOL, || ())).expect("it is not rejected");
    let start = Instant::now();
    loop {
        let samples = self::samples(&pools.publish_metrics(|| exporter.render()));
        let counts = ["tasks_submitted_total", "tasks_total,result=\"ok\"", "run_seconds_count"]
            .map(|name| samples[&format!("workload_pool_{name}")]);
        if counts == [4.0; 3] {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{counts:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
