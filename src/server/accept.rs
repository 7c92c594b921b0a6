//! Accepts connections, and goes on doing so when the system has no more file descriptors.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::connections::Connections;
use crate::shield::shielded;

/// How long to wait after an accept that failed for lack of resources, unless a connection closes before.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long after one warning of it the next one may come.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// How long a handshake that is under way may take after the server stopped listening.
const HANDSHAKE: Duration = Duration::from_millis(10);

/// Accepts connections for ever.
pub(super) async fn accept(
    listener: &TcpListener,
    connections: &Connections,
    serve: impl Fn(TcpStream, SocketAddr),
) -> ! {
    let mut warned: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => serve(stream, peer),
            Err(error) if concerns_one_connection(&error) => {
                shielded(|| debug!(target: "tower_offload", %error, "a connection was gone before it was accepted"));
            }
            Err(error) => {
                if warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN) {
                    shielded(
                        || warn!(target: "tower_offload", %error, "cannot accept connections for now; trying again"),
                    );
                    warned = Some(Instant::now());
                } else {
                    shielded(|| debug!(target: "tower_offload", %error, "still cannot accept connections"));
                }
                tokio::select! {
                    () = sleep(BACK_OFF) => {}
                    () = connections.one_closed() => {}
                }
            }
        }
    }
}

/// Stops listening. Connections that clients have made already are accepted first.
pub(super) async fn close(listener: TcpListener, serve: impl Fn(TcpStream, SocketAddr)) {
    refuse_new_ones(&listener);
    // The runtime only looks at the listener's queue when it was told that there is something in it; it needs to be
    // asked until it was told for the last time.
    let handshakes_end = Instant::now() + HANDSHAKE;
    while let Ok(accepted) = timeout_at(handshakes_end, listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => serve(stream, peer),
            Err(error) if concerns_one_connection(&error) => {}
            // No descriptor is left for the others.
            Err(_) => return,
        }
    }
}

/// Has the kernel ignore whoever asks for a connection now, so that none is made between the last accept and the close,
/// which would reset it. Clients ask again after a second, and the closed port refuses them.
#[cfg(target_os = "linux")]
fn refuse_new_ones(listener: &TcpListener) {
    use socket2::{SockFilter, SockRef};

    // A classic BPF program; it sees segments from the TCP header on. One that has SYN set asks for a connection. The
    // rest of a handshake must pass: its client takes the connection for made.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // Where the system does not allow it, the gap of a few microseconds stays open.
    let _ = SockRef::from(listener).attach_filter(&program);
}

#[cfg(not(target_os = "linux"))]
fn refuse_new_ones(_: &TcpListener) {}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
