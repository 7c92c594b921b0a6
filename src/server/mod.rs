//! A small hyper server: timeouts for connections, and a graceful shutdown that drains the pools.
//!
//! ```no_run
//! use axum::Router;
//! use axum::routing::post;
//! use tower_offload::{Config, Cpu, PoolLayer, Pools, server};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config::load("config.yaml")?;
//!     let pools = Pools::new(&config)?;
//!     server::runtime(&config)?.block_on(async {
//!         let hash = post(|password: String| async move { /* slow */ password.len().to_string() });
//!         let app = Router::new().route("/hash", hash.route_layer(PoolLayer::<Cpu>::new(&pools)));
//!         server::serve(app, &pools, &config).await?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! [`runtime`] makes a Tokio runtime with `performance.workers` threads; [`serve`] listens on `server.host` and
//! `server.port`, and serves any Tower service for HTTP requests: an axum `Router`, a tonic `Routes`, your own. It
//! works in your own runtime as well (`#[tokio::main]`), with the threads of that runtime. [`Server`] takes another
//! listener, such as one for TLS or a Unix socket, or a shutdown that is not a signal's.
//!
//! # Connections
//! Every request carries its [`PeerAddr`], which has an example for axum's `ConnectInfo`. The server recognises
//! HTTP/1.1 and HTTP/2 by the first bytes of a connection. HTTP/1.1 upgrades and HTTP/2's extended CONNECT work, so
//! WebSockets do.
//!
//! - **Idle connections** are closed after `performance.keep_alive_timeout`. A connection is idle while no request is
//!   in flight. A request is in flight from its header to the last byte of its response, however long that takes; a
//!   tunnel over HTTP/2 until it ends. Pings do not count. An upgraded HTTP/1.1 connection belongs to its handler and
//!   is never idle.
//! - **Headers** must be complete within `server.header_read_timeout`, from their first byte on. For the first header
//!   of an HTTP/1 connection, and for the preface of HTTP/2, the time runs from the start of the connection and
//!   includes the handshake of TLS. HTTP/2 has no such timeout for later headers: an incomplete header is not a
//!   request, so the connection stays idle.
//!   A header of more than 64 KiB is answered with 431 over HTTP/2, and one of more than about 400 KiB over HTTP/1. Over
//!   HTTP/2, one of more than about 300 KiB ends its connection.
//! - **Peers that vanished** are noticed by TCP keep-alive after 90 s, and by HTTP/2 pings after 30 s. Their requests
//!   are then cancelled.
//! - **Clients that hang up** have their requests cancelled: a queued one leaves its queue, and an async handler is
//!   dropped at its next await. The server notices it at once, and within half a second if bytes are unread: a body that
//!   no handler reads, or the next request. A client that closes only its sending side has hung up as well. The end of
//!   a connection comes behind its bytes: a client that has more of them unread than the kernel takes, some 100 KB on
//!   Linux, is not noticed before the body is read. [`PoolLayer::read_body`](crate::PoolLayer::read_body) does that
//!   first. While bytes are unread, the server has to see the socket ([`Listener::socket`]), and Windows does not report
//!   the end.
//! - **Clients that take nothing** while bytes wait for them, because they stopped to read or vanished, have 30 s. Then
//!   their connections are reset, so that no response looks complete that is not. A client that reads slowly is not
//!   disconnected, and neither is one that sends, such as the frames of HTTP/2 that open its windows. A body with a stall
//!   timeout ([`BodyPolicy`](crate::body::BodyPolicy)) has its own time: over HTTP/1, a longer one counts instead of the
//!   30 s. Over HTTP/2, its stream alone is reset if the client does not open the stream's window. Without a stall timeout
//!   such a stream remains while the client answers pings. An upgraded connection belongs to its handler.
//! - **Old connections** are closed after `server.max_connection_age`, 10% more or less, when their requests in flight
//!   have ended. Clients then connect again, and a balancer can send them to a new server. There is no maximum by
//!   default.
//! - **Unread bodies**: a handler may answer before it has read the body of an HTTP/1 request, such as axum's 404 and 405.
//!   If the rest of the body has not arrived, the response carries `connection: close`. When it has ended, the server
//!   discards what still arrives, until no byte came for 1 s and for 5 s at most. An immediate close would reset the
//!   connection, and many clients would never read the response.
//! - **File descriptors**: when none is left for another connection, the server logs this once a minute, and tries
//!   again ten times a second.
//!
//! HTTP/1 cannot announce that an idle connection will be closed. If a client sends a request at that very moment, it
//! sees the connection close without a response. The server asks the kernel for unread bytes right before it closes,
//! which makes this rare. Give clients and proxies a shorter idle timeout than the server's, and it does not happen.
//! `docs/deployment.md` has the numbers for common proxies. HTTP/2 has no such gap: its GOAWAY names the last request
//! that is served.
//!
//! # Memory
//! Of a response over HTTP/1, hyper holds up to 16 frames or 408 KiB that the kernel does not take, and one frame above
//! it. On Linux and Android the kernel takes 128 KiB more than it can send at once (`TCP_NOTSENT_LOWAT`). The server
//! therefore sees what a client reads in steps of about 250 KB: to take something within 30 s, a client must read 9 KB a
//! second. If it was fast before, its own kernel holds megabytes and reports them in steps of a sixteenth. On other
//! systems the steps are as coarse as the kernel's buffer.
//!
//! A client of HTTP/2 may have 200 requests in flight on one connection, and may send 256 KiB of each body before the
//! handler reads it. The connection's window has room for all of them, so requests whose bodies are not being read do
//! not delay the others. In the worst case the server therefore buffers 50 MiB of requests for one connection. Clients
//! of HTTP/2 usually open their windows in steps of half a window, and the stall timeout measures these steps.
//!
//! # Shutdown
//! SIGTERM or Ctrl-C begins it; on Windows also Ctrl-Break, the end of the console and that of the system.
//!
//! 1. [`Pools::draining`](crate::Pools::draining) completes and readiness (`/health/thread-pools/ready`) fails. For
//!    `server.shutdown_delay` the server accepts connections and serves all requests. HTTP/1 responses carry
//!    `connection: close` from now on. The delay is 0 by default.
//! 2. The server accepts the connections that clients have already made, and closes its listener.
//! 3. Requests in flight are answered, and their connections end. HTTP/2 gets a GOAWAY. Idle connections are closed at
//!    once. A connection that is younger than a second and has sent nothing yet may bring its first request until that
//!    second is over.
//! 4. When the last connection is closed, the pools drain: they finish the tasks that no request waits for.
//!
//! `server.shutdown_timeout` limits all of this together. It counts from the signal and is 25 s by default; then the
//! remaining connections and tasks are cut off, upgraded connections included. A second signal does the same at once. A
//! signal within the first second counts as the first one, unless it is a second Ctrl-C. Code that blocks its thread
//! cannot be ended: the pools do not wait for it, and the [`Runtime`] waits for half a second. Your own runtime would
//! wait for all of its blocking threads.
//!
//! The kernel may make a connection between the last accept and the close of the listener, and then resets it. If other
//! processes have the same listening socket (a socket that systemd or a parent process hands down), no connection is
//! lost: they accept it. A server that does not share its socket should get no new connections by then: let the
//! balancer ask for readiness, and set `server.shutdown_delay` to the time that it takes to notice.
//!
//! All other signals keep their meaning. SIGHUP, which a terminal sends when it is closed, ends the process at once. To
//! ignore it, or to begin a shutdown by it, listen to it and use [`Server::shutdown_on`].
//!
//! The [`ShutdownReport`] counts what was finished and what was cut off. The server logs it with the target
//! `tower_offload`.

mod activity;
mod connection;
mod connections;
mod error;
mod handshake;
mod listener;
mod requests;
mod runtime;
mod serve;
mod shutdown;
mod signal;
mod socket;

pub use self::error::ServeError;
pub use self::handshake::{Handshake, HandshakeIo};
pub use self::listener::Listener;
pub use self::requests::{HttpService, PeerAddr};
pub use self::runtime::{Runtime, runtime};
pub use self::serve::{Configured, Server, serve};
pub use self::shutdown::ShutdownReport;
