//! The pools of one `Pools`, which share a clock, the cores, the memory for request bodies, and a drain.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::admission::Timestamp;
use crate::budget::Budget;
use crate::config::Cores;
use crate::cores::SharedCores;
use crate::load::{PoolLoad, Scale};
use crate::signal::Signal;
use crate::sync::lock_std as lock;

/// The pools of one `Pools`.
pub(crate) struct Group {
    /// Announces a drain.
    pub(crate) drain: Arc<Signal>,
    /// The memory for request bodies that are read or queued.
    pub(super) bodies: Budget,
    pub(super) cores: Arc<SharedCores>,
    /// The instant of the timestamp zero.
    origin: Instant,
    scale: Scale,
    /// The loads of the pools, by their ids, as they were published last.
    loads: Mutex<BTreeMap<u64, PoolLoad>>,
}

impl Group {
    pub(crate) fn new(cores: Cores, drain: Arc<Signal>, bodies: Budget, scale: Scale) -> Arc<Self> {
        let (cores, origin) = (SharedCores::new(cores), Instant::now());
        Arc::new(Self { drain, bodies, cores, origin, scale, loads: Mutex::default() })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::default() + self.origin.elapsed()
    }

    /// The instant as a timestamp of this group; the group's start if the instant is earlier.
    pub(super) fn timestamp_of(&self, instant: Instant) -> Timestamp {
        Timestamp::default() + instant.saturating_duration_since(self.origin)
    }

    /// `None` if the timestamp is beyond the range of the clock.
    pub(super) fn instant_of(&self, timestamp: Timestamp) -> Option<Instant> {
        self.origin.checked_add(timestamp.since(Timestamp::default()))
    }

    /// Keeps the load of a pool for that of the process.
    pub(super) fn keep_load(&self, pool: u64, load: PoolLoad) {
        lock(&self.loads).insert(pool, load);
    }

    /// Forgets the load of a pool that is gone.
    pub(super) fn remove_load(&self, pool: u64) {
        lock(&self.loads).remove(&pool);
    }

    /// The load of the process, from the loads of its pools as they were published last.
    pub(super) fn load_ratio(&self) -> f64 {
        let loads = lock(&self.loads).values().cloned().collect();
        self.scale.load(loads).ratio
    }
}
