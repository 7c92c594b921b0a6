//! A model that a caller holds.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::shield::shielded;

/// A model that the caller holds: it stays loaded until this is dropped.
#[must_use = "the model may be unloaded when this is dropped"]
pub struct ModelLease<M: Send + Sync + 'static> {
    models: Arc<dyn Release>,
    key: Arc<str>,
    version: u64,
    /// `None` only while this is dropped.
    model: Option<Arc<M>>,
}

/// The models that a lease is of.
pub(super) trait Release: Send + Sync {
    /// A caller holds the model no longer.
    fn release(self: Arc<Self>, key: &str, version: u64);
}

impl<M: Send + Sync + 'static> ModelLease<M> {
    pub(super) fn new(models: Arc<dyn Release>, key: Arc<str>, model: Arc<M>, version: u64) -> Self {
        Self { models, key, version, model: Some(model) }
    }

    /// The model's key.
    ///
    /// This is called as `ModelLease::key(&lease)`: a method of this name is one of the model.
    #[must_use]
    pub fn key(this: &Self) -> &str {
        &this.key
    }

    /// The number of the load that gave the model.
    ///
    /// This is called as `ModelLease::version(&lease)`: a method of this name is one of the model.
    #[must_use]
    pub const fn version(this: &Self) -> u64 {
        this.version
    }
}

impl<M: Send + Sync + 'static> Deref for ModelLease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.model.as_ref().expect("it is taken only by the drop")
    }
}

impl<M: Send + Sync + 'static> Drop for ModelLease<M> {
    fn drop(&mut self) {
        // A model that was unloaded is dropped before its bytes count as free.
        let model = self.model.take();
        shielded(|| drop(model));
        self.models.clone().release(&self.key, self.version);
    }
}

impl<M: Send + Sync + 'static> fmt::Debug for ModelLease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLease").field("key", &self.key).field("version", &self.version).finish_non_exhaustive()
    }
}
