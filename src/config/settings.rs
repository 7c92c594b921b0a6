//! All settings, as plain data with the documented defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::byte_size;
use super::error::ConfigError;
use super::pool::{Cores, PoolConfig, ThreadPools, Workers};
use super::route::{self, Route};
use super::rules;
use super::scale;
use super::trust::Trust;
use crate::workload::{PoolName, Workload};

/// All settings. [`Default`] gives the documented defaults; every field can be changed.
///
/// ```
/// use tower_offload::config::Route;
/// use tower_offload::{Config, Cpu, PoolConfig};
///
/// let config = Config::default()
///     .pool(Cpu, PoolConfig::auto().queue_capacity(100))
///     .pool("thumbnails", PoolConfig::new(4))
///     .route(Route::new("POST /v1/thumbnails", "thumbnails")?);
/// config.validate()?;
/// # Ok::<(), tower_offload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the whole application.
    pub general: General,
    /// The pools, and the routes to them.
    pub performance: Performance,
    /// The server's address and timeouts.
    pub server: ServerConfig,
    #[cfg(feature = "config")]
    pub(super) app: super::yaml::App,
}

/// Settings of the whole application. In YAML: `general`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct General {
    /// Whether each task is logged and listed, and the endpoints that show tasks exist; off by default.
    pub verbose: bool,
}

/// The pools, and the routes to them. In YAML: `performance`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Performance {
    /// The runtime threads that accept and serve connections; by default one for each core.
    pub workers: Workers,
    /// The cores that the pools share; by default all that this process may use.
    pub cores: Cores,
    /// How long an idle connection is kept open; 30 s by default.
    pub keep_alive_timeout: Duration,
    /// How many bytes the bodies of requests may have that are being read before their task is queued, or that are
    /// queued with it, in all pools together; 256 MiB by default. A request whose body exceeds what is left is rejected.
    pub body_budget: usize,
    /// The pools whose [load](crate::load) is that of the process; none by default, which means all.
    pub scale_by: Vec<Workload>,
    /// The load at which the process should be kept by an autoscaler; 0.7 by default. It must be from 0.05 to 1.
    pub scale_target: f64,
    /// The pools, by name.
    pub thread_pools: ThreadPools,
    /// The request headers that pools without their own `trust` trust; none by default.
    pub trust: Trust,
    /// The routes for [`PoolLayer::by_route`](crate::PoolLayer::by_route); none by default.
    pub routes: Vec<Route>,
}

/// The server's address and timeouts. In YAML: `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The address to listen on; 127.0.0.1 by default.
    pub host: IpAddr,
    /// The port to listen on; 3000 by default. With 0, the system picks a free one.
    pub port: u16,
    /// How long the server still accepts connections and serves requests after the shutdown signal; 0 by default. Its
    /// readiness fails meanwhile, so balancers stop sending requests, and each HTTP/1 response closes its connection. It
    /// must be shorter than `shutdown_timeout`.
    pub shutdown_delay: Duration,
    /// The longest time from the shutdown signal to the end, `shutdown_delay` included; 25 s by default, because
    /// Kubernetes kills a process after 30 s. Requests that have not ended by then are cut off.
    pub shutdown_timeout: Duration,
    /// How long a client may take to send the headers of an HTTP/1 request or the preface of HTTP/2; 10 s by default.
    pub header_read_timeout: Duration,
    /// The age at which a connection is closed once its requests in flight have ended; `None` by default. Each
    /// connection's age differs by up to 10% at random, so that clients do not reconnect all at once.
    pub max_connection_age: Option<Duration>,
}

// === impl Config ===

impl Config {
    /// Adds a pool, or replaces the pool of this name.
    #[must_use]
    pub fn pool(mut self, name: impl PoolName, pool: PoolConfig) -> Self {
        self.performance.thread_pools.set(name, pool);
        self
    }

    /// Leaves out the five built-in pools, and keeps those that were added.
    ///
    /// ```
    /// use tower_offload::{Config, PoolConfig, Pools};
    ///
    /// let config = Config::default().pool("thumbnails", PoolConfig::new(4)).without_built_in_pools();
    /// let pools = Pools::new(&config)?;
    /// assert_eq!(pools.names().map(|name| name.as_str()).collect::<Vec<_>>(), ["thumbnails"]);
    /// # Ok::<(), tower_offload::pools::BuildError>(())
    /// ```
    #[must_use]
    pub fn without_built_in_pools(mut self) -> Self {
        self.performance.thread_pools.remove_built_in();
        self
    }

    /// Sets the number of cores that the pools share.
    #[must_use]
    pub fn cores(mut self, cores: impl Into<Cores>) -> Self {
        self.performance.cores = cores.into();
        self
    }

    /// Sets how many bytes the bodies of requests may have that are being read or queued, in all pools together.
    ///
    /// ```
    /// use tower_offload::Config;
    ///
    /// Config::default().body_budget(64 << 20).validate()?;
    /// # Ok::<(), tower_offload::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn body_budget(mut self, bytes: usize) -> Self {
        self.performance.body_budget = bytes;
        self
    }

    /// Sets the pools whose [load](crate::load) is that of the process. By default all count.
    ///
    /// ```
    /// use tower_offload::{Config, Inference};
    ///
    /// Config::default().scale_by([Inference]).scale_target(0.6).validate()?;
    /// # Ok::<(), tower_offload::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn scale_by<N: PoolName>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.performance.scale_by = names.into_iter().map(|name| name.to_workload()).collect();
        self
    }

    /// Sets the load at which an autoscaler should keep the process.
    #[must_use]
    pub fn scale_target(mut self, load: f64) -> Self {
        self.performance.scale_target = load;
        self
    }

    /// Sets the request headers that pools without their own `trust` trust.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.performance.trust = trust;
        self
    }

    /// Adds a route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.performance.routes.push(route);
        self
    }

    /// Sets whether each task is logged and listed.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.general.verbose = verbose;
        self
    }

    /// Checks every setting, with the rules for a file.
    ///
    /// # Errors
    ///
    /// If a setting is out of range, a route leads to a pool that does not exist, or two routes exclude each other: the
    /// error lists each mistake, and how to correct it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut mistakes = Vec::new();
        let mut note = |key: &str, result: Result<(), String>| {
            if let Err(message) = result {
                mistakes.push(ConfigError::new(message).at_key(key));
            }
        };
        let Performance {
            workers,
            cores,
            keep_alive_timeout,
            body_budget,
            scale_by,
            scale_target,
            thread_pools,
            trust,
            routes,
        } = &self.performance;
        note("performance.workers", workers.check(&rules::SERVER_WORKERS));
        note("performance.cores", cores.check());
        note("performance.keep_alive_timeout", rules::check_time(*keep_alive_timeout));
        note("performance.body_budget", byte_size::BODY_BUDGET.check(*body_budget));
        note("performance.scale_target", scale::check_target(*scale_target));
        for (index, name) in scale_by.iter().enumerate() {
            note(&format!("performance.scale_by[{index}]"), scale::check_name(name, &scale_by[..index], thread_pools));
        }
        for (field, message) in trust.faults() {
            note(&format!("performance.trust.{field}"), Err(message));
        }
        let ServerConfig { shutdown_delay, shutdown_timeout, header_read_timeout, max_connection_age, .. } =
            self.server;
        note("server.shutdown_delay", rules::check_delay(shutdown_delay, shutdown_timeout));
        note("server.shutdown_timeout", rules::check_time(shutdown_timeout));
        note("server.header_read_timeout", rules::check_time(header_read_timeout));
        note("server.max_connection_age", max_connection_age.map_or(Ok(()), rules::check_time));
        for (name, pool) in thread_pools.iter() {
            pool.check(name.as_str(), &mut mistakes);
        }
        for fault in route::faults(routes, thread_pools) {
            let key = format!("performance.routes.{}", routes[fault.index]);
            mistakes.push(ConfigError::new(fault.message).at_key(key));
        }
        ConfigError::all(mistakes)
    }
}

// === impl Performance ===

impl Default for Performance {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            cores: Cores::Auto,
            keep_alive_timeout: Duration::from_secs(30),
            body_budget: 256 * 1024 * 1024,
            scale_by: Vec::new(),
            scale_target: 0.7,
            thread_pools: ThreadPools::default(),
            trust: Trust::default(),
            routes: Vec::new(),
        }
    }
}

// === impl ServerConfig ===

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 3000,
            shutdown_delay: Duration::ZERO,
            shutdown_timeout: Duration::from_secs(25),
            header_read_timeout: Duration::from_secs(10),
            max_connection_age: None,
        }
    }
}

impl ServerConfig {
    /// The address and the port together.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }
}
