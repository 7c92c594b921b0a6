//! Scrapes while pools are full: they do not wait for a pool, they add up, and they use no permit.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::process::{Client, Example};
use crate::support::{assert_well, configure, count_notes, folder_with, until_pool};
use crate::terminated::stuck_in;

/// The value of each series of the pools, by name and labels.
pub(crate) async fn scrape(client: &Client) -> BTreeMap<String, f64> {
    let answer = client.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    let text = answer.text();
    let lines = text.lines().filter(|line| line.starts_with("workload_pool_"));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

/// In every pool, *submitted = Σ results + queued + in flight*.
fn assert_adds_up(series: &BTreeMap<String, f64>) {
    for pool in ["io", "cpu", "db", "embedding", "inference"] {
        let label = format!("{{pool=\"{pool}\"");
        let of = |name: &str| {
            let name = format!("workload_pool_{name}{label}");
            let mut of_name =
                series.range(name.clone()..).take_while(|(series, _)| series.starts_with(&name)).peekable();
            assert!(of_name.peek().is_some(), "there is no {name}: {series:#?}");
            of_name.map(|(_, value)| value).sum()
        };
        let (submitted, accounted): (f64, f64) =
            (of("tasks_submitted_total"), of("tasks_total") + of("queue_depth") + of("in_flight"));
        assert_eq!(submitted, accounted, "pool {pool}: {series:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_of_a_full_pool_is_answered_and_exact() {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 10}");
    folder.configure(&folder.config().replace("GET /files/{*path}: io", "GET /files/{*path}: db"));
    let server = Example::start(&folder).await;
    // It takes as long as the test likes, which the lock of the database does not.
    let mut holder = stuck_in("db", &folder, &server).await;
    let mut writers = JoinSet::new();
    for _ in 0..30 {
        let client = server.client();
        writers.spawn(async move { client.post("/v1/notes", &json!({ "text": "a note" })).await.status });
    }
    // The holder awaits the thread that opens the pipe, so no worker is active.
    let is_full = |db: &Value| db["results"]["rejected"] == 20 && db["active_threads"] == 0;
    until_pool(&server.client(), "db", "the queue is full", is_full).await;
    let mut scrapers = JoinSet::new();
    for _ in 0..8 {
        let client = server.client();
        scrapers.spawn(async move {
            for _ in 0..10 {
                let series = scrape(&client).await;
                assert_adds_up(&series);
                let of_db = |name: &str| series[&format!("workload_pool_{name}{{pool=\"db\"}}")];
                let numbers = ["tasks_submitted_total", "in_flight", "queue_depth", "utilization_ratio"].map(of_db);
                assert_eq!(numbers, [31.0, 1.0, 10.0, 0.0]);
                client.get("/health/thread-pools").await.ok();
                client.get("/health").await.ok();
            }
        });
    }
    while let Some(scraper) = scrapers.join_next().await {
        scraper.unwrap();
    }
    // The handler opens the pipe, and reads its end.
    drop(std::fs::OpenOptions::new().write(true).open(folder.path("files/stuck")).unwrap());
    holder.head().await;
    let mut created = 0;
    while let Some(status) = writers.join_next().await {
        created += u64::from(status.unwrap() == StatusCode::CREATED);
    }
    assert_eq!((created, count_notes(&folder)), (10, 10));
    assert_well(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scrape_adds_up_while_tasks_come_wait_end_and_are_refused() {
    let folder = folder_with("cpu", "{workers: 2, queue_capacity: 3}");
    configure(&folder, "db", "{workers: 2, queue_capacity: 3}");
    let server = Example::start(&folder).await;
    let mut load = JoinSet::new();
    for number in 0..16 {
        let client = server.client();
        load.spawn(async move {
            loop {
                if number % 2 == 0 {
                    let _ = client.try_post("/v1/hash", &json!({ "password": "correct horse" })).await;
                } else {
                    let _ = client.try_get("/v1/notes?q=horse").await;
                }
            }
        });
    }
    let client = server.client();
    until_pool(&client, "cpu", "some are refused", |cpu| cpu["results"]["rejected"] != 0).await;
    let before = scrape(&client).await["workload_pool_tasks_total{pool=\"cpu\",result=\"ok\"}"];
    for _ in 0..100 {
        assert_adds_up(&scrape(&client).await);
    }
    // The load continued meanwhile, so the scrapes did not block it.
    let done = until_pool(&client, "cpu", "hashes are made", |cpu| cpu["results"]["ok"].as_f64().unwrap() > before);
    done.await;
    load.shutdown().await;
    assert_well(&server).await;
    server.stop().await;
}
