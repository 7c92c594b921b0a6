//! The models of the example server: loaded, swapped while requests run, unloaded, and refused.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod example {
    pub(crate) mod process;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use example::process::{Answer, Client, Example, Folder};
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// A folder whose model is a copy, beside other files.
fn folder() -> Folder {
    let folder = Folder::new();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/server/model/digits.onnx");
    std::fs::create_dir(folder.path("models")).unwrap();
    for name in ["digits.onnx", "digits@2.onnx", "other.onnx"] {
        std::fs::copy(model, folder.path("models").join(name)).unwrap();
    }
    let whole = std::fs::read(model).unwrap();
    std::fs::write(folder.path("models/digits@half.onnx"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path("secret.onnx"), &whole).unwrap();
    folder.configure(&folder.config().replace(model, folder.path("models/digits.onnx").to_str().unwrap()));
    folder
}

fn inputs() -> Value {
    json!({ "inputs": [vec![1; 64]] })
}

async fn load(client: &Client, model: &str) -> Answer {
    client.send(Method::POST, &format!("/v1/models/{model}"), "", Bytes::new()).await
}

#[tokio::test]
async fn a_model_is_swapped_while_requests_run_and_none_fails() {
    let folder = folder();
    let server = Example::start(&folder).await;
    let (done, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (client, done, served) = (server.client(), done.clone(), served.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    client.post("/v1/classify", &inputs()).await.ok();
                    client.post("/v1/embeddings", &inputs()).await.ok();
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let client = server.client();
    for generation in 2..6 {
        let swapped = load(&client, "digits?version=2").await.ok();
        assert_eq!((&swapped["version"], &swapped["generation"]), (&json!("2"), &json!(generation)), "{swapped}");
        let before = served.load(Ordering::SeqCst);
        while served.load(Ordering::SeqCst) < before + 8 {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let stats = client.get("/health/thread-pools").await.ok();
    let slots = &stats["pools"]["inference"]["slots"][0];
    assert_eq!((&slots["name"], &slots["generation"], &slots["outdated"]), (&json!("digits"), &json!(5), &json!(0)));
    let metrics = client.get("/metrics").await.text();
    let line = "workload_pool_slot_generation{pool=\"inference\"} 5";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    server.stop().await;
}

#[tokio::test]
async fn models_are_loaded_listed_and_unloaded_by_name() {
    let folder = folder();
    let server = Example::start(&folder).await;
    let client = server.client();
    assert_eq!(client.post("/v1/classify?model=other", &inputs()).await.status, StatusCode::NOT_FOUND);
    let created = load(&client, "other").await;
    assert_eq!((created.status, &created.json()["sessions"]), (StatusCode::CREATED, &json!(1)));
    let one = client.post("/v1/classify", &inputs()).await.ok();
    assert_eq!(client.post("/v1/classify?model=other", &inputs()).await.ok(), one, "the files are the same");
    let listed = client.get("/v1/models").await.ok();
    let names: Vec<_> = listed["models"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["digits", "other"]);
    assert_eq!(client.send(Method::DELETE, "/v1/models/other", "", Bytes::new()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.send(Method::DELETE, "/v1/models/other", "", Bytes::new()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(client.post("/v1/classify?model=other", &inputs()).await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_model_of_the_folder_is_refused_and_the_model_before_serves_on() {
    let folder = folder();
    let server = Example::start(&folder).await;
    let client = server.client();
    let before = client.post("/v1/classify", &inputs()).await.ok();
    for (model, status, detail) in [
        ("digits?version=half", 422, "nothing has changed"),
        ("digits?version=9", 404, "no file `digits@9.onnx`"),
        ("missing", 404, "no file `missing.onnx`"),
        ("..%2Fsecret", 400, "cannot be used"),
        ("%2Ftmp%2Fsecret", 400, "cannot be used"),
        ("digits.onnx", 400, "cannot be used"),
        ("%00", 400, "cannot be used"),
        ("digits?version=..%2F..%2Fsecret", 400, "cannot be used"),
        ("digits?version=", 400, "cannot be used"),
        ("digits?path=%2Ftmp", 400, "path"),
        (&"a".repeat(65), 400, "cannot be used"),
    ] {
        let answer = load(&client, model).await;
        let problem = answer.json();
        assert_eq!(answer.status.as_u16(), status, "{model}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{model}: {problem}");
        assert!(!problem.to_string().contains(folder.path("").to_str().unwrap()), "{problem} names the folder");
    }
    assert!(load(&client, "../secret").await.status.is_client_error());
    assert!(load(&client, "").await.status.is_client_error());
    assert_eq!(client.post("/v1/classify", &inputs()).await.ok(), before);
    let listed = client.get("/v1/models").await.ok();
    assert_eq!(listed["models"]["digits"]["generation"], 1);
    server.stop().await;
}
