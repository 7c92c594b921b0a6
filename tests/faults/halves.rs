//! Connections whose client has closed its sending side.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::process::{Example, Folder};
use crate::support::{HeldNotes, Raw, assert_well, count_notes, folder_with, get, post, soon, until_pool};

#[tokio::test]
async fn who_closes_its_half_while_it_waits_has_left_and_its_request_never_runs() {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 50}");
    let server = Example::start(&folder).await;
    let client = server.client();
    let held = HeldNotes::hold(&folder);
    let note = |text: &str| post("/v1/notes", &json!({ "text": text }).to_string());
    let mut first = Raw::connect(server.address()).await;
    first.send(note("the first")).await;
    until_pool(&client, "db", "it is in flight", |db| db["in_flight"] == 1).await;
    let mut halves = Vec::new();
    for _ in 0..20 {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(note("of one that left")).await;
        halves.push(connection);
    }
    until_pool(&client, "db", "they wait", |db| db["queued_tasks"] == 20).await;
    for connection in &mut halves {
        soon(connection.stream.shutdown()).await.unwrap();
    }
    let db = until_pool(&client, "db", "they are gone", |db| db["queued_tasks"] == 0).await;
    assert_eq!(db["results"]["cancelled"], 20, "{db}");
    for mut connection in halves {
        assert_eq!(connection.rest().await, b"");
    }
    drop(held);
    assert_eq!(first.answer().await.0, 201);
    assert_eq!(count_notes(&folder), 1);
    assert_well(&server).await;
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn who_closes_its_half_in_the_middle_of_a_request_or_between_two_is_closed() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let body = json!({ "password": "correct horse" }).to_string();
    let whole = post("/v1/hash", &body);
    for begun in ["", "GE", "GET / HTTP/1.1\r\nhost: lo", &whole[..whole.len() - 3], "PRI * HTTP/2.0\r\n"] {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(begun).await;
        soon(connection.stream.shutdown()).await.unwrap();
        let rest = String::from_utf8(connection.rest().await).unwrap();
        assert!(!rest.contains(" 200 "), "{begun:?} was answered {rest:?}");
    }
    let mut connection = Raw::connect(server.address()).await;
    assert_eq!(connection.exchange(get("/health")).await.0, 200);
    soon(connection.stream.shutdown()).await.unwrap();
    assert_eq!(connection.rest().await, b"");
    let cpu = until_pool(&server.client(), "cpu", "at rest", crate::support::at_rest).await;
    assert_eq!(cpu["submitted"], cpu["results"]["cancelled"], "a request with half a body does not come to the queue");
    assert_well(&server).await;
    server.stop().await;
}
