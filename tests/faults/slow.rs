//! Clients that send or read slowly, or not at all. They hold no permit of a pool and little memory.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_stream::StreamExt;

use crate::process::{Example, Folder};
use crate::support::{
    Raw, assert_well, folder_with, get, note, pool, soon, speak_http2, status, status_of, until_pool,
};

#[tokio::test]
async fn clients_that_send_half_a_body_hold_no_place_in_a_pool() {
    let folder = folder_with("cpu", "{workers: 1, queue_capacity: 100}");
    let server = Example::start(&folder).await;
    let client = server.client();
    let body = json!({ "password": "correct horse" }).to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut connection = Raw::connect(server.address()).await;
        let length = body.len();
        connection
            .send(format!(
                "POST /v1/hash HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
            ))
            .await;
        // The server sends this status when it begins to read the body.
        assert_eq!(status(&connection.head().await), 100);
        connection.send(first).await;
        slow.push(connection);
    }
    assert_eq!(pool(&client, "cpu").await["submitted"], 0);
    // The only worker of the pool is free for a request whose body is complete.
    client.post("/v1/hash", &json!({ "password": "x" })).await.ok();
    // Half of the clients leave, the others finish their bodies.
    let mut patient = slow.split_off(25);
    drop(slow);
    // All of them at once, because a body may take some seconds only.
    for connection in &mut patient {
        connection.send(second).await;
    }
    for connection in &mut patient {
        let (status, answer) = connection.answer().await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(pool(&client, "cpu").await["results"]["ok"], 26);
    assert_well(&server).await;
    server.stop().await;
}

/// The example server wants 240 bytes a second on average, five seconds in advance, so this test takes 5 s.
#[tokio::test]
async fn a_body_that_trickles_is_refused_in_time_and_its_connection_closed() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let began = Instant::now();
    tokio::join!(trickle_over_http1(&server), trickle_over_http2(&server), claim_to_stream(&server));
    assert!(began.elapsed() >= Duration::from_secs(5), "refused after {:?}", began.elapsed());
    assert_eq!(pool(&server.client(), "db").await["results"]["ok"], 1, "only the last one was whole");
    assert_well(&server).await;
    server.stop().await;
}

/// The pause after each byte of a body that trickles.
const PAUSE: Duration = Duration::from_millis(100);

async fn trickle_over_http1(server: &Example) {
    let mut connection = Raw::connect(server.address()).await;
    connection.send("POST /v1/notes HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n").await;
    let (mut read, mut write) = connection.stream.split();
    let trickle = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        // A client that keeps writing may see a reset.
        _ = soon(read.read_to_end(&mut answer)) => {}
        () = trickle => {}
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(status(&answer) == 408 && answer.contains("connection: close\r\n"), "{answer}");
}

/// The server closes the stream, and still serves other streams of the connection.
async fn trickle_over_http2(server: &Example) {
    let (mut client, _connection) = speak_http2(Raw::connect(server.address()).await.stream, |_| {}).await;
    let (sends, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let bytes = std::iter::repeat_with(move || {
        let _ = &sends;
        Ok::<_, Infallible>("x")
    });
    let body = Body::from_stream(tokio_stream::iter(bytes).throttle(PAUSE));
    assert_eq!(soon(client.send_request(note(body))).await.unwrap().status(), 408);
    assert_eq!(soon(ended.recv()).await, None);
    assert_eq!(soon(client.send_request(note(Body::from("{}")))).await.unwrap().status(), 422);
}

/// The first message of a stream is complete, and its handler, which knows no streams, would wait for the rest.
async fn claim_to_stream(server: &Example) {
    let head = "POST /v1/hash HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/connect+json\r\n\
                content-length: 1000\r\n\r\n\0\0\0\0\0";
    let (status, answer) = Raw::connect(server.address()).await.exchange(head).await;
    assert_eq!(status, 408, "{answer}");
    assert_eq!(pool(&server.client(), "cpu").await["results"]["rejected"], 1);
}

/// Many times the size of the sockets' buffers.
const LARGE: u64 = 64 << 20;

/// The memory that the server may use for each unread response, in kB.
const PER_RESPONSE: u64 = 1024;

/// A server with one worker for files and no queue, and a large file.
async fn with_large_file() -> (crate::process::Folder, Example) {
    let folder = folder_with("io", "{workers: 1, queue_capacity: 0}");
    std::fs::File::create(folder.path("files/large")).unwrap().set_len(LARGE).unwrap();
    let server = Example::start(&folder).await;
    server.client().get("/files/greeting.txt").await;
    (folder, server)
}

#[tokio::test]
async fn clients_that_do_not_read_hold_no_place_in_a_pool_and_no_memory() {
    let (_folder, server) = with_large_file().await;
    let before = status_of(server.id(), "VmRSS");
    let mut slow = Vec::new();
    for _ in 0..30 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut connection = Raw { stream: soon(socket.connect(server.address())).await.unwrap() };
        connection.send(get("/files/large")).await;
        // The pool releases the permit before it sends the head, so it has room for the next request.
        assert_eq!(status(&connection.head().await), 200);
        slow.push(connection);
    }
    assert_eq!(server.client().get("/files/greeting.txt").await.text(), "hello from the disk\n");
    let grown = status_of(server.id(), "VmRSS").saturating_sub(before);
    assert!(grown < 30 * PER_RESPONSE, "the server grew by {grown} kB");
    drop(slow);
    assert_well(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn http2_clients_that_open_no_window_hold_no_place_in_a_pool_and_no_memory() {
    let (_folder, server) = with_large_file().await;
    let before = status_of(server.id(), "VmRSS");
    let stream = Raw::connect(server.address()).await.stream;
    let (mut client, connection) = speak_http2(stream, |builder| {
        builder.initial_stream_window_size(0);
    })
    .await;
    let mut responses = Vec::new();
    for _ in 0..100 {
        let uri = format!("http://{}/files/large", server.address());
        let request = http::Request::get(uri).body(Body::empty()).unwrap();
        let response = soon(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 200);
        responses.push(response);
    }
    assert_eq!(server.client().get("/files/greeting.txt").await.text(), "hello from the disk\n");
    let grown = status_of(server.id(), "VmRSS").saturating_sub(before);
    assert!(grown < 100 * PER_RESPONSE, "the server grew by {grown} kB");
    drop((responses, client));
    soon(connection).await.unwrap().ok();
    // The pool's workers poll the bodies of files, and the clients left before the end of theirs.
    until_pool(&server.client(), "io", "all have left", |io| io["results"]["cancelled"] == 100).await;
    assert_well(&server).await;
    server.stop().await;
}
