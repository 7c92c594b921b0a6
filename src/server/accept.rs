//! Accepts connections, and goes on doing so when the system has no more file descriptors.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connections::Connections;

/// How long to wait after an accept that failed for lack of resources, unless a connection closes before.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts connections for ever.
pub(super) async fn accept(listener: &TcpListener, connections: &Connections, serve: impl Fn(TcpStream)) -> ! {
    let mut failures = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if failures > 0 {
                    info!(target: "tower_offload", failures, "accepting connections again");
                    failures = 0;
                }
                serve(stream);
            }
            Err(error) if concerns_one_connection(&error) => {
                debug!(target: "tower_offload", %error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if failures == 0 {
                    warn!(target: "tower_offload", %error, "cannot accept connections for now; trying again");
                }
                failures += 1;
                tokio::select! {
                    () = sleep(BACK_OFF) => {}
                    () = connections.one_closed() => {}
                }
            }
        }
    }
}

/// Stops listening. Connections that clients have made already are accepted first.
///
/// # Errors
/// The listener could not be taken from the runtime; it is closed then.
pub(super) fn close(listener: TcpListener, serve: impl Fn(TcpStream)) -> io::Result<()> {
    refuse_new_ones(&listener);
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                serve(TcpStream::from_std(stream)?);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted || concerns_one_connection(&error) => {}
            // None is left, or no descriptor is left for it.
            Err(_) => return Ok(()),
        }
    }
}

/// Has the kernel ignore new connections, so that none can be made between the last accept and the close, which would
/// reset it. A client that is ignored tries again, and is refused by the closed port.
#[cfg(target_os = "linux")]
fn refuse_new_ones(listener: &TcpListener) {
    use socket2::{SockFilter, SockRef};

    /// The classic BPF instruction `BPF_RET | BPF_K`: keep this many bytes of the packet.
    const RETURN: u16 = 0x06;
    // Where the system does not allow it, the gap of a few microseconds stays open.
    let _ = SockRef::from(listener).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)]);
}

#[cfg(not(target_os = "linux"))]
fn refuse_new_ones(_: &TcpListener) {}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
