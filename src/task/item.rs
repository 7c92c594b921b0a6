//! The state of a task that can share a permit with others in a batch.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::admission::{self, Prediction, SharedPermit, Timestamp};
use crate::options::TaskOptions;

/// An item of a batch, as its pool sees it. None of these methods calls code of the application.
pub(crate) trait BatchItem: Any + Send + Sync {
    /// The batch function and the group that it belongs to, in one number.
    fn group(&self) -> u64;

    fn weight(&self) -> u64;

    /// The prediction for a batch that starts now.
    fn prediction(&self, now: Timestamp) -> Option<Prediction>;
}

/// The part of a task that only items of a batch have.
pub(crate) struct ItemHead {
    pub(crate) item: Arc<dyn BatchItem>,
    /// Set when the batch starts. A task is in one batch.
    pub(crate) batch: OnceLock<Batch>,
}

/// The batch of a task.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) permit: SharedPermit,
    /// The options that hold for all of its tasks.
    pub(crate) options: TaskOptions,
}

impl ItemHead {
    pub(crate) fn new(item: Arc<dyn BatchItem>) -> Box<Self> {
        Box::new(Self { item, batch: OnceLock::new() })
    }

    /// Its properties for a batch that grows.
    pub(crate) fn properties(&self, deadline: Option<Timestamp>) -> admission::BatchItem {
        admission::BatchItem { group: self.item.group(), weight: self.item.weight(), deadline }
    }

    /// Whether a task that starts now and runs alone would end after its deadline.
    pub(crate) fn is_late(&self, now: Timestamp, deadline: Timestamp) -> bool {
        let prediction = self.item.prediction(now);
        prediction.is_some_and(|prediction| prediction.is_late(now, self.item.weight(), deadline))
    }
}
