//! Open slots: what a task needs to put a value back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::bounds::Bounds;
use super::inner::{Inner, TaskId};
use super::recipe::Hooks;
use super::stack::Slot;
use crate::error::SlotError;
use crate::metrics::holdings::Holding;
use crate::pool::{HoldingStats, Pool};
use crate::shield::shielded;

/// Lends values to tasks. It keeps the slots open.
pub(super) struct Lender<T: Send + 'static>(pub(super) Arc<Open<T>>);

/// The open slots: dropping this closes them.
pub(super) struct Open<T: Send + 'static> {
    pub(super) inner: Arc<Inner<T>>,
    pub(super) hooks: Arc<Hooks<T>>,
    pub(super) bounds: Bounds,
    /// The `nice` value of the loader.
    pub(super) nice: i32,
    /// Whether a warning was logged about more values than permits.
    warned: AtomicBool,
}

impl<T: Send + 'static> Lender<T> {
    pub(super) fn new(inner: Arc<Inner<T>>, hooks: Hooks<T>, pool: Option<Pool>, nice: i32) -> Self {
        if let Some(pool) = &pool {
            let weak = Arc::downgrade(&inner);
            pool.add_holding(weak);
        }
        Self(Arc::new(Open {
            inner,
            hooks: Arc::new(hooks),
            bounds: pool.into(),
            nice,
            warned: AtomicBool::new(false),
        }))
    }

    pub(super) fn inner(&self) -> &Inner<T> {
        &self.0.inner
    }

    pub(super) fn pool(&self) -> Option<&Pool> {
        self.0.bounds.pool()
    }

    pub(super) fn put(&self, task: TaskId, slot: Box<Slot<T>>) {
        let Open { inner, hooks, bounds, .. } = &*self.0;
        let (limit, now) = (bounds.limit(), hooks.now());
        inner.change(|state, gone| state.stack.put(task, slot, limit, now, gone));
        if let (Some(pool), true) = (bounds.pool(), hooks.is_timed()) {
            inner.arm(pool);
        }
    }

    /// `task` could not make its value (`generation` is `None`), or has dropped it.
    pub(super) fn lost(&self, task: TaskId, generation: Option<u64>) {
        let limit = self.0.bounds.limit();
        self.0.inner.change(|state, _| state.stack.lost(task, generation, limit));
    }

    pub(super) fn keeps_on_panic(&self) -> bool {
        self.0.hooks.keep_on_panic
    }

    /// The task that asks for a value, and the tasks that wait for it in place.
    pub(super) fn task(&self) -> Result<(TaskId, Vec<TaskId>), SlotError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(pool) = self.pool() else {
            return Ok((TaskId::Alone(NEXT.fetch_add(1, Ordering::Relaxed)), Vec::new()));
        };
        let (task, waiting) = pool.current_keys().ok_or_else(|| SlotError::Outside(pool.name().clone()))?;
        Ok((TaskId::OfPool(task), waiting.into_iter().map(TaskId::OfPool).collect()))
    }

    /// The error of a task that has a value and submits another one that needs one too.
    pub(super) fn nested(&self) -> Option<SlotError> {
        let (task, waiting) = self.pool()?.current_keys()?;
        let state = self.0.inner.lock();
        let mut tasks = waiting.into_iter().chain([task]).map(TaskId::OfPool);
        tasks.any(|task| state.stack.holds(task)).then(|| SlotError::Nested(self.0.bounds.name()))
    }

    /// Logs once that there are more values than permits.
    pub(super) fn warn_of_excess(&self) {
        let Open { inner, bounds: Bounds::Pool(pool), warned, .. } = &*self.0 else { return };
        let limit = pool.highest_limit();
        if inner.lock().stack.live() > limit && !warned.swap(true, Ordering::Relaxed) {
            shielded(|| {
                tracing::warn!(
                    target: "tower_offload",
                    pool = %pool.name(), slots = inner.name, limit,
                    "there are more values than permits: a task gave its permit back and kept its value, or runs inside \
                     the permit of another task"
                );
            });
        }
    }
}

impl<T: Send + 'static> Drop for Open<T> {
    fn drop(&mut self) {
        self.inner.close();
        if let Bounds::Pool(pool) = &self.bounds {
            let mut last = HoldingStats::default();
            self.inner.read(&mut last);
            let holding: Weak<dyn Holding> = Arc::downgrade(&(self.inner.clone() as Arc<dyn Holding>));
            pool.remove_holding(&holding, &last);
        }
    }
}

impl<T: Send + 'static> Clone for Lender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
