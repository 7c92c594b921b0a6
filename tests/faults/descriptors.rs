//! A server without free file descriptors answers the clients that are connected, and recovers when some are free.

use rustix::process::{Resource, getrlimit};
use serde_json::json;

use crate::process::{Example, Folder};
use crate::support::{Raw, assert_well, count_notes, get, limit, post};

#[tokio::test]
async fn a_server_without_descriptors_answers_whoever_is_connected_and_recovers() {
    let folder = Folder::new();
    let server = Example::start(&folder).await;
    let mut connection = Raw::connect(server.address()).await;
    let note = post("/v1/notes", &json!({ "text": "a note" }).to_string());
    let hash = post("/v1/hash", &json!({ "password": "x" }).to_string());
    assert_eq!(connection.exchange(&note).await.0, 201);

    limit(server.id(), Resource::Nofile, Some(0));
    // Requests that need no descriptor are served.
    assert_eq!(connection.exchange(get("/health")).await.0, 200);
    assert_eq!(connection.exchange(&hash).await.0, 200);
    assert_eq!(connection.exchange(&note).await.0, 201);
    assert_eq!(connection.exchange(get("/metrics")).await.0, 200);
    // Requests that need one get an error that does not show where the database and the files are.
    for path in ["/v1/notes/1", "/v1/notes?q=note", "/files/greeting.txt"] {
        let (status, body) = connection.exchange(get(path)).await;
        // A new connection to the database may be had later.
        let expected = if path.starts_with("/v1/notes") { 503 } else { 500 };
        assert_eq!(status, expected, "{path}: {body}");
        let folder = folder.path("").display().to_string();
        assert!(!body.contains(&folder) && !body.contains("notes.db"), "{path}: {body}");
    }
    // New connections wait in the backlog, and are served once a descriptor is free.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut connection = Raw::connect(server.address()).await;
        connection.send(get("/health")).await;
        waiting.push(connection);
    }
    assert_eq!(connection.exchange(get("/health")).await.0, 200);

    limit(server.id(), Resource::Nofile, getrlimit(Resource::Nofile).current);
    for mut connection in waiting {
        assert_eq!(connection.answer().await.0, 200);
    }
    assert_eq!(connection.exchange(get("/v1/notes/1")).await.0, 200);
    assert_well(&server).await;
    drop(connection);
    server.stop().await;
    assert_eq!(count_notes(&folder), 2);
}
