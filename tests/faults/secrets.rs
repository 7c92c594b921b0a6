//! Endpoints, responses and the log show no secrets of a request.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use http::StatusCode;
use serde_json::json;

use crate::process::{Example, Folder};
use crate::scrape::scrape;
use crate::support::{HeldNotes, Raw, configure, folder_with, get, until_pool};
use crate::terminated::stuck;

/// A server that logs to a file.
pub(crate) async fn logged(folder: &Folder) -> (Example, PathBuf) {
    let log = folder.path("log");
    let file = std::fs::File::create(&log).unwrap();
    let server = Example::start_with(folder, |command| {
        command.stderr(Stdio::from(file)).env("NO_COLOR", "1");
    })
    .await;
    (server, log)
}

/// A request for a note that has a secret in its query, its headers and its body.
fn secret_note() -> String {
    let body = json!({ "text": "secret of the body" }).to_string();
    format!(
        "POST /v1/notes?key=secret-of-the-query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         authorization: secret-of-the-header\r\ncookie: secret-of-the-cookie\r\nx-request-id: secret-of-the-id\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn no_endpoint_answer_or_log_shows_a_query_a_header_or_a_body() {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 1}");
    let (server, log) = logged(&folder).await;
    let client = server.client();
    let held = HeldNotes::hold(&folder);
    let mut connections = Vec::new();
    for number in 1..=2 {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(secret_note()).await;
        until_pool(&client, "db", "it has arrived", |db| db["submitted"] == number).await;
        connections.push(connection);
    }
    until_pool(&client, "db", "the first has begun", |db| db["active_tasks"] != json!([])).await;
    let (status, refusal) = Raw::connect(server.address()).await.exchange(secret_note()).await;
    assert_eq!(status, 503);
    let stats = client.get("/health/thread-pools").await.text();
    let metrics = client.get("/metrics").await.text();
    let ready = client.get("/health/thread-pools/ready").await.text();
    client.post("/health/thread-pools/log-status", &json!({})).await.ok();
    drop(held);
    let mut answers = String::new();
    for connection in &mut connections {
        answers += &connection.answer().await.1;
    }
    drop(connections);
    server.stop().await;
    let log = std::fs::read_to_string(log).unwrap();

    // The log shows the method and the path.
    assert!(stats.contains("POST /v1/notes\""), "{stats}");
    assert!(log.contains("Submitting 'POST /v1/notes'") && log.contains(": POST /v1/notes (running for"), "{log}");
    for shown in [refusal, stats, metrics, ready, answers, log] {
        assert!(!shown.contains("secret"), "{shown}");
    }
}

#[tokio::test]
async fn without_verbose_strangers_see_readiness_and_numbers_and_no_task() {
    let folder = Folder::new();
    folder.configure(&folder.config().replace("verbose: true", "verbose: false"));
    let (server, log) = logged(&folder).await;
    let client = server.client();
    client.post("/v1/notes", &json!({ "text": "a note" })).await;
    for path in ["/health/thread-pools", "/health/thread-pools/", "/health/thread-pools/log-status"] {
        assert_eq!(client.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(client.post(path, &json!({})).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(client.get("/health").await.ok(), json!({ "status": "ok" }));
    assert_eq!(client.get("/health/thread-pools/ready").await.ok(), json!({ "ready": true, "pools": {} }));
    assert_only_pools_and_results(&client.get("/metrics").await.text());
    server.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("listening") && !log.contains("ThreadPool["), "{log}");
    assert!(!log.contains("notes"), "{log}");
}

/// All metrics belong to the pools, or to the bodies of their requests, or are the load of the process. Their labels are pool names, results,
/// states of slots and the bounds of histograms.
fn assert_only_pools_and_results(metrics: &str) {
    let series = || metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_bodies =
        |line: &&str| line.starts_with("workload_request_body_bytes") || line.starts_with("workload_load_ratio ");
    assert!(series().all(|line| line.starts_with("workload_pool_") || of_bodies(&line)), "{metrics}");
    let of_pools = series().filter(|line| !of_bodies(line));
    let labels = of_pools.flat_map(|line| line.split(['{', '}']).nth(1).unwrap().split(','));
    let labels: BTreeSet<_> = labels.filter(|label| !label.starts_with("le=")).collect();
    let pools = ["cpu", "db", "embedding", "inference", "io"].map(|name| format!("pool=\"{name}\""));
    let results = ["cancelled", "error", "expired", "ok", "panicked", "rejected", "shed", "stalled"];
    let results = results.map(|result| format!("result=\"{result}\""));
    let states = ["idle", "in_use", "loading"].map(|name| format!("state=\"{name}\""));
    assert!(labels.iter().eq(pools.iter().chain(&results).chain(&states)), "{labels:?}");
}

#[tokio::test]
async fn a_rejection_names_its_own_pool_and_no_other() {
    let folder = folder_with("db", "{workers: 1, queue_timeout: 50ms}");
    configure(&folder, "io", "{workers: 1, queue_capacity: 0}");
    let server = Example::start(&folder).await;
    let _held = HeldNotes::hold(&folder);
    let mut holders = [Raw::connect(server.address()).await, stuck(&folder, &server).await];
    holders[0].send(secret_note()).await;
    until_pool(&server.client(), "db", "the worker is active", |db| db["in_flight"] == 1).await;
    for (path, pool, reason) in [("/v1/notes/1", "db", "queue_timeout"), ("/files/greeting.txt", "io", "queue_full")] {
        let mut refused = Raw::connect(server.address()).await;
        refused.send(get(path).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        let shown = String::from_utf8(refused.rest().await).unwrap();
        assert!(shown.starts_with("HTTP/1.1 503") && shown.contains(reason), "{shown}");
        let words = shown.split(|c: char| !c.is_ascii_alphanumeric());
        let pools: BTreeSet<_> =
            words.filter(|word| ["cpu", "db", "embedding", "inference", "io"].contains(word)).collect();
        assert_eq!(pools, BTreeSet::from([pool]), "{shown}");
        assert!(!shown.contains("127.0.0.1"), "{shown}");
    }
}

#[tokio::test]
async fn whatever_clients_ask_for_no_series_comes_of_it() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let client = server.client();
    // A histogram appears with its first task.
    client.get("/files/greeting.txt").await;
    let before: Vec<_> = scrape(&client).await.into_keys().collect();
    for number in 0..50 {
        client.get(&format!("/files/{number}")).await;
        client.get(&format!("/{number}?pool=pool{number}")).await;
        let mut connection = Raw::connect(server.address()).await;
        let request =
            format!("M{number} /files/greeting.txt HTTP/1.1\r\nhost: h{number}\r\nx-{number}: {number}\r\n\r\n");
        assert!(connection.exchange(request).await.0 >= 400);
    }
    let after: Vec<_> = scrape(&client).await.into_keys().collect();
    assert_eq!(before, after);
    server.stop().await;
}

#[tokio::test]
async fn no_path_forges_a_line_of_the_log() {
    let folder = Folder::new();
    let (server, log) = logged(&folder).await;
    for path in [
        "/files/a%0aERROR%20forged",
        "/files/a\nERROR forged",
        "/files/a\rERROR forged",
        "/files/a\x1b[2Jforged",
        "/files/a\u{9b}2Jforged",
        "/files/a\u{7f}forged",
        "/files/a\u{85}forged\u{2028}forged\u{202e}forged",
        "/files/a'%20(active_threads=0,%20queued=0)",
    ] {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(get(path)).await;
        assert!(crate::support::status(&connection.head().await) >= 400, "{path:?}");
    }
    server.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    for line in log.lines() {
        assert!(line.starts_with("20") && line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line:?}");
    }
}
