//! The Tokio runtime that serves connections.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use tokio::runtime::Builder;
use tracing::warn;

use crate::config::Config;
use crate::shield::shielded;

/// How long blocking calls that are under way may take when the runtime goes.
const BLOCKING_GRACE: Duration = Duration::from_millis(500);

/// The Tokio runtime of a server, made by [`runtime`]. It derefs to [`tokio::runtime::Runtime`],
/// and like that panics if it is dropped in async code.
///
/// It differs in its drop. Tokio's runtime waits there for every call of `spawn_blocking` that has begun, those of
/// `tokio::fs` included. A call that reads from a pipe without a writer, or from a disk that is gone, would keep the
/// process from ever ending. This runtime waits for half a second.
#[derive(Debug)]
pub struct Runtime {
    /// Taken by the drop.
    tokio: Option<tokio::runtime::Runtime>,
}

/// A Tokio runtime with `performance.workers` threads, for the connections.
///
/// `#[tokio::main]` makes its runtime before the configuration can be read, with a thread for each core. See the
/// [module](super) for an example.
///
/// # Errors
///
/// If the settings are not valid, or the system gives no thread or no file descriptor.
pub fn runtime(config: &Config) -> io::Result<Runtime> {
    config.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let tokio = Builder::new_multi_thread()
        .worker_threads(config.performance.workers.count())
        .thread_name("server")
        .enable_all()
        .build()?;
    Ok(Runtime { tokio: Some(tokio) })
}

/// Warns if the server runs on another number of threads than the settings say.
pub(super) fn check(config: &Config) {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let workers = config.performance.workers.count();
    if threads != workers {
        shielded(|| {
            warn!(
                target: "tower_offload",
                threads,
                workers,
                "this runtime has another number of threads than `performance.workers`; `server::runtime` makes one that \
                 has it"
            );
        });
    }
}

// === impl Runtime ===

impl Deref for Runtime {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &Self::Target {
        self.tokio.as_ref().expect("it is taken when the runtime goes")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_timeout(BLOCKING_GRACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_blocking_call_that_never_ends_does_not_keep_the_runtime() {
        let runtime = runtime(&Config::default()).expect("the default is a good configuration");
        let (begun, begins) = channel();
        let (end, ended) = channel::<()>();
        runtime.spawn_blocking(move || {
            begun.send(()).expect("the test waits for it");
            let _ = ended.recv();
        });
        begins.recv().expect("the call says so");
        drop(runtime);
        end.send(()).expect("the call is still under way");
    }
}
