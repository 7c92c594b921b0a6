//! `PoolsBuilder`: builds pools from settings and the hooks of the application.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::Pools;
use crate::config::{Config, ConfigError, Cores, PoolConfig, Route, Trust};
use crate::error::UnknownPool;
use crate::pool::Hooks;
use crate::task::Capture;
use crate::workload::{PoolName, Workload};

/// Builds [`Pools`]. It starts with the defaults, the five built-in pools and no routes, or with the settings of a
/// [`Config`].
#[derive(Clone, Default)]
pub struct PoolsBuilder {
    config: Config,
    context: Vec<Capture>,
    workers: BTreeMap<Workload, Hooks>,
}

/// The error of pools that could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The settings are not valid.
    Config(ConfigError),
    /// The process may not set a pool's `nice` value.
    Nice {
        /// The pool.
        pool: Workload,
        /// The value.
        nice: i32,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The pool of a worker hook does not exist.
    UnknownPool(UnknownPool),
}

// === impl PoolsBuilder ===

impl PoolsBuilder {
    /// Sets all settings, such as those of a file, in place of the defaults and of what was set before. The hooks stay.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_offload::{Config, Cpu, Pools};
    ///
    /// let config = Config::from_yaml("performance: { thread_pools: { cpu_workers: 8 } }")?;
    /// let pools = Pools::builder()
    ///     .config(config)
    ///     .on_worker_start(Cpu, || tracing::debug!("a worker of `cpu` starts"))
    ///     .build()?;
    /// # drop(pools);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a pool, or replaces the pool of this name.
    #[must_use]
    pub fn pool(mut self, name: impl PoolName, pool: PoolConfig) -> Self {
        self.config = self.config.pool(name, pool);
        self
    }

    /// Leaves out the five built-in pools, and keeps those that were added.
    #[must_use]
    pub fn without_built_in_pools(mut self) -> Self {
        self.config = self.config.without_built_in_pools();
        self
    }

    /// Sets the number of cores that the pools share; by default all that this process may use.
    #[must_use]
    pub fn cores(mut self, cores: impl Into<Cores>) -> Self {
        self.config = self.config.cores(cores);
        self
    }

    /// Sets how many bytes the bodies of requests may have that are being read or queued, in all pools together; by
    /// default 256 MiB.
    #[must_use]
    pub fn body_budget(mut self, bytes: usize) -> Self {
        self.config = self.config.body_budget(bytes);
        self
    }

    /// Sets the request headers that pools without their own `trust` trust.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.config = self.config.trust(trust);
        self
    }

    /// Adds a route for [`PoolLayer::by_route`](crate::PoolLayer::by_route).
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.config = self.config.route(route);
        self
    }

    /// Sets whether each task is logged and listed, and whether the endpoints that show tasks exist.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.config = self.config.verbose(verbose);
        self
    }

    /// Adds a context that travels with every task, as the Tokio runtime and the `tracing` span do.
    ///
    /// `capture` is called on the thread that submits a task, and returns a function. The worker calls that function
    /// around each poll of the task and around the drop of its future: the function enters the context, calls its
    /// argument once, and leaves the context. If it does not call its argument, the task is polled outside the context.
    /// A panic in either function counts as a panic of the task.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use tower_offload::Pools;
    ///
    /// thread_local! { static TENANT: Cell<u32> = const { Cell::new(0) } }
    ///
    /// let pools = Pools::builder()
    ///     .context(|| {
    ///         let tenant = TENANT.get();
    ///         move |run: &mut dyn FnMut()| {
    ///             let before = TENANT.replace(tenant);
    ///             run();
    ///             TENANT.set(before);
    ///         }
    ///     })
    ///     .build()?;
    ///
    /// TENANT.set(7);
    /// assert_eq!(pools.submit_to_pool("io", || TENANT.get())?.wait()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// For OpenTelemetry, capture `Context::current()` and call `run` while the guard of `attach()` lives; for Sentry,
    /// capture `Hub::current()` and call `Hub::run(hub.clone(), run)`. For a `tokio::task_local!` that middleware sets,
    /// capture `USER.try_with(Clone::clone).ok()` and, if there is one, call `USER.sync_scope(user.clone(), run)`.
    #[must_use]
    pub fn context<C, E>(mut self, capture: C) -> Self
    where
        C: Fn() -> E + Send + Sync + 'static,
        E: Fn(&mut dyn FnMut()) + Send + 'static,
    {
        self.context.push(Arc::new(move || Box::new(capture())));
        self
    }

    /// Calls `hook` on each worker thread of a pool, before its first task. A pool can have several hooks, which are called
    /// in the order in which they were added.
    #[must_use]
    pub fn on_worker_start(mut self, pool: impl PoolName, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.workers.entry(pool.to_workload()).or_default().on_worker_start.push(Arc::new(hook));
        self
    }

    /// Calls `hook` on each worker thread of a pool, before it ends. A pool can have several hooks.
    #[must_use]
    pub fn on_worker_stop(mut self, pool: impl PoolName, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.workers.entry(pool.to_workload()).or_default().on_worker_stop.push(Arc::new(hook));
        self
    }

    /// Builds the pools. Threads start when tasks need them.
    ///
    /// # Errors
    ///
    /// If the settings are not valid, the process may not set a `nice` value, or the pool of a worker hook does not
    /// exist.
    pub fn build(self) -> Result<Pools, BuildError> {
        Pools::with_hooks(&self.config, &self.context, self.workers)
    }
}

impl fmt::Debug for PoolsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolsBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

// === impl BuildError ===

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::UnknownPool(error) => write!(f, "a worker hook: {error}"),
            Self::Nice { pool, nice, source } => {
                write!(f, "performance.thread_pools.{pool}.nice: this process may not give its threads nice {nice}: ")?;
                write!(f, "{source}; ")?;
                match (source.kind(), nice) {
                    (io::ErrorKind::PermissionDenied, ..0) => {
                        f.write_str("write 0 or above, or start it with the capability `CAP_SYS_NICE`")
                    }
                    (io::ErrorKind::PermissionDenied, _) => f.write_str("write its own nice value or above"),
                    _ => f.write_str("do without this setting here"),
                }
            }
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // `Display` shows these errors already.
            Self::UnknownPool(error) => error.source(),
            Self::Config(error) => error.source(),
            Self::Nice { source, .. } => source.source(),
        }
    }
}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
