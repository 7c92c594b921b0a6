//! The process of a server is stopped for longer than its timeouts. Clients that were not late are served on.
#![cfg(unix)]

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use tower_offload::body::{BodyPolicy, ReadBody};
use tower_offload::server::{self, Server};
use tower_offload::{Config, Io, PoolLayer, Pools};

use crate::harness::FOR_EVER;
use crate::process::Process;

const CHILD: &str = "TOWER_OFFLOAD_TEST_PAUSED";

/// The timeout for headers, for bodies of requests, and for readers that take nothing.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Runs in the child process only.
#[test]
fn serve_with_short_timeouts() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut config = Config::default();
    config.server.header_read_timeout = TIMEOUT;
    let pools = Pools::default();
    let policy = BodyPolicy::in_pool().hold().stall_timeout(TIMEOUT);
    let endless = || async {
        Body::from_stream(tokio_stream::iter(std::iter::repeat(Ok::<_, Infallible>(Bytes::from_static(
            &[b'x'; 1 << 14],
        )))))
    };
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: String| async { body }).route_layer(ReadBody::new(100).within(TIMEOUT)))
        .route("/endless", get(endless).route_layer(PoolLayer::<Io>::new(&pools).body(policy)));
    server::runtime(&config).unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("\naddress {}", listener.local_addr().unwrap());
        Server::new(&config, &pools).listener(listener).serve(app).await.unwrap();
    });
}

fn send(address: &str, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// Reads until the text ends with `end`.
fn read_to(stream: &mut TcpStream, end: &str) {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} instead of {end:?}"));
        text.extend(byte);
    }
}

/// Reads all that has arrived.
fn drain(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let end = std::iter::repeat_with(|| stream.read(&mut [0; 1 << 16])).find_map(Result::err);
    assert_eq!(end.expect("the body has no end").kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
}

/// Whether the process was stopped before its timeouts could pass. On a busy machine it may not be.
fn is_stopped_in_time() -> bool {
    let mut process = Process::start("paused::serve_with_short_timeouts", CHILD, Stdio::null());
    let address = process.says("address");
    let begun = Instant::now();
    let mut header = send(&address, "GET / HTTP/1.1\r\nho");
    let mut upload = send(&address, "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nfirst");
    let mut reader = send(&address, "GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n");
    read_to(&mut reader, "\r\n\r\n");
    // The server has accepted the others before this one.
    read_to(&mut send(&address, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"), "hello");
    process.signal("STOP");
    if begun.elapsed() > TIMEOUT / 2 {
        return false;
    }
    drain(&mut reader);
    thread::sleep(TIMEOUT + TIMEOUT / 2);
    drain(&mut reader);
    header.write_all(b"st: localhost\r\n\r\n").unwrap();
    upload.write_all(b"later").unwrap();
    process.signal("CONT");
    read_to(&mut header, "hello");
    read_to(&mut upload, "firstlater");
    reader.read_exact(&mut vec![0; 32 << 20]).expect("the reader is served on");
    true
}

#[test]
fn clients_are_served_on_after_a_pause_of_the_process_that_is_longer_than_every_timeout() {
    assert!((0..10).any(|_| is_stopped_in_time()), "the machine is too busy for this test");
}
