//! Thousands of HTTP/2 streams that are opened and reset at once: "rapid reset", CVE-2023-44487.

use serde_json::json;

use crate::http2::{
    self, CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, connect, farewell, frame, get, ping,
};
use crate::process::{Example, Folder};
use crate::support::{HeldNotes, Raw, assert_well, at_rest, count_notes, ended, folder_with, pool, post, until_pool};

/// The error code ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

/// Opens stream `number` of a connection, counted from 0, with a request that reads a note.
fn open(number: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &get("/v1/notes/1"))
}

fn reset(number: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 2 * number + 1, &CANCEL)
}

/// A server with one worker for notes.
async fn with_one_worker() -> (Folder, Example) {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 1000}");
    let server = Example::start(&folder).await;
    (folder, server)
}

/// Blocks the only worker for notes by a request on the returned connection.
async fn hold(folder: &Folder, server: &Example) -> (HeldNotes, Raw) {
    let held = HeldNotes::hold(folder);
    let mut holder = Raw::connect(server.address()).await;
    holder.send(post("/v1/notes", &json!({ "text": "a note" }).to_string())).await;
    until_pool(&server.client(), "db", "the worker is active", |db| db["active_threads"] == 1).await;
    (held, holder)
}

/// A request that is reset while it is queued leaves the queue and never runs.
#[tokio::test]
async fn two_thousand_requests_that_are_reset_in_the_queue_leave_nothing_there() {
    let (folder, server) = with_one_worker().await;
    let client = server.client();
    for round in 0..10 {
        let (held, mut holder) = hold(&folder, &server).await;
        // h2 closes a connection that resets more streams than the server has accepted. Here the server has accepted all.
        let mut connection = connect(server.address()).await;
        let streams = 0..200;
        connection.send(streams.clone().flat_map(open).collect::<Vec<_>>()).await;
        until_pool(&client, "db", "all of them wait", |db| db["queued_tasks"] == 200).await;
        for number in streams {
            connection.send(reset(number)).await;
        }
        let db = until_pool(&client, "db", "none waits any more", |db| db["queued_tasks"] == 0).await;
        assert_eq!(db["results"]["cancelled"], 200 * (round + 1), "{db}");
        ping(&mut connection).await;
        drop(held);
        assert_eq!(holder.answer().await.0, 201);
    }
    let db = until_pool(&client, "db", "at rest", at_rest).await;
    assert_eq!((&db["submitted"], &db["results"]["ok"]), (&json!(2010), &json!(10)), "{db}");
    assert_well(&server).await;
    server.stop().await;
}

/// The server closes a connection that resets its streams at once, and serves the others.
#[tokio::test]
async fn who_resets_faster_than_the_server_accepts_is_sent_away_and_nobody_else_notices() {
    let (folder, server) = with_one_worker().await;
    let (held, mut holder) = hold(&folder, &server).await;
    let client = server.client();
    for _ in 0..5 {
        let mut connection = connect(server.address()).await;
        let flood: Vec<_> = (0..4000).flat_map(|number| [open(number), reset(number)].concat()).collect();
        // The server may close the connection before it has read all of the flood.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, &flood).await;
        client.get("/health").await.ok();
        // The GOAWAY may be lost: unread bytes make the kernel reset the connection.
        let farewell = farewell(&mut connection).await;
        assert!(matches!(farewell, Some(CALM) | None), "{farewell:?}");
    }
    let db = until_pool(&client, "db", "none waits", |db| db["queued_tasks"] == 0).await;
    assert_eq!(db["submitted"], ended(&db) + 1, "{db}");
    assert_eq!((&db["results"]["ok"], &db["in_flight"]), (&json!(0), &json!(1)), "{db}");
    drop(held);
    assert_eq!(holder.answer().await.0, 201);
    assert_well(&server).await;
    drop(holder);
    server.stop().await;
}

/// A blocking handler cannot be interrupted. It keeps its permit until it ends, and then releases it.
#[tokio::test]
async fn requests_that_are_reset_in_flight_give_their_places_back_as_they_end() {
    let folder = folder_with("db", "{workers: 4, queue_capacity: 0}");
    let server = Example::start(&folder).await;
    let client = server.client();
    let write = |number| {
        let head = frame(HEADERS, END_HEADERS, 2 * number + 1, &http2::post("/v1/notes"));
        [head, frame(DATA, END_STREAM, 2 * number + 1, br#"{"text": "a note"}"#)].concat()
    };
    let mut connection = connect(server.address()).await;
    for round in 0..10 {
        let streams = 4 * round..4 * round + 4;
        let held = HeldNotes::hold(&folder);
        connection.send(streams.clone().flat_map(write).collect::<Vec<_>>()).await;
        until_pool(&client, "db", "all of them run", |db| db["active_threads"] == 4).await;
        connection.send(streams.flat_map(reset).collect::<Vec<_>>()).await;
        ping(&mut connection).await;
        assert_eq!(pool(&client, "db").await["in_flight"], 4);
        drop(held);
        let db = until_pool(&client, "db", "at rest", at_rest).await;
        assert_eq!(db["results"]["ok"], 4 * (round + 1), "{db}");
        let came = ping(&mut connection).await;
        assert!(came.iter().all(|frame| frame.kind != HEADERS), "somebody was answered: {came:?}");
    }
    assert_eq!(count_notes(&folder), 40);
    assert_well(&server).await;
    drop(connection);
    server.stop().await;
}
