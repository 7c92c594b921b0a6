//! `SlotsBuilder`: the settings of `Slots`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use super::lender::Lender;
use super::loader::NICE;
use super::recipe::{BoxError, Hooks, Make, Version};
use super::slots::Slots;
use crate::error::{SlotError, UnknownPool};
use crate::function_name::short_type_name;
use crate::pool::Pool;
use crate::pools::Pools;
use crate::workload::PoolName;

/// Builds [`Slots`].
#[must_use = "nothing is built before `build`"]
pub struct SlotsBuilder<T> {
    pool: Result<Option<Pool>, UnknownPool>,
    name: String,
    make: Option<Arc<Make<T>>>,
    hooks: Hooks<T>,
    nice: i32,
}

/// The error of slots or models that could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// No pool has this name.
    UnknownPool(UnknownPool),
    /// A setting is missing or cannot be used.
    Setting {
        /// The name of its method.
        setting: &'static str,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// The first value could not be made.
    First(SlotError),
}

impl<T: Send + 'static> Slots<T> {
    /// A builder for slots of a pool.
    pub fn builder(pools: &Pools, pool: impl PoolName) -> SlotsBuilder<T> {
        SlotsBuilder::new(pools, pool)
    }
}

impl<T: Send + 'static> SlotsBuilder<T> {
    pub(super) fn new(pools: &Pools, pool: impl PoolName) -> Self {
        let hooks = Hooks { warm_up: None, recycle: None, keep_alive: None, max_lifetime: None, keep_on_panic: false };
        Self { pool: pools.choose(pool), name: short_type_name::<T>(), make: None, hooks, nice: NICE }
    }

    /// Sets the name in the stats and the log; by default the name of the values' type.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the function that makes a value. It is required.
    ///
    /// A worker of the pool calls it, in the task that needs a further value. It may block: only this task waits. If it
    /// fails or panics, the task gets the error, and so do tasks that need a further value within the next 50 ms. With
    /// each further failure this pause doubles, up to a second.
    pub fn make<F, E>(mut self, make: F) -> Self
    where
        F: Fn() -> Result<T, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.make = Some(Arc::new(move || make().map_err(Into::into)));
        self
    }

    /// Sets a function that is called with each new value before it serves, such as one inference that fills caches. If
    /// it fails, the value is dropped, and counts as one that could not be made.
    pub fn warm_up<F, E>(mut self, warm_up: F) -> Self
    where
        F: Fn(&mut T) -> Result<(), E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.hooks.warm_up = Some(Box::new(move |value| warm_up(value).map_err(Into::into)));
        self
    }

    /// Sets a check that is called each time before a value is used again. If it returns false or panics, the value is
    /// dropped, and the task gets another one, or a new one.
    pub fn recycle(mut self, recycle: impl Fn(&mut T) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.recycle = Some(Box::new(recycle));
        self
    }

    /// Sets how long a value may be idle; by default it stays. Then it is dropped in a task of the pool. The value that
    /// was used last is used first, so the values that the load does not need become idle.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.hooks.keep_alive = Some(keep_alive);
        self
    }

    /// Sets how long a value may live; by default without a limit. Each value's life is up to a tenth shorter, so that
    /// values that were made at once are not replaced at once. A value is never taken from the task that uses it.
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.hooks.max_lifetime = Some(max_lifetime);
        self
    }

    /// Keeps a value whose task panicked. By default it is dropped, because its state is not known.
    pub fn keep_on_panic(mut self) -> Self {
        self.hooks.keep_on_panic = true;
        self
    }

    /// Sets the `nice` value of the thread that makes the values of a [swap](Slots::swap); by default 10, Linux only.
    ///
    /// Threads that `make` starts inherit it. Set 0 for a model runtime that starts its own threads while it loads,
    /// because they would serve with this `nice` value later.
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    /// Builds the slots, and makes the first value in a task of the pool: what cannot be made stops the start.
    ///
    /// # Errors
    ///
    /// If there is no such pool, a setting is missing or cannot be used, or the first value cannot be made.
    pub async fn build(self) -> Result<Slots<T>, BuildError> {
        let slots = self.build_lazy()?;
        slots.make_first().await.map_err(BuildError::First)?;
        Ok(slots)
    }

    /// Builds the slots without any value. The first task makes the first one.
    ///
    /// # Errors
    ///
    /// If there is no such pool, or a setting is missing or cannot be used.
    pub fn build_lazy(self) -> Result<Slots<T>, BuildError> {
        let Self { pool, name, make, hooks, nice } = self;
        let pool = pool?;
        let wrong = |setting, reason: &str| Err(BuildError::Setting { setting, reason: reason.to_owned() });
        let Some(make) = make else { return wrong("make", "it is missing; give the function that makes a value") };
        if hooks.keep_alive.is_some_and(|keep_alive| keep_alive.is_zero()) {
            return wrong("keep_alive", "0 would make a value for each task; give a longer time, or leave it out");
        }
        if hooks.max_lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            return wrong("max_lifetime", "0 would make a value for each task; give a longer time, or leave it out");
        }
        if !(-20..=19).contains(&nice) {
            return wrong("nice", &format!("{nice} is not from -20 to 19"));
        }
        let inner = Arc::new(Inner::new(name, hooks.keep_alive, Version { generation: 1, make }));
        Ok(Slots { lender: Lender::new(inner, hooks, pool, nice) })
    }
}

impl<T> fmt::Debug for SlotsBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotsBuilder").field("name", &self.name).field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

// === impl BuildError ===

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPool(error) => error.fmt(f),
            Self::Setting { setting, reason } => write!(f, "{setting}: {reason}"),
            Self::First(error) => error.fmt(f),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::UnknownPool(error) => error.source(),
            Self::Setting { .. } => None,
            Self::First(error) => error.source(),
        }
    }
}

impl From<UnknownPool> for BuildError {
    fn from(unknown: UnknownPool) -> Self {
        Self::UnknownPool(unknown)
    }
}
