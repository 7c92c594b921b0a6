//! Starts the threads of this crate, and gives them their `nice` value.
//!
//! Linux keeps that value for each thread, and a new thread has that of the one that starts it. Workers start threads:
//! those of other pools, and the timers'; so may a thread that a task has started. So where a pool has a value of its own,
//! every start is left to a thread that has the process's.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// The time after a failed start during which no other thread is started.
pub(crate) const START_BACKOFF: Duration = Duration::from_secs(1);

/// What a thread does.
type Body = Box<dyn FnOnce() + Send>;

/// A thread to be started, and where to say whether it was.
struct Start {
    name: String,
    stack_size: Option<usize>,
    body: Body,
    started: SyncSender<io::Result<()>>,
}

/// The way to the thread that starts others; there is one as soon as a pool has a `nice` value.
static STARTER: OnceLock<Sender<Start>> = OnceLock::new();

/// Starts a thread that has the `nice` value of the process.
///
/// # Errors
/// The system's, if it gives no further thread.
pub(crate) fn start(name: String, stack_size: Option<usize>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let Some(starter) = STARTER.get() else {
        return builder(name, stack_size).spawn(body).map(drop);
    };
    let gone = || io::Error::other("the thread that starts others has ended");
    let (started, answer) = sync_channel(1);
    starter.send(Start { name, stack_size, body: Box::new(body), started }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn builder(name: String, stack_size: Option<usize>) -> thread::Builder {
    let builder = thread::Builder::new().name(name);
    match stack_size {
        Some(bytes) => builder.stack_size(bytes),
        None => builder,
    }
}

/// Gives the calling thread this `nice` value.
///
/// # Errors
/// The system's, where the value may not be set; `Unsupported` where threads have none of their own.
#[cfg(target_os = "linux")]
pub(crate) fn renice(nice: i32) -> io::Result<()> {
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice).map_err(io::Error::from)
}

/// Gives the calling thread a `nice` value, which only Linux can.
///
/// # Errors
/// `Unsupported`, always.
#[cfg(not(target_os = "linux"))]
pub(crate) fn renice(_nice: i32) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has a nice value for each thread"))
}

/// Whether a thread of this process may have this `nice` value, tried on a thread of its own. From here on, threads of
/// this crate may have one.
pub(crate) fn may_renice(nice: i32) -> io::Result<()> {
    let tried = thread::Builder::new().name("offload-nice".to_owned()).spawn(move || renice(nice))?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))?;
    if STARTER.get().is_none() {
        let (starter, starts) = channel::<Start>();
        let run = move || {
            for Start { name, stack_size, body, started } in starts {
                // Who asked waits for the answer.
                let _ = started.send(builder(name, stack_size).spawn(body).map(drop));
            }
        };
        thread::Builder::new().name("offload-starter".to_owned()).spawn(run)?;
        // Of two at once one is enough: the other's thread ends with its sender.
        let _ = STARTER.set(starter);
    }
    Ok(())
}
