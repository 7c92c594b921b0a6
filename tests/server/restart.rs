//! Processes that share one listening socket are restarted in turn, and no client notices.
#![cfg(unix)]

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tower_offload::server::{self, Server};
use tower_offload::{Config, Pools};

use crate::harness::{FOR_EVER, hello, soon};
use crate::process::Process;

const CHILD: &str = "TOWER_OFFLOAD_TEST_RESTART";
const CLIENTS: usize = 8;
const RESTARTS: usize = 6;

/// Runs in the child process only. Serves on the listener that is the process's standard input.
#[test]
fn serve_on_an_inherited_listener() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let config = Config::default();
    server::runtime(&config).unwrap().block_on(async {
        let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let pools = Pools::default();
        let mut serving = pin!(Server::new(&config, &pools).listener(listener).serve(hello()));
        // The first poll registers the signal handlers, so a SIGTERM after this line begins a shutdown.
        let ended = poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx).is_ready())).await;
        assert!(!ended);
        println!("\nserving");
        assert!(serving.await.unwrap().is_complete());
    });
}

fn start(listener: &TcpListener) -> Process {
    let stdin = Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
    let mut process = Process::start("restart::serve_on_an_inherited_listener", CHILD, stdin);
    process.says("serving");
    process
}

/// Sends one request on a new connection.
fn ask(address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    if answer.ends_with("hello") { Ok(()) } else { Err(format!("answer: {answer:?}")) }
}

#[test]
fn two_processes_on_one_socket_are_restarted_in_turn_and_no_request_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let mut processes = [start(&listener), start(&listener)];
    let (answered, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (answered, done) = (Arc::clone(&answered), Arc::clone(&done));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    ask(address)?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    let more = |count: usize| {
        let enough = answered.load(Ordering::Relaxed) + count;
        while answered.load(Ordering::Relaxed) < enough && !clients.iter().any(thread::JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    for turn in 0..RESTARTS {
        more(20 * CLIENTS);
        let process = &mut processes[turn % 2];
        process.signal("TERM");
        assert!(process.wait().success());
        more(20 * CLIENTS);
        *process = start(&listener);
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.join().unwrap(), Ok(()));
    }
}

/// A server that has ended leaves no socket option behind that would disturb the next server on the same socket.
#[tokio::test]
async fn the_next_server_serves_on_a_duplicate_of_the_listener() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    first.set_nonblocking(true).unwrap();
    let (address, second) = (first.local_addr().unwrap(), first.try_clone().unwrap());
    let (config, pools) = (Config::default(), Pools::default());
    let server = |listener| Server::new(&config, &pools).listener(tokio::net::TcpListener::from_std(listener).unwrap());
    assert!(soon(server(first).shutdown_on(async {}).serve(hello())).await.unwrap().is_complete());
    tokio::spawn(server(second).shutdown_on(std::future::pending()).serve(hello()));
    // The client's kernel repeats a SYN after 1 s, and again after 2 s more.
    let asked = tokio::task::spawn_blocking(move || ask(address));
    let answered = tokio::time::timeout(Duration::from_secs(10), asked).await;
    assert_eq!(answered.expect("the socket answers").unwrap(), Ok(()));
}
