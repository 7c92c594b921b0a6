//! The functions that these tests share: blocked pools, polls of the stats endpoint, and raw connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::process::{Client, Example, Folder};

/// Far longer than any step takes. A test that waits this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with settings in which pool `name` has the long form `settings`, in braces.
pub(crate) fn folder_with(name: &str, settings: &str) -> Folder {
    let folder = Folder::new();
    configure(&folder, name, settings);
    folder
}

pub(crate) fn configure(folder: &Folder, name: &str, settings: &str) {
    let config = folder.config();
    let line = config.lines().find(|line| line.trim().starts_with(&format!("{name}_workers:"))).unwrap();
    folder.configure(&config.replacen(line, &format!("    {name}: {settings}"), 1));
}

/// Fails a test that would hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("this must not take for ever")
}

/// Locks the database until it is dropped. Requests that write a note stay in flight meanwhile.
///
/// Such a request fails after 5 s, which is SQLite's busy timeout. The steps of a test take milliseconds.
pub(crate) struct HeldNotes {
    database: rusqlite::Connection,
}

impl HeldNotes {
    pub(crate) fn hold(folder: &Folder) -> Self {
        let database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self { database }
    }
}

impl Drop for HeldNotes {
    fn drop(&mut self) {
        self.database.execute_batch("ROLLBACK").unwrap();
    }
}

/// The number of notes in the database.
pub(crate) fn count_notes(folder: &Folder) -> u64 {
    let database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    database.query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, u32>(0)).unwrap().into()
}

/// One pool in the answer of the stats endpoint.
pub(crate) async fn pool(client: &Client, name: &str) -> Value {
    client.get("/health/thread-pools").await.ok()["pools"][name].clone()
}

/// Waits until `holds` accepts the pool that the stats endpoint shows, and returns that pool.
pub(crate) async fn until_pool(client: &Client, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let pool = pool(client, name).await;
        if holds(&pool) {
            return pool;
        }
        assert!(start.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}: {pool}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether nothing is queued or in flight, and every task that was submitted is accounted for.
pub(crate) fn at_rest(pool: &Value) -> bool {
    (&pool["queued_tasks"], &pool["in_flight"]) == (&0.into(), &0.into()) && pool["submitted"] == ended(pool)
}

/// Σ results.
pub(crate) fn ended(pool: &Value) -> u64 {
    pool["results"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Changes the soft limit of a running process. The hard limit stays, so the soft limit can be raised again.
pub(crate) fn limit(process: Pid, resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(process), resource, Rlimit { current, maximum }).unwrap();
}

/// A number of `/proc/PID/status`.
pub(crate) fn status_of(process: Pid, name: &str) -> u64 {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection for raw bytes.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: soon(TcpStream::connect(address)).await.unwrap() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads one response with a `content-length`, and returns its status and its body.
    pub(crate) async fn answer(&mut self) -> (u16, String) {
        let head = self.head().await;
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        soon(self.stream.read_exact(&mut body)).await.unwrap();
        (status(&head), String::from_utf8(body).unwrap())
    }

    /// Reads a response up to the end of its head.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match soon(self.stream.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&head)),
            }
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) async fn exchange(&mut self, request: impl AsRef<[u8]>) -> (u16, String) {
        self.send(request).await;
        self.answer().await
    }

    /// Reads until the server closes or resets the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
        rest
    }
}

/// An HTTP/2 client on this connection, and the task that drives it.
pub(crate) async fn speak_http2(
    stream: TcpStream,
    configure: impl FnOnce(&mut http2::Builder<TokioExecutor>),
) -> (http2::SendRequest<Body>, JoinHandle<hyper::Result<()>>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    configure(&mut builder);
    let (client, connection) = soon(builder.handshake(TokioIo::new(stream))).await.unwrap();
    (client, tokio::spawn(connection))
}

/// A request that writes a note over HTTP/2, with any body.
pub(crate) fn note(body: Body) -> http::Request<Body> {
    let request = http::Request::post("http://localhost/v1/notes").header("content-type", "application/json");
    request.body(body).unwrap()
}

/// The status of a response's head.
pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no response: {head:?}"))
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Checks that each pool is at rest and still serves requests.
pub(crate) async fn assert_well(server: &Example) {
    let client = server.client();
    client.get("/health").await.ok();
    for name in ["io", "cpu", "db", "embedding", "inference"] {
        until_pool(&client, name, "at rest", at_rest).await;
    }
    client.post("/v1/hash", &serde_json::json!({ "password": "x" })).await.ok();
    assert_eq!(client.get("/files/greeting.txt").await.text(), "hello from the disk\n");
    client.get("/v1/notes?q=anything").await.ok();
}
