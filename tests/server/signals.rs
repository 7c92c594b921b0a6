//! Signals of the operating system, sent to a server in a child process.
#![cfg(unix)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tower_offload::{Config, Pools, server};

use crate::harness::{FOR_EVER, gate};
use crate::process::Process;

const CHILD: &str = "TOWER_OFFLOAD_TEST_SIGNALS";

/// Runs in the child process only.
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
            // The server registers its signal handlers before it accepts, so they are registered once it answers.
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

fn start() -> Process {
    Process::start("signals::serve_until_a_signal", CHILD, Stdio::null())
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
        let mut process = start();
        let address = process.says("address");
        let mut stream = get_path(&address, "/quick");
        let mut answer = [0; 5];
        while &answer != b"quick" {
            answer.rotate_left(1);
            stream.read_exact(&mut answer[4..]).unwrap();
        }
        process.signal(signal);
        assert_eq!(process.says("report"), "0 0");
        assert!(process.wait().success());
    }
}

/// A server with a request that never ends, after its first signal.
fn stuck_after(signal: &str) -> (Process, TcpStream, Instant) {
    let mut process = start();
    let address = process.says("address");
    let stuck = get_path(&address, "/stuck");
    process.says("stuck");
    let signalled = Instant::now();
    process.signal(signal);
    while TcpStream::connect(&address).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    (process, stuck, signalled)
}

#[test]
fn a_sigterm_a_second_after_the_first_ends_a_server_at_once() {
    let (mut process, mut stuck, _) = stuck_after("TERM");
    std::thread::sleep(Duration::from_secs(1));
    process.signal("TERM");
    assert_eq!(process.says("report"), "1 1");
    let mut answer = Vec::new();
    stuck.read_to_end(&mut answer).ok();
    assert!(answer.is_empty());
}

#[test]
fn a_sigterm_that_is_repeated_within_a_second_is_the_same_one() {
    // On a loaded machine, more than a second may pass before the repeated signal. One try of many is fast enough.
    for _ in 0..20 {
        let (mut process, stuck, signalled) = stuck_after("TERM");
        process.signals(&["TERM", "TERM", "TERM", "INT"]);
        if signalled.elapsed() > Duration::from_millis(700) {
            continue;
        }
        // The request stays in flight for longer than a signal takes to arrive.
        stuck.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        match (&stuck).read(&mut [0]) {
            Err(nothing) if nothing.kind() == ErrorKind::WouldBlock => {}
            // This process was stopped meanwhile.
            Err(stopped) if stopped.kind() == ErrorKind::Interrupted => continue,
            // The server may have been slow to take the signal, too.
            closed => {
                assert!(signalled.elapsed() > Duration::from_secs(1), "{closed:?} after {:?}", signalled.elapsed());
                continue;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        process.signal("TERM");
        assert_eq!(process.says("report"), "1 1");
        return;
    }
    panic!("the machine is too busy for this test");
}

#[test]
fn the_second_ctrl_c_ends_a_server_at_once() {
    let (mut process, _stuck, signalled) = stuck_after("INT");
    process.signal("INT");
    assert_eq!(process.says("report"), "1 1");
    assert!(signalled.elapsed() < FOR_EVER / 2, "{:?}", signalled.elapsed());
}
