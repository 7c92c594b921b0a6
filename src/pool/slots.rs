//! A pool, as its slots and models see it.

use std::sync::Weak;

use super::submit::Pool;
use super::{local, worker};
use crate::admission::Key;
use crate::metrics::holdings::{Holding, HoldingStats};

impl Pool {
    /// The highest limit that the pool can have.
    pub(crate) fn highest_limit(&self) -> usize {
        self.shared().plan.admission.limit.most()
    }

    /// Whether the pool rejects every new task.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared().dispatch.is_draining()
    }

    /// The keys of the tasks of this pool that the calling thread polls: the running one, and those that wait for it in
    /// place. `None` if it polls none.
    pub(crate) fn current_keys(&self) -> Option<(Key, Vec<Key>)> {
        local::keys_of(self.shared().id)
    }

    /// Adds slots or models to the pool's numbers.
    pub(crate) fn add_holding(&self, holding: Weak<dyn Holding>) {
        self.shared().holdings.add(holding);
    }

    /// Removes slots or models, whose last numbers are `last`, and publishes that they are gone.
    pub(crate) fn remove_holding(&self, holding: &Weak<dyn Holding>, last: &HoldingStats) {
        self.shared().holdings.remove(holding, last);
        self.changed();
    }

    /// Publishes the pool's numbers soon, because those of its slots or models have changed.
    pub(crate) fn changed(&self) {
        worker::changed(self.shared());
    }
}
