//! Threads that cannot be started: requests are rejected at once, or served by the threads that exist.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use http::StatusCode;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::process::{Example, Folder, program};
use crate::support::{HeldNotes, assert_well, at_rest, count_notes, until_pool};

/// The user ID of the server if the test runs as root, because root has no limit of processes. The user need not exist.
const USER: u32 = 61_847;

/// A server that the test can keep from starting threads.
struct Limited {
    server: Example,
    root: bool,
}

impl Limited {
    async fn start(folder: &Folder) -> Self {
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let server = if root { start_as_user(folder).await } else { Example::start(folder).await };
        Self { server, root }
    }

    /// Makes the system refuse new threads to the server, or allow them again.
    fn refuse_threads(&self, refuse: bool) {
        let before = getrlimit(Resource::Nproc).current.map_or("unlimited".into(), |limit| limit.to_string());
        let limit = if refuse { "1".to_owned() } else { before };
        // Only a process of the server's user may change the limits of the server.
        let mut prlimit = Command::new("prlimit");
        prlimit.arg(format!("--nproc={limit}:")).arg(format!("--pid={}", self.server.id().as_raw_nonzero()));
        if self.root {
            prlimit.uid(USER).gid(USER);
        }
        assert!(prlimit.status().unwrap().success());
    }
}

/// Starts the server as a user that is not root.
async fn start_as_user(folder: &Folder) -> Example {
    // The folder has all files that the server needs, because this user may not be able to read the project.
    let ours = folder.path("server");
    if std::fs::hard_link(program(), &ours).is_err() {
        std::fs::copy(program(), &ours).unwrap();
    }
    let config = folder.config();
    let model = config.lines().find_map(|line| line.trim().strip_prefix("model: ")).unwrap().to_owned();
    std::fs::copy(&model, folder.path("digits.onnx")).unwrap();
    folder.configure(&config.replace(&model, "digits.onnx"));
    for name in ["", "config.yaml", "digits.onnx", "files", "files/greeting.txt"] {
        chown(folder.path(name), Some(USER), Some(USER)).unwrap();
    }
    Example::start_with(folder, |command| {
        let mut theirs = tokio::process::Command::new(ours);
        theirs.args(["--bind", "127.0.0.1:0"]).current_dir(folder.path("")).uid(USER).gid(USER);
        theirs.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        theirs.kill_on_drop(true).env_remove("RUST_LOG");
        *command = theirs;
    })
    .await
}

#[tokio::test]
async fn without_threads_requests_are_refused_at_once_and_served_when_there_are_some() {
    let folder = Folder::new();
    let limited = Limited::start(&folder).await;
    let client = limited.server.client();
    limited.refuse_threads(true);

    for _ in 0..3 {
        for (path, body) in [
            ("/v1/hash", json!({ "password": "x" })),
            ("/v1/notes", json!({ "text": "never written" })),
            ("/v1/classify", json!({ "inputs": [vec![0; 64]] })),
        ] {
            let answer = client.post(path, &body).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
            let problem = answer.json();
            assert_eq!((&problem["reason"], &problem["started"]), (&json!("no_workers"), &json!(false)), "{problem}");
        }
    }
    client.get("/health").await.ok();
    let cpu = until_pool(&client, "cpu", "at rest", at_rest).await;
    assert_eq!((&cpu["results"]["rejected"], &cpu["workers"]), (&json!(3), &json!(0)), "{cpu}");

    limited.refuse_threads(false);
    assert_well(&limited.server).await;
    assert_eq!(count_notes(&folder), 0);
    limited.server.stop().await;
}

#[tokio::test]
async fn a_pool_goes_on_with_the_threads_that_it_has() {
    let folder = Folder::new();
    let limited = Limited::start(&folder).await;
    let client = limited.server.client();
    let held = HeldNotes::hold(&folder);
    let write = |number: usize| {
        let client = client.clone();
        tokio::spawn(async move { client.post("/v1/notes", &json!({ "text": format!("note {number}") })).await.status })
    };
    let mut requests: Vec<_> = (0..3).map(&write).collect();
    until_pool(&client, "db", "three threads are active", |db| db["active_threads"] == 3).await;
    limited.refuse_threads(true);
    requests.extend((3..24).map(&write));
    let db = until_pool(&client, "db", "the others have arrived", |db| db["submitted"] == 24).await;
    assert_eq!(db["workers"], 3, "{db}");
    drop(held);
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::CREATED);
    }
    let db = until_pool(&client, "db", "at rest", at_rest).await;
    assert_eq!((&db["workers"], &db["results"]["ok"]), (&json!(3), &json!(24)), "{db}");

    limited.refuse_threads(false);
    assert_well(&limited.server).await;
    limited.server.stop().await;
}
