//! The scheduling priority of a worker's thread: `nice`, which Linux keeps for each thread.

use std::io;

/// Gives the calling thread this `nice` value.
///
/// # Errors
///
/// The system's, where the value may not be set; `Unsupported` where threads have none of their own.
#[cfg(target_os = "linux")]
pub(crate) fn set(nice: i32) -> io::Result<()> {
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_nice: i32) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has a nice value for each thread"))
}

/// Whether a thread of this process may have this `nice` value, tried on a thread of its own.
pub(crate) fn check(nice: i32) -> io::Result<()> {
    let tried = std::thread::Builder::new().name("offload-nice".to_owned()).spawn(move || set(nice))?.join();
    tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tried it panicked")))
}
