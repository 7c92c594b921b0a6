//! The load of a pool and of the process, as the application reads it.

use super::window::Measured;
use crate::config::Performance;
use crate::workload::Workload;

/// The load of the process. See the [module](super) for the definition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Load {
    /// The greatest load of the pools that count, or [`cpu`](Self::cpu) if that is greater.
    pub ratio: f64,
    /// The sum of the CPU parts of the pools that count.
    pub cpu: f64,
    /// The load at which the settings want the process to be; 0.7 by default.
    pub target: f64,
    /// The pool whose load is [`ratio`](Self::ratio); `None` while that is 0, and if the sum of the CPU parts is greater.
    pub bound_by: Option<Workload>,
    /// The load of every pool, in the order of the settings.
    pub pools: Vec<PoolLoad>,
}

/// The load of a pool. See the [module](super) for the definition.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PoolLoad {
    /// The pool's name.
    pub name: Workload,
    /// The greater of [`permits`](Self::permits) and [`cpu`](Self::cpu): 1 means that as much arrives as the pool can do.
    pub ratio: f64,
    /// Arrivals a second × mean time of a permit for each task ÷ concurrency limit.
    pub permits: f64,
    /// Arrivals a second × mean CPU time of a task ÷ cores.
    pub cpu: f64,
    /// Tasks that were submitted a second, rejected ones included.
    pub arrivals_per_second: f64,
    /// Tasks that failed or were rejected, a second.
    pub failures_per_second: f64,
}

/// The settings that make a load of the loads of the pools.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    /// The pools that count; if there are none, all do.
    pub(crate) by: Vec<Workload>,
    pub(crate) target: f64,
}

// === impl Scale ===

impl Scale {
    pub(crate) fn counts(&self, pool: &Workload) -> bool {
        self.by.is_empty() || self.by.contains(pool)
    }

    /// The load of the process.
    pub(crate) fn load(&self, pools: Vec<PoolLoad>) -> Load {
        let counted = || pools.iter().filter(|pool| self.counts(&pool.name));
        let cpu = counted().map(|pool| pool.cpu).fold(0.0, |sum, part| sum + part);
        let fullest = counted().max_by(|one, other| one.ratio.total_cmp(&other.ratio));
        let (ratio, bound_by) = match fullest {
            Some(pool) if pool.ratio > 0.0 && pool.ratio >= cpu => (pool.ratio, Some(pool.name.clone())),
            _ => (cpu, None),
        };
        Load { ratio, cpu, target: self.target, bound_by, pools }
    }
}

/// All pools count, and the target is that of the settings' defaults.
impl Default for Scale {
    fn default() -> Self {
        let Performance { scale_by: by, scale_target: target, .. } = Performance::default();
        Self { by, target }
    }
}

// === impl Load ===

impl Load {
    /// By which factor the number of servers should change for each of them to have the target load.
    ///
    /// Below 1 there are more than needed. It is 0 while nothing arrives, so an autoscaler needs a least number.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.ratio / self.target
    }

    /// The load of the pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&PoolLoad> {
        self.pools.iter().find(|pool| pool.name.as_str() == name)
    }
}

// === impl PoolLoad ===

impl PoolLoad {
    pub(crate) fn new(name: Workload, measured: Measured) -> Self {
        let Measured { permits, cpu, arrivals_per_second, failures_per_second, .. } = measured;
        Self { name, ratio: measured.ratio(), permits, cpu, arrivals_per_second, failures_per_second }
    }
}
