//! The example server as a program: asked over HTTP, stopped, killed and misconfigured.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod example {
    pub(crate) mod process;
}

use std::time::Duration;

use example::process::{Answer, Example, Folder};
use http::{Method, StatusCode};
use serde_json::{Value, json};

fn image(seed: usize) -> Vec<u32> {
    (0..64).map(|pixel| ((pixel * 7 + seed * 13) % 17) as u32).collect()
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, detail: &str) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
    let text = problem["detail"].as_str().unwrap_or_default();
    assert!(text.contains(detail), "{problem} does not say {detail:?}");
}

#[tokio::test]
async fn each_route_does_its_work() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let client = server.client();

    let health = client.get("/health").await;
    assert_eq!((health.status, health.json()), (StatusCode::OK, json!({ "status": "ok" })));

    let dashboard = client.get("/").await;
    assert_eq!((dashboard.status, dashboard.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));

    let hash = client.post("/v1/hash", &json!({ "password": "correct horse" })).await.ok()["hash"].clone();
    assert!(hash.as_str().is_some_and(|hash| hash.starts_with("$argon2id$")), "{hash}");
    for (password, valid) in [("correct horse", true), ("wrong horse", false)] {
        let verified = client.post("/v1/verify", &json!({ "password": password, "hash": hash })).await.ok();
        assert_eq!(verified, json!({ "valid": valid }));
    }

    let file = client.get("/files/greeting.txt").await;
    assert_eq!((file.status, file.text().as_str()), (StatusCode::OK, "hello from the disk\n"));

    let created = client.post("/v1/notes", &json!({ "text": "a note about foxes" })).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let id = created.json()["id"].as_i64().unwrap();
    assert_eq!(created.header("location"), format!("/v1/notes/{id}"));
    let note = client.get(&format!("/v1/notes/{id}")).await.ok();
    assert_eq!((&note["id"], &note["text"]), (&json!(id), &json!("a note about foxes")));
    assert!(note["created_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{note}");
    let found = client.get("/v1/notes?q=foxes%20ABOUT").await.ok();
    assert_eq!(found, json!({ "notes": [note] }));
    assert_eq!(client.get("/v1/notes?q=%22wolves%22%20*").await.ok(), json!({ "notes": [] }));

    let inputs = json!({ "inputs": [image(0), image(1), image(2)] });
    let embeddings = client.post("/v1/embeddings", &inputs).await.ok();
    let embeddings = embeddings["embeddings"].as_array().unwrap();
    assert_eq!(embeddings.iter().map(|row| row.as_array().unwrap().len()).collect::<Vec<_>>(), [32; 3]);
    let classes = client.post("/v1/classify", &inputs).await.ok();
    let predictions = classes["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 3);
    for prediction in predictions {
        let class = prediction["class"].as_u64().unwrap() as usize;
        assert_eq!(prediction["probability"], prediction["probabilities"][class]);
        assert_eq!(prediction["probabilities"].as_array().unwrap().len(), 10);
    }
    server.stop().await;
}

#[tokio::test]
async fn each_request_runs_once_in_the_pool_that_is_named_for_it() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let client = server.client();
    let inputs = json!({ "inputs": [image(0)] });

    client.get("/health").await.ok();
    client.get("/files/greeting.txt").await;
    client.post("/v1/hash", &json!({ "password": "a" })).await.ok();
    client.post("/v1/hash", &json!({ "password": "b" })).await.ok();
    for _ in 0..3 {
        client.post("/v1/notes", &json!({ "text": "text" })).await;
    }
    for _ in 0..4 {
        client.post("/v1/embeddings", &inputs).await.ok();
    }
    for _ in 0..5 {
        client.post("/v1/classify", &inputs).await.ok();
    }
    // None of these requests has a handler, so none may run in a pool.
    for path in ["/v1/hash", "/v1/embeddings", "/v1/classify", "/v1/none"] {
        assert!(client.get(path).await.status.is_client_error());
    }

    let metrics = client.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for (pool, tasks) in [("io", 1), ("cpu", 2), ("db", 3), ("embedding", 4), ("inference", 5)] {
        let mut sum = 0;
        for line in metrics.text().lines().filter(|line| line.starts_with("workload_pool_tasks_total{")) {
            if line.contains(&format!("pool=\"{pool}\"")) {
                sum += line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
            }
        }
        assert_eq!(sum, tasks, "pool {pool}:\n{}", metrics.text());
    }

    let pools = client.get("/health/thread-pools").await.ok();
    assert_eq!(pools["pools"]["cpu"]["max_workers"], 30);
    assert!(pools["summary"]["total_workers"].is_number());
    assert!(client.post("/health/thread-pools/log-status", &json!({})).await.status.is_success());
    assert_eq!(client.get("/health/thread-pools/log-status").await.header("allow"), "POST");
    server.stop().await;
}

#[tokio::test]
async fn hashing_takes_the_memory_of_its_workers_and_no_more() {
    let folder = Folder::new();
    // None is rejected, however slow the machine is.
    folder.configure(&folder.config().replace("cpu_workers: 30", "cpu: {workers: 30, queue_timeout: 300s}"));
    let server = Example::start(&folder).await;
    let hashes = (0..100).map(|password| {
        let client = server.client();
        tokio::spawn(async move { client.post("/v1/hash", &json!({ "password": format!("{password}") })).await.status })
    });
    for hash in hashes.collect::<Vec<_>>() {
        assert_eq!(hash.await.unwrap(), StatusCode::OK);
    }
    // 30 workers take 19 MiB each.
    let peak = server.peak_memory_mib();
    assert!(peak < 900, "{peak} MiB");
    server.stop().await;
}

#[tokio::test]
async fn without_verbose_the_pools_are_not_shown() {
    let folder = Folder::new();
    folder.configure(&folder.config().replace("verbose: true", "verbose: false"));
    let server = Example::start(&folder).await;
    assert_problem(&server.client().get("/health/thread-pools").await, 404, "nothing");
    server.stop().await;
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let client = server.client();

    let row = |value: Value| json!({ "inputs": [image(0), value] });
    let mut dark = image(0);
    dark[5] = 17;
    for (path, body, status, detail) in [
        ("/v1/hash", json!({ "password": "" }), 400, "password"),
        ("/v1/hash", json!({ "password": "x".repeat(1025) }), 400, "1024"),
        ("/v1/hash", json!({ "pasword": "x" }), 422, "pasword"),
        ("/v1/hash", json!({ "password": "x", "more": 1 }), 422, "more"),
        ("/v1/hash", json!({ "password": 3 }), 422, "password"),
        ("/v1/hash", json!({ "password": "x".repeat(300_000) }), 413, "262144"),
        ("/v1/verify", json!({ "password": "x", "hash": "secret" }), 400, "PHC"),
        (
            "/v1/verify",
            json!({ "password": "x", "hash": "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE" }),
            400,
            "too much",
        ),
        ("/v1/notes", json!({ "text": "" }), 400, "text"),
        ("/v1/notes", json!({ "text": "x".repeat(64 * 1024 + 1) }), 400, "65536"),
        ("/v1/embeddings", json!({ "inputs": [] }), 400, "1 to 256"),
        ("/v1/embeddings", json!({ "inputs": vec![image(0); 257] }), 400, "257"),
        ("/v1/classify", row(json!([1, 2, 3])), 400, "inputs[1]"),
        ("/v1/classify", row(json!(dark)), 400, "inputs[1][5]"),
        ("/v1/classify", row(json!(["x"])), 422, "inputs"),
    ] {
        assert_problem(&client.post(path, &body).await, status, detail);
    }
    for (path, status, detail) in [
        ("/v1/notes/1", 404, "no note 1"),
        ("/v1/notes/one", 400, "one"),
        ("/v1/notes", 400, "q"),
        ("/v1/notes?q=", 400, "0 words"),
        ("/v1/notes?q=a&limit=0", 400, "limit"),
        ("/v1/notes?q=a&limit=many", 400, "limit"),
        ("/v1/notes?q=a&lmit=3", 400, "lmit"),
        ("/files/none.txt", 404, ""),
        ("/files/greeting.txt/none", 404, ""),
        (&format!("/files/{}", "a".repeat(300)), 404, ""),
        (&format!("/files/{}", "a/".repeat(3000)), 404, ""),
        ("/nowhere", 404, "/nowhere"),
    ] {
        assert_problem(&client.get(path).await, status, detail);
    }

    let wrong_method = client.get("/v1/hash").await;
    assert_problem(&wrong_method, 405, "Allow");
    assert_eq!(wrong_method.header("allow"), "POST");
    let cut = client.send(Method::POST, "/v1/hash", "application/json", "{\"password\":".into()).await;
    assert_problem(&cut, 400, "EOF");
    let text = client.send(Method::POST, "/v1/hash", "text/plain", "{\"password\":\"x\"}".into()).await;
    assert_problem(&text, 415, "application/json");
    server.stop().await;
}

#[tokio::test]
async fn a_folder_without_its_slash_is_redirected_to_where_it_is() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("files/letters")).unwrap();
    std::fs::write(folder.path("files/letters/index.html"), "<p>letters").unwrap();
    let server = Example::start(&folder).await;
    let client = server.client();
    let redirected = client.get("/files/letters").await;
    assert_eq!(redirected.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(redirected.header("location"), "/files/letters/");
    assert_eq!(client.get("/files/letters/").await.text(), "<p>letters");
    server.stop().await;
}

#[tokio::test]
async fn files_outside_the_folder_are_not_served() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let client = server.client();
    for path in [
        "/files/../config.yaml",
        "/files/%2e%2e/config.yaml",
        "/files/..%2fconfig.yaml",
        "/files/%2e%2e%2fconfig.yaml",
        "/files/..%5cconfig.yaml",
        "/files//etc/passwd",
        "/files/%2fetc%2fpasswd",
        "/files/greeting.txt%00",
    ] {
        let answer = client.get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_notes_survive_a_kill() {
    let folder = Folder::new();
    let text = |number: usize| format!("note{number} {}", "word ".repeat(number % 50));
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut server = Example::start(&folder).await;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for writer in 0..8 {
            let (client, sender) = (server.client(), sender.clone());
            tokio::spawn(async move {
                for number in (round * 100_000 + writer * 10_000).. {
                    let note = json!({ "text": text(number) });
                    let Ok(answer) = client.try_post("/v1/notes", &note).await else { return };
                    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                    let _ = sender.send((answer.json()["id"].as_i64().unwrap(), number));
                }
            });
        }
        drop(sender);
        for _ in 0..20 {
            acknowledged.push(receiver.recv().await.unwrap());
        }
        server.kill().await;
        while let Some(note) = receiver.recv().await {
            acknowledged.push(note);
        }
    }

    let server = Example::start(&folder).await;
    let client = server.client();
    for (id, number) in &acknowledged {
        let note = client.get(&format!("/v1/notes/{id}")).await.ok();
        assert_eq!(note["text"], text(*number));
        let found = client.get(&format!("/v1/notes?q=note{number}")).await.ok();
        assert_eq!(found["notes"][0]["id"], *id, "{found}");
    }
    let ids: std::collections::HashSet<_> = acknowledged.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), acknowledged.len());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_is_in_flight_and_exits_with_0() {
    let folder = Folder::new();
    let mut server = Example::start(&folder).await;
    let observer = server.client();
    // While this test holds the lock, no note can be written: the requests stay in flight.
    let database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let requests: Vec<_> = (0..8)
        .map(|number| {
            let client = server.client();
            tokio::spawn(async move { client.post("/v1/notes", &json!({ "text": format!("n{number}") })).await })
        })
        .collect();
    let all_in_flight = async {
        let in_flight = |pools: Value| pools["pools"]["db"]["active_tasks"].as_array().map_or(0, Vec::len);
        while in_flight(observer.get("/health/thread-pools").await.ok()) < 8 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_in_flight).await.expect("a request is not in its pool");
    server.terminate();
    server.closed_its_port().await;
    assert!(requests.iter().all(|request| !request.is_finished()));
    database.execute_batch("ROLLBACK").unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::CREATED);
    }
    assert_eq!(server.exit_code().await, Some(0));
    let notes: i64 = database.query_row("SELECT count(*) FROM notes", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 8);
}

#[tokio::test]
async fn a_start_that_cannot_work_ends_with_one_line_that_says_why() {
    let folder = Folder::new();
    let good = folder.config();
    std::fs::write(folder.path("text.txt"), "no database ".repeat(1000)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();

    for (from, to, why) in [
        ("cpu_workers: 30", "cpu_wrkers: 30", "cpu_workers"),
        ("cpu_workers: 30", "cpu_workers: 0", "cpu_workers"),
        ("POST /v1/hash: cpu", "POST /v1/hash: cpus", "cpus"),
        ("  database:", "  databse: x\n  database:", "databse"),
        ("notes.db", "text.txt", "is not a database"),
        ("notes.db", "missing/notes.db", "app.database"),
        ("  files_dir: ", "  files_dir: /nonexistent", "app.files_dir"),
        ("digits.onnx", "missing.onnx", "app.model"),
        ("digits.onnx", "heldout.json", "app.model"),
    ] {
        assert!(good.contains(from), "{from}");
        folder.configure(&good.replacen(from, to, 1));
        let (code, stderr) = Example::fail(&folder, &[]).await;
        assert_eq!(code, Some(1), "{to}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1 && stderr.contains(why), "{to}: {stderr}");
    }

    folder.configure(&good);
    for (arguments, why) in [
        (&["--bind", taken.as_str()][..], taken.as_str()),
        (&["--bind", "localhost:http"], "`localhost:http` is no address"),
        (&["--bnd", "127.0.0.1:0"], "--bnd"),
        (&["--config", "missing.yaml"], "missing.yaml"),
    ] {
        let (code, stderr) = Example::fail(&folder, arguments).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1 && stderr.contains(why), "{stderr}");
    }
}
