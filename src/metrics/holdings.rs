//! The slots and models of a pool, for its numbers.

use std::sync::{Mutex, Weak};

use crate::sync::lock_std as lock;

/// The slots and models of a pool, for its numbers.
#[derive(Default)]
pub(crate) struct Holdings(Mutex<Held>);

#[derive(Default)]
struct Held {
    holdings: Vec<Weak<dyn Holding>>,
    /// What the metrics still show of those that were dropped: gauges of 0, and counters that never fall.
    gone: HoldingsReading,
}

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

/// One reading of the slots and models of a pool, each kind added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HoldingsReading {
    pub(crate) slots: Option<SlotsReading>,
    pub(crate) models: Option<ModelsReading>,
}

/// The slots of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotsReading {
    pub(crate) idle: usize,
    pub(crate) in_use: usize,
    pub(crate) loading: usize,
    /// The highest of all.
    pub(crate) generation: u64,
}

/// The models of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelsReading {
    pub(crate) loaded: usize,
    pub(crate) bytes: u64,
    pub(crate) budget: u64,
    pub(crate) loads_ok: u64,
    pub(crate) loads_failed: u64,
    pub(crate) evictions: u64,
}

impl HoldingStats {
    /// The sums of the slots and of the models, added to `gone`.
    fn reading(&self, gone: HoldingsReading) -> HoldingsReading {
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
            slots: self.slots.iter().fold(gone.slots, add_slots),
            models: self.models.iter().fold(gone.models, add_models),
        }
    }
}

impl Holdings {
    pub(crate) fn add(&self, holding: Weak<dyn Holding>) {
        let holdings = &mut lock(&self.0).holdings;
        holdings.retain(|other| other.strong_count() > 0);
        holdings.push(holding);
    }

    /// Slots or models are dropped. `last` are their last numbers: their counters stay in the sums.
    pub(crate) fn remove(&self, holding: &Weak<dyn Holding>, last: &HoldingStats) {
        let mut held = lock(&self.0);
        let before = held.holdings.len();
        held.holdings.retain(|other| !other.ptr_eq(holding));
        if held.holdings.len() < before {
            let HoldingsReading { slots, models } = last.reading(held.gone);
            let models = models.map(|sum| ModelsReading { loaded: 0, bytes: 0, budget: 0, ..sum });
            held.gone = HoldingsReading { slots: slots.map(|_| SlotsReading::default()), models };
        }
    }

    pub(crate) fn read(&self) -> HoldingStats {
        self.read_all().0
    }

    /// The sums that the metrics show.
    pub(crate) fn reading(&self) -> HoldingsReading {
        let (stats, gone) = self.read_all();
        stats.reading(gone)
    }

    /// The numbers, and those of the dropped ones at the same instant, so that none counts twice.
    fn read_all(&self) -> (HoldingStats, HoldingsReading) {
        let held = lock(&self.0);
        let upgraded: Vec<_> = held.holdings.iter().filter_map(Weak::upgrade).collect();
        let gone = held.gone;
        // The references are dropped without the lock.
        drop(held);
        let mut stats = HoldingStats::default();
        upgraded.iter().for_each(|holding| holding.read(&mut stats));
        (stats, gone)
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Loads(u64);

    impl Holding for Loads {
        fn read(&self, into: &mut HoldingStats) {
            let models = ModelsStats { loads_ok: self.0, bytes: 10, ..ModelsStats::default() };
            into.models.push(models);
            into.slots.push(SlotsStats { idle: 3, generation: 2, ..SlotsStats::default() });
        }
    }

    #[test]
    fn what_was_dropped_has_gauges_of_0_and_counters_that_the_next_ones_add_to() {
        let holdings = Holdings::default();
        assert_eq!(holdings.reading(), HoldingsReading::default(), "a pool without any has no metrics of them");
        for (number, sum) in [(1, 5), (2, 10)] {
            let loads: Arc<dyn Holding> = Arc::new(Loads(5));
            let weak = Arc::downgrade(&loads);
            holdings.add(weak.clone());
            let shown = holdings.reading();
            assert_eq!(shown.models.map(|models| (models.loads_ok, models.bytes)), Some((sum, 10)), "{number}");
            assert_eq!(shown.slots.map(|slots| (slots.idle, slots.generation)), Some((3, 2)));
            let mut last = HoldingStats::default();
            loads.read(&mut last);
            holdings.remove(&weak, &last);
            // It may live a little longer, and counts once.
            let shown = holdings.reading();
            assert_eq!(shown.models.map(|models| (models.loads_ok, models.bytes)), Some((sum, 0)));
            assert_eq!(shown.slots, Some(SlotsReading::default()));
            holdings.remove(&weak, &last);
            assert_eq!(holdings.reading(), shown, "it is removed once");
        }
        assert!(holdings.read().models.is_empty());
    }
}
