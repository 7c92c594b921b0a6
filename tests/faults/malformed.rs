//! Oversized, malformed and contradictory requests. The server refuses each of them, submits none to a pool unless it is
//! complete, and keeps serving.

use std::convert::Infallible;

use axum::body::Body;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::http2::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::process::{Example, Folder};
use crate::support::{
    PATIENCE, Raw, assert_well, at_rest, count_notes, get, post, soon, speak_http2, status, status_of, until_pool,
};

/// The statuses of the server's responses to these bytes, which are one request or more.
async fn answers(server: &Example, bytes: &[u8]) -> Vec<u16> {
    let mut connection = Raw::connect(server.address()).await;
    // The server may close the connection before it has read all of it.
    let _ = soon(connection.stream.write_all(bytes)).await;
    let (first, _) = connection.answer().await;
    let _ = connection.stream.shutdown().await;
    let rest = connection.rest().await;
    let more = String::from_utf8_lossy(&rest);
    [first].into_iter().chain(more.split("HTTP/1").skip(1).map(status)).collect()
}

fn with_headers(headers: &str) -> String {
    format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")
}

/// `SECURITY.md` says so.
#[tokio::test]
async fn the_host_of_a_request_is_not_checked() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b/c@d\r\n"] {
        let request = format!("GET /health HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(answers(&server, request.as_bytes()).await, [200], "{hosts:?}");
    }
}

/// A request that writes a note, with these headers instead of a `content-length`.
fn note(headers: &str, body: &str) -> String {
    format!("POST /v1/notes HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{body}")
}

/// A note in one chunk.
const CHUNKED: &str = "14\r\n{\"text\": \"smuggled\"}\r\n0\r\n\r\n";

#[tokio::test]
async fn malformed_http1_is_refused_and_reaches_no_handler() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let long = "x".repeat(1 << 20);
    let many = "x-many: 1\r\n".repeat(200);
    let smuggled = format!("{}{}", "0\r\n\r\n", get("/health"));
    for (request, expected) in [
        ("\r\n\r\n\0\0\0".to_owned(), &[400][..]),
        ("GET\r\n\r\n".into(), &[400]),
        ("GET /health\r\n\r\n".into(), &[400]),
        ("GET /health HTTP/9.9\r\n\r\n".into(), &[400]),
        ("GET /hea lth HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), &[400]),
        ("GET /hea\x1b[31mlth HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), &[400]),
        ("G\0T /health HTTP/1.1\r\nhost: localhost\r\n\r\n".into(), &[400]),
        // Headers.
        (with_headers("no colon\r\n"), &[400]),
        (with_headers("spa ce: 1\r\n"), &[400]),
        (with_headers(": 1\r\n"), &[400]),
        (with_headers("x-null: \0\r\n"), &[400]),
        (with_headers("x-folded: 1\r\n 2\r\n"), &[400]),
        (with_headers(&many), &[431]),
        (with_headers(&format!("x-long: {long}\r\n")), &[431]),
        (format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"), &[431]),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", &long[..70_000]), &[414]),
        // Lengths.
        (note("content-length: -1\r\n", ""), &[400]),
        (note("content-length: 1x\r\n", "1"), &[400]),
        (note("content-length: 99999999999999999999999\r\n", "1"), &[400]),
        (note("content-length: 3\r\ncontent-length: 4\r\n", "1234"), &[400]),
        (note("transfer-encoding: gzip\r\n", "1234"), &[400]),
        (note("transfer-encoding: chunked, gzip\r\n", CHUNKED), &[400]),
        // Chunks.
        (note("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        (note("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"), &[400]),
        (note("transfer-encoding: chunked\r\n", "2\r\n{}xx0\r\n\r\n"), &[400]),
        (note("transfer-encoding: chunked\r\n", &format!("2;{long}\r\n{{}}\r\n0\r\n\r\n")), &[400]),
        // Both: the chunks count. They are not JSON, and the bytes after them are not a second request.
        (note(&format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", smuggled.len()), &smuggled), &[400]),
    ] {
        let shown = format!("{:?}", &request[..request.len().min(120)]);
        assert_eq!(answers(&server, request.as_bytes()).await, expected, "{shown}");
    }
    let db = until_pool(&server.client(), "db", "at rest", at_rest).await;
    assert_eq!(db["results"]["ok"], 1, "only the last one was whole: {db}");
    assert_well(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_are_too_large_or_no_json_are_refused() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let deep = "[".repeat(100_000);
    for (request, expected) in [
        // Too large: by `content-length`, in chunks, and with an absurd `content-length`.
        (post("/v1/notes", &"x".repeat(300_000)).into_bytes(), 413),
        (note("transfer-encoding: chunked\r\n", &chunk.repeat(5)).into_bytes(), 413),
        (note(&format!("content-length: {}\r\n", 1_u64 << 60), "x").into_bytes(), 413),
        // Not JSON, or JSON of another shape.
        (post("/v1/notes", "").into_bytes(), 400),
        (post("/v1/notes", "\0").into_bytes(), 400),
        (post("/v1/notes", &deep).into_bytes(), 422),
        (post("/v1/notes", &format!("{{\"text\": {deep}")).into_bytes(), 422),
        (post("/v1/notes", "{\"text\": \"\\ud800\"}").into_bytes(), 400),
        (post("/v1/notes", "{\"text\": \"a\", \"text\": \"b\"}").into_bytes(), 422),
        (
            [
                post("/v1/notes", "{\"text\": \"__\"}").as_bytes().split(|byte| *byte == b'_').next().unwrap(),
                b"\xff\xfe\"}",
            ]
            .concat(),
            400,
        ),
        (post("/v1/classify", "{\"inputs\": [[1e999]]}").into_bytes(), 400),
    ] {
        let shown = String::from_utf8_lossy(&request[..request.len().min(160)]).into_owned();
        assert_eq!(answers(&server, &request).await, [expected], "{shown:?}");
    }
    assert_eq!(count_notes(&folder), 0);
    assert_well(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn malformed_http2_ends_its_own_connection_and_no_other() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let mut other = http2::connect(server.address()).await;
    let request = http2::get("/health");
    let headers = |stream, block: &[u8]| http2::frame(HEADERS, END_STREAM | END_HEADERS, stream, block);
    // A field with a wrong length, which makes the rest garbage.
    let garbage = [&request[..], &[0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    for (what, bytes) in [
        ("a frame larger than allowed", http2::frame(DATA, 0, 1, &[0; 20_000])),
        ("headers on stream 0", headers(0, &request)),
        ("headers on an even stream", headers(2, &request)),
        ("a header block that is garbage", headers(1, &garbage)),
        ("an index that is in no table", headers(1, &[0xff, 0xff, 0xff, 0x7f])),
        ("data on a stream that is idle", http2::frame(DATA, END_STREAM, 1, b"x")),
        ("a reset of a stream that is idle", http2::frame(RST_STREAM, 0, 9, &http2::CANCEL)),
        ("settings of a wrong length", http2::frame(SETTINGS, 0, 0, &[0; 5])),
        ("a window that is out of range", http2::frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a window update of nothing", http2::frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window that overflows", http2::frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a continuation of nothing", http2::frame(CONTINUATION, END_HEADERS, 1, &request)),
        (
            "another frame within a header block",
            [http2::frame(HEADERS, END_STREAM, 1, &request), http2::frame(DATA, 0, 1, b"x")].concat(),
        ),
        (
            "a header block without an end",
            [
                http2::frame(HEADERS, END_STREAM, 1, &request),
                http2::frame(CONTINUATION, 0, 1, &[&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat()).repeat(5_000),
            ]
            .concat(),
        ),
        (
            "empty data without an end",
            [
                http2::frame(HEADERS, END_HEADERS, 1, &http2::post("/v1/notes")),
                http2::frame(DATA, 0, 1, b"").repeat(20_000),
            ]
            .concat(),
        ),
        ("settings without an end", http2::frame(SETTINGS, 0, 0, &[]).repeat(100_000)),
    ] {
        let mut connection = http2::connect(server.address()).await;
        let _ = soon(connection.stream.write_all(&bytes)).await;
        if what == "settings without an end" {
            // The server acknowledges each of them. That is slow, and harms only this client.
            http2::ping(&mut connection).await;
            drop(connection);
        } else {
            let code = tokio::time::timeout(PATIENCE, http2::farewell(&mut connection)).await;
            let code = code.unwrap_or_else(|_| panic!("{what}: the connection stays"));
            assert_ne!(code, Some(0), "{what}: the farewell says that all is well");
        }
        http2::ping(&mut other).await;
    }
    assert_well(&server).await;
    drop(other);
    server.stop().await;
}

/// Headers that are small on the wire may be too large when decompressed.
#[tokio::test]
async fn http2_headers_that_are_too_large_once_unpacked_are_refused() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let before = status_of(server.id(), "VmHWM");
    let mut connection = http2::connect(server.address()).await;
    // A field of 4,000 bytes enters the table, and its index then appears 12,000 times. As copies they would take 48 MB.
    let value = [b'y'; 4000];
    let field = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &value].concat();
    let block = [http2::get("/v1/notes?q=a"), field, vec![0xbe; 12_000]].concat();
    connection.send(http2::frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await;
    let mut answered = None;
    while let Some(frame) = http2::read(&mut connection).await {
        if frame.kind == HEADERS || frame.kind == RST_STREAM || frame.kind == http2::GOAWAY {
            answered = Some(frame);
            break;
        }
    }
    let answered = answered.expect("an answer");
    // `:status 200` is the byte 0x88.
    assert!(answered.kind != HEADERS || answered.payload[0] != 0x88, "{answered:?}");
    let db = until_pool(&server.client(), "db", "at rest", at_rest).await;
    assert_eq!(db["submitted"], 0, "{db}");
    let grown = status_of(server.id(), "VmHWM") - before;
    assert!(grown < 24_000, "the server unpacked all of it: it grew by {grown} kB");
    drop(connection);
    server.client().post("/v1/notes", &json!({ "text": "fine" })).await;
    server.stop().await;
}

#[tokio::test]
async fn http2_bodies_that_are_too_large_are_refused_however_long_they_go_on() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let (mut client, _connection) = speak_http2(Raw::connect(server.address()).await.stream, |_| {}).await;
    let announced = Body::from(vec![b'x'; 300_000]);
    let (sends, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    let endless = Body::from_stream(tokio_stream::iter(std::iter::repeat_with(move || {
        let _ = &sends;
        Ok::<_, Infallible>(vec![b'x'; 10_000])
    })));
    for body in [announced, endless] {
        let response = soon(client.send_request(crate::support::note(body))).await.unwrap();
        assert_eq!(response.status(), 413);
    }
    // The server made the client stop. It still serves other streams of this connection.
    assert_eq!(soon(ended.recv()).await, None);
    let whole = crate::support::note(Body::from("{\"text\": \"whole\"}"));
    assert_eq!(soon(client.send_request(whole)).await.unwrap().status(), 201);
    assert_eq!(count_notes(&folder), 1);
    assert_well(&server).await;
    server.stop().await;
}
