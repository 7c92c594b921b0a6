//! An HTTP server whose handlers run in workload pools: password hashes, files, notes in SQLite, and a small model.
//!
//! `cargo run --release --example server` starts it with `config.yaml`; `--help` shows its options.

mod app;
mod body;
mod export;
mod files;
mod model;
mod models;
mod notes;
mod options;
mod passwords;
mod problem;
mod query;
mod session;
mod settings;

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tower_offload::server::{self, Server};
use tower_offload::{Config, Pools};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::app::Parts;
use self::models::Models;
use self::notes::Notes;
use self::options::{HELP, Options};
use self::settings::Settings;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_full(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = Options::read(lexopt::Parser::from_env())?;
    if options.help {
        return say(HELP);
    }
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.map_err(|error| format!("RUST_LOG: {error}"))?)
        .with_ansi(std::io::stderr().is_terminal())
        // If nobody reads the log any more, the server continues without it.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .init();

    let config = match &options.config {
        Some(path) => Config::load(path)?,
        None => Config::load_or_default("config.yaml")?,
    };
    let settings: Settings = config.app()?;
    settings.check_files()?;
    let pools = Pools::new(&config)?;
    let models = Models::open(&pools, &settings.model, &settings.models_dir())?;
    let notes = Notes::open(&settings.database, &pools)?;
    let app = app::app(Parts { notes, models, settings }, &config, &pools)?;

    server::runtime(&config)?.block_on(async {
        let listener = listen(options.bind.unwrap_or_else(|| config.server.address())).await?;
        let address = listener.local_addr()?;
        say(&format!("listening on http://{address}\nthe pools, live: http://{address}/\n"))?;
        Server::new(&config, &pools).listener(listener).serve(app).await?;
        Ok(())
    })
}

/// An error and its sources in one line.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for source in std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string) {
        // Some errors end with the text of their source.
        if !text.ends_with(&source) {
            text = format!("{text}: {source}");
        }
    }
    text
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| format!("cannot listen on {address}: {error}; --bind names another address"))
}

/// Writes to the standard output. A closed pipe is not an error.
fn say(text: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
