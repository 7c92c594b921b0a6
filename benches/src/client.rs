//! The clients of the HTTP scenarios: many that ask as fast as they are answered, and some that ask on schedule.
//!
//! They send the same bytes over and over and only count the bytes of the answers, so that as little as possible of what
//! is measured is the client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Clients that keep their connections and send the next request when they have the answer to the last.
#[derive(Debug)]
pub struct Load {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How the answer begins that is wanted.
const OK: &[u8] = b"HTTP/1.1 200";

/// How many bytes an answer has, once its head is complete.
fn length_of_answer(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
    assert!(received.starts_with(OK), "the server answered: {head}");
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?;
    Some(end + length.parse::<usize>().ok()?)
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

fn server(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Load {
    /// Starts `clients` clients on one thread, which ask for `path`.
    pub fn start(port: u16, path: &str, clients: usize) -> Self {
        Self::start_with(port, request(path), clients)
    }

    /// Starts `clients` clients on one thread, which send this request. All answers to it have the same length.
    pub fn start_with(port: u16, request: Vec<u8>, clients: usize) -> Self {
        Self::start_clients(port, request, clients, None)
    }

    /// The same for `path`, where answers differ in length, and all have this body.
    pub fn start_with_body(port: u16, path: &str, clients: usize, body: &'static str) -> Self {
        Self::start_clients(port, request(path), clients, Some(body))
    }

    fn start_clients(port: u16, request: Vec<u8>, clients: usize, body: Option<&'static str>) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let request: Arc<[u8]> = request.into();
        let (counter, stopped) = (answered.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime needs no more");
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..clients {
                    tasks.spawn(ask(port, request.clone(), body, counter.clone(), stopped.clone()));
                }
                tasks.join_all().await;
            });
        });
        Self { answered, stop, thread: Some(thread) }
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking(), "a client failed");
    }
}

async fn ask(
    port: u16,
    request: Arc<[u8]>,
    body: Option<&'static str>,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let mut stream = tokio::net::TcpStream::connect(server(port)).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket can be told so");
    let mut buffer = [0; 4096];
    let mut length = None;
    let end = body.map(|body| format!("\r\n\r\n{body}"));
    let is_whole = |received: &[u8], length: Option<usize>| match &end {
        Some(end) => received.ends_with(end.as_bytes()),
        None => length.is_some_and(|length| received.len() >= length),
    };
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&request).await.expect("the server reads");
        let mut received = 0;
        while !is_whole(&buffer[..received], length) {
            let read = stream.read(&mut buffer[received..]).await.expect("the server answers");
            assert!(read > 0, "the server closed a connection");
            received += read;
            if end.is_none() {
                length = length.or_else(|| length_of_answer(&buffer[..received]));
            }
        }
        // A refusal is cheap, and must not be counted as work.
        let is_right = buffer.starts_with(OK) && length.is_none_or(|length| length == received);
        assert!(is_right, "the server did not do what it was asked");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Requests `path` `per_second` times a second for `span`, over `clients` connections, and returns the latencies in
/// milliseconds, each from the moment at which the request was *scheduled* to its response.
///
/// Each connection has its share of the schedule. A connection that waits for a response sends its next request late, and
/// the delay counts for that request, too. Requests without a response at the end count as answered then.
pub fn on_schedule(port: u16, path: &str, per_second: u32, clients: u32, span: Duration) -> Vec<f64> {
    let interval = Duration::from_secs(1) / per_second;
    let begin = Instant::now() + Duration::from_millis(50);
    let end = begin + span;
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let request = request(path);
            thread::spawn(move || probe(port, &request, begin + interval * client, interval * clients, end))
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("a client does not fail")).collect()
}

fn probe(port: u16, request: &[u8], first: Instant, interval: Duration, end: Instant) -> Vec<f64> {
    // The client stands for another machine: the work under test should not delay its clock.
    raise_priority();
    let mut stream = TcpStream::connect(server(port)).expect("the server listens");
    stream.set_nodelay(true).expect("a socket can be told so");
    let mut latencies = Vec::new();
    let mut due = first;
    let mut alive = true;
    while due < end {
        if alive {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            alive = exchange(&mut stream, request, end).is_some();
        }
        latencies.push(Instant::now().min(end).saturating_duration_since(due).as_secs_f64() * 1e3);
        due += interval;
    }
    latencies
}

/// One request and its answer; none if there is no answer by `end`.
fn exchange(stream: &mut TcpStream, request: &[u8], end: Instant) -> Option<()> {
    stream.write_all(request).ok()?;
    let mut buffer = [0; 4096];
    let mut received = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
        let read = stream.read(&mut buffer[received..]).ok().filter(|&read| read > 0)?;
        received += read;
        if length_of_answer(&buffer[..received]).is_some_and(|length| received >= length) {
            return Some(());
        }
    }
}

#[cfg(target_os = "linux")]
fn raise_priority() {
    // Refused without the privilege; then everything has the same priority.
    let _ = rustix::process::setpriority_process(None, -10);
}

#[cfg(not(target_os = "linux"))]
fn raise_priority() {}
