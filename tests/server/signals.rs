//! The signals of the operating system, sent to a process of its own.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_offload::{Config, Pools, server};

use crate::harness::{FOR_EVER, gate};

const CHILD: &str = "TOWER_OFFLOAD_TEST_SIGNALS";

/// The child's side: not a test by itself.
#[test]
fn serve_until_a_signal() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut config = Config::default();
    config.server.shutdown_timeout = FOR_EVER;
    let report = server::runtime(&config)
        .unwrap()
        .block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (gate, _keeper) = gate();
            let app = Router::new()
                .route("/ready", get(move || async move { println!("\naddress {address}") }))
                .route("/quick", get(|| async { "quick" }))
                .route(
                    "/stuck",
                    get(move || async move {
                        println!("\nstuck");
                        gate.pass().await;
                    }),
                );
            let server = server::Server::new(&config, &Pools::default()).listener(listener);
            // The server's first act is to listen to the signals, so once it answers it has.
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                crate::harness::send(&mut stream, "/ready").await;
                crate::harness::read_to(&mut stream, "\r\n\r\n").await;
            });
            server.serve(app).await
        })
        .unwrap();
    println!("\nreport {} {}", report.connections_cut_off, report.requests_cut_off);
}

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::serve_until_a_signal", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Waits for a line that begins with `word`, and returns the rest.
    fn says(&mut self, word: &str) -> String {
        loop {
            let line = self.lines.next().expect("the process says it before it ends").unwrap();
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn get_path(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    stream
}

#[test]
fn each_signal_ends_an_idle_server() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start();
        let address = process.says("address");
        let mut stream = get_path(&address, "/quick");
        let mut answer = [0; 5];
        while &answer != b"quick" {
            answer.rotate_left(1);
            stream.read_exact(&mut answer[4..]).unwrap();
        }
        process.signal(signal);
        assert_eq!(process.says("report"), "0 0");
        assert!(process.child.wait().unwrap().success());
    }
}

#[test]
fn the_second_signal_ends_a_server_at_once() {
    let mut process = Process::start();
    let address = process.says("address");
    let mut stuck = get_path(&address, "/stuck");
    process.says("stuck");
    process.signal("TERM");
    while TcpStream::connect(&address).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    process.signal("TERM");
    assert_eq!(process.says("report"), "1 1");
    let mut answer = Vec::new();
    stuck.read_to_end(&mut answer).ok();
    assert!(answer.is_empty());
}
