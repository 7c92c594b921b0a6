//! A hyper server that keeps idle connections in check, and whose shutdown loses no request.
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
//!         let app = Router::new().route("/hash", hash.layer(PoolLayer::<Cpu>::new(&pools)));
//!         server::serve(app, &pools, &config).await?;
//!         Ok(())
//!     })
//! }
//! ```
//!
//! [`runtime`] makes a Tokio runtime with `performance.workers` threads; [`serve`] listens on `server.host` and
//! `server.port`, and serves any Tower service for HTTP requests: an axum `Router`, a tonic `Routes`, your own.
//! It works in a runtime of yours as well (`#[tokio::main]`), which then has the threads that it has.
//! [`Server`] takes a listener, or a shutdown that is no signal.
//!
//! # Connections
//! Every request carries its [`PeerAddr`]; axum's `ConnectInfo`, which it has an example for, is not set. HTTP/1.1 and
//! HTTP/2 with prior knowledge are told apart by the first bytes. HTTP/1.1 upgrades and HTTP/2's extended CONNECT work, so
//! WebSockets do.
//!
//! - An idle connection is closed after `performance.keep_alive_timeout`. Idle means that no request is in flight: none
//!   is half read, none has a response whose body is not finished, however long it takes. The pings of HTTP/2 do not
//!   count. An upgraded connection belongs to its handler, and is never idle.
//! - A request's header must be complete `server.header_read_timeout` after its first byte; the first one of an HTTP/1
//!   connection, and the preface of HTTP/2, that long after the connection was made. Otherwise the connection is closed.
//!   HTTP/2 has no such time for the headers that follow: half a header is no request, and keeps no connection from being
//!   idle.
//! - When the system has no file descriptor for another connection, the server says so once, and tries again shortly
//!   and whenever a connection closes.
//!
//! A request that an HTTP/1 client sends in the very moment in which the server closes the idle connection is lost, and
//! the client sees the connection close without an answer. HTTP/1 cannot prevent this; clients know it and repeat such a
//! request if that is safe. To make it rare, the server asks the kernel for unread bytes right before it closes, and it
//! is best to give clients a shorter idle timeout than the server's. HTTP/2 has no such gap: its GOAWAY names the last
//! request that was served.
//!
//! # Shutdown
//! SIGTERM or Ctrl-C begins it:
//!
//! 1. The server accepts the connections that clients have already made, and closes the port.
//! 2. Requests in flight are answered. HTTP/1.1 responses carry `connection: close`, HTTP/2 gets a GOAWAY. Idle
//!    connections are closed at once; one that was made less than a second before and has sent nothing yet may bring
//!    its first request until that second is over.
//! 3. When the last connection is closed, the pools drain: jobs that no request waits for are finished.
//! 4. What is left at `server.shutdown_timeout` is cut off, upgraded connections included. A second signal does the
//!    same at once. Code that blocks its thread cannot be ended, and is not waited for: neither by the pools nor, for
//!    more than half a second, by the [`Runtime`]. A runtime of yours would wait for its own blocking threads.
//!
//! A balancer learns nothing before the port is closed. Where it still sends connections after SIGTERM, as Kubernetes does
//! for a moment, wait first: with a `preStop` sleep, or with [`Server::shutdown_on`] and a future that sleeps after the
//! signal.
//!
//! All other signals keep their meaning. SIGHUP, which a terminal sends when it is closed, ends the process at once,
//! with nothing answered or drained; there is nothing that it would reload. Under `nohup` or a service manager it does
//! not come; where it is to begin a shutdown, or to be ignored, listen to it and use [`Server::shutdown_on`].
//!
//! The [`ShutdownReport`] says what was finished and what was cut off; the same is logged (target `tower_offload`).

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
pub use self::requests::PeerAddr;
pub use self::runtime::{Runtime, runtime};
pub use self::serve::{Configured, Server, serve};
pub use self::shutdown::ShutdownReport;
