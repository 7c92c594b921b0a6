//! The settings of one pool, and the hooks of the application.

use std::sync::Arc;
use std::time::Duration;

use super::group::Group;
use crate::admission::Settings;
use crate::config::{BatchSettings, BodyPolicy, Trust};
use crate::task::Capture;
use crate::workload::Workload;

/// The settings of a pool.
pub(crate) struct Plan {
    pub(crate) name: Workload,
    pub(crate) workers: usize,
    pub(crate) admission: Settings,
    pub(crate) keep_alive: Duration,
    pub(crate) nice: Option<i32>,
    pub(crate) stack_size: Option<usize>,
    /// The headers of a request that the pool trusts.
    pub(crate) trust: Trust,
    /// Whether tasks are logged and listed one by one.
    pub(crate) verbose: bool,
    pub(crate) group: Arc<Group>,
    /// The pool's share of the group's cores.
    pub(crate) share: u32,
    pub(crate) hooks: Hooks,
    pub(crate) body: BodyPolicy,
    pub(crate) batch: BatchSettings,
    /// 0 sets no limit.
    pub(crate) max_streams: usize,
}

/// The application's hooks.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// They capture a context for each task, in the order in which they were added.
    pub(crate) context: Vec<Capture>,
    /// A worker calls them when its thread has started.
    pub(crate) on_worker_start: Vec<Arc<dyn Fn() + Send + Sync>>,
    /// A worker calls them before its thread ends.
    pub(crate) on_worker_stop: Vec<Arc<dyn Fn() + Send + Sync>>,
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
impl Plan {
    /// A `cpu` pool for tests.
    pub(super) fn of_one_worker() -> Self {
        use crate::budget::Budget;
        use crate::config::Cores;
        use crate::load::Scale;

        Self {
            name: Workload::CPU,
            workers: 1,
            admission: Settings::fixed(1),
            keep_alive: Duration::from_secs(1),
            nice: None,
            stack_size: None,
            trust: Trust::default(),
            verbose: false,
            group: Group::new(Cores::Auto, Arc::default(), Budget::new(0), Scale::default()),
            share: 1,
            hooks: Hooks::default(),
            body: BodyPolicy::default(),
            batch: BatchSettings::default(),
            max_streams: 0,
        }
    }
}
