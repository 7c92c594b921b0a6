//! `ModelsBuilder`: the settings of `Models`.

use std::fmt;

use super::catalog::Catalog;
use super::inner::{Estimate, Hooks, Inner, Load, Weigh};
use super::models::Models;
use crate::error::UnknownPool;
use crate::function_name::short_type_name;
use crate::pool::Pool;
use crate::pools::Pools;
use crate::slots::builder::BuildError;
use crate::slots::loader::NICE;
use crate::slots::recipe::BoxError;
use crate::workload::PoolName;

/// Builds [`Models`].
#[must_use = "nothing is built before `build`"]
pub struct ModelsBuilder<M> {
    pool: Result<Option<Pool>, UnknownPool>,
    name: String,
    load: Option<Box<Load<M>>>,
    weigh: Option<Box<Weigh<M>>>,
    estimate: Option<Box<Estimate>>,
    budget: Option<u64>,
    loading: usize,
    max_waiting: usize,
    nice: i32,
}

impl<M: Send + Sync + 'static> Models<M> {
    /// A builder for the models of a pool.
    pub fn builder(pools: &Pools, pool: impl PoolName) -> ModelsBuilder<M> {
        ModelsBuilder {
            pool: pools.choose(pool),
            name: short_type_name::<M>(),
            load: None,
            weigh: None,
            estimate: None,
            budget: None,
            loading: 1,
            max_waiting: 1000,
            nice: NICE,
        }
    }
}

impl<M: Send + Sync + 'static> ModelsBuilder<M> {
    /// Sets the name in the stats and the log; by default the name of the models' type.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the bytes that the models may have together. It is required.
    pub fn budget(mut self, bytes: u64) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Sets the function that loads the model of a key. It is required. A thread of its own calls it; it may block. If it
    /// fails or panics, all callers that wait get the error, and so do those of the next second. With each further failure
    /// of the key this pause doubles, up to a minute.
    pub fn load<F, E>(mut self, load: F) -> Self
    where
        F: Fn(&str) -> Result<M, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.load = Some(Box::new(move |key| load(key).map_err(Into::into)));
        self
    }

    /// Sets the function that says how many bytes a model has. It is required. It is called once, after the load.
    pub fn weigh(mut self, weigh: impl Fn(&M) -> u64 + Send + Sync + 'static) -> Self {
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// Sets an estimate of the bytes of a model that was not loaded before, such as the size of its file; `None` if there
    /// is none. The caller's thread calls it, so it should be fast.
    ///
    /// Room is made before a load begins. Without an estimate, a model counts as large as the largest one so far, and only
    /// one such model is loaded at a time.
    pub fn estimate(mut self, estimate: impl Fn(&str) -> Option<u64> + Send + Sync + 'static) -> Self {
        self.estimate = Some(Box::new(estimate));
        self
    }

    /// Sets how many models may be loaded at once; by default one.
    pub fn loading(mut self, loading: usize) -> Self {
        self.loading = loading;
        self
    }

    /// Sets how many callers may wait for loads; by default 1000. Further ones are rejected with
    /// [`QueueFull`](crate::Reason::QueueFull).
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// Sets the `nice` value of the threads that load models; by default 10, Linux only. Threads that `load` starts inherit
    /// it: set 0 for a model runtime that starts its own threads while it loads.
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    /// Builds the models. None is loaded before a caller needs it.
    ///
    /// # Errors
    ///
    /// If there is no such pool, or a setting is missing or cannot be used.
    pub fn build(self) -> Result<Models<M>, BuildError> {
        let Self { pool, name, load, weigh, estimate, budget, loading, max_waiting, nice } = self;
        let pool = pool?;
        let wrong = |setting, reason: &str| BuildError::Setting { setting, reason: reason.to_owned() };
        let load = load.ok_or_else(|| wrong("load", "it is missing; give the function that loads a model"))?;
        let weigh = weigh.ok_or_else(|| wrong("weigh", "it is missing; give the function that weighs a model"))?;
        let budget = budget.ok_or_else(|| wrong("budget", "it is missing; give the bytes of all models together"))?;
        if budget == 0 {
            return Err(wrong("budget", "0 bytes hold no model; give the bytes of all models together"));
        }
        if loading == 0 {
            return Err(wrong("loading", "0 would load no model; give 1 or more"));
        }
        if max_waiting == 0 {
            return Err(wrong(
                "max_waiting",
                "0 would reject every caller of a model that is not loaded; give 1 or more",
            ));
        }
        if !(-20..=19).contains(&nice) {
            return Err(wrong("nice", &format!("{nice} is not from -20 to 19")));
        }
        let hooks = Hooks { load, weigh, estimate };
        Ok(Models { inner: Inner::new(name, pool, hooks, Catalog::new(budget, loading, max_waiting), nice) })
    }
}

impl<M> fmt::Debug for ModelsBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelsBuilder").field("name", &self.name).field("budget", &self.budget).finish_non_exhaustive()
    }
}
