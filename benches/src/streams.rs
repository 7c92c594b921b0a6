//! The clients of the streams: they read as fast as they can, note when frames arrive, or hardly read at all.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Clients that read as fast as they can, and ask again when the response has ended.
#[derive(Debug)]
pub struct Readers {
    clients: usize,
    begun: Arc<AtomicUsize>,
    bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Connections whose response has begun. They stay open as long as this value.
#[derive(Debug)]
pub struct Open {
    runtime: Runtime,
    streams: Vec<TcpStream>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs no more")
}

fn server(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n")
}

/// Sends a request. With a `buffer`, the system takes no more than about so many bytes in advance.
async fn begin(port: u16, path: &str, buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("there is a socket left");
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).expect("a socket can be told so");
    }
    let mut stream = socket.connect(server(port)).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket can be told so");
    stream.write_all(request(path).as_bytes()).await.expect("the server reads");
    stream
}

/// A number that the server answers with.
pub fn number(port: u16, path: &str) -> usize {
    let mut stream = std::net::TcpStream::connect(server(port)).expect("the server listens");
    stream.write_all(request(path).as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer.rsplit("\r\n\r\n").next().and_then(|number| number.parse().ok()).expect("the answer is a number")
}

impl Readers {
    /// Starts `clients` clients on one thread.
    pub fn start(port: u16, path: &str, clients: usize) -> Self {
        let begun = Arc::new(AtomicUsize::new(0));
        let bytes = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (begins, counter, stopped, path) = (begun.clone(), bytes.clone(), stop.clone(), path.to_owned());
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks = JoinSet::new();
                for _ in 0..clients {
                    tasks.spawn(read(port, path.clone(), begins.clone(), counter.clone(), stopped.clone()));
                }
                tasks.join_all().await;
            });
        });
        Self { clients, begun, bytes, stop, thread: Some(thread) }
    }

    /// Waits until each client has a part of its response, but not for long: a server may starve some of them. Returns
    /// the share of clients that have.
    #[expect(clippy::cast_precision_loss, reason = "there are not so many clients")]
    pub fn wait_until_begun(&self) -> f64 {
        let begin = Instant::now();
        while self.begun() < self.clients && begin.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(10));
        }
        self.begun() as f64 / self.clients as f64
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || thread::panicking(), "a client failed");
    }
}

async fn read(port: u16, path: String, begun: Arc<AtomicUsize>, bytes: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    let mut buffer = vec![0; 256 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let mut stream = begin(port, &path, None).await;
        begun.fetch_add(usize::from(stream.peek(&mut [0]).await.is_ok_and(|read| read > 0)), Ordering::Relaxed);
        loop {
            let read = stream.read(&mut buffer).await.expect("the server answers");
            bytes.fetch_add(read as u64, Ordering::Relaxed);
            if read == 0 || stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

/// Reads `clients` streams of events for `span`, after `warm_up`, and returns the milliseconds between the events of a
/// stream.
pub fn gaps(port: u16, path: &str, clients: usize, warm_up: Duration, span: Duration) -> Vec<f64> {
    let begin = Instant::now() + warm_up;
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(gaps_of(port, path.to_owned(), begin, begin + span));
        }
        tasks.join_all().await.concat()
    })
}

async fn gaps_of(port: u16, path: String, from: Instant, until: Instant) -> Vec<f64> {
    let mut stream = begin(port, &path, None).await;
    let mut buffer = [0; 4096];
    let (mut gaps, mut last) = (Vec::new(), None);
    while let Ok(read) = tokio::time::timeout_at(until.into(), stream.read(&mut buffer)).await {
        let read = read.expect("the server answers");
        assert!(read > 0, "the server ended a stream");
        let now = Instant::now();
        // Events that arrive together have nothing between them.
        for _ in 0..count(&buffer[..read], b"data:") {
            let before: Instant = last.replace(now).unwrap_or(now);
            if before >= from {
                gaps.push((now - before).as_secs_f64() * 1e3);
            }
        }
    }
    gaps
}

fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|part| *part == word).count()
}

impl Open {
    /// Begins `clients` streams, and waits for the first bytes of each.
    pub fn start(port: u16, path: &str, clients: usize, buffer: Option<u32>) -> Self {
        let runtime = runtime();
        let streams = runtime.block_on(async {
            let mut streams = Vec::with_capacity(clients);
            for _ in 0..clients {
                let mut stream = begin(port, path, buffer).await;
                let first = stream.read_u8().await.expect("the server answers");
                assert_eq!(first, b'H', "the server speaks HTTP");
                streams.push(stream);
            }
            streams
        });
        Self { runtime, streams }
    }

    /// Reads one byte of each stream.
    pub fn read_a_byte(&mut self) {
        for stream in &mut self.streams {
            // A stream without a byte is not waited for. One that was reset has none.
            let _ = stream.try_read(&mut [0]);
        }
    }

    /// Reads all streams to their end, and returns how many ended well with these bytes.
    pub fn ended_with(self, last: &str) -> usize {
        // The last chunk, and the end of all chunks.
        let end = format!("{:X}\r\n{last}\r\n0\r\n\r\n", last.len());
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for mut stream in self.streams {
                let end = end.clone().into_bytes();
                tasks.spawn(async move {
                    let mut text = Vec::new();
                    let read = stream.read_to_end(&mut text).await;
                    read.is_ok() && text.to_ascii_uppercase().ends_with(&end.to_ascii_uppercase())
                });
            }
            tasks.join_all().await.into_iter().filter(|well| *well).count()
        })
    }
}
