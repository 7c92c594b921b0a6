//! The function of a batch, with its limits.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tower_service::Service;

use super::group::Group;
use crate::admission::BatchLimits;
use crate::pool::Pool;
use crate::sync::lock_std as lock;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The results of a list, or the error of the whole.
pub(super) type Results<O, E> = Result<Vec<Result<O, E>>, BoxError>;

pub(super) type CallFuture<O, E> = Pin<Box<dyn Future<Output = Results<O, E>> + Send>>;

/// What an item weighs.
pub(super) type Weight<I> = Arc<dyn Fn(&I) -> u64 + Send + Sync>;

/// The function of a batch, and everything that is the same for all of its items.
pub(super) struct Function<I, O, E> {
    pub(super) call: Box<dyn Fn(Vec<I>) -> CallFuture<O, E> + Send + Sync>,
    /// `None` if the pools are disabled.
    pub(super) pool: Option<Pool>,
    pub(super) limits: BatchLimits,
    pub(super) weight: Option<Weight<I>>,
    pub(super) grouping: Grouping<I>,
    /// Copies an item, so that it can be run again by itself.
    pub(super) copy: Option<fn(&I) -> I>,
    pub(super) name: String,
    /// Whether an item was submitted inside of a task of the pool.
    pub(super) nested: AtomicBool,
}

/// The group of an item.
type GroupOf<I> = Box<dyn Fn(&I) -> Arc<Group> + Send + Sync>;

/// Which items share a batch.
pub(super) enum Grouping<I> {
    All(Arc<Group>),
    By(GroupOf<I>),
}

impl<I, O, E> Function<I, O, E> {
    /// Calls a function of the application, which may panic.
    pub(super) fn group_of(&self, item: &I) -> Arc<Group> {
        match &self.grouping {
            Grouping::All(group) => group.clone(),
            Grouping::By(group_of) => group_of(item),
        }
    }

    /// Calls a function of the application, which may panic.
    pub(super) fn weight_of(&self, item: &I) -> u64 {
        self.weight.as_ref().map_or(1, |weight| weight(item))
    }

    /// How many items of one list are in the pool at once, queued or in flight.
    pub(super) fn window(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.plan().admission.capacity / 2).max(1)
    }

    /// Whether no other item of this group is in the pool, so that nothing can share a batch with its only one.
    pub(super) fn is_only_one(&self, group: &Arc<Group>) -> bool {
        matches!(self.grouping, Grouping::By(_)) && Arc::strong_count(group) == 1
    }

    /// Logs, once, that an item was submitted inside of a task of the pool.
    pub(super) fn warn_if_nested(&self, pool: &Pool) {
        if pool.is_current() && !self.nested.swap(true, Relaxed) {
            tracing::warn!(
                target: "tower_offload",
                pool = %pool.name(), function = %self.name,
                "an item of a batch was submitted by a task of the same pool: it starts at once, inside the permit of \
                 that task, and only with the items that wait at this moment; run the handler outside of this pool"
            );
        }
    }
}

/// A service of lists as a function. Each batch calls a clone of the service.
pub(super) fn of_service<I, O, E, S>(service: S) -> Box<dyn Fn(Vec<I>) -> CallFuture<O, E> + Send + Sync>
where
    S: Service<Vec<I>, Response = Vec<Result<O, E>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    let service = Mutex::new(service);
    Box::new(move |items| {
        let mut service = lock(&service).clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            service.call(items).await.map_err(Into::into)
        })
    })
}

impl<I, O, E> fmt::Debug for Function<I, O, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("pool", &self.pool.as_ref().map(Pool::name))
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
