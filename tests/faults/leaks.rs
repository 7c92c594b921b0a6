//! Connections that end in every bad way leave no socket, thread or task behind, and delay no other client.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::http2::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS};
use crate::process::{Example, Folder};
use crate::support::{PATIENCE, Raw, assert_well, get, post, soon, status_of};

/// The connections of each kind.
const CONNECTIONS: u64 = 20;

/// How a connection ends after its bytes were sent.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client closes it.
    Close,
    /// The client closes its sending side, and reads until the server closes the connection.
    Half,
    /// The client reads until the server closes the connection.
    Wait,
}

/// Random numbers that are the same in every run.
fn random(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    })
}

/// HTTP/2 frames of random types, flags, streams and payloads.
fn random_frames(seed: u64) -> Vec<u8> {
    let mut bytes = random(seed);
    let mut next = || bytes.next().expect("there is no end");
    let frames = (0..200).flat_map(|_| {
        let (kind, flags, stream, length) = (next() % 12, next(), u32::from(next() % 8), next() % 40);
        let payload: Vec<u8> = (0..length).map(|_| next()).collect();
        http2::frame(kind, flags, stream, &payload)
    });
    frames.collect()
}

/// Bytes that HTTP/1 clients send.
fn http1(kind: &str, seed: u64) -> Vec<u8> {
    let note = post("/v1/notes", &json!({ "text": "a note" }).to_string());
    match kind {
        "nothing" => Vec::new(),
        "half a header" => b"GET /health HT".to_vec(),
        "half a body" => note.into_bytes().split_last().expect("it is not empty").1.to_vec(),
        "half a chunk" => b"POST /v1/notes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel".to_vec(),
        "a request whose response is not read" => note.into_bytes(),
        "many requests in one write" => get("/v1/notes?q=horse").repeat(200).into_bytes(),
        "random bytes" => random(seed).take(2000).collect(),
        other => unreachable!("{other}"),
    }
}

/// Frames that HTTP/2 clients send after the settings.
fn frames(kind: &str, seed: u64) -> Vec<u8> {
    let headers = |stream, flags, block: &[u8]| http2::frame(HEADERS, flags | END_HEADERS, stream, block);
    let half = [headers(3, 0, &http2::post("/v1/notes")), http2::frame(DATA, 0, 3, b"{\"te")].concat();
    match kind {
        "GOAWAY with an open stream" => [half, http2::frame(GOAWAY, 0, 0, &[0; 8])].concat(),
        "many open streams" => {
            (0..100).flat_map(|stream| headers(2 * stream + 1, END_STREAM, &http2::get("/v1/notes?q=horse"))).collect()
        }
        "a window of nothing" => {
            let none = http2::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            [none, headers(1, END_STREAM, &http2::get("/files/greeting.txt"))].concat()
        }
        "pings whose answers are not read" => http2::frame(PING, 0, 0, &[0; 8]).repeat(5_000),
        "random frames" => random_frames(seed),
        other => unreachable!("{other}"),
    }
}

async fn end(mut connection: Raw, bytes: Vec<u8>, end: End) {
    // The server may close the connection before it has read all of it.
    let _ = soon(connection.stream.write_all(&bytes)).await;
    match end {
        End::Close => {}
        End::Half => {
            let _ = connection.stream.shutdown().await;
            connection.rest().await;
        }
        End::Wait => drop(connection.rest().await),
    }
}

/// The sockets of the server. The other descriptors belong to the database, which has one for each concurrent reader.
fn sockets(server: &Example) -> usize {
    let folder = format!("/proc/{}/fd", server.id().as_raw_nonzero());
    let links = std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_badly_leave_nothing_behind() {
    let folder = Folder::new();
    // Connections that the server closes at a timeout are closed soon.
    folder.configure(
        &folder
            .config()
            .replace("keep_alive_timeout: 30", "keep_alive_timeout: 1")
            .replace("header_read_timeout: 10", "header_read_timeout: 5"),
    );
    let server = Example::start(&folder).await;
    assert_well(&server).await;
    let before = sockets(&server);
    let kinds = [
        ("nothing", End::Close),
        ("nothing", End::Wait),
        ("half a header", End::Close),
        ("half a header", End::Half),
        ("half a header", End::Wait),
        ("half a body", End::Close),
        ("half a body", End::Half),
        ("half a chunk", End::Close),
        ("a request whose response is not read", End::Close),
        ("a request whose response is not read", End::Half),
        ("many requests in one write", End::Close),
        ("many requests in one write", End::Half),
        ("random bytes", End::Half),
    ];
    let http2_kinds = [
        ("GOAWAY with an open stream", End::Close),
        ("many open streams", End::Close),
        ("many open streams", End::Half),
        ("a window of nothing", End::Close),
        ("pings whose answers are not read", End::Close),
        ("random frames", End::Half),
    ];
    let address = server.address();
    let mut clients = JoinSet::new();
    for seed in 0..CONNECTIONS {
        for (kind, how) in kinds {
            clients.spawn(async move { end(Raw::connect(address).await, http1(kind, seed), how).await });
        }
        for (kind, how) in http2_kinds {
            clients.spawn(async move { end(http2::connect(address).await, frames(kind, seed), how).await });
        }
    }
    let client = server.client();
    while !clients.is_empty() {
        client.get("/health").await.ok();
        while let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
    }
    assert_well(&server).await;
    let ended = Instant::now();
    while sockets(&server) > before {
        assert!(ended.elapsed() < PATIENCE, "{} sockets, {before} before", sockets(&server));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Workers stay for the next tasks, up to the sum of the settings; connections have no threads.
    let threads = status_of(server.id(), "Threads");
    assert!(threads < 160, "{threads} threads");
    server.stop().await;
}
