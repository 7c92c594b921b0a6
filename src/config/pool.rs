//! The settings of one pool, and of all of them by name.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::batch::BatchSettings;
use super::body::BodyPolicy;
use super::byte_size;
use super::error::ConfigError;
use super::overload::{Concurrency, Queue, QueueTarget};
use super::rules;
use super::trust::Trust;
use crate::workload::{PoolName, Workload};

/// A number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// One for each core that this process may use. In YAML: `auto`.
    #[default]
    Auto,
    /// This many.
    Count(usize),
}

/// The settings of one pool.
///
/// ```
/// use std::time::Duration;
/// use tower_offload::PoolConfig;
///
/// let thumbnails = PoolConfig::new(4).queue_capacity(64).queue_timeout(Duration::from_secs(2));
/// assert_eq!(thumbnails.concurrency_limit(), 4);
/// thumbnails.validate("thumbnails")?;
/// # Ok::<(), tower_offload::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The most threads that the pool starts.
    pub workers: Workers,
    /// The concurrency limit: how many permits may be in use at once; by default as many as there are workers. Each task
    /// in flight has one, except for the items of a batch, which share one.
    pub concurrency: Concurrency,
    /// How many tasks may be queued; 1000 by default. With 0, a task that no permit is free for is rejected at once.
    pub queue_capacity: usize,
    /// How long a task may be queued before it is rejected; 30 s by default.
    pub queue_timeout: Duration,
    /// The order in which queued tasks start; [`Queue::Adaptive`] by default.
    pub queue: Queue,
    /// The queue wait that the pool should not exceed.
    pub queue_target: QueueTarget,
    /// How long a worker without work waits before its thread ends; 60 s by default.
    pub keep_alive: Duration,
    /// The pool's share of the cores while several pools compute at once, from 1 to 1000; 1 by default. A pool with a
    /// share of 2 gets twice the core time of a pool with 1. Cores that some pools do not use are shared by the others.
    pub share: u32,
    /// The size of each worker's stack, in bytes, from 64 KiB to 1 GiB. By default that of the standard library: 2 MiB,
    /// or the value of the environment variable `RUST_MIN_STACK`.
    pub stack_size: Option<usize>,
    /// The niceness of the pool's threads, from -20 (most urgent) to 19 (least urgent), on Linux only; by default that
    /// of the process. A lower value than the process's needs the capability `CAP_SYS_NICE`. Threads that a task
    /// starts, also through `tokio::task::spawn_blocking`, inherit the niceness and keep it.
    pub nice: Option<i32>,
    /// The request headers that the pool trusts; `None` for those of
    /// [`Performance::trust`](super::Performance::trust).
    pub trust: Option<Trust>,
    /// How the bodies of responses are treated; by default they are polled on the connection, and hold no permit.
    pub body: BodyPolicy,
    /// How many streams may be open: responses whose body has not ended yet. Beyond that, requests are rejected before
    /// their handler begins. A handler that runs already may still open one. 0, the default, sets no limit.
    pub max_streams: usize,
    /// The limits of the pool's batches.
    pub batch: BatchSettings,
}

/// The settings of all pools, by name: the five built-in pools, unless they are removed, and further ones.
///
/// A name begins with a lower-case letter and has lower-case letters, digits, `_` and `-` after it, 32 characters at
/// most; it cannot be `workers` or end in `_workers`. It becomes the label of the pool's metrics and, as in
/// `offload-cpu-3`, part of its threads' names, of which Linux shows the first 15 characters.
///
/// The order of the settings is the order in which the pools appear everywhere: in JSON, in the log and in errors. A
/// settings file lists its pools in this order; the built-in pools that it does not name follow. Two values with the
/// same pools in another order are equal.
#[derive(Clone, Debug)]
pub struct ThreadPools {
    pools: Vec<(Workload, PoolConfig)>,
}

/// The number of cores that the pools share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cores {
    /// The cores that the CPU affinity and the cgroup quota leave this process, read again while the pools work. In
    /// YAML: `auto`.
    #[default]
    Auto,
    /// This many.
    Count(usize),
}

// === impl Cores ===

impl Cores {
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Self::Auto => Ok(()),
            Self::Count(count) => rules::CORES.check(count as i128),
        }
    }
}

impl From<usize> for Cores {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

// === impl Workers ===

impl Workers {
    /// The number of threads, with `Auto` resolved on this machine.
    #[must_use]
    pub fn count(self) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn check(self, rule: &rules::Count) -> Result<(), String> {
        match self {
            Self::Auto => Ok(()),
            Self::Count(count) => rule.check(count as i128),
        }
    }
}

impl From<usize> for Workers {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

// === impl PoolConfig ===

impl PoolConfig {
    /// A pool with this number of workers, and the defaults for the rest.
    #[must_use]
    pub const fn new(workers: usize) -> Self {
        Self::with_workers(Workers::Count(workers))
    }

    /// A pool with a worker for each core, and the defaults for the rest.
    #[must_use]
    pub const fn auto() -> Self {
        Self::with_workers(Workers::Auto)
    }

    const fn with_workers(workers: Workers) -> Self {
        Self {
            workers,
            concurrency: Concurrency::Workers,
            queue_capacity: 1000,
            queue_timeout: Duration::from_secs(30),
            queue: Queue::Adaptive,
            queue_target: QueueTarget::DEFAULT,
            keep_alive: Duration::from_secs(60),
            share: 1,
            stack_size: None,
            nice: None,
            trust: None,
            body: BodyPolicy::DEFAULT,
            batch: BatchSettings::new(),
            max_streams: 0,
        }
    }

    /// Sets the concurrency limit: how many permits may be in use at once.
    #[must_use]
    pub const fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = Concurrency::Fixed(limit);
        self
    }

    /// Lets the pool adapt the concurrency limit to the run times of its tasks, within these bounds.
    #[must_use]
    pub const fn adaptive_concurrency(mut self, bounds: RangeInclusive<usize>) -> Self {
        self.concurrency = Concurrency::Adaptive { min: *bounds.start(), max: *bounds.end() };
        self
    }

    /// Sets how many tasks may be queued.
    #[must_use]
    pub const fn queue_capacity(mut self, capacity: usize) -> Self {
        self.queue_capacity = capacity;
        self
    }

    /// Sets how long a task may be queued before it is rejected.
    #[must_use]
    pub const fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = timeout;
        self
    }

    /// Sets the order in which queued tasks start.
    #[must_use]
    pub const fn queue(mut self, queue: Queue) -> Self {
        self.queue = queue;
        self
    }

    /// Sets the bounds of the queue wait that the pool should not exceed.
    #[must_use]
    pub const fn queue_target(mut self, bounds: RangeInclusive<Duration>) -> Self {
        self.queue_target = QueueTarget { min: *bounds.start(), max: *bounds.end() };
        self
    }

    /// Sets how long a worker without work waits before its thread ends.
    #[must_use]
    pub const fn keep_alive(mut self, idle: Duration) -> Self {
        self.keep_alive = idle;
        self
    }

    /// Sets the pool's share of the cores while several pools compute at once.
    ///
    /// ```
    /// use tower_offload::{Config, Cpu, Inference, PoolConfig};
    ///
    /// // While both are saturated, `inference` has three quarters of the cores.
    /// let config = Config::default()
    ///     .pool(Cpu, PoolConfig::auto())
    ///     .pool(Inference, PoolConfig::auto().share(3));
    /// config.validate()?;
    /// # Ok::<(), tower_offload::config::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn share(mut self, share: u32) -> Self {
        self.share = share;
        self
    }

    /// Sets the size of each worker's stack, in bytes.
    #[must_use]
    pub const fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets the niceness of the pool's threads.
    #[must_use]
    pub const fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// Sets the request headers that the pool trusts.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Sets how the bodies of responses are treated.
    #[must_use]
    pub fn body(mut self, policy: BodyPolicy) -> Self {
        self.body = policy;
        self
    }

    /// Sets how many streams may be open: responses whose body has not ended yet. 0 sets no limit.
    #[must_use]
    pub const fn max_streams(mut self, limit: usize) -> Self {
        self.max_streams = limit;
        self
    }

    /// Sets the limits of the pool's batches.
    #[must_use]
    pub const fn batch(mut self, limits: BatchSettings) -> Self {
        self.batch = limits;
        self
    }

    /// The highest concurrency limit that the pool can have: the fixed limit, the upper bound of an adaptive one, or
    /// the number of workers.
    #[must_use]
    pub fn concurrency_limit(&self) -> usize {
        match self.concurrency {
            Concurrency::Workers => self.workers.count(),
            Concurrency::Fixed(limit) | Concurrency::Adaptive { max: limit, .. } => limit,
        }
    }

    /// Checks the pool's name and every setting, with the rules for a file.
    ///
    /// # Errors
    ///
    /// If the name or a setting is not valid: the error lists each mistake, and how to correct it.
    pub fn validate(&self, name: impl PoolName) -> Result<(), ConfigError> {
        let mut mistakes = Vec::new();
        self.check(name.pool_name(), &mut mistakes);
        ConfigError::all(mistakes)
    }

    pub(super) fn check(&self, name: &str, mistakes: &mut Vec<ConfigError>) {
        let key = format!("performance.thread_pools.{name}");
        if let Err(message) = rules::check_name(name) {
            mistakes.push(ConfigError::new(message).at_key(key.clone()));
        }
        let mut note = |field: &str, result: Result<(), String>| {
            if let Err(message) = result {
                mistakes.push(ConfigError::new(message).at_key(format!("{key}.{field}")));
            }
        };
        note("workers", self.workers.check(&rules::WORKERS));
        self.concurrency.check(&mut note);
        note("queue_capacity", rules::QUEUE_CAPACITY.check(self.queue_capacity as i128));
        note("queue_timeout", rules::check_time(self.queue_timeout));
        self.queue_target.check(&mut note);
        note("keep_alive", rules::check_time(self.keep_alive));
        note("share", rules::SHARE.check(self.share.into()));
        note("stack_size", self.stack_size.map_or(Ok(()), |size| byte_size::STACK.check(size)));
        note("nice", self.nice.map_or(Ok(()), |nice| rules::NICE.check(nice.into())));
        for (field, message) in self.trust.iter().flat_map(Trust::faults) {
            note(&format!("trust.{field}"), Err(message));
        }
        self.body.check(&mut note);
        self.batch.check(&mut note);
        note("max_streams", rules::MAX_STREAMS.check(self.max_streams as i128));
    }
}

// === impl ThreadPools ===

/// The built-in pools, and their workers.
const BUILT_IN: [(Workload, usize); 5] =
    [(Workload::IO, 50), (Workload::CPU, 30), (Workload::INFERENCE, 20), (Workload::EMBEDDING, 15), (Workload::DB, 25)];

/// The five built-in pools: `io` 50, `cpu` 30, `inference` 20, `embedding` 15 and `db` 25 workers.
impl Default for ThreadPools {
    fn default() -> Self {
        Self { pools: BUILT_IN.into_iter().map(|(name, workers)| (name, PoolConfig::new(workers))).collect() }
    }
}

impl ThreadPools {
    /// The settings of one pool.
    #[must_use]
    pub fn get(&self, name: impl PoolName) -> Option<&PoolConfig> {
        self.position(name.pool_name()).map(|index| &self.pools[index].1)
    }

    /// Sets the pool of this name where it stands, or adds it at the end.
    pub fn set(&mut self, name: impl PoolName, pool: PoolConfig) {
        match self.position(name.pool_name()) {
            Some(index) => self.pools[index].1 = pool,
            None => self.pools.push((name.to_workload(), pool)),
        }
    }

    /// Removes a pool, and returns its settings if there was one.
    pub fn remove(&mut self, name: impl PoolName) -> Option<PoolConfig> {
        self.position(name.pool_name()).map(|index| self.pools.remove(index).1)
    }

    pub(super) fn remove_built_in(&mut self) {
        for (name, _) in BUILT_IN {
            self.remove(name);
        }
    }

    /// Puts the pools of these names before the others, in the order of the names.
    #[cfg(feature = "config")]
    pub(super) fn put_first(&mut self, names: &[&str]) {
        // The sort is stable, so the others keep their order.
        let place = |name: &Workload| names.iter().position(|first| *first == name.as_str()).unwrap_or(names.len());
        self.pools.sort_by_key(|(name, _)| place(name));
    }

    /// All pools, in the order of the settings.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Workload, &PoolConfig)> {
        self.pools.iter().map(|(name, pool)| (name, pool))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|(known, _)| known.as_str() == name)
    }
}

impl PartialEq for ThreadPools {
    fn eq(&self, other: &Self) -> bool {
        self.pools.len() == other.pools.len() && self.iter().all(|(name, pool)| other.get(name) == Some(pool))
    }
}

impl Eq for ThreadPools {}
