//! `Server`: from the listener to the shutdown report.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::accept;
use super::activity::Timeouts;
use super::connection::Http;
use super::connections::{Connections, Order};
use super::error::ServeError;
use super::runtime;
use super::shutdown::{ShutdownReport, Trigger, Triggers};
use crate::config::Config;
use crate::pools::Pools;
use crate::shield::shielded;

/// How long connections that were cut off get to close their sockets.
const CUT_OFF_GRACE: Duration = Duration::from_millis(100);

/// A server before it serves: an address, pools, and what ends it.
///
/// [`serve`](super::serve) is the short form, and the [module](super) says what a server does. This one is for a
/// listener of your own, or a shutdown by something else than a signal:
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
pub struct Server {
    config: Config,
    pools: Pools,
    listener: Option<TcpListener>,
    shutdown_on: Option<Trigger>,
    cut_off_on: Option<Trigger>,
}

/// Serves `service` on `server.host` and `server.port` until SIGTERM or Ctrl-C; then finishes what is in flight, drains
/// the pools, and reports. SIGHUP ends the process at once, as by default. See the [module](super).
///
/// # Errors
/// The settings are wrong, the address could not be listened on, or the signals could not be listened to.
///
/// # Panics
/// Outside a Tokio runtime that has its I/O and time drivers enabled.
pub async fn serve<S, B>(service: S, pools: &Pools, config: &Config) -> Result<ShutdownReport, ServeError>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Server::new(config, pools).serve(service).await
}

impl Server {
    /// A server that will listen on `server.host` and `server.port`, until SIGTERM or Ctrl-C.
    pub fn new(config: &Config, pools: &Pools) -> Self {
        Self { config: config.clone(), pools: pools.clone(), listener: None, shutdown_on: None, cut_off_on: None }
    }

    /// Accepts connections from this listener instead of the configured address.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Begins the graceful shutdown when `trigger` completes. The signals are left alone then.
    pub fn shutdown_on(mut self, trigger: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown_on = Some(Box::pin(trigger));
        self
    }

    /// Ends the server at once when `trigger` completes, as the second signal does.
    pub fn cut_off_on(mut self, trigger: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut_off_on = Some(Box::pin(trigger));
        self
    }

    /// Serves `service` until the shutdown is done. Dropping the future cuts everything off.
    ///
    /// # Errors
    /// The settings are wrong, the address could not be listened on, or the signals could not be listened to.
    ///
    /// # Panics
    /// Outside a Tokio runtime that has its I/O and time drivers enabled.
    pub async fn serve<S, B>(self, service: S) -> Result<ShutdownReport, ServeError>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { config, pools, listener, shutdown_on, cut_off_on } = self;
        config.validate().map_err(ServeError::Config)?;
        let mut triggers = Triggers::new(shutdown_on, cut_off_on).map_err(ServeError::Signals)?;
        let listener = match listener {
            Some(listener) => listener,
            None => {
                let address = config.server.address();
                TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?
            }
        };
        if let Ok(address) = listener.local_addr() {
            shielded(|| info!(target: "tower_offload", %address, "listening"));
        }

        runtime::check(&config);

        let connections = Connections::default();
        let http = Arc::new(Http::new(Timeouts {
            keep_alive: config.performance.keep_alive_timeout,
            header_read: config.server.header_read_timeout,
        }));
        let serve = |stream: TcpStream, peer: SocketAddr| {
            // Small responses must not wait for more to come.
            if let Err(error) = stream.set_nodelay(true) {
                shielded(|| debug!(target: "tower_offload", %error, "cannot switch off Nagle's algorithm"));
            }
            let (http, service) = (Arc::clone(&http), service.clone());
            let (connection, registration) = connections.open(peer);
            tokio::spawn(async move { http.serve(stream, connection, registration, service).await });
        };

        let shutdown = tokio::select! {
            shutdown = triggers.first() => shutdown,
            never = accept::accept(&listener, &connections, serve) => never,
        };
        let begun = Instant::now();
        let deadline = begun + if shutdown.at_once { Duration::ZERO } else { config.server.shutdown_timeout };
        accept::close(listener, serve).await;
        let open = connections.count();
        shielded(|| {
            info!(
                target: "tower_offload",
                by = shutdown.by,
                timeout = ?deadline - begun,
                connections = open,
                requests = connections.requests(),
                "shutting down"
            );
        });

        connections.give(Order::Finish);
        let mut out_of_time = pin!(async {
            tokio::select! {
                () = sleep_until(deadline) => {}
                by = triggers.second() => {
                    shielded(|| warn!(target: "tower_offload", by, "ending at once"));
                }
            }
        });
        let in_time = tokio::select! {
            biased;
            () = connections.none_open() => true,
            () = &mut out_of_time => false,
        };
        let (connections_cut_off, requests_cut_off) = (connections.count(), connections.requests());
        if !in_time {
            connections.give(Order::End);
            // A handler that blocks its thread does not end when it is told to; it is not waited for.
            let _ = timeout(CUT_OFF_GRACE, connections.none_open()).await;
        }
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
            took: begun.elapsed(),
        };
        shielded(|| {
            if report.is_complete() {
                info!(target: "tower_offload", "shut down: {report}");
            } else {
                warn!(target: "tower_offload", "shut down: {report}");
            }
        });
        Ok(report)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}
