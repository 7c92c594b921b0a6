//! The models of the example server: loaded, swapped while requests run, unloaded, and refused.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod example {
    pub(crate) mod narrow;
    pub(crate) mod onnx;
    pub(crate) mod process;
    pub(crate) mod stalled;
}

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use example::onnx::{self, Does};
use example::process::{Answer, Client, Example, Folder};
use example::stalled::Stalled;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// The time after which a step counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

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

async fn unload(client: &Client, model: &str) -> Answer {
    client.send(Method::DELETE, &format!("/v1/models/{model}"), "", Bytes::new()).await
}

/// A load whose answer the test awaits later.
fn load_meanwhile(server: &Example, model: &'static str) -> JoinHandle<Answer> {
    let client = server.client();
    tokio::spawn(async move { load(&client, model).await })
}

/// A bright image, on which some models fail.
fn bright() -> Value {
    json!({ "inputs": [vec![16; 64]] })
}

async fn classify(client: &Client, model: &str, inputs: &Value) -> Answer {
    client.post(&format!("/v1/classify?model={model}"), inputs).await
}

/// The digit that a model sees.
async fn class(client: &Client, model: &str) -> Value {
    classify(client, model, &inputs()).await.ok()["predictions"][0]["class"].clone()
}

/// A request whose answer the test awaits later, on a connection of its own.
fn classify_meanwhile(server: &Example, model: &'static str, inputs: Value) -> JoinHandle<Answer> {
    let client = server.client();
    tokio::spawn(async move { classify(&client, model, &inputs).await })
}

async fn ended<T>(task: JoinHandle<T>) -> T {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends").unwrap()
}

/// Waits until the pool `inference` is as `holds` says.
async fn until(client: &Client, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let pool = client.get("/health/thread-pools").await.ok()["pools"]["inference"].clone();
        if holds(&pool) {
            return pool;
        }
        assert!(start.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}: {pool}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The slots of a model in the numbers of a pool.
fn slots<'a>(pool: &'a Value, model: &str) -> Option<&'a Value> {
    pool["slots"].as_array()?.iter().find(|slots| slots["name"] == model)
}

fn in_flight(number: u64) -> impl Fn(&Value) -> bool {
    move |pool| pool["in_flight"] == number
}

fn queued(number: u64) -> impl Fn(&Value) -> bool {
    move |pool| pool["queued_tasks"] == number
}

/// Writes a model into the folder of `folder`.
fn write(folder: &Folder, file: &str, model: &[u8]) {
    std::fs::write(folder.path("models").join(file), model).unwrap();
}

/// A folder whose pool `inference` has these settings.
fn folder_with(settings: &str) -> Folder {
    let folder = folder();
    folder.configure(&folder.config().replace("inference_workers: 20", &format!("inference: {settings}")));
    folder
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
    // One for each of the two pools.
    assert_eq!((created.status, &created.json()["sessions"]), (StatusCode::CREATED, &json!(2)));
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

/// Files that are no models, as versions of `digits` and as models of their own.
#[tokio::test]
async fn files_that_are_no_models_change_nothing_whatever_they_do() {
    const FILES: [(&str, u16, &str); 17] = [
        ("empty", 422, "it is no model"),
        ("text", 422, "it is no model"),
        ("half", 422, "it is no model"),
        ("almost", 422, "it is no model"),
        ("fails", 422, "cannot be run on 1"),
        ("panics", 422, "the task panicked"),
        ("one-row", 422, "cannot be run on 2"),
        ("five", 422, "wrong shape"),
        ("huge", 422, "are the most"),
        ("out", 422, "leads out of the folder"),
        ("out-by-folder", 422, "leads out of the folder"),
        ("pipe", 404, "no file"),
        ("folder", 404, "no file"),
        ("circle", 404, "no file"),
        ("dangling", 404, "no file"),
        ("device", 404, "no file"),
        ("missing", 404, "no file"),
    ];
    let folder = folder();
    let models = folder.path("models");
    let whole = std::fs::read(models.join("digits.onnx")).unwrap();
    let link = |to: &Path, from: &str| std::os::unix::fs::symlink(to, models.join(from)).unwrap();
    link(&folder.path(""), "parent");
    for name in ["digits@", "new-"] {
        let file = |kind: &str| format!("{name}{kind}.onnx");
        for (kind, bytes) in [
            ("empty", &[][..]),
            ("text", b"no model"),
            ("half", &whole[..whole.len() / 2]),
            ("almost", &whole[..whole.len() - 20]),
            ("fails", &onnx::model(1, Does::FailsAtOnce)),
            ("panics", &onnx::model(1, Does::PanicsAtOnce)),
            ("one-row", &onnx::model(1, Does::OneRow)),
            ("five", &onnx::model(1, Does::FiveClasses)),
        ] {
            write(&folder, &file(kind), bytes);
        }
        // It has no blocks on the disk.
        std::fs::File::create(models.join(file("huge"))).unwrap().set_len(1 << 40).unwrap();
        link(&folder.path("secret.onnx"), &file("out"));
        link(Path::new("parent/secret.onnx"), &file("out-by-folder"));
        link(Path::new(&file("circle")), &file("circle"));
        link(Path::new("nothing.onnx"), &file("dangling"));
        link(Path::new("/dev/zero"), &file("device"));
        std::fs::create_dir(models.join(file("folder"))).unwrap();
        let made = std::process::Command::new("mkfifo").arg(models.join(file("pipe"))).status().unwrap();
        assert!(made.success());
    }
    let server = Example::start(&folder).await;
    for client in [server.client(), server.client_http2()] {
        let before = client.post("/v1/classify", &inputs()).await.ok();
        for (kind, status, detail) in FILES {
            for model in [format!("digits?version={kind}"), format!("new-{kind}")] {
                let answer = load(&client, &model).await;
                let problem = answer.json();
                assert_eq!(answer.status.as_u16(), status, "{model}: {problem}");
                assert!(problem["detail"].as_str().unwrap().contains(detail), "{model}: {problem}");
                assert!(!problem.to_string().contains(folder.path("").to_str().unwrap()), "{problem} names the folder");
            }
        }
        assert_eq!(client.post("/v1/classify", &inputs()).await.ok(), before);
        let listed = client.get("/v1/models").await.ok();
        assert_eq!(listed["models"].as_object().unwrap().keys().collect::<Vec<_>>(), ["digits"]);
        assert_eq!(
            (&listed["models"]["digits"]["generation"], &listed["models"]["digits"]["outdated"]),
            (&json!(1), &json!(0))
        );
    }
    // A link that stays inside is followed.
    link(Path::new("digits@2.onnx"), "digits@link.onnx");
    load(&server.client(), "digits?version=link").await.ok();
    server.stop().await;
}

#[tokio::test]
async fn a_file_that_the_server_may_not_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    std::fs::set_permissions(folder.path("models/other.onnx"), std::fs::Permissions::from_mode(0o0)).unwrap();
    let server = Example::start(&folder).await;
    let answer = load(&server.client(), "other").await;
    // Root may read every file.
    match rustix::process::geteuid().is_root() {
        true => assert_eq!(answer.status, StatusCode::CREATED),
        false => assert!(answer.status == 422 && answer.text().contains("cannot be read"), "{answer:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_in_few_words() {
    let folder = folder();
    let server = Example::start(&folder).await;
    let long = "a".repeat(10_000);
    for client in [server.client(), server.client_http2()] {
        for name in [
            "%2e%2e%2fsecret",
            "..%2Fsecret",
            "..%5Csecret",
            "%00",
            "digits%00",
            "digits%0a",
            "%ff",
            ".",
            "%E2%80%AE",
            &long,
        ] {
            for answer in [
                load(&client, name).await,
                unload(&client, name).await,
                load(&client, &format!("digits?version={name}")).await,
                classify(&client, name, &inputs()).await,
                client.post(&format!("/v1/embeddings?model={name}"), &inputs()).await,
            ] {
                assert!(answer.status.is_client_error(), "{name}: {answer:?}");
                assert_eq!(answer.header("content-type"), "application/problem+json", "{name}");
                assert!(answer.text().len() < 500, "{name}: {answer:?}");
            }
        }
        for name in ["", "../secret", "../../models/digits"] {
            assert!(load(&client, name).await.status.is_client_error(), "{name}");
            assert!(unload(&client, name).await.status.is_client_error(), "{name}");
        }
        assert_eq!(classify(&client, "", &inputs()).await.status, StatusCode::NOT_FOUND);
        assert_eq!(client.get("/v1/models").await.ok()["models"].as_object().unwrap().len(), 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_on_which_a_model_fails_or_panics_is_the_only_one_of_its_batch_to_fail() {
    let folder = folder_with("{workers: 1}");
    write(&folder, "fails.onnx", &onnx::model(3, Does::Fails));
    write(&folder, "panics.onnx", &onnx::model(4, Does::Panics));
    let server = Example::start(&folder).await;
    let client = server.client();
    for (model, digit) in [("fails", 3), ("panics", 4)] {
        assert_eq!(load(&client, model).await.status, StatusCode::CREATED);
        let permit = Stalled::begin(&server).await;
        let mut requests = Vec::new();
        for (number, inputs) in [inputs(), bright(), inputs()].into_iter().enumerate() {
            requests.push(classify_meanwhile(&server, model, inputs));
            until(&client, "it is queued", queued(number as u64 + 1)).await;
        }
        drop(permit);
        let mut answers = Vec::new();
        for request in requests {
            answers.push(ended(request).await);
        }
        assert_eq!(answers[1].status, StatusCode::INTERNAL_SERVER_ERROR, "{model}: {:?}", answers[1]);
        assert!(!answers[1].text().contains("capacity"), "the client does not see the panic: {:?}", answers[1]);
        for good in [&answers[0], &answers[2]] {
            assert_eq!(good.ok()["predictions"][0]["class"], digit);
        }
        assert_eq!(class(&client, model).await, digit, "the next session works");
    }
    let pool = until(&client, "all has ended", in_flight(0)).await;
    assert_eq!((&pool["slots"][2]["in_use"], &pool["permits_in_use"]), (&json!(0), &json!(0)));
    server.stop().await;
}

#[tokio::test]
async fn a_load_that_does_not_end_delays_no_request_and_goes_with_its_name() {
    let folder = folder_with("{workers: 1}");
    write(&folder, "slow.onnx", &onnx::model(1, Does::NeverLoads));
    write(&folder, "slow@good.onnx", &onnx::model(2, Does::Nothing));
    let server = Example::start(&folder).await;
    let client = server.client();
    // Whether one runs, beside so many sessions that serve.
    let loading = |sessions: usize| {
        move |pool: &Value| {
            let mut slots = pool["slots"].as_array().unwrap().iter();
            slots.any(|slots| slots["name"] == "slow" && slots["loading"] == 1 && slots["idle"] == sessions)
        }
    };
    // Its client leaves, and another one asks for it: the load goes on.
    let left = load_meanwhile(&server, "slow");
    until(&client, "it is being loaded", loading(0)).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    assert_eq!(load(&client, "slow").await.status, StatusCode::CONFLICT);
    // The pool's only worker serves meanwhile.
    client.post("/v1/classify", &inputs()).await.ok();
    assert_eq!(classify(&client, "slow", &inputs()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(unload(&client, "slow").await.status, StatusCode::NO_CONTENT);
    assert_eq!(unload(&client, "slow").await.status, StatusCode::NOT_FOUND);
    assert_eq!(load(&client, "slow?version=good").await.status, StatusCode::CREATED);
    assert_eq!(class(&client, "slow").await, 2);

    // A swap that does not end, and whose client waits until the model is unloaded.
    std::fs::rename(folder.path("models/slow.onnx"), folder.path("models/slow@bad.onnx")).unwrap();
    let swap = load_meanwhile(&server, "slow?version=bad");
    until(&client, "it is being loaded", loading(1)).await;
    assert_eq!(class(&client, "slow").await, 2, "the version before serves");
    assert_eq!(client.get("/v1/models").await.ok()["models"]["slow"]["version"], "good");
    assert_eq!(unload(&client, "slow").await.status, StatusCode::NO_CONTENT);
    let answer = ended(swap).await;
    assert_eq!(
        (answer.status, &answer.json()["detail"]),
        (StatusCode::CONFLICT, &json!("the model was unloaded meanwhile"))
    );
    assert_eq!(load(&client, "slow?version=good").await.status, StatusCode::CREATED);
    server.stop().await;
}

#[tokio::test]
async fn sigterm_ends_loads_and_swaps_that_run_and_does_not_wait_for_them() {
    let folder = folder();
    for file in ["digits@bad.onnx", "new.onnx"] {
        write(&folder, file, &onnx::model(1, Does::NeverLoads));
    }
    // Far more than the test waits.
    folder.configure(&folder.config().replace("shutdown_timeout: 25", "shutdown_timeout: 1000"));
    let server = Example::start(&folder).await;
    let client = server.client();
    let changes = [load_meanwhile(&server, "digits?version=bad"), load_meanwhile(&server, "new")];
    until(&client, "both are being loaded", |pool| {
        ["digits", "new"].iter().all(|model| slots(pool, model).is_some_and(|slots| slots["loading"] == 1))
    })
    .await;
    client.post("/v1/classify", &inputs()).await.ok();
    server.terminate();
    for change in changes {
        let answer = ended(change).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert!(answer.text().contains("shutting down"), "{answer:?}");
    }
    let mut server = server;
    assert_eq!(server.exit_code().await, Some(0));
}

/// The swap waits for the session that a batch uses, and the batch does not end.
#[tokio::test]
async fn sigterm_in_the_middle_of_a_batch_and_a_swap_answers_everybody() {
    let folder = folder_with("{workers: 1}");
    write(&folder, "long.onnx", &onnx::model(1, Does::RunsOn));
    // The loader looks once a second whether the pool drains.
    folder.configure(&folder.config().replace("shutdown_timeout: 25", "shutdown_timeout: 8"));
    let server = Example::start(&folder).await;
    let client = server.client();
    load(&client, "long").await;
    let permit = Stalled::begin(&server).await;
    let batch = [classify_meanwhile(&server, "long", bright()), classify_meanwhile(&server, "long", inputs())];
    until(&client, "they are queued", queued(2)).await;
    drop(permit);
    until(&client, "they run", in_flight(2)).await;
    let waits = classify_meanwhile(&server, "digits", inputs());
    until(&client, "it is queued", queued(1)).await;
    write(&folder, "long.onnx", &onnx::model(2, Does::Nothing));
    let swap = load_meanwhile(&server, "long");
    until(&client, "the new session waits for the old one", |pool| {
        slots(pool, "long").is_some_and(|slots| slots["outdated"] == 1 && slots["loading"] == 1)
    })
    .await;
    server.terminate();
    let answer = ended(swap).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    for request in batch.into_iter().chain([waits]) {
        // What is not answered when the time is over is cut off; a connection may be closed before that is written.
        let ended = tokio::time::timeout(PATIENCE, request).await.expect("it ends");
        if let Ok(answer) = ended {
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        }
    }
    let mut server = server;
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn requests_that_leave_at_any_stage_of_a_batch_are_counted_once_and_delay_nobody() {
    let folder = folder_with("{workers: 2}");
    write(&folder, "long.onnx", &onnx::model(1, Does::RunsOn));
    let server = Example::start(&folder).await;
    let client = server.client();
    load(&client, "long").await;
    let permits = [Stalled::begin(&server).await, Stalled::begin(&server).await];
    let cancelled = |number: u64| move |pool: &Value| pool["results"]["cancelled"] == number;
    let leave = async |request: JoinHandle<Answer>| {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    };
    let mut requests = Vec::new();
    for number in 0..4 {
        requests.push(classify_meanwhile(&server, "long", if number == 1 { bright() } else { inputs() }));
        until(&client, "it is queued", queued(number + 1)).await;
    }
    // The one that would lead the batch, while it is queued.
    leave(requests.remove(0)).await;
    until(&client, "it has left the queue", queued(3)).await;
    let [one, two] = permits;
    drop(one);
    // The stream, which was not read to its end, and the one that has left.
    until(&client, "the batch runs", |pool| pool["in_flight"] == 4 && pool["permits_in_use"] == 2).await;
    until(&client, "two have left", cancelled(2)).await;
    // One that rides, and then the one that leads.
    leave(requests.remove(1)).await;
    until(&client, "the rider has left", cancelled(3)).await;
    leave(requests.remove(0)).await;
    let last = requests.remove(0);
    assert!(!last.is_finished(), "the batch goes on for the last one");
    // The other permit serves, and a second session.
    drop(two);
    assert_eq!(class(&client, "long").await, 1);
    client.post("/v1/classify", &inputs()).await.ok();
    leave(last).await;
    // The model does not look whether somebody waits, so its permit stays in use.
    let pool = until(&client, "the last rider has left", |pool| pool["in_flight"] == 1).await;
    assert_eq!((&pool["permits_in_use"], &pool["queued_tasks"]), (&json!(1), &json!(0)), "{pool}");
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_ends_that_request_alone() {
    let trusted = "{workers: 1, trust: {deadline: x-request-timeout}}";
    let server = Example::start(&folder_with(trusted)).await;
    let client = server.client();
    let permit = Stalled::begin(&server).await;
    let mut requests = Vec::new();
    for (number, deadline) in ["60", "0.2", "60"].into_iter().enumerate() {
        let own = server.client();
        requests.push(tokio::spawn(async move {
            own.post_with("/v1/classify", &inputs(), &[("x-request-timeout", deadline)]).await
        }));
        until(&client, "it is queued or late", move |pool| {
            pool["queued_tasks"] == number as u64 + 1 || pool["results"]["expired"] == 1
        })
        .await;
    }
    let late = ended(requests.remove(1)).await;
    assert_eq!((late.status, &late.json()["started"]), (StatusCode::GATEWAY_TIMEOUT, &json!(false)), "{late:?}");
    assert_eq!(late.json()["reason"], "deadline_exceeded");
    drop(permit);
    for request in requests {
        ended(request).await.ok();
    }
    let zero = client.post_with("/v1/classify", &inputs(), &[("x-request-timeout", "0")]).await;
    assert_eq!(zero.status, StatusCode::GATEWAY_TIMEOUT);
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_of_the_bytes_that_were_loaded_whatever_happens_to_the_file() {
    let folder = folder_with("{workers: 2}");
    write(&folder, "long.onnx", &onnx::model(5, Does::RunsOn));
    let server = Example::start(&folder).await;
    let client = server.client();
    assert_eq!(load(&client, "long").await.status, StatusCode::CREATED);
    // The file is replaced, and then written anew.
    write(&folder, "next", &onnx::model(6, Does::Nothing));
    std::fs::rename(folder.path("models/next"), folder.path("models/long.onnx")).unwrap();
    let runs = classify_meanwhile(&server, "long", bright());
    until(&client, "the first session is in use", in_flight(1)).await;
    assert_eq!(class(&client, "long").await, 5, "a second session is made");
    let stats = until(&client, "it is put back", in_flight(1)).await;
    assert_eq!(
        (&slots(&stats, "long").unwrap()["idle"], &slots(&stats, "long").unwrap()["in_use"]),
        (&json!(1), &json!(1))
    );
    std::fs::remove_file(folder.path("models/long.onnx")).unwrap();
    assert_eq!(client.post("/v1/embeddings?model=long", &inputs()).await.status, StatusCode::OK);
    assert_eq!(load(&client, "long").await.status, StatusCode::NOT_FOUND);
    assert_eq!(class(&client, "long").await, 5);
    runs.abort();
}

/// Lets a thread write two versions of a model again and again, while `load` loads them.
async fn while_written<F>(write: impl Fn(&Path, &[u8]) + Send + 'static, load: impl FnOnce(Example) -> F) -> Example
where
    F: Future<Output = Example>,
{
    let folder = folder();
    // In these models, two parts that are far from each other give the class one half of its probability each.
    let versions = [1, 2].map(|class| onnx::padded(class, Does::Nothing, 1 << 20));
    assert_eq!(versions[0].len(), versions[1].len(), "the length does not tell");
    let path = folder.path("models/often.onnx");
    std::fs::write(&path, &versions[0]).unwrap();
    let example = Example::start(&folder).await;
    let done = Arc::<AtomicBool>::default();
    let writes = {
        let done = done.clone();
        std::thread::spawn(move || {
            for version in versions.iter().cycle().take_while(|_| !done.load(Ordering::SeqCst)) {
                write(&path, version);
            }
        })
    };
    let example = load(example).await;
    done.store(true, Ordering::SeqCst);
    writes.join().unwrap();
    assert!(self::load(&example.client(), "often").await.status.is_success(), "nobody writes any more");
    example
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_replaced_again_and_again_is_always_loaded_whole() {
    let replace = |path: &Path, version: &[u8]| {
        std::fs::write(path.with_extension("new"), version).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    let server = while_written(replace, |example| async {
        let client = example.client();
        for _ in 0..40 {
            let loaded = load(&client, "often").await;
            assert!(loaded.status.is_success(), "{loaded:?}");
            let answer = classify(&client, "often", &inputs()).await.ok();
            assert_eq!(answer["predictions"][0]["probability"], 1.0, "the halves are of two versions: {answer}");
        }
        example
    });
    server.await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_seen_to_change_while_it_is_read_is_refused() {
    let overwrite = |path: &Path, version: &[u8]| {
        let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(version).unwrap();
    };
    let server = while_written(overwrite, |example| async {
        let client = example.client();
        let refused = async {
            loop {
                let answer = load(&client, "often").await;
                if !answer.status.is_success() {
                    break answer;
                }
            }
        };
        let refused = tokio::time::timeout(PATIENCE, refused).await.expect("one load sees the file change");
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.text().contains("it changed while it was read"), "{refused:?}");
        example
    });
    server.await.stop().await;
}
