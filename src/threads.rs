//! Starts the threads of this crate, and sets their `nice` values.
//!
//! On Linux each thread has a `nice` value, and a new thread inherits it from the thread that starts it. Workers start
//! threads of other pools and of the timers. So as soon as a pool sets a `nice` value, all threads are started by one
//! thread that keeps the value of the process.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// The time after a failed start during which no other thread is started.
pub(crate) const START_BACKOFF: Duration = Duration::from_secs(1);

/// The function that a thread runs.
type Body = Box<dyn FnOnce() + Send>;

/// A request to start a thread.
struct Start {
    name: String,
    stack_size: Option<usize>,
    body: Body,
    /// Receives the result.
    started: SyncSender<io::Result<()>>,
}

/// The requests to the thread that starts the others. It exists as soon as a pool sets a `nice` value.
static STARTER: OnceLock<Sender<Start>> = OnceLock::new();

/// Starts a thread that has the `nice` value of the process.
///
/// # Errors
///
/// The error of the operating system, if it cannot start another thread.
pub(crate) fn start(name: String, stack_size: Option<usize>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let Some(starter) = STARTER.get() else {
        return builder(name, stack_size).spawn(body).map(drop);
    };
    let ended = || io::Error::other("the thread that starts others has ended");
    let (started, answer) = sync_channel(1);
    starter.send(Start { name, stack_size, body: Box::new(body), started }).map_err(|_| ended())?;
    answer.recv().map_err(|_| ended())?
}

fn builder(name: String, stack_size: Option<usize>) -> thread::Builder {
    let builder = thread::Builder::new().name(name);
    match stack_size {
        Some(bytes) => builder.stack_size(bytes),
        None => builder,
    }
}

/// Sets the `nice` value of the calling thread.
///
/// # Errors
///
/// The error of the operating system, if the process may not set this value.
#[cfg(target_os = "linux")]
pub(crate) fn renice(nice: i32) -> io::Result<()> {
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice).map_err(io::Error::from)
}

/// Only Linux has a `nice` value for each thread.
///
/// # Errors
///
/// `Unsupported`, always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn renice(_nice: i32) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has a nice value for each thread"))
}

/// Checks that the process may set this `nice` value, by setting it on a new thread, and starts the thread that starts
/// the others from then on.
///
/// # Errors
///
/// The error of the operating system, if the process may not set this value.
pub(crate) fn may_renice(nice: i32) -> io::Result<()> {
    let tried = thread::Builder::new().name("offload-nice".to_owned()).spawn(move || renice(nice))?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))?;
    if STARTER.get().is_none() {
        let (starter, starts) = channel::<Start>();
        let run = move || {
            for Start { name, stack_size, body, started } in starts {
                // The requesting thread waits for the result, so sending cannot fail.
                let _ = started.send(builder(name, stack_size).spawn(body).map(drop));
            }
        };
        thread::Builder::new().name("offload-starter".to_owned()).spawn(run)?;
        // If two pools are built at the same time, the second thread ends when its sender is dropped here.
        let _ = STARTER.set(starter);
    }
    Ok(())
}
