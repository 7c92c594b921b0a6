//! The slots and models of a pool, for its numbers.

use std::fmt;
use std::sync::{Mutex, Weak};

use crate::metrics::{HoldingsReading, ModelsReading, SlotsReading};
use crate::sync::lock_std as lock;

/// The slots and models of a pool, for its numbers.
#[derive(Default)]
pub(super) struct Holdings(Mutex<Vec<Weak<dyn Holding>>>);

/// Slots or models of a pool.
pub(crate) trait Holding: Send + Sync {
    /// Adds their numbers.
    fn read(&self, into: &mut HoldingStats);
}

/// The slots and the models of a pool, each at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HoldingStats {
    /// Each `Slots` of the pool, in the order in which they were built.
    pub slots: Vec<SlotsStats>,
    /// Each `Models` of the pool, in the order in which they were built.
    pub models: Vec<ModelsStats>,
}

/// The numbers of one [`Slots`](crate::slots::Slots).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotsStats {
    /// The name from [`SlotsBuilder::name`](crate::slots::SlotsBuilder::name).
    pub name: String,
    /// The version of new values: 1 at first, and one more after each swap.
    pub generation: u64,
    /// Values that no task uses.
    pub idle: usize,
    /// Values that tasks use.
    pub in_use: usize,
    /// Values that are being made, or that wait to replace another one.
    pub loading: usize,
    /// Values of an earlier version that a swap has still to replace.
    pub outdated: usize,
    /// Why the last value could not be made, while no value of the newest version was made since.
    ///
    /// This is the text of the application's error, which may contain a secret, such as a database URL with its
    /// password. So the JSON of the stats endpoint and the dashboard only show that there is an error.
    pub error: Option<String>,
}

/// The numbers of one [`Models`](crate::slots::Models).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ModelsStats {
    /// The name from [`ModelsBuilder::name`](crate::slots::ModelsBuilder::name).
    pub name: String,
    /// The bytes that the models may take.
    pub budget_bytes: u64,
    /// The bytes of the models that are loaded, or being loaded.
    pub bytes: u64,
    /// The models that are loaded, by key.
    pub loaded: Vec<LoadedModel>,
    /// The keys whose models are being loaded, or wait until there is room.
    pub loading: Vec<String>,
    /// Models that were unloaded and are still in use.
    pub leaving: usize,
    /// Loads that succeeded.
    pub loads_ok: u64,
    /// Loads that failed.
    pub loads_failed: u64,
    /// Models that were unloaded to make room for others.
    pub evictions: u64,
}

/// A model that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedModel {
    /// Its key.
    pub key: String,
    /// The number of its load: the first load of a [`Models`](crate::slots::Models) is 1.
    pub version: u64,
    /// Its weight.
    pub bytes: u64,
    /// How many callers hold it.
    pub held: usize,
}

impl HoldingStats {
    /// The sums of the slots and of the models.
    pub(super) fn reading(&self) -> HoldingsReading {
        let add_slots = |sum: Option<SlotsReading>, slots: &SlotsStats| {
            let sum = sum.unwrap_or_default();
            Some(SlotsReading {
                idle: sum.idle + slots.idle,
                in_use: sum.in_use + slots.in_use,
                loading: sum.loading + slots.loading,
                generation: sum.generation.max(slots.generation),
            })
        };
        let add_models = |sum: Option<ModelsReading>, models: &ModelsStats| {
            let sum = sum.unwrap_or_default();
            Some(ModelsReading {
                loaded: sum.loaded + models.loaded.len(),
                bytes: sum.bytes + models.bytes,
                budget: sum.budget + models.budget_bytes,
                loads_ok: sum.loads_ok + models.loads_ok,
                loads_failed: sum.loads_failed + models.loads_failed,
                evictions: sum.evictions + models.evictions,
            })
        };
        HoldingsReading {
            slots: self.slots.iter().fold(None, add_slots),
            models: self.models.iter().fold(None, add_models),
        }
    }
}

impl Holdings {
    pub(super) fn add(&self, holding: Weak<dyn Holding>) {
        let mut holdings = lock(&self.0);
        holdings.retain(|other| other.strong_count() > 0);
        holdings.push(holding);
    }

    pub(super) fn read(&self) -> HoldingStats {
        // The references are dropped without the lock.
        let held: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let mut stats = HoldingStats::default();
        held.iter().for_each(|held| held.read(&mut stats));
        stats
    }
}

impl fmt::Debug for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Holdings").field(&lock(&self.0).len()).finish()
    }
}
