//! A model that is loaded, swapped and unloaded a thousand times leaves no memory and no thread behind.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::onnx::{self, Does};
use crate::process::{Client, Example, Folder};
use crate::support::{PATIENCE, status_of};

/// Each of the numbers is in the file, and in each session.
const NUMBERS: usize = 1 << 17;

/// How much the memory may grow, in KiB: the allocator keeps some for each thread. Sessions that stay would take 1 MiB for
/// each round.
const SLACK: u64 = 128 << 10;

async fn round(client: &Client) {
    let inputs = json!({ "inputs": [vec![0; 64]] });
    for (method, path, status) in [
        (Method::POST, "/v1/models/large", 201),
        (Method::POST, "/v1/models/large?version=2", 200),
        (Method::DELETE, "/v1/models/large", 204),
    ] {
        let answer = client.send(method, path, "", Bytes::new()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status != 204 {
            client.post("/v1/classify?model=large", &inputs).await.ok();
        }
    }
}

#[tokio::test]
async fn a_thousand_loads_and_unloads_leave_no_memory_and_no_thread() {
    let folder = Folder::new();
    let models = folder.path("models");
    std::fs::create_dir(&models).unwrap();
    for file in ["digits.onnx", "large.onnx", "large@2.onnx"] {
        std::fs::write(models.join(file), onnx::padded(1, Does::Nothing, NUMBERS)).unwrap();
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server/model/digits.onnx");
    folder.configure(&folder.config().replace(root, models.join("digits.onnx").to_str().unwrap()));
    let example = Example::start(&folder).await;
    let client = example.client();
    let process = example.id();
    for _ in 0..200 {
        round(&client).await;
    }
    let (before, threads) = (status_of(process, "VmRSS"), status_of(process, "Threads"));
    for _ in 0..800 {
        round(&client).await;
    }
    let after = status_of(process, "VmRSS");
    assert!(after < before + SLACK, "{before} KiB after 200 rounds, {after} KiB after 1000");
    // A loader ends a moment after the answer.
    let ended = Instant::now();
    let mut threads_after = status_of(process, "Threads");
    while threads_after > threads + 2 {
        assert!(ended.elapsed() < PATIENCE, "{threads} threads after 200 rounds, {threads_after} after 1000");
        tokio::time::sleep(Duration::from_millis(10)).await;
        threads_after = status_of(process, "Threads");
    }
    println!("{before} KiB and {threads} threads after 200 rounds, {after} KiB and {threads_after} threads after 1000");
    example.stop().await;
}
