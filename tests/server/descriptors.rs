//! A server without free file descriptors serves its open connections, and accepts again when one is free.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_offload::{Config, Pools, server};

use crate::harness::{FOR_EVER, hello};

const CHILD: &str = "TOWER_OFFLOAD_TEST_DESCRIPTORS";
/// The descriptor limit of the child process. It needs about twelve for itself.
const LIMIT: usize = 40;
const WARNING: &str = "cannot accept connections for now";
const AGAIN: &str = "still cannot accept connections";

/// Runs in the child process only.
#[test]
fn serve_until_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing_subscriber::fmt()
        .with_env_filter("tower_offload=debug")
        .with_writer(std::io::stdout)
        .with_ansi(false)
        .init();
    let mut config = Config::default();
    config.server.port = 0;
    config.server.header_read_timeout = FOR_EVER;
    config.performance.keep_alive_timeout = FOR_EVER;
    server::runtime(&config).unwrap().block_on(server::serve(hello(), &Pools::default(), &config)).unwrap();
}

/// Kills its process when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn exchange(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 5];
    while &answer != b"hello" {
        answer.rotate_left(1);
        stream.read_exact(&mut answer[4..]).unwrap();
    }
}

#[test]
fn running_out_of_descriptors_is_survived_and_said_once() {
    let executable = std::env::current_exe().unwrap();
    let child = Command::new("sh")
        .args(["-c", &format!("ulimit -n {LIMIT} && exec \"$0\" \"$@\"")])
        .arg(executable)
        .args(["--exact", "descriptors::serve_until_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|line| line.contains("listening")).unwrap();
    let address = listening.rsplit("address=").next().unwrap().trim().to_owned();

    let mut first = TcpStream::connect(&address).unwrap();
    exchange(&mut first);
    // Most of these wait in the backlog.
    let crowd: Vec<_> = (0..2 * LIMIT).map(|_| TcpStream::connect(&address).unwrap()).collect();
    lines.find(|line| line.contains(WARNING)).unwrap();
    exchange(&mut first);
    // The server does not spin: while no connection closes, it tries to accept ten times a second.
    let starved = Instant::now();
    for _ in 0..5 {
        lines.find(|line| line.contains(AGAIN)).unwrap();
    }
    assert!(starved.elapsed() >= Duration::from_millis(250), "five attempts in {:?}", starved.elapsed());
    drop(crowd);
    // The server accepts the backlog, a few connections at a time.
    exchange(&mut TcpStream::connect(&address).unwrap());
    exchange(&mut first);
    child.0.kill().unwrap();
    let more_warnings = lines.filter(|line| line.contains(WARNING)).count();
    assert_eq!(more_warnings, 0);
}
