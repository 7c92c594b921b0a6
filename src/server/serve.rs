//! `Server`: from the listener to the shutdown report.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{info, warn};

use super::activity::{Timeouts, WRITE_TIMEOUT};
use super::connection;
use super::connections::{Connections, Order};
use super::error::ServeError;
use super::listener::Listener;
use super::requests::HttpService;
use super::runtime;
use super::shutdown::{Shutdown, ShutdownReport, Trigger, Triggers};
use crate::config::Config;
use crate::pools::Pools;
use crate::shield::shielded;

/// How long the server still accepts the connections that the kernel has already made, once it has to stop.
///
/// The runtime learns of new connections from the kernel now and then, and a handshake may be under way.
const LAST_ACCEPTS: Duration = Duration::from_millis(10);

/// How long connections that were cut off get to close their sockets.
const CUT_OFF_GRACE: Duration = Duration::from_millis(100);

/// A server with a listener of the application's, or with a shutdown that is not a signal's.
///
/// [`serve`](super::serve) is the short form, and the [module](super) says what a server does.
///
/// ```
/// use tokio::net::TcpListener;
/// use tokio::sync::oneshot;
/// use tower_offload::server::Server;
/// use tower_offload::{Config, Pools};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (config, pools) = (Config::default(), Pools::default());
/// let app = axum::Router::new();
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let (stop, stopped) = oneshot::channel::<()>();
/// # stop.send(()).ok();
///
/// let report = Server::new(&config, &pools)
///     .listener(listener)
///     .shutdown_on(async { drop(stopped.await) })
///     .serve(app)
///     .await?;
/// assert!(report.is_complete());
/// # Ok(())
/// # }
/// ```
#[must_use = "a server serves when `serve` is awaited"]
pub struct Server<L = Configured> {
    config: Config,
    pools: Pools,
    listener: L,
    shutdown_on: Option<Trigger>,
    cut_off_on: Option<Trigger>,
}

/// Stands for the address of the settings in a [`Server`] that got no [`listener`](Server::listener).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Configured;

/// Serves `service` on `server.host` and `server.port` until SIGTERM or Ctrl-C; then finishes the requests in flight,
/// drains the pools, and reports. SIGHUP ends the process at once, as by default. See the [module](super).
///
/// # Errors
///
/// If the settings are not valid, or if the server cannot listen on the address or for the signals.
///
/// # Panics
///
/// If it is polled outside a Tokio runtime that has its I/O and time drivers enabled.
pub async fn serve<S: HttpService>(service: S, pools: &Pools, config: &Config) -> Result<ShutdownReport, ServeError> {
    Server::new(config, pools).serve(service).await
}

impl Server {
    /// A server that will listen on `server.host` and `server.port`, until SIGTERM or Ctrl-C.
    pub fn new(config: &Config, pools: &Pools) -> Self {
        let (config, pools) = (config.clone(), pools.clone());
        Self { config, pools, listener: Configured, shutdown_on: None, cut_off_on: None }
    }

    /// Accepts connections from this listener instead of the configured address. The server changes none of its
    /// options.
    pub fn listener<L: Listener>(self, listener: L) -> Server<L> {
        let Self { config, pools, listener: Configured, shutdown_on, cut_off_on } = self;
        Server { config, pools, listener, shutdown_on, cut_off_on }
    }

    /// Serves `service` until the shutdown is done. Dropping the future cuts everything off.
    ///
    /// # Errors
    ///
    /// If the settings are not valid, or if the server cannot listen on the address or for the signals.
    ///
    /// # Panics
    ///
    /// If it is polled outside a Tokio runtime that has its I/O and time drivers enabled.
    pub async fn serve<S: HttpService>(self, service: S) -> Result<ShutdownReport, ServeError> {
        self.config.validate().map_err(ServeError::Config)?;
        let address = self.config.server.address();
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
        self.listener(listener).serve(service).await
    }
}

impl<L> Server<L> {
    /// Begins the graceful shutdown when `trigger` completes. The server then listens to no signal.
    pub fn shutdown_on(mut self, trigger: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown_on = Some(Box::pin(trigger));
        self
    }

    /// Ends the server at once when `trigger` completes, as the second signal does.
    pub fn cut_off_on(mut self, trigger: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut_off_on = Some(Box::pin(trigger));
        self
    }
}

impl<L: Listener> Server<L> {
    /// Serves `service` until the shutdown is done. Dropping the future cuts everything off.
    ///
    /// # Errors
    ///
    /// If the settings are not valid, or if the server cannot listen for the signals.
    ///
    /// # Panics
    ///
    /// If it is polled outside a Tokio runtime that has its I/O and time drivers enabled.
    pub async fn serve<S: HttpService>(self, service: S) -> Result<ShutdownReport, ServeError> {
        let Self { config, pools, mut listener, shutdown_on, cut_off_on } = self;
        config.validate().map_err(ServeError::Config)?;
        let mut triggers = Triggers::new(shutdown_on, cut_off_on).map_err(ServeError::Signals)?;
        if let Ok(address) = listener.local_addr() {
            shielded(|| info!(target: "tower_offload", ?address, "listening"));
        }
        runtime::check(&config);

        let connections = Connections::default();
        let timeouts = Timeouts {
            keep_alive: config.performance.keep_alive_timeout,
            header_read: config.server.header_read_timeout,
            write: WRITE_TIMEOUT,
            max_age: config.server.max_connection_age,
        };
        let serve = |accepted| {
            tokio::spawn(connection::serve(accepted, L::socket, connections.open(), timeouts, service.clone()));
        };

        let first = tokio::select! {
            first = triggers.first() => first,
            never = accept(&mut listener, &serve) => never,
        };
        connections.give(Order::Announce);
        pools.announce_drain();
        let (delay, limit) = match first.at_once {
            true => (Duration::ZERO, Duration::ZERO),
            false => (config.server.shutdown_delay, config.server.shutdown_timeout),
        };
        log_begin(&first, delay, limit, &connections);
        let mut out_of_time = pin!(out_of_time(&mut triggers, &first, first.begun + limit));

        // 1. All is served, until balancers have noticed that the server is not ready. HTTP/1 connections that are used
        //    meanwhile close after their response, so that fewer are left whose close can meet a request.
        let mut in_time = tokio::select! {
            biased;
            () = &mut out_of_time => false,
            () = sleep_until(first.begun + delay) => true,
            never = accept(&mut listener, &serve) => never,
        };
        // 2. Connections that the kernel has made are accepted, then the port is closed.
        accept_rest(listener, &serve).await;
        let open = connections.count();
        // 3. Connections end after their requests in flight.
        connections.give(Order::Finish);
        if in_time {
            in_time = tokio::select! {
                biased;
                () = connections.none_open() => true,
                () = &mut out_of_time => false,
            };
        }
        let (connections_cut_off, requests_cut_off) = (connections.count(), connections.requests());
        if !in_time {
            connections.give(Order::End);
            // A handler that blocks its thread cannot be ended. The server does not wait for it.
            let _ = timeout(CUT_OFF_GRACE, connections.none_open()).await;
        }
        // 4. The pools finish the tasks that no request waits for.
        let rest = async {
            if in_time {
                out_of_time.await;
            }
        };
        let report = ShutdownReport {
            connections_finished: open.saturating_sub(connections_cut_off),
            connections_cut_off,
            requests_cut_off,
            pools: pools.drain_until(std::time::Instant::now(), rest).await,
            took: first.begun.elapsed(),
        };
        log_end(&report);
        Ok(report)
    }
}

/// Accepts connections for ever.
async fn accept<L: Listener>(listener: &mut L, serve: impl Fn((L::Io, L::Addr))) -> ! {
    loop {
        serve(listener.accept().await);
    }
}

/// Accepts the connections that clients have already made, and closes the listener.
async fn accept_rest<L: Listener>(mut listener: L, serve: impl Fn((L::Io, L::Addr))) {
    let last = Instant::now() + LAST_ACCEPTS;
    // Unconstrained: Tokio would otherwise make a pause after 128 of them, at which the loop would end.
    while let Ok(accepted) = unconstrained(timeout_at(last, listener.accept())).await {
        serve(accepted);
    }
}

/// Waits for the deadline of the shutdown, or for a second signal.
async fn out_of_time(triggers: &mut Triggers, first: &Shutdown, deadline: Instant) {
    tokio::select! {
        () = sleep_until(deadline) => {}
        by = triggers.second(first) => {
            shielded(|| warn!(target: "tower_offload", by, "ending at once"));
        }
    }
}

fn log_begin(first: &Shutdown, delay: Duration, timeout: Duration, connections: &Connections) {
    let (by, connections, requests) = (first.by, connections.count(), connections.requests());
    shielded(|| info!(target: "tower_offload", by, ?delay, ?timeout, connections, requests, "shutting down"));
}

fn log_end(report: &ShutdownReport) {
    shielded(|| match report.is_complete() {
        true => info!(target: "tower_offload", "shut down: {report}"),
        false => warn!(target: "tower_offload", "shut down: {report}"),
    });
}

impl<L: fmt::Debug> fmt::Debug for Server<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}
