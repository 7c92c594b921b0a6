//! The Tokio runtime that serves connections.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use crate::Config;

/// A Tokio runtime with `performance.workers` threads, for the connections.
///
/// `#[tokio::main]` makes its runtime before the configuration can be read, with a thread for each core. See the
/// [module](super) for an example.
///
/// # Errors
/// The settings are wrong, or the system refused a thread or a file descriptor.
pub fn runtime(config: &Config) -> io::Result<Runtime> {
    config.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Builder::new_multi_thread()
        .worker_threads(config.performance.workers.count())
        .thread_name("server")
        .enable_all()
        .build()
}

/// Says so when the server runs on another number of threads than it was configured to.
pub(super) fn check(config: &Config) {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let workers = config.performance.workers.count();
    if threads != workers {
        warn!(
            target: "tower_offload",
            threads,
            workers,
            "this runtime has another number of threads than `performance.workers`; `server::runtime` makes one that has it"
        );
    }
}
