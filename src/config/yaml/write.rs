//! Writes settings as YAML: a pool in its short form if only its workers are set, and otherwise in its long form.

use serde::{Serialize, Serializer};
use serde_yaml::{Mapping, Value};

use super::hints;
use crate::config::batch::BatchSettings;
use crate::config::body::{BodyPolicy, OnDrain, RunBody};
use crate::config::byte_size;
use crate::config::duration;
use crate::config::error::ConfigError;
use crate::config::overload::{Concurrency, Queue, QueueTarget};
use crate::config::pool::{Cores, PoolConfig, Workers};
use crate::config::route::Route;
use crate::config::settings::{Config, Performance};
use crate::config::trust::{Malformed, Trust};

impl Config {
    /// Writes the settings as YAML, which [`from_yaml`](Self::from_yaml) reads as an equal value.
    ///
    /// # Errors
    ///
    /// If the settings are not [valid](Self::validate): they could not be read again. Or if a pool has
    /// [`OnDrain::EndWith`]: its bytes have no form in YAML.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        self.validate()?;
        self.check_writable()?;
        serde_yaml::to_string(&self.to_value()).map_err(|error| ConfigError::new(error.to_string()))
    }

    /// Checks that every setting has a form in YAML.
    fn check_writable(&self) -> Result<(), ConfigError> {
        let pools = self.performance.thread_pools.iter();
        let unwritable = pools.filter(|(_, pool)| matches!(pool.body.on_drain, OnDrain::EndWith(_)));
        ConfigError::all(
            unwritable
                .map(|(name, _)| {
                    ConfigError::new("the bytes of `OnDrain::EndWith` cannot be written; set them in code, for the pool or for a layer")
                        .at_key(format!("performance.thread_pools.{name}.body.on_drain"))
                })
                .collect(),
        )
    }

    fn to_value(&self) -> Value {
        let performance = &self.performance;
        let pools = performance.thread_pools.iter().map(|(name, pool)| pool_entry(name.as_str(), pool));
        let left_out = hints::BUILT_IN.into_iter().filter(|name| performance.thread_pools.get(*name).is_none());
        let pools = pools.chain(left_out.map(|name| (name.into(), "none".into())));
        let mut inner = vec![
            ("workers", workers(performance.workers)),
            ("keep_alive_timeout", time(performance.keep_alive_timeout)),
            ("body_budget", byte_size::in_words(performance.body_budget as u64).into()),
            ("thread_pools", Value::Mapping(pools.collect())),
        ];
        if let Cores::Count(count) = performance.cores {
            inner.insert(1, ("cores", count.into()));
        }
        if !performance.scale_by.is_empty() {
            let names = performance.scale_by.iter().map(|name| name.as_str().into());
            inner.push(("scale_by", Value::Sequence(names.collect())));
        }
        if performance.scale_target != Performance::default().scale_target {
            inner.push(("scale_target", performance.scale_target.into()));
        }
        if performance.trust != Trust::default() {
            inner.push(("trust", trust(&performance.trust)));
        }
        if !performance.routes.is_empty() {
            inner.push(("routes", Value::Mapping(performance.routes.iter().map(route_entry).collect())));
        }
        let server = &self.server;
        let mut listening = vec![
            ("host", server.host.to_string().into()),
            ("port", server.port.into()),
            ("shutdown_delay", time(server.shutdown_delay)),
            ("shutdown_timeout", time(server.shutdown_timeout)),
            ("header_read_timeout", time(server.header_read_timeout)),
        ];
        listening.extend(server.max_connection_age.map(|age| ("max_connection_age", time(age))));
        let mut outer = vec![
            ("general", mapping(vec![("verbose", self.general.verbose.into())])),
            ("performance", mapping(inner)),
            ("server", mapping(listening)),
        ];
        if let Some(app) = self.app.value() {
            outer.push(("app", app.clone()));
        }
        mapping(outer)
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check_writable().map_err(serde::ser::Error::custom)?;
        self.to_value().serialize(serializer)
    }
}

fn mapping(entries: Vec<(&str, Value)>) -> Value {
    Value::Mapping(entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<Mapping>())
}

fn pool_entry(name: &str, pool: &PoolConfig) -> (Value, Value) {
    let plain = PoolConfig { workers: pool.workers, ..PoolConfig::auto() };
    // In its short form, such a name would be reported as a mistyped built-in one.
    let misread = hints::built_in_meant_by(name).is_some_and(|meant| meant != name);
    if *pool == plain && !misread {
        return (format!("{name}_workers").into(), workers(pool.workers));
    }
    let mut entries = vec![("workers", workers(pool.workers))];
    match pool.concurrency {
        Concurrency::Workers => {}
        Concurrency::Fixed(limit) => entries.push(("concurrency", limit.into())),
        Concurrency::Adaptive { min, max } => entries.push(("concurrency", bounds(min.into(), max.into()))),
    }
    entries.push(("queue_capacity", pool.queue_capacity.into()));
    entries.push(("queue_timeout", time(pool.queue_timeout)));
    entries.push(("queue", queue(pool.queue).into()));
    entries.push(("queue_target", queue_target(pool.queue_target)));
    entries.push(("keep_alive", time(pool.keep_alive)));
    if pool.share != 1 {
        entries.push(("share", pool.share.into()));
    }
    if let Some(bytes) = pool.stack_size {
        entries.push(("stack_size", byte_size::in_words(bytes as u64).into()));
    }
    if let Some(nice) = pool.nice {
        entries.push(("nice", nice.into()));
    }
    if let Some(trusted) = &pool.trust {
        entries.push(("trust", trust(trusted)));
    }
    if pool.body != BodyPolicy::DEFAULT {
        entries.push(("body", body(&pool.body)));
    }
    if pool.batch != BatchSettings::new() {
        entries.push(("batch", batch(pool.batch)));
    }
    if pool.max_streams != 0 {
        entries.push(("max_streams", pool.max_streams.into()));
    }
    (name.into(), mapping(entries))
}

fn queue(queue: Queue) -> &'static str {
    match queue {
        Queue::Fifo => "fifo",
        Queue::Adaptive => "adaptive",
    }
}

fn queue_target(target: QueueTarget) -> Value {
    if target.min == target.max { time(target.min) } else { bounds(time(target.min), time(target.max)) }
}

fn batch(batch: BatchSettings) -> Value {
    let mut entries = vec![];
    if let Some(items) = batch.max_items {
        entries.push(("max_items", items.into()));
    }
    if let Some(weight) = batch.max_weight {
        entries.push(("max_weight", weight.into()));
    }
    mapping(entries)
}

fn body(body: &BodyPolicy) -> Value {
    let run = match body.run {
        RunBody::Connection => "connection",
        RunBody::Pool => "pool",
    };
    let on_drain = match body.on_drain {
        OnDrain::Finish => "finish",
        // `check_writable` refuses the bytes of `EndWith`.
        OnDrain::End | OnDrain::EndWith(_) => "end",
    };
    mapping(vec![
        ("run", run.into()),
        ("hold", body.hold.into()),
        ("buffer", byte_size::in_words(body.buffer as u64).into()),
        ("stall_timeout", time(body.stall_timeout)),
        ("on_drain", on_drain.into()),
    ])
}

fn trust(trust: &Trust) -> Value {
    let mut entries = vec![];
    if let Some(header) = &trust.deadline {
        entries.push(("deadline", header.as_str().into()));
    }
    entries.push(("grpc_timeout", trust.grpc_timeout.into()));
    if let Some(header) = &trust.priority {
        entries.push(("priority", header.as_str().into()));
    }
    let malformed = match trust.malformed {
        Malformed::Ignore => "ignore",
        Malformed::Reject => "reject",
    };
    entries.push(("malformed", malformed.into()));
    mapping(entries)
}

fn bounds(min: Value, max: Value) -> Value {
    mapping(vec![("min", min), ("max", max)])
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
    if time.subsec_nanos() == 0 { time.as_secs().into() } else { duration::in_words(time).into() }
}
