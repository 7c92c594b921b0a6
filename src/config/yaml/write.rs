//! From settings to YAML: the short form where it says everything, the long form otherwise.

use serde::{Serialize, Serializer};
use serde_yaml::{Mapping, Value};

use crate::config::error::ConfigError;
use crate::config::pool::{PoolConfig, Workers};
use crate::config::route::Route;
use crate::config::settings::Config;
use crate::config::span;

impl Config {
    /// Writes the settings in the form that [`from_yaml`](Self::from_yaml) reads as an equal value.
    ///
    /// # Errors
    /// If the settings are not [valid](Self::validate), since they could not be read again.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        self.validate()?;
        serde_yaml::to_string(self).map_err(|error| ConfigError::new(format!("{error}")).caused_by(error))
    }

    fn to_value(&self) -> Value {
        let performance = &self.performance;
        let pools = performance.thread_pools.iter().map(|(name, pool)| pool_entry(name.as_str(), pool));
        let mut inner = vec![
            ("workers", workers(performance.workers)),
            ("keep_alive_timeout", time(performance.keep_alive_timeout)),
            ("thread_pools", Value::Mapping(pools.collect())),
        ];
        if !performance.routes.is_empty() {
            inner.push(("routes", Value::Mapping(performance.routes.iter().map(route_entry).collect())));
        }
        let mut outer = vec![
            ("general", mapping(vec![("verbose", self.general.verbose.into())])),
            ("performance", mapping(inner)),
            (
                "server",
                mapping(vec![
                    ("host", self.server.host.to_string().into()),
                    ("port", self.server.port.into()),
                    ("shutdown_timeout", time(self.server.shutdown_timeout)),
                    ("header_read_timeout", time(self.server.header_read_timeout)),
                ]),
            ),
        ];
        if let Some(app) = &self.app {
            outer.push(("app", app.value().clone()));
        }
        mapping(outer)
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

fn mapping(entries: Vec<(&str, Value)>) -> Value {
    Value::Mapping(entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<Mapping>())
}

fn pool_entry(name: &str, pool: &PoolConfig) -> (Value, Value) {
    let plain = PoolConfig { workers: pool.workers, ..PoolConfig::auto() };
    if *pool == plain {
        return (format!("{name}_workers").into(), workers(pool.workers));
    }
    let mut entries = vec![("workers", workers(pool.workers))];
    if let Some(limit) = pool.concurrency {
        entries.push(("concurrency", limit.into()));
    }
    entries.push(("queue_capacity", pool.queue_capacity.into()));
    entries.push(("queue_timeout", time(pool.queue_timeout)));
    entries.push(("keep_alive", time(pool.keep_alive)));
    if let Some(nice) = pool.nice {
        entries.push(("nice", nice.into()));
    }
    (name.into(), mapping(entries))
}

fn route_entry(route: &Route) -> (Value, Value) {
    (route.to_string().into(), route.pool().as_str().into())
}

fn workers(workers: Workers) -> Value {
    match workers {
        Workers::Auto => "auto".into(),
        Workers::Count(count) => count.into(),
    }
}

fn time(time: std::time::Duration) -> Value {
    if time.subsec_nanos() == 0 { time.as_secs().into() } else { span::in_words(time).into() }
}
