//! Steps of the wall clock do not affect the server.
//!
//! The test needs libfaketime, so it is ignored by default. In the library, `clippy.toml` disallows the wall clock.

use std::path::PathBuf;

use http::StatusCode;
use serde_json::json;

use crate::process::{Client, Example};
use crate::support::{HeldNotes, Raw, assert_well, configure, count_notes, folder_with, get, until_pool};

/// The path of libfaketime, as Debian and other distributions install it.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path()).chain(["/usr/lib".into()]);
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists()).expect("libfaketime is installed")
}

/// The wall clock of the server, to the hour. SQLite stores it with each note.
async fn hour(client: &Client) -> String {
    let created = client.post("/v1/notes", &json!({ "text": "what time is it" })).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let note = client.get(created.header("location")).await.ok();
    note["created_at"].as_str().unwrap()[.."2030-01-01T00".len()].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs libfaketime"]
async fn steps_of_the_wall_clock_change_nothing() {
    let folder = folder_with("db", "{workers: 1, queue_timeout: 50s}");
    configure(&folder, "cpu", "{workers: 1, queue_timeout: 0.2s}");
    folder.configure(&folder.config().replace("keep_alive_timeout: 30", "keep_alive_timeout: 50"));
    let clock = folder.path("clock");
    let set = |time: &str| {
        // The rename is atomic, so the server never reads half of a time.
        std::fs::write(folder.path("clock.new"), time).unwrap();
        std::fs::rename(folder.path("clock.new"), &clock).unwrap();
    };
    set("2030-06-15 12:00:00");
    let server = Example::start_with(&folder, |command| {
        command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
    })
    .await;
    let client = server.client();
    assert_eq!(hour(&client).await, "2030-06-15T12");

    for (time, shown) in [
        ("2030-06-16 12:00:00", "2030-06-16T12"),
        ("2001-01-01 00:00:00", "2001-01-01T00"),
        ("2037-12-31 23:00:00", "2037-12-31T23"),
        ("1980-01-01 00:00:00", "1980-01-01T00"),
    ] {
        // A request in flight, a queued request, and an idle connection while the clock steps.
        let held = HeldNotes::hold(&folder);
        let write = || {
            let client = client.clone();
            tokio::spawn(async move { client.post("/v1/notes", &json!({ "text": "a note" })).await })
        };
        let writers = [write(), write()];
        until_pool(&client, "db", "one is in flight and one waits", |db| db["queued_tasks"] == 1).await;
        let mut idle = Raw::connect(server.address()).await;
        assert_eq!(idle.exchange(get("/health")).await.0, 200);
        set(time);
        assert_eq!(idle.exchange(get("/health")).await.0, 200);
        let db = crate::support::pool(&client, "db").await;
        assert_eq!((&db["queued_tasks"], &db["in_flight"]), (&json!(1), &json!(1)), "{db}");
        let running: Vec<_> =
            db["active_tasks"].as_array().unwrap().iter().map(|task| &task["running_for_seconds"]).collect();
        assert!(running.iter().all(|seconds| seconds.as_f64().is_some_and(|seconds| seconds < 60.0)), "{db}");
        drop(held);
        for writer in writers {
            assert_eq!(writer.await.unwrap().status, StatusCode::CREATED);
        }
        assert_eq!(hour(&client).await, shown);
        times_out(&client).await;
    }
    assert_eq!(count_notes(&folder), 13);
    assert_well(&server).await;
    server.stop().await;
}

/// A task that waits too long still gets its queue timeout.
async fn times_out(client: &Client) {
    let hashes: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.post("/v1/hash", &json!({ "password": "correct horse" })).await })
        })
        .collect();
    let mut late = 0;
    for hash in hashes {
        let answer = hash.await.unwrap();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            late += usize::from(answer.json()["reason"] == "queue_timeout");
        }
    }
    assert!(late > 0, "200 hashes were made on one thread in 0.2 s");
}
