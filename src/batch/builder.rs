//! `BatchBuilder`, and the layer that it builds.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tower_layer::Layer;
use tower_service::Service;

use super::Batch;
use super::function::{BoxError, CallFuture, Function, Grouping, Results, Weight, of_service};
use super::group::{Group, Groups};
use crate::admission::BatchLimits;
use crate::error::UnknownPool;
use crate::function_name::function_name;
use crate::pool::Pool;
use crate::pools::Pools;
use crate::workload::PoolName;

/// Builds a [`Batch`], a function or service of lists that is called with single items.
///
/// Without [`max_items`](Self::max_items), a batch has 32 items at most.
#[must_use]
pub struct BatchBuilder<I> {
    pool: Result<Option<Pool>, UnknownPool>,
    max_items: Option<usize>,
    max_weight: Option<u64>,
    items: Items<I>,
    name: Option<String>,
    built_at: &'static Location<'static>,
}

/// What a batch knows of its items.
struct Items<I> {
    weight: Option<Weight<I>>,
    grouping: Option<NewGrouping<I>>,
    copy: Option<fn(&I) -> I>,
}

/// Turns a service of lists into a [`Batch`]; built by [`BatchBuilder::layer`].
pub struct BatchLayer<I> {
    settings: Arc<Settings<I>>,
}

/// The settings of a batch, checked.
struct Settings<I> {
    pool: Option<Pool>,
    limits: BatchLimits,
    items: Items<I>,
    name: Option<String>,
    built_at: &'static Location<'static>,
}

/// Why a batch cannot be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// No pool has this name.
    UnknownPool(UnknownPool),
    /// A limit is zero: a batch would run nothing.
    Zero(&'static str),
    /// The settings of the pool limit the weight, and the items have none.
    NoWeight(String),
}

/// Makes the groups of one batch.
type NewGrouping<I> = Arc<dyn Fn() -> Grouping<I> + Send + Sync>;

const MAX_ITEMS: usize = 32;

impl<I: Send + 'static> BatchBuilder<I> {
    #[track_caller]
    pub(super) fn new(pools: &Pools, pool: impl PoolName) -> Self {
        Self {
            pool: pools.choose(pool),
            max_items: None,
            max_weight: None,
            items: Items { weight: None, grouping: None, copy: None },
            name: None,
            built_at: Location::caller(),
        }
    }

    /// Sets the most items in one batch. `batch.max_items` of the pool's settings takes precedence.
    pub const fn max_items(mut self, items: usize) -> Self {
        self.max_items = Some(items);
        self
    }

    /// Sets the most weight in one batch, and what an item weighs, for example its number of tokens. An item above the
    /// limit is a batch by itself. `batch.max_weight` of the pool's settings takes precedence.
    ///
    /// The time of a batch is then predicted from its weight instead of its number of items.
    pub fn max_weight(mut self, weight: u64, of: impl Fn(&I) -> u64 + Send + Sync + 'static) -> Self {
        self.max_weight = Some(weight);
        self.items.weight = Some(Arc::new(of));
        self
    }

    /// Lets only items share a batch for which this function gives equal keys, for example the name of a model.
    ///
    /// A worker looks at the first 256 tasks that wait, whatever group they are of.
    pub fn group_by<K>(mut self, key: impl Fn(&I) -> K + Send + Sync + 'static) -> Self
    where
        K: Eq + Hash + Send + 'static,
    {
        let key = Arc::new(key);
        self.items.grouping = Some(Arc::new(move || {
            let (key, groups) = (key.clone(), Groups::new());
            Grouping::By(Box::new(move |item| groups.of(key(item))))
        }));
        self
    }

    /// Runs the items of a batch one by one if the batch fails as a whole: if it panics, if the service returns an
    /// error, or if there are fewer or more results than items. So one bad item fails alone.
    ///
    /// Each item is cloned before a batch of several runs. The function may see an item twice. An item whose clone panics
    /// has the result of the batch.
    pub fn isolate(mut self) -> Self
    where
        I: Clone,
    {
        self.items.copy = Some(I::clone);
        self
    }

    /// Sets the name of the tasks in the log and among the running tasks. By default it is that of the function, or the
    /// file and line of [`Batch::builder`] for a closure or a service.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A batch of a function that blocks or computes. It gives a result for each item, in the same order.
    ///
    /// # Errors
    ///
    /// If there is no such pool, or if a limit makes no sense.
    pub fn run<O, E, F>(self, function: F) -> Result<Batch<I, O, E>, BuildError>
    where
        F: Fn(Vec<I>) -> Vec<Result<O, E>> + Send + Sync + 'static,
        O: Send + 'static,
        E: Send + 'static,
    {
        self.blocking::<F, _, _>(move |items| Ok(function(items)))
    }

    /// The same for a function that gives a value for each item, or fails as a whole.
    ///
    /// # Errors
    ///
    /// If there is no such pool, or if a limit makes no sense.
    pub fn try_run<O, X, F>(self, function: F) -> Result<Batch<I, O, Infallible>, BuildError>
    where
        F: Fn(Vec<I>) -> Result<Vec<O>, X> + Send + Sync + 'static,
        X: Into<BoxError>,
        O: Send + 'static,
    {
        self.blocking::<F, _, _>(move |items| {
            let values = function(items).map_err(Into::into)?;
            Ok(values.into_iter().map(Ok).collect())
        })
    }

    /// A batch of a service of lists, for example `tower::service_fn` of an async function. Each batch calls a clone of
    /// it.
    ///
    /// # Errors
    ///
    /// If there is no such pool, or if a limit makes no sense.
    pub fn service<O, E, S>(self, service: S) -> Result<Batch<I, O, E>, BuildError>
    where
        S: Service<Vec<I>, Response = Vec<Result<O, E>>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        O: Send + 'static,
        E: Send + 'static,
    {
        Ok(self.layer()?.layer(service))
    }

    /// A layer that turns services of lists into batches. Batches of one layer share no batch with each other.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_offload::{Embedding, Pools, batch::Batch};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let layer = Batch::builder(&Pools::default(), Embedding).max_items(8).layer()?;
    /// let double = layer.layer(service_fn(|numbers: Vec<u32>| async move {
    ///     let doubled = numbers.into_iter().map(|number| Ok::<_, Infallible>(2 * number));
    ///     Ok::<_, Infallible>(doubled.collect::<Vec<_>>())
    /// }));
    /// assert_eq!(double.oneshot(21).await?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no such pool, or if a limit makes no sense.
    pub fn layer(self) -> Result<BatchLayer<I>, BuildError> {
        Ok(BatchLayer { settings: Arc::new(self.check()?) })
    }

    /// A batch of a function that runs in the call. `F` has the name of the tasks.
    fn blocking<F, O, E>(
        self,
        function: impl Fn(Vec<I>) -> Results<O, E> + Send + Sync + 'static,
    ) -> Result<Batch<I, O, E>, BuildError>
    where
        O: Send + 'static,
        E: Send + 'static,
    {
        let settings = self.check()?;
        let name = settings.name.clone().unwrap_or_else(|| function_name::<F>(false, settings.built_at));
        let call = move |items| -> CallFuture<O, E> { Box::pin(std::future::ready(function(items))) };
        Ok(settings.batch(name, Box::new(call)))
    }

    fn check(self) -> Result<Settings<I>, BuildError> {
        let pool = self.pool.map_err(BuildError::UnknownPool)?;
        let set = pool.as_ref().map(|pool| pool.plan().batch).unwrap_or_default();
        if let (Some(pool), Some(_), None) = (&pool, set.max_weight, &self.items.weight) {
            return Err(BuildError::NoWeight(pool.name().to_string()));
        }
        let limits = BatchLimits {
            max_items: set.max_items.or(self.max_items).unwrap_or(MAX_ITEMS),
            max_weight: set.max_weight.or(self.max_weight).unwrap_or(u64::MAX),
        };
        if limits.max_items == 0 || self.max_items == Some(0) {
            return Err(BuildError::Zero("max_items"));
        }
        if limits.max_weight == 0 || self.max_weight == Some(0) {
            return Err(BuildError::Zero("max_weight"));
        }
        if let Some(pool) = &pool {
            pool.has_batches();
        }
        Ok(Settings { pool, limits, items: self.items, name: self.name, built_at: self.built_at })
    }
}

impl<I: Send + 'static> Settings<I> {
    fn batch<O, E>(&self, name: String, call: Box<dyn Fn(Vec<I>) -> CallFuture<O, E> + Send + Sync>) -> Batch<I, O, E> {
        let Self { pool, limits, items: Items { weight, grouping, copy }, .. } = self;
        // Each batch of a layer has groups of its own, so that its items share batches with no other service's.
        let grouping = grouping.as_ref().map_or_else(|| Grouping::All(Group::new()), |new| new());
        Batch {
            function: Arc::new(Function {
                call,
                pool: pool.clone(),
                limits: *limits,
                weight: weight.clone(),
                grouping,
                copy: *copy,
                name,
                nested: AtomicBool::new(false),
            }),
        }
    }
}

impl<I, O, E, S> Layer<S> for BatchLayer<I>
where
    S: Service<Vec<I>, Response = Vec<Result<O, E>>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    I: Send + 'static,
    O: Send + 'static,
    E: Send + 'static,
{
    type Service = Batch<I, O, E>;

    fn layer(&self, service: S) -> Self::Service {
        let Settings { name, built_at, .. } = &*self.settings;
        let name = name.clone().unwrap_or_else(|| function_name::<S>(true, built_at));
        self.settings.batch(name, of_service(service))
    }
}

/// Items need no `Clone`, because the settings are shared.
impl<I> Clone for BatchLayer<I> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone() }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPool(error) => error.fmt(f),
            Self::Zero(limit) => write!(f, "`{limit}` of a batch is 0, so it would run nothing; give 1 or more"),
            Self::NoWeight(pool) => write!(
                f,
                "the settings of the pool `{pool}` have `batch.max_weight`, but the items of this batch have no weight; \
                 give `BatchBuilder::max_weight` a function, or remove the setting"
            ),
        }
    }
}

impl Error for BuildError {}

impl<I> fmt::Debug for BatchBuilder<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchBuilder").field("built_at", self.built_at).finish_non_exhaustive()
    }
}

impl<I> fmt::Debug for BatchLayer<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLayer").field("limits", &self.settings.limits).finish_non_exhaustive()
    }
}
