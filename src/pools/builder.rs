//! Making pools in code, and why they could not be made.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::Pools;
use crate::config::{Config, ConfigError, PoolConfig, Route, Trust};
use crate::error::UnknownPool;
use crate::pool::{ContextHooks, WorkerHooks};
use crate::workload::{PoolName, Workload};

/// Makes [`Pools`] in code. It starts from the defaults: the five built-in pools, no routes.
#[derive(Clone, Debug, Default)]
pub struct PoolsBuilder {
    config: Config,
    context: ContextHooks,
    workers: BTreeMap<Workload, WorkerHooks>,
}

/// Why pools could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The settings are wrong.
    Config(ConfigError),
    /// A pool's threads may not have the `nice` value that is asked for.
    Nice {
        /// The pool.
        pool: Workload,
        /// The value.
        nice: i32,
        /// What the system says.
        source: io::Error,
    },
    /// A worker hook is for a pool that does not exist.
    UnknownPool(UnknownPool),
}

// === impl PoolsBuilder ===

impl PoolsBuilder {
    /// Adds a pool, or sets the one that has this name.
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

    /// Sets which headers of a request every pool trusts that has no `trust` of its own.
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

    /// Sets whether tasks are logged and listed one by one, and whether the endpoints that show them exist.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.config = self.config.verbose(verbose);
        self
    }

    /// Adds a context that travels with every task, beside the Tokio runtime and the `tracing` span.
    ///
    /// `capture` is called on the thread that submits a task. What it returns is called around each poll of the task on a
    /// worker, and around the drop of its future; it enters the context, calls its argument once, and leaves the context. If
    /// it does not call its argument, the task is polled outside of the context. A panic in either is the task's.
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
    /// For OpenTelemetry, capture `Context::current()` and call `run` while the guard of `attach()` lives; for Sentry, capture
    /// `Hub::current()` and call `Hub::run(hub.clone(), run)`.
    #[must_use]
    pub fn context<C, E>(mut self, capture: C) -> Self
    where
        C: Fn() -> E + Send + Sync + 'static,
        E: Fn(&mut dyn FnMut()) + Send + 'static,
    {
        self.context.push(Arc::new(move || Box::new(capture())));
        self
    }

    /// Calls `hook` on each worker of a pool when its thread has started, before its first task.
    #[must_use]
    pub fn on_worker_start(mut self, pool: impl PoolName, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.workers.entry(pool.to_workload()).or_default().on_start = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` on each worker of a pool before its thread ends.
    #[must_use]
    pub fn on_worker_stop(mut self, pool: impl PoolName, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.workers.entry(pool.to_workload()).or_default().on_stop = Some(Arc::new(hook));
        self
    }

    /// Makes the pools. No thread starts before there is a task for it.
    ///
    /// # Errors
    ///
    /// If the settings are wrong, a `nice` value may not be set, or a worker hook names no pool.
    pub fn build(self) -> Result<Pools, BuildError> {
        Pools::with_hooks(&self.config, &self.context, self.workers)
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
            Self::UnknownPool(error) => Some(error),
            Self::Config(error) => error.source(),
            // Its text is a part of this one's.
            Self::Nice { source, .. } => source.source(),
        }
    }
}

impl From<ConfigError> for BuildError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
