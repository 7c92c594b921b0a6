//! Making pools in code, and why they could not be made.

use std::error::Error;
use std::fmt;
use std::io;

use super::Pools;
use crate::config::{Config, ConfigError, PoolConfig, Route, Trust};
use crate::workload::{PoolName, Workload};

/// Makes [`Pools`] in code. It starts from the defaults: the five built-in pools, no routes.
#[derive(Clone, Debug, Default)]
pub struct PoolsBuilder {
    config: Config,
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

    /// Sets whether jobs are logged and listed one by one, and whether the endpoints that show them exist.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.config = self.config.verbose(verbose);
        self
    }

    /// Makes the pools. No thread starts before there is a job for it.
    ///
    /// # Errors
    ///
    /// If the settings are wrong, or a `nice` value may not be set.
    pub fn build(self) -> Result<Pools, BuildError> {
        Pools::new(&self.config)
    }
}

// === impl BuildError ===

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
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
