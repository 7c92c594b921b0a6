//! Listeners: those of TCP and Unix sockets, and those of the application.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::shield::shielded;
use crate::sync::lock_std as lock;

/// How long to wait after an accept that failed for lack of resources.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The shortest time between two warnings about such accepts.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// How long a TCP connection may be silent before the kernel asks whether the peer is still there.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(60);

/// How often the kernel then repeats its question, and how many go unanswered before it closes the connection: a peer
/// that vanished is noticed after 90 s.
#[cfg(any(target_os = "linux", target_vendor = "apple", windows))]
const KEEP_ALIVE_PROBES: (Duration, u32) = (Duration::from_secs(10), 3);

/// A source of connections, in the shape of axum's `axum::serve::Listener`.
///
/// Tokio's `TcpListener` and `UnixListener` are listeners. [`Handshake`](super::Handshake) adds TLS to another
/// listener. Implement this trait for anything else, such as a listener that refuses some of its clients:
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
/// use tokio::net::{TcpListener, TcpStream};
/// use tower_offload::server::Listener;
/// # use tower_offload::{Config, Pools, server::Server};
///
/// /// Accepts connections from this machine only.
/// struct Local(TcpListener);
///
/// impl Listener for Local {
///     type Io = TcpStream;
///     type Addr = SocketAddr;
///
///     async fn accept(&mut self) -> (TcpStream, SocketAddr) {
///         loop {
///             let (stream, peer) = Listener::accept(&mut self.0).await;
///             if peer.ip().is_loopback() {
///                 return (stream, peer);
///             }
///         }
///     }
///
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         self.0.local_addr()
///     }
/// }
/// # async {
/// # let listener = Local(TcpListener::bind("127.0.0.1:0").await.unwrap());
/// # Server::new(&Config::default(), &Pools::default()).listener(listener).serve(axum::Router::new()).await
/// # };
/// ```
pub trait Listener: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The address of a connection's peer. Each request carries it as [`PeerAddr<Self::Addr>`](super::PeerAddr).
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    /// Waits for the next connection.
    ///
    /// Errors are the listener's to log and to try again after. The server calls this in a loop, so a handshake in here
    /// delays every other connection. If the future is dropped, no connection may be lost.
    fn accept(&mut self) -> impl Future<Output = (Self::Io, Self::Addr)> + Send;

    /// The address that the listener is bound to.
    ///
    /// # Errors
    ///
    /// If the operating system cannot tell the address.
    fn local_addr(&self) -> io::Result<Self::Addr>;

    /// The socket under a connection, as Tokio's `TcpStream` or `UnixStream`. By default this is the connection itself.
    ///
    /// The server looks there for a client that hangs up while its request waits and bytes of it are unread, and resets
    /// the connection of a client that stops to read. With any other type it does neither.
    fn socket(io: &Self::Io) -> &dyn Any {
        io
    }
}

/// Sets `TCP_NODELAY` and TCP keep-alive on every connection: a peer that vanished is noticed after
/// 90 s.
impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let listener = &*self;
        let (stream, peer) = retry(|| listener.accept()).await;
        configure(&stream);
        (stream, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;
    type Addr = std::os::unix::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let listener = &*self;
        let (stream, peer) = retry(|| listener.accept()).await;
        (stream, peer.into())
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self).map(Into::into)
    }
}

fn configure(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE_TIME);
    #[cfg(any(target_os = "linux", target_vendor = "apple", windows))]
    let keep_alive = keep_alive.with_interval(KEEP_ALIVE_PROBES.0).with_retries(KEEP_ALIVE_PROBES.1);
    // Without Nagle's algorithm a small response does not wait for the next one.
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = set {
        shielded(|| debug!(target: "tower_offload", %error, "cannot set TCP_NODELAY or TCP keep-alive"));
    }
}

/// Accepts until it succeeds.
async fn retry<F: Future<Output = io::Result<T>>, T>(accept: impl Fn() -> F) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => back_off(&error).await,
        }
    }
}

/// Waits after an error that the next accept would meet as well, such as a lack of file descriptors.
async fn back_off(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        shielded(|| debug!(target: "tower_offload", %error, "a connection was gone before it was accepted"));
        return;
    }
    if may_warn() {
        shielded(|| warn!(target: "tower_offload", %error, "cannot accept connections for now; trying again"));
    } else {
        shielded(|| debug!(target: "tower_offload", %error, "still cannot accept connections"));
    }
    sleep(BACK_OFF).await;
}

/// Whether the last warning was long ago. All listeners share it, because they share the process's descriptors.
fn may_warn() -> bool {
    static WARNED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut warned = lock(&WARNED);
    let may_warn = warned.is_none_or(|warned| warned.elapsed() >= WARN_AGAIN);
    if may_warn {
        *warned = Some(Instant::now());
    }
    may_warn
}
