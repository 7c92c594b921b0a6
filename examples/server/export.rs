//! `GET /v1/notes/export`: all notes as CSV, written while they are read.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use tower_offload::stream;

use super::notes::{Note, Notes};
use super::problem::Problem;

/// The notes that exist now. A worker of the pool `db` reads them from the database, and waits while the client is
/// behind; the request holds its permit until the last note is written.
pub(crate) async fn export(State(notes): State<Arc<Notes>>) -> Result<impl IntoResponse, Problem> {
    let newest = notes.newest()?;
    let body = stream::writer(move |out| write(&notes, newest, out));
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
        (CONTENT_DISPOSITION, "attachment; filename=\"notes.csv\""),
    ];
    Ok((headers, body))
}

/// Writes the notes up to the one with the id `newest`.
fn write(notes: &Notes, newest: i64, out: &mut impl Write) -> Result<(), Box<dyn Error + Send + Sync>> {
    out.write_all(b"id,created_at,text\r\n")?;
    let mut last = 0;
    loop {
        // No statement is open while the client is behind: it would keep SQLite from shortening its write-ahead log.
        let page = notes.page(last, newest).map_err(|problem| problem.to_string())?;
        let Some(note) = page.last() else { return Ok(()) };
        last = note.id;
        for note in &page {
            row(note, out)?;
        }
    }
}

/// A row as RFC 4180 has it. The text is always in quotes, because it may have commas, quotes and line breaks.
fn row(Note { id, text, created_at }: &Note, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{id},{created_at},\"{}\"\r\n", text.replace('"', "\"\""))
}
