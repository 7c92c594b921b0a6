//! A server that is killed while it writes: every acknowledged note is in the database, and no note is incomplete.

use std::collections::HashMap;

use http::StatusCode;
use rusqlite::Connection;
use serde_json::json;

use crate::process::{Example, Folder};

const WRITERS: usize = 8;

/// The text of note `number`. Every fourth may be longer than a database page, up to about the maximum length.
fn text(number: usize) -> String {
    let length = if number.is_multiple_of(4) { number * 7919 % 60_000 } else { number % 300 };
    format!("first{number} {}last{number}", "word ".repeat(length / 5))
}

fn number_of(text: &str) -> usize {
    text.split(' ').next().unwrap().strip_prefix("first").unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_every_acknowledged_note_is_there_and_none_is_half() {
    let folder = Folder::new();
    let mut acknowledged = HashMap::new();
    // Each round kills the server at another moment.
    for (round, acknowledgements) in [1, 7, 30, 90].into_iter().enumerate() {
        let mut server = Example::start(&folder).await;
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for writer in 0..WRITERS {
            let (client, sender) = (server.client(), sender.clone());
            tokio::spawn(async move {
                for number in (round * 1_000_000 + writer * 10_000).. {
                    let note = json!({ "text": text(number) });
                    let Ok(answer) = client.try_post("/v1/notes", &note).await else { return };
                    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                    sender.send((answer.json()["id"].as_i64().unwrap(), number)).unwrap();
                }
            });
        }
        drop(sender);
        for _ in 0..acknowledgements {
            acknowledged.extend([receiver.recv().await.unwrap()]);
        }
        server.kill().await;
        while let Some((id, number)) = receiver.recv().await {
            assert_eq!(acknowledged.insert(id, number), None, "two notes were given the id {id}");
        }
        check(&folder, &acknowledged);
    }
    // The next server opens the database as the killed one left it.
    let server = Example::start(&folder).await;
    let created = server.client().post("/v1/notes", &json!({ "text": text(1) })).await;
    assert_eq!(created.status, StatusCode::CREATED);
    server.stop().await;
}

/// Reads the database file that the killed server left behind.
fn check(folder: &Folder, acknowledged: &HashMap<i64, usize>) {
    let database = Connection::open(folder.path("notes.db")).unwrap();
    let integrity: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    // The search index has exactly the words of the notes.
    database.execute_batch("INSERT INTO notes_words (notes_words, rank) VALUES ('integrity-check', 1)").unwrap();

    let mut statement = database.prepare("SELECT id, text FROM notes").unwrap();
    let notes: HashMap<i64, String> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (id, note) in &notes {
        assert_eq!(*note, text(number_of(note)), "note {id} is half");
    }
    for (id, number) in acknowledged {
        assert_eq!(notes.get(id), Some(&text(*number)), "note {id} was acknowledged");
    }
    // A note that is in the database but was not acknowledged was in flight: at most one for each writer and round.
    let unacknowledged = notes.len() - acknowledged.len();
    let rounds = acknowledged.values().map(|number| number / 1_000_000).max().unwrap() + 1;
    assert!(unacknowledged <= rounds * WRITERS, "{unacknowledged} notes were written in vain");
}
