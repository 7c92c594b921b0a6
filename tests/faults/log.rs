//! The log reports a fault of the server once, with its path, and does not report rejected requests as errors.

use http::StatusCode;

use crate::process::Folder;
use crate::secrets::logged;
use crate::support::{HeldNotes, Raw, folder_with, post, until_pool};

#[tokio::test]
async fn a_refused_request_is_no_error_of_the_server() {
    let folder = folder_with("db", "{workers: 1, queue_capacity: 0}");
    let (server, log) = logged(&folder).await;
    let client = server.client();
    let held = HeldNotes::hold(&folder);
    let mut connection = Raw::connect(server.address()).await;
    connection.send(post("/v1/notes", r#"{"text":"held"}"#)).await;
    until_pool(&client, "db", "it has begun", |db| db["in_flight"] == 1).await;
    for _ in 0..20 {
        assert_eq!(client.get("/v1/notes/2").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    drop(held);
    connection.answer().await;
    drop(connection);
    server.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    // Compared word by word, because a time may contain any digits.
    let said = log.split([' ', '=', ':', '\n']).any(|word| ["ERROR", "503"].contains(&word));
    assert!(!said, "{log}");
}

#[tokio::test]
async fn a_fault_of_the_server_is_logged_once_with_the_path() {
    let folder = Folder::new();
    let (server, log) = logged(&folder).await;
    let client = server.client();
    let database = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    database.execute_batch("ALTER TABLE notes RENAME TO lost").unwrap();
    assert_eq!(client.get("/v1/notes/7").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    server.stop().await;
    let log = std::fs::read_to_string(log).unwrap();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("path=\"/v1/notes/7\""), "{log}");
}
