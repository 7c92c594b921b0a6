//! `/v1/notes`: notes in SQLite, with full-text search.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use tower_offload::slots::{SlotError, Slots};
use tower_offload::{Db, Pool, Pools, Workload};

use super::body::Json;
use super::problem::Problem;
use super::query::{Path as PathOf, Query};

/// The longest note, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// The longest search, in bytes, and in words.
const MAX_QUERY: usize = 1024;
const MAX_WORDS: usize = 32;

/// The most notes of a page.
const PAGE: u32 = 32;

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

/// The pool of the writers, if the settings have it: one worker is as much as SQLite can use.
const WRITERS: &str = "db_write";

/// Marks the database as one of this example: "note" in ASCII.
const APPLICATION_ID: i32 = 0x6e6f_7465;

const SCHEMA: &str = "
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        text TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
    ) STRICT;
    CREATE VIRTUAL TABLE notes_words USING fts5(text, content = 'notes', content_rowid = 'id');
    CREATE TRIGGER notes_added AFTER INSERT ON notes BEGIN
        INSERT INTO notes_words (rowid, text) VALUES (new.id, new.text);
    END;
    PRAGMA application_id = 0x6e6f7465;
";

/// The notes. Its methods block their thread while they wait for the disk and for each other.
pub(crate) struct Notes {
    path: PathBuf,
    /// A connection for each permit of the pool. A request in the pool never waits for one.
    readers: Slots<Connection>,
    writers: Slots<Connection>,
    /// SQLite has one writer at a time. A thread that waits for this lock is woken at once; in SQLite it would poll. If
    /// the writers have a pool of their own with one worker, no thread ever waits.
    writing: Mutex<()>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Note {
    pub(crate) id: i64,
    pub(crate) text: String,
    pub(crate) created_at: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewNote {
    text: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Added {
    id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    q: String,
    limit: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Found {
    notes: Vec<Note>,
}

pub(crate) async fn add(
    State(notes): State<Arc<Notes>>,
    Json(NewNote { text }): Json<NewNote>,
) -> Result<impl IntoResponse, Problem> {
    if !(1..=MAX_TEXT).contains(&text.len()) {
        let length = text.len();
        return Err(Problem::bad_request(format!("text: it has {length} bytes; give 1 to {MAX_TEXT}")));
    }
    let id = notes.add(&text)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/v1/notes/{id}"))], Json(Added { id })))
}

pub(crate) async fn get(State(notes): State<Arc<Notes>>, PathOf(id): PathOf<i64>) -> Result<Json<Note>, Problem> {
    notes.get(id)?.map(Json).ok_or_else(|| Problem::not_found(format!("there is no note {id}")))
}

pub(crate) async fn search(
    State(notes): State<Arc<Notes>>,
    Query(Search { q, limit }): Query<Search>,
) -> Result<Json<Found>, Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: {limit} is not from 1 to {MAX_LIMIT}")));
    }
    let expression = match_all(&q)?;
    Ok(Json(Found { notes: notes.search(&expression, limit)? }))
}

/// The full-text expression for notes that contain all words of `query`. Each word is quoted, so that none is an operator.
fn match_all(query: &str) -> Result<String, Problem> {
    if query.len() > MAX_QUERY {
        return Err(Problem::bad_request(format!("q: it is longer than {MAX_QUERY} bytes")));
    }
    // SQLite ignores an expression after its first NUL.
    let words = query.split(|c: char| c.is_whitespace() || c == '\0').filter(|word| !word.is_empty());
    let quoted: Vec<String> = words.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    match quoted.len() {
        1..=MAX_WORDS => Ok(quoted.join(" ")),
        count => Err(Problem::bad_request(format!("q: there are {count} words; give 1 to {MAX_WORDS}"))),
    }
}

// === impl Notes ===

impl Notes {
    /// Opens or creates the database, and checks that it can be written. The connections of later requests are opened when
    /// requests need them. Writers run in the pool `db_write`, if there is one, otherwise in `db`.
    pub(crate) fn open(path: &Path, pools: &Pools) -> Result<Self, String> {
        let failed = |why: String| format!("app.database: `{}` {why}", path.display());
        let mut writer = connect(path).map_err(|error| failed(format!("cannot be opened: {error}")))?;
        prepare(&mut writer).map_err(|why| failed(why.to_string()))?;
        let connections = |name: &str, pool: Workload| {
            let path = path.to_owned();
            let slots = Slots::builder(pools, pool).name(name).make(move || connect(&path));
            // A connection whose statement was interrupted by a panic is in a transaction.
            let slots = slots.recycle(|connection| connection.is_autocommit()).keep_alive(KEEP_ALIVE);
            slots.build_lazy().map_err(|error| failed(format!("cannot be served: {error}")))
        };
        let writing = if pools.get(WRITERS).is_ok() { Workload::from(WRITERS) } else { Workload::of(Db) };
        Ok(Self {
            path: path.to_owned(),
            readers: connections("readers", Workload::of(Db))?,
            writers: connections("writers", writing)?,
            writing: Mutex::default(),
        })
    }

    fn add(&self, text: &str) -> Result<i64, Problem> {
        // Ignores poisoning: SQLite rolls back the uncommitted statements of a thread that panicked.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.with(&self.writers, |connection| {
            connection.prepare_cached("INSERT INTO notes (text) VALUES (?1)")?.execute([text])?;
            Ok(connection.last_insert_rowid())
        })
    }

    fn get(&self, id: i64) -> Result<Option<Note>, Problem> {
        self.with(&self.readers, |connection| {
            let mut statement = connection.prepare_cached("SELECT id, text, created_at FROM notes WHERE id = ?1")?;
            statement.query_row([id], Note::from_row).optional()
        })
    }

    fn search(&self, expression: &str, limit: u32) -> Result<Vec<Note>, Problem> {
        self.with(&self.readers, |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT notes.id, notes.text, notes.created_at FROM notes_words
                 JOIN notes ON notes.id = notes_words.rowid
                 WHERE notes_words MATCH ?1 ORDER BY rank, notes.id DESC LIMIT ?2",
            )?;
            statement.query_map(params![expression, limit], Note::from_row)?.collect()
        })
    }

    /// The id of the newest note; 0 if there is none.
    pub(crate) fn newest(&self) -> Result<i64, Problem> {
        self.with(&self.readers, |connection| {
            connection.prepare_cached("SELECT coalesce(max(id), 0) FROM notes")?.query_row([], |row| row.get(0))
        })
    }

    /// The next notes after the one with the id `last`, up to the one with the id `newest`.
    pub(crate) fn page(&self, last: i64, newest: i64) -> Result<Vec<Note>, Problem> {
        self.with(&self.readers, |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, text, created_at FROM notes WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
            )?;
            statement.query_map(params![last, newest, PAGE], Note::from_row)?.collect()
        })
    }

    fn with<T>(
        &self,
        connections: &Slots<Connection>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Problem> {
        // Settings may send these routes to other pools, whose permits entitle to no connection.
        if !connections.pool().is_none_or(Pool::is_current) {
            return Ok(query(&connect(&self.path)?)?);
        }
        connections.here(|connection| query(connection))?.map_err(Problem::from)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Without the URI flag, a path may begin with `file:`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A commit reaches the disk before it is acknowledged. NORMAL would survive a killed process, but not a power failure.
    // The handler waits for the disk, but in its pool.
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Creates the tables in an empty database. A database of another application is an error.
fn prepare(connection: &mut Connection) -> Result<(), Box<dyn std::error::Error>> {
    let unusable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "is not a database; name another file, or one that does not exist".to_owned(),
        Some(ErrorCode::ReadOnly) => "cannot be written to".to_owned(),
        Some(ErrorCode::DatabaseBusy) => "is locked by another process".to_owned(),
        _ => format!("cannot be used: {error}"),
    };
    let id =
        |connection: &Connection| connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
    let is_empty = |connection: &Connection| {
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get::<_, bool>(0))
    };
    if id(connection).map_err(unusable)? != APPLICATION_ID && !is_empty(connection).map_err(unusable)? {
        return Err("is the database of another application; name another file".into());
    }
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(unusable)?;
    if mode != "wal" {
        return Err(format!("lies where SQLite cannot keep a write-ahead log (journal mode {mode})").into());
    }
    // Locked first, so that of two processes that start at once, one creates the tables and the other finds them.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    if is_empty(&transaction).map_err(unusable)? {
        transaction.execute_batch(SCHEMA).map_err(unusable)?;
    }
    transaction.commit().map_err(unusable)?;
    Ok(())
}

// === impl Note ===

impl Note {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row.get(0)?, text: row.get(1)?, created_at: row.get(2)? })
    }
}

impl From<SlotError> for Problem {
    fn from(error: SlotError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the notes cannot be reached; try again").because(&error)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "another process keeps the notes locked; try again")
            }
            Some(ErrorCode::DiskFull) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "the disk of the notes is full"),
            _ => Self::internal("the notes cannot be reached", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> (tempfile::TempDir, Notes) {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::open(&folder.path().join("notes.db"), &Pools::disabled()).unwrap();
        (folder, notes)
    }

    fn ids(notes: &Notes, query: &str) -> Vec<i64> {
        let mut ids: Vec<i64> =
            notes.search(&match_all(query).unwrap(), 100).unwrap().iter().map(|note| note.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_note_is_found_by_its_id_and_its_words_after_a_restart_as_well() {
        let (folder, notes) = notes();
        let first = notes.add("The quick brown fox").unwrap();
        let second = notes.add("a lazy brown dog; \"quoted\" \0 end").unwrap();
        drop(notes);
        let notes = Notes::open(&folder.path().join("notes.db"), &Pools::disabled()).unwrap();
        assert_eq!(notes.get(first).unwrap().unwrap().text, "The quick brown fox");
        assert_eq!(notes.get(second).unwrap().unwrap().text, "a lazy brown dog; \"quoted\" \0 end");
        assert!(notes.get(second + 1).unwrap().is_none());
        assert_eq!(ids(&notes, "BROWN"), [first, second]);
        assert_eq!(ids(&notes, "brown fox"), [first]);
        assert!(ids(&notes, "brown OR fox").is_empty());
        assert_eq!(ids(&notes, "\"quoted"), [second]);
    }

    #[test]
    fn no_search_is_a_syntax_error() {
        let (_folder, notes) = notes();
        notes.add("anything").unwrap();
        let queries = "\" \"\" ' * a* ^a ( ) NOT text:a -a + {a ;-- \\ % 🦀 a\"b\"c a\0b \u{feff}";
        let operators = ["AND AND", "a NOT b", "{a b}:c", "NEAR(a b", "NEAR(a, 2)", queries];
        for query in queries.split(' ').chain(operators) {
            let expression = match_all(query).unwrap();
            assert!(notes.search(&expression, 1).is_ok(), "{query:?} became {expression}");
        }
        let longest = vec!["a"; MAX_WORDS].join(" ");
        assert!(notes.search(&match_all(&longest).unwrap(), 1).is_ok());
        for refused in ["", "  \t\0", &vec!["a"; MAX_WORDS + 1].join(" "), &"x".repeat(MAX_QUERY + 1)] {
            assert!(match_all(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn threads_that_write_and_read_at_once_do_not_disturb_each_other() {
        let (_folder, notes) = notes();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let notes = &notes;
                scope.spawn(move || {
                    for number in 0..25 {
                        let text = format!("writer{writer} number{number}");
                        let id = notes.add(&text).unwrap();
                        assert_eq!(notes.get(id).unwrap().unwrap().text, text);
                        assert_eq!(ids(notes, &text), [id]);
                    }
                });
            }
        });
        assert_eq!(ids(&notes, "number24").len(), 4);
        assert!(notes.readers.stats().idle <= 4);
        assert_eq!(notes.writers.stats().idle, 1, "one writes at a time");
    }

    #[test]
    fn what_cannot_hold_the_notes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text");
        std::fs::write(&text, "no database ".repeat(1000)).unwrap();
        let foreign = folder.path().join("foreign.db");
        Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
        for (path, why) in [
            (text.as_path(), "is not a database"),
            (foreign.as_path(), "another application"),
            (folder.path(), "cannot be opened"),
            (&folder.path().join("missing/notes.db"), "cannot be opened"),
        ] {
            let error = Notes::open(path, &Pools::disabled()).err().unwrap();
            assert!(error.contains(why) && error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
