//! The limits of a pool's batches.

use super::rules;

/// The limits of a pool's batches: the `batch` section of its settings. A limit that is set here takes precedence over
/// that of the [`Batch`](crate::batch::Batch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchSettings {
    /// The most items in one batch.
    pub max_items: Option<usize>,
    /// The most weight in one batch. Only batches whose items have weights can have it.
    pub max_weight: Option<u64>,
}

impl BatchSettings {
    /// Settings that leave every limit to the code.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_items: None, max_weight: None }
    }

    /// Sets the most items in one batch.
    #[must_use]
    pub const fn max_items(mut self, items: usize) -> Self {
        self.max_items = Some(items);
        self
    }

    /// Sets the most weight in one batch.
    #[must_use]
    pub const fn max_weight(mut self, weight: u64) -> Self {
        self.max_weight = Some(weight);
        self
    }

    pub(super) fn check(&self, note: &mut impl FnMut(&str, Result<(), String>)) {
        let items = self.max_items.map_or(Ok(()), |items| rules::BATCH_ITEMS.check(items as i128));
        note("batch.max_items", items);
        let weight = self.max_weight.map_or(Ok(()), |weight| rules::BATCH_WEIGHT.check(weight.into()));
        note("batch.max_weight", weight);
    }
}
