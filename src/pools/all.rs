//! `Pools`: all pools of an application, built from the settings and found by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::builder::{BuildError, PoolsBuilder};
use super::observed::{Observed, SlowRoute};
use super::routes::Routes;
use crate::admission::{Bounds, Discipline, Limit, Settings};
use crate::budget::Budget;
use crate::config::{Concurrency, Config, Performance, PoolConfig, Queue, Trust};
use crate::error::UnknownPool;
use crate::load::{Load, Scale};
use crate::pool::{Group, Hooks, Plan, Pool, PoolStats};
use crate::signal::Signal;
use crate::task::Capture;
use crate::threads;
use crate::workload::{PoolName, Workload};

/// The workload pools of an application. Cheap to clone; every clone is the same pools.
///
/// # Examples
///
/// Functions with any arguments and options run in a pool as closures that capture them:
///
/// ```
/// use tower_offload::{Cpu, Pools};
///
/// struct Options { width: u32, keep_ratio: bool }
///
/// fn thumbnail(picture: &[u8], options: &Options) -> Vec<u8> {
///     let length = if options.keep_ratio { options.width as usize } else { 8 };
///     picture.iter().copied().take(length).collect()
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pools = Pools::default();
/// let picture = vec![7; 64];
/// let options = Options { width: 16, keep_ratio: true };
///
/// let small = pools.run_in_pool(Cpu, move || thumbnail(&picture, &options)).await?;
/// assert_eq!(small.len(), 16);
///
/// // The function's return value is the value of the task, also if it is an error.
/// let parsed: Result<u32, _> = pools.run_in_pool("io", || "12x".parse::<u32>()).await?;
/// assert!(parsed.is_err());
///
/// // A panic ends only its task, and is returned as an error.
/// let failed = pools.run_in_pool("cpu", || -> u32 { panic!("no such picture") }).await;
/// assert_eq!(failed.unwrap_err().to_string(), "the task panicked: no such picture");
///
/// // Futures run in a pool as well: each poll happens on one of its workers.
/// let answer = pools.run_in_pool("io", async { 42 }).await?;
/// assert_eq!(answer, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pools {
    all: Arc<All>,
}

struct All {
    /// In the order of the settings.
    pools: Vec<Pool>,
    routes: Routes,
    verbose: bool,
    /// Tasks run on the thread that awaits them.
    disabled: bool,
    drain: Arc<Signal>,
    scale: Scale,
    observed: Observed,
}

impl Pools {
    /// Builds the pools of the settings. Threads start when tasks need them.
    ///
    /// [`PoolsBuilder::config`] takes the same settings, together with hooks of the application.
    ///
    /// # Errors
    ///
    /// If the settings are not valid, or the process may not set a pool's `nice` value.
    pub fn new(config: &Config) -> Result<Self, BuildError> {
        Self::with_hooks(config, &[], BTreeMap::new())
    }

    pub(super) fn with_hooks(
        config: &Config,
        context: &[Capture],
        mut workers: BTreeMap<Workload, Hooks>,
    ) -> Result<Self, BuildError> {
        config.validate()?;
        let drain = Arc::<Signal>::default();
        let bodies = Budget::new(config.performance.body_budget);
        let Performance { scale_by, scale_target, .. } = &config.performance;
        let scale = Scale { by: scale_by.clone(), target: *scale_target };
        let group = Group::new(config.performance.cores, drain.clone(), bodies, scale.clone());
        let verbose = config.general.verbose;
        let mut pools = Vec::new();
        for (name, settings) in config.performance.thread_pools.iter() {
            if let Some(nice) = settings.nice {
                threads::may_renice(nice).map_err(|source| BuildError::Nice { pool: name.clone(), nice, source })?;
            }
            let trust = settings.trust.as_ref().unwrap_or(&config.performance.trust);
            let hooks = Hooks { context: context.to_vec(), ..workers.remove(name).unwrap_or_default() };
            pools.push(Pool::new(plan(name, settings, trust, &group, verbose, hooks)));
        }
        if let Some((name, _)) = workers.pop_first() {
            let known = pools.iter().map(|pool| pool.name().clone()).collect();
            return Err(BuildError::UnknownPool(UnknownPool::new(name, known)));
        }
        let routes = Routes::new(config.performance.routes.clone());
        Ok(Self { all: Arc::new(All { routes, verbose, drain, scale, ..All::of(pools) }) })
    }

    /// A builder for pools with hooks of the application, and for pools whose settings are set in code.
    #[must_use]
    pub fn builder() -> PoolsBuilder {
        PoolsBuilder::default()
    }

    /// No pools, for code that must also work without them: every task runs on the thread that awaits it, whatever the
    /// name of its pool. [`get`](Self::get) finds no pool.
    ///
    /// [`submit_to_pool`](Self::submit_to_pool) runs a closure before it returns. A future is spawned on the current
    /// Tokio runtime; outside a runtime, it is run to its end.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower_offload::TaskError> {
    /// let pools = tower_offload::Pools::disabled();
    /// let here = std::thread::current().id();
    /// assert_eq!(pools.run_in_pool("cpu", || std::thread::current().id()).await?, here);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn disabled() -> Self {
        Self { all: Arc::new(All { disabled: true, ..All::of(Vec::new()) }) }
    }

    /// Whether these are [`disabled`](Self::disabled) pools.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.all.disabled
    }

    /// Whether each task is logged and listed.
    #[must_use]
    pub fn is_verbose(&self) -> bool {
        self.all.verbose
    }

    /// The pool of this name.
    ///
    /// # Errors
    ///
    /// If no pool has this name: the error lists the names of the pools.
    pub fn get(&self, name: impl PoolName) -> Result<&Pool, UnknownPool> {
        self.find(name.pool_name()).ok_or_else(|| UnknownPool::new(name.to_workload(), self.names().cloned().collect()))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Pool> {
        self.iter().find(|pool| pool.name().as_str() == name)
    }

    /// All pools, in the order of the settings.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Pool> {
        self.all.pools.iter()
    }

    /// The names of the pools, in the order of the settings.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Workload> {
        self.iter().map(Pool::name)
    }

    /// The numbers of every pool, each at one instant, in the order of the settings.
    #[must_use]
    pub fn stats(&self) -> Vec<PoolStats> {
        self.iter().map(Pool::stats).collect()
    }

    /// The [load](crate::load) of the process and of every pool: how much arrives, over how much the pools can do.
    ///
    /// ```
    /// let load = tower_offload::Pools::default().load();
    /// assert_eq!((load.ratio, load.factor(), load.bound_by), (0.0, 0.0, None));
    /// ```
    #[must_use]
    pub fn load(&self) -> Load {
        self.all.scale.load(self.iter().map(Pool::load).collect())
    }

    /// The settings that make the load of the process.
    #[cfg(feature = "orca")]
    pub(crate) fn scale(&self) -> &Scale {
        &self.all.scale
    }

    /// The routes that [`PoolLayer::observe`](crate::PoolLayer::observe) has named, the longest poll first.
    #[must_use]
    pub fn slow_routes(&self) -> Vec<SlowRoute> {
        self.all.observed.slow_routes()
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.all.observed
    }

    /// The routes of the settings, and which of them have matched a request.
    pub(crate) fn routes(&self) -> &Routes {
        &self.all.routes
    }

    pub(super) fn drain(&self) -> &Arc<Signal> {
        &self.all.drain
    }

    /// The pool of this name; `None` if the pools are disabled.
    pub(crate) fn choose(&self, name: impl PoolName) -> Result<Option<Pool>, UnknownPool> {
        if self.is_disabled() { Ok(None) } else { self.get(name).cloned().map(Some) }
    }
}

impl All {
    fn of(pools: Vec<Pool>) -> Self {
        Self {
            pools,
            routes: Routes::default(),
            verbose: false,
            disabled: false,
            drain: Arc::default(),
            scale: Scale::default(),
            observed: Observed::default(),
        }
    }
}

/// The five built-in pools with their defaults: `io` 50, `cpu` 30, `inference` 20, `embedding` 15 and `db` 25 workers.
impl Default for Pools {
    fn default() -> Self {
        Self::new(&Config::default()).expect("the defaults are valid")
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

fn plan(
    name: &Workload,
    settings: &PoolConfig,
    trust: &Trust,
    group: &Arc<Group>,
    verbose: bool,
    hooks: Hooks,
) -> Plan {
    Plan {
        name: name.clone(),
        workers: settings.workers.count(),
        admission: Settings {
            limit: match settings.concurrency {
                Concurrency::Adaptive { min, max } => Limit::Adaptive { min, max },
                Concurrency::Workers | Concurrency::Fixed(_) => Limit::Fixed(settings.concurrency_limit()),
            },
            capacity: settings.queue_capacity,
            timeout: settings.queue_timeout,
            discipline: match settings.queue {
                Queue::Fifo => Discipline::Fifo,
                Queue::Adaptive => Discipline::Adaptive,
            },
            target: Bounds { min: settings.queue_target.min, max: settings.queue_target.max },
            ..Settings::default()
        },
        keep_alive: settings.keep_alive,
        nice: settings.nice,
        stack_size: settings.stack_size,
        trust: trust.clone(),
        verbose,
        group: group.clone(),
        share: settings.share,
        hooks,
        body: settings.body.clone(),
        batch: settings.batch,
        max_streams: settings.max_streams,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Cores;

    fn admission(settings: &PoolConfig) -> Settings {
        plan(
            &Workload::CPU,
            settings,
            &Trust::default(),
            &Group::new(Cores::Auto, Arc::default(), Budget::new(0), Scale::default()),
            false,
            Hooks::default(),
        )
        .admission
    }

    #[test]
    fn admission_goes_by_what_the_settings_say() {
        let (low, high) = (Duration::from_millis(20), Duration::from_millis(40));
        let settings = PoolConfig::new(4)
            .adaptive_concurrency(2..=64)
            .queue_capacity(7)
            .queue_timeout(Duration::from_secs(3))
            .queue(Queue::Fifo)
            .queue_target(low..=high);
        let expected = Settings {
            limit: Limit::Adaptive { min: 2, max: 64 },
            capacity: 7,
            timeout: Duration::from_secs(3),
            discipline: Discipline::Fifo,
            target: Bounds { min: low, max: high },
            ..Settings::default()
        };
        assert_eq!(admission(&settings), expected);
        assert_eq!(admission(&PoolConfig::new(4).concurrency(9)), Settings::fixed(9));
    }

    #[test]
    fn the_defaults_of_the_settings_are_those_of_admission() {
        assert_eq!(admission(&PoolConfig::new(4)), Settings::fixed(4));
    }
}
