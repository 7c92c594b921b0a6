//! SIGTERM under load, a second one, and handlers that never end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::process::{Example, Folder};
use crate::support::{
    HeldNotes, Raw, count_notes, folder_with, get, note, post, soon, speak_http2, status, until_pool,
};

const CLIENTS: usize = 60;

/// Writes notes while the server is ready, each on a new connection; with `keep_alive`, all on one connection until the
/// server closes it. Counts the notes that the server acknowledged. The server may close a connection before a response,
/// but not within one.
async fn write_notes(address: SocketAddr, keep_alive: bool, acknowledged: Arc<AtomicU64>, unready: Arc<AtomicBool>) {
    let request = post("/v1/notes", &json!({ "text": "a note" }).to_string());
    while !unready.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(address).await.expect("the port is open while the server is ready");
        let mut connection = Raw { stream };
        loop {
            let mut first = [0];
            let sent = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, request.as_bytes()).await;
            match soon(connection.stream.read(&mut first)).await {
                Ok(1) => sent.unwrap(),
                // The first request of each connection must be answered.
                closed if !keep_alive => panic!("closed without an answer: {closed:?}"),
                _ => return,
            }
            let head = connection.head().await;
            assert_eq!(status(&head), 201, "{head}");
            let length: usize = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
            soon(connection.stream.read_exact(&mut vec![0; length])).await.unwrap();
            acknowledged.fetch_add(1, Ordering::Relaxed);
            if !keep_alive || head.contains("connection: close") {
                break;
            }
        }
    }
}

/// Checks readiness repeatedly, as a balancer does, until it fails.
async fn probe(address: SocketAddr, unready: Arc<AtomicBool>) {
    let ready = async || Raw::connect(address).await.exchange(get("/health/thread-pools/ready")).await;
    while ready().await.0 == 200 {}
    unready.store(true, Ordering::Relaxed);
}

/// The same over HTTP/2, with four requests at once on each connection. The server refuses requests that arrive after
/// its GOAWAY. Every response that it begins must be complete.
async fn write_notes_over_http2(address: SocketAddr, acknowledged: Arc<AtomicU64>, ending: Arc<AtomicBool>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, _connection) = speak_http2(stream, |_| {}).await;
    // Not beyond its connection: when the server has ended, its port may be that of another test's server.
    let mut refused = false;
    while !refused {
        let requests = (0..4).map(|_| client.clone().send_request(note(Body::from("{\"text\": \"a note\"}"))));
        for answered in soon(join_all(requests)).await {
            match answered {
                Ok(response) => {
                    assert_eq!(response.status(), 201);
                    soon(response.into_body().collect()).await.unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    assert!(ending.load(Ordering::Relaxed), "refused before the end: {error:?}");
                    refused = true;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_under_load_loses_no_accepted_request() {
    // No request is shed, even on a loaded machine.
    let folder = folder_with("db", "{workers: 25, queue: fifo}");
    // Far longer than the clients take to see that readiness fails.
    folder.configure(&folder.config().replace("shutdown_delay: 0", "shutdown_delay: 10"));
    let mut server = Example::start(&folder).await;
    let address = server.address();
    // Clients of three kinds: a connection for each request, one connection for all requests, and HTTP/2.
    let acknowledged: [Arc<AtomicU64>; 3] = Default::default();
    let ending = Arc::new(AtomicBool::new(false));
    let unready = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    clients.spawn(probe(address, Arc::clone(&unready)));
    for _ in 0..CLIENTS / 3 {
        let [fresh, kept, http2] = acknowledged.clone();
        clients.spawn(write_notes(address, false, fresh, Arc::clone(&unready)));
        clients.spawn(write_notes(address, true, kept, Arc::clone(&unready)));
        clients.spawn(write_notes_over_http2(address, http2, Arc::clone(&ending)));
    }
    let under_load = async {
        let enough = CLIENTS as u64;
        while acknowledged.iter().any(|acknowledged| acknowledged.load(Ordering::Relaxed) < enough) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(under_load).await;
    ending.store(true, Ordering::Relaxed);
    server.terminate();
    soon(async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    })
    .await;
    assert_eq!(server.exit_code().await, Some(0));
    // The database has exactly the notes that the server acknowledged.
    let acknowledged: u64 = acknowledged.iter().map(|acknowledged| acknowledged.load(Ordering::Relaxed)).sum();
    assert_eq!(acknowledged, count_notes(&folder));
}

/// A request whose handler never ends, because it opens a pipe without a writer.
pub(crate) async fn stuck(folder: &Folder, server: &Example) -> Raw {
    stuck_in("io", folder, server).await
}

/// The same, with settings that send requests for files to this pool.
pub(crate) async fn stuck_in(pool: &str, folder: &Folder, server: &Example) -> Raw {
    let made = std::process::Command::new("mkfifo").arg(folder.path("files/stuck")).status().unwrap();
    assert!(made.success());
    let mut connection = Raw::connect(server.address()).await;
    connection.send(get("/files/stuck")).await;
    until_pool(&server.client(), pool, "the request is in flight", |pool| pool["in_flight"] == 1).await;
    connection
}

#[tokio::test]
async fn a_second_sigterm_ends_a_server_whose_handler_never_does() {
    let folder = Folder::new();
    let mut server = Example::start(&folder).await;
    let mut connection = stuck(&folder, &server).await;
    server.terminate();
    server.closed_its_port().await;
    // A signal within the first second counts as the first one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(connection.rest().await, b"", "there was no answer to give");
}

#[tokio::test]
async fn a_server_whose_handler_never_ends_does_so_at_the_end_of_its_time() {
    let folder = Folder::new();
    folder.configure(&folder.config().replace("shutdown_timeout: 25", "shutdown_timeout: 0.2"));
    let mut server = Example::start(&folder).await;
    let mut connection = stuck(&folder, &server).await;
    server.terminate();
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(connection.rest().await, b"", "there was no answer to give");
}

/// As in `server | tee log`, where Ctrl-C ends both processes.
#[tokio::test]
async fn a_sigterm_answers_what_is_in_flight_although_nobody_reads_the_log_any_more() {
    let folder = Folder::new();
    let (reader, log) = std::io::pipe().unwrap();
    let mut server = Example::start_with(&folder, |command| {
        command.stderr(log);
    })
    .await;
    let held = HeldNotes::hold(&folder);
    let mut connection = Raw::connect(server.address()).await;
    connection.send(post("/v1/notes", &json!({ "text": "a note" }).to_string())).await;
    until_pool(&server.client(), "db", "it is in flight", |db| db["in_flight"] == 1).await;
    drop(reader);
    server.terminate();
    server.closed_its_port().await;
    drop(held);
    assert_eq!(connection.answer().await.0, 201);
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test]
async fn what_is_queued_at_a_sigterm_is_answered_too() {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 50}");
    let mut server = Example::start(&folder).await;
    let client = server.client();
    let held = HeldNotes::hold(&folder);
    let mut connections = Vec::new();
    for number in 0..21 {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(post("/v1/notes", &json!({ "text": format!("note {number}") }).to_string())).await;
        connections.push(connection);
    }
    until_pool(&client, "db", "one writes and the others wait", |db| db["queued_tasks"] == 20).await;
    server.terminate();
    server.closed_its_port().await;
    drop(held);
    for mut connection in connections {
        assert_eq!(connection.answer().await.0, 201);
    }
    assert_eq!(server.exit_code().await, Some(0));
    assert_eq!(count_notes(&folder), 21);
}
