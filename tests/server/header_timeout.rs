//! The server closes a connection whose request header is not complete in time.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;

use crate::harness::{MemoryServer, SHORT, TestServer, closed, exchange, hello, soon};

async fn server() -> TestServer {
    TestServer::start(hello(), |config| config.server.header_read_timeout = SHORT).await
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed() {
    let server = server().await;
    let connected = Instant::now();
    closed(&mut server.connect().await).await;
    let took = connected.elapsed();
    // The client has 5 s to close its side. The other 15 s are for a loaded machine.
    assert!(took >= SHORT && took < SHORT + Duration::from_secs(20), "closed after {took:?}");
}

#[tokio::test]
async fn a_client_that_sends_half_a_header_is_closed() {
    let mut stream = server().await.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_sends_half_an_http2_preface_is_closed() {
    let mut stream = server().await.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    closed(&mut stream).await;
}

/// Sends a header that never ends, byte by byte, until the server closes the connection.
async fn trickle(stream: impl AsyncRead + AsyncWrite) {
    let (mut read, mut write) = split(stream);
    let trickle = async {
        write.write_all(b"GET / HTTP/1.1\r\nhost: ").await.ok();
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let closed = async {
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.ok();
        answer
    };
    tokio::select! {
        answer = soon(closed) => assert_eq!(String::from_utf8_lossy(&answer), ""),
        () = soon(trickle) => {}
    }
}

#[tokio::test]
async fn a_client_that_trickles_its_first_header_is_closed() {
    trickle(server().await.connect().await).await;
}

/// In virtual time, so that the first header is in time.
#[tokio::test(start_paused = true)]
async fn a_client_that_trickles_a_later_header_is_closed() {
    let server = MemoryServer::start(hello(), |config| config.server.header_read_timeout = SHORT);
    let mut stream = server.connect();
    exchange(&mut stream).await;
    trickle(stream).await;
}

/// Sends half of an HTTP/2 header and, if `trickles`, more of it byte by byte, until the server closes the connection.
async fn send_half_a_header(stream: &mut TcpStream, trickles: bool) {
    let (mut read, mut write) = stream.split();
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The beginning of a HEADERS frame of stream 1, without END_HEADERS.
    write.write_all(b"\0\x3f\xff\x01\0\0\0\0\x01\x82").await.unwrap();
    let trickle = async {
        while trickles && write.write_all(b"\x86").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
        std::future::pending::<()>().await;
    };
    let mut farewell = Vec::new();
    tokio::select! {
        // A client that keeps writing may see a reset.
        _ = soon(read.read_to_end(&mut farewell)) => {}
        () = trickle => {}
    }
}

/// HTTP/2 connections have no header timeout. An incomplete header is not a request, so the connection stays idle.
#[tokio::test]
async fn a_client_that_sends_half_an_http2_header_is_closed_as_idle() {
    let server = TestServer::start(hello(), |config| config.performance.keep_alive_timeout = SHORT).await;
    let (mut silent, mut trickling) = (server.connect().await, server.connect().await);
    let connected = Instant::now();
    tokio::join!(send_half_a_header(&mut silent, false), send_half_a_header(&mut trickling, true));
    assert!(connected.elapsed() >= SHORT, "closed after {:?}", connected.elapsed());
}
