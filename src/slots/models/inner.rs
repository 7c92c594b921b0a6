//! The lock over the catalog, the loads, and the callers that wait for them.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::catalog::{Catalog, Failure, Freed, Got, Loaded, Unloaded};
use super::lease::{ModelLease, Release};
use crate::error::{MakeError, ModelError, Reason, Rejection};
use crate::metrics;
use crate::metrics::holdings::Holding;
use crate::pool::{HoldingStats, ModelsStats, Pool};
use crate::shield::shielded;
use crate::slots::loader::{self, Context};
use crate::slots::recipe::{BoxError, guarded};
use crate::sync::lock_std;
use crate::workload::Workload;

/// When a caller should try again that found too many waiting.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) type Load<M> = dyn Fn(&str) -> Result<M, BoxError> + Send + Sync;
pub(super) type Weigh<M> = dyn Fn(&M) -> u64 + Send + Sync;
pub(super) type Estimate = dyn Fn(&str) -> Option<u64> + Send + Sync;

/// The state of one `Models`.
pub(super) struct Inner<M: Send + Sync + 'static> {
    pub(super) name: String,
    /// `None` if the pools are disabled.
    pub(super) pool: Option<Pool>,
    pub(super) hooks: Hooks<M>,
    pub(super) nice: i32,
    catalog: Arc<Numbers<M>>,
}

/// The functions of the application.
pub(super) struct Hooks<M> {
    pub(super) load: Box<Load<M>>,
    pub(super) weigh: Box<Weigh<M>>,
    pub(super) estimate: Option<Box<Estimate>>,
}

/// The catalog, which the pool's numbers are read from.
pub(super) struct Numbers<M: Send + Sync + 'static> {
    name: String,
    catalog: Mutex<Catalog<M, Waiter<M>>>,
}

/// A caller that waits for a load.
pub(super) struct Waiter<M: Send + Sync + 'static> {
    /// A caller that leaves drops the lease, if it has been sent.
    caller: oneshot::Sender<Result<ModelLease<M>, ModelError>>,
    context: Context,
    /// The weight of the model, if it was not loaded before.
    estimate: Option<u64>,
}

/// A load that runs.
struct Loading<M: Send + Sync + 'static> {
    inner: Arc<Inner<M>>,
    key: Arc<str>,
    /// Whether the catalog has the result.
    ended: Cell<bool>,
}

/// Which model a caller asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The one that serves.
    Any,
    /// One that is loaded from now on.
    Swap,
}

/// What a caller gets that asks for a model.
pub(super) enum Asked<M: Send + Sync + 'static> {
    Now(Result<ModelLease<M>, ModelError>),
    Later(oneshot::Receiver<Result<ModelLease<M>, ModelError>>),
}

impl<M: Send + Sync + 'static> Inner<M> {
    pub(super) fn new(
        name: String,
        pool: Option<Pool>,
        hooks: Hooks<M>,
        catalog: Catalog<M, Waiter<M>>,
        nice: i32,
    ) -> Arc<Self> {
        let catalog = Arc::new(Numbers { name: name.clone(), catalog: Mutex::new(catalog) });
        if let Some(pool) = &pool {
            let weak = Arc::downgrade(&catalog);
            pool.add_holding(weak);
        }
        Arc::new(Self { name, pool, hooks, nice, catalog })
    }

    pub(super) fn ask(self: &Arc<Self>, key: &Arc<str>, wanted: Wanted) -> Asked<M> {
        // Bound first, so that the application's function is called without the lock.
        let needs_estimate =
            self.hooks.estimate.is_some() && (wanted == Wanted::Swap || self.lock().needs_estimate(key));
        let estimate = if needs_estimate { self.estimate(key) } else { None };
        let context = Context::capture();
        let (caller, receiver) = oneshot::channel();
        let waiter = Waiter { caller, context, estimate };
        let mut waiter = Some(waiter);
        let take = || waiter.take().expect("it is called once");
        let got = match wanted {
            Wanted::Any => self.lock().get(key, Instant::now(), take),
            Wanted::Swap => self.lock().swap(key, Instant::now(), take),
        };
        match got {
            Got::Model(model, version) => Asked::Now(Ok(ModelLease::new(self.clone(), key.clone(), model, version))),
            Got::Failed(failed) => {
                let left = failed.until.saturating_duration_since(Instant::now());
                let failure = match failed.failure {
                    Failure::Load(error) => Failure::Load(error.with_retry_after(left)),
                    other => other,
                };
                Asked::Now(Err(self.error(key, failure)))
            }
            Got::Full => Asked::Now(Err(self.rejection(Reason::QueueFull).into())),
            Got::Waits => {
                self.start_loads();
                Asked::Later(receiver)
            }
        }
    }

    /// Begins the loads that may begin.
    pub(super) fn start_loads(self: &Arc<Self>) {
        loop {
            let mut freed = Freed::default();
            let begun = self.change(|catalog| {
                let has_left = |waiter: &Waiter<M>| waiter.caller.is_closed();
                let of_caller = |waiter: &Waiter<M>| (waiter.estimate, waiter.context.clone());
                let pending = catalog.has_pending();
                pending.then(|| catalog.begin(Instant::now(), has_left, of_caller, &mut freed))
            });
            let Some(begun) = begun else { return };
            let Freed { gone, left, ended } = freed;
            left.into_iter().for_each(Waiter::leave);
            for (key, loaded) in ended {
                self.deliver(&key, loaded);
            }
            self.changed();
            let Some((key, context)) = begun else { return };
            let (this, loading) = (self.clone(), key.clone());
            let load = move || {
                let load = Loading { inner: this, key: loading, ended: Cell::new(false) };
                // Room is made before the model is loaded.
                drop_all(gone);
                load.run(&context);
                shielded(|| drop(context));
            };
            // A thread that cannot be started drops models that make room.
            let error = match shielded(|| loader::start(self.nice, load)) {
                Some(Ok(())) => continue,
                Some(Err(error)) => MakeError::new(error),
                None => MakeError::new("the thread that loads models could not be started"),
            };
            let loaded = self.change(|catalog| catalog.failed(&key, error, Instant::now()));
            self.deliver_all(&key, loaded);
        }
    }

    fn deliver_all(self: &Arc<Self>, key: &Arc<str>, loaded: Option<Loaded<M, Waiter<M>>>) {
        if let Some(loaded) = loaded {
            self.deliver(key, loaded);
        }
        self.changed();
    }

    /// Gives the callers their answers. A caller that has left holds no model.
    fn deliver(self: &Arc<Self>, key: &Arc<str>, loaded: Loaded<M, Waiter<M>>) {
        match loaded {
            Loaded::Model { version, waiters, replaced } => {
                self.release_model(key, replaced);
                for (waiter, model) in waiters {
                    waiter.answer(Ok(ModelLease::new(self.clone(), key.clone(), model, version)));
                }
            }
            Loaded::Failed(failure, waiters) => {
                for waiter in waiters {
                    waiter.answer(Err(self.error(key, failure.clone())));
                }
                shielded(|| drop(failure));
            }
        }
    }

    /// A caller of the key waits no longer. If it has left, it makes way for others, and so does a load that nobody waits
    /// for any more.
    pub(super) fn waits_no_longer(self: &Arc<Self>, key: &str) {
        let left = self.lock().forget_left(key, |waiter| waiter.caller.is_closed());
        left.into_iter().for_each(Waiter::leave);
        self.start_loads();
    }

    pub(super) fn unload(self: &Arc<Self>, key: &str) -> bool {
        let unloaded = self.change(|catalog| catalog.unload(key));
        let Some((model, waiters)) = unloaded else { return false };
        self.release_model(&Arc::from(key), model);
        for waiter in waiters {
            waiter.answer(Err(self.error(key, Failure::Unloaded)));
        }
        self.start_loads();
        self.changed();
        true
    }

    /// Drops a model that serves no more, and then counts its bytes as free.
    fn release_model(self: &Arc<Self>, key: &Arc<str>, unloaded: Option<Unloaded<M>>) {
        drop(unloaded.map(|(model, version)| ModelLease::new(self.clone(), key.clone(), model, version)));
    }

    /// Whether a model of this key is loaded.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lock().has(key)
    }

    pub(super) fn stats(&self) -> ModelsStats {
        self.lock().stats(&self.name)
    }

    pub(super) fn rejection(&self, reason: Reason) -> Rejection {
        let pool = self.pool.as_ref().map_or_else(|| Workload::from("disabled"), |pool| pool.name().clone());
        // The queue of the pool is not full, and the task was not in it.
        let (detail, retry_after) = match reason {
            Reason::QueueFull => ("as many callers wait for models as may", Some(RETRY_AFTER)),
            _ => ("the deadline passed before the model was loaded", None),
        };
        Rejection::new(pool, reason, retry_after).with_detail(&detail)
    }

    fn error(&self, key: &str, failure: Failure) -> ModelError {
        let key = Arc::from(key);
        match failure {
            Failure::Load(error) => ModelError::Load { key, error },
            Failure::TooLarge(bytes) => ModelError::TooLarge { key, bytes, budget: self.stats().budget_bytes },
            Failure::Unloaded => ModelError::Unloaded(key),
        }
    }

    fn estimate(&self, key: &str) -> Option<u64> {
        self.hooks.estimate.as_ref().and_then(|estimate| shielded(|| estimate(key)).flatten())
    }

    fn changed(&self) {
        if let Some(pool) = &self.pool {
            pool.changed();
        }
    }

    /// Changes the catalog under the lock, and then drops the errors that it forgets.
    fn change<R>(&self, change: impl FnOnce(&mut Catalog<M, Waiter<M>>) -> R) -> R {
        let mut catalog = self.lock();
        let result = change(&mut catalog);
        let forgotten = catalog.take_forgotten();
        drop(catalog);
        for failure in forgotten {
            shielded(|| drop(failure));
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Catalog<M, Waiter<M>>> {
        lock_std(&self.catalog.catalog)
    }
}

impl<M> Hooks<M> {
    /// Loads and weighs a model. This calls code of the application, whose panic becomes an error.
    fn load(&self, key: &str) -> Result<(M, u64), MakeError> {
        let model = guarded(|| (self.load)(key))?;
        match guarded(|| Ok((self.weigh)(&model))) {
            Ok(bytes) => Ok((model, bytes)),
            Err(error) => {
                shielded(|| drop(model));
                Err(error)
            }
        }
    }
}

impl<M: Send + Sync + 'static> Waiter<M> {
    /// Gives the caller its answer. The caller's waker and the subscriber of its span are code of the application.
    fn answer(self, answer: Result<ModelLease<M>, ModelError>) {
        let Self { caller, context, .. } = self;
        shielded(|| drop(caller.send(answer)));
        shielded(|| drop(context));
    }

    fn leave(self) {
        shielded(|| drop(self));
    }
}

impl<M: Send + Sync + 'static> Loading<M> {
    /// Loads the model, on a thread of its own.
    fn run(&self, context: &Context) {
        let Self { inner, key, ended } = self;
        let begun = Instant::now();
        let loaded = context.run(|| inner.hooks.load(key));
        let now = Instant::now();
        if let Some(pool) = &inner.pool {
            shielded(|| metrics::record_model_load(pool.name(), now - begun));
        }
        let mut gone = Vec::new();
        let result = match loaded {
            Ok((model, bytes)) => {
                let has_left = |waiter: &Waiter<M>| waiter.caller.is_closed();
                inner.change(|catalog| catalog.loaded(key, model, bytes, now, has_left, &mut gone))
            }
            Err(error) => {
                let warn = || {
                    tracing::warn!(target: "tower_offload", models = inner.name, %key, %error, "a model could not be loaded");
                    Ok(())
                };
                // In the span of the caller.
                let _ = context.run(warn);
                inner.change(|catalog| catalog.failed(key, error, now))
            }
        };
        ended.set(true);
        drop_all(gone);
        inner.deliver_all(key, result);
        inner.start_loads();
    }
}

/// A load that ends by a panic is a load that failed.
impl<M: Send + Sync + 'static> Drop for Loading<M> {
    fn drop(&mut self) {
        let Self { inner, key, ended } = self;
        if !ended.get() {
            let error = MakeError::new("the thread that loads it has panicked");
            let loaded = inner.change(|catalog| catalog.failed(key, error, Instant::now()));
            inner.deliver_all(key, loaded);
            inner.start_loads();
        }
    }
}

impl<M: Send + Sync + 'static> Release for Inner<M> {
    fn release(self: Arc<Self>, key: &str, version: u64) {
        let mut catalog = self.lock();
        catalog.release(key, version);
        let pending = catalog.has_pending();
        drop(catalog);
        if pending {
            self.start_loads();
        }
    }
}

fn drop_all<M>(models: Vec<Arc<M>>) {
    for model in models {
        shielded(|| drop(model));
    }
}

/// Drops every model, on the thread that drops the last handle, so that the numbers keep none of them.
impl<M: Send + Sync + 'static> Drop for Inner<M> {
    fn drop(&mut self) {
        let (models, waiters) = self.change(Catalog::clear);
        drop_all(models);
        waiters.into_iter().for_each(Waiter::leave);
        if let Some(pool) = &self.pool {
            let mut last = HoldingStats::default();
            self.catalog.read(&mut last);
            let holding: Weak<dyn Holding> = Arc::downgrade(&(self.catalog.clone() as Arc<dyn Holding>));
            pool.remove_holding(&holding, &last);
        }
    }
}

impl<M: Send + Sync + 'static> Holding for Numbers<M> {
    fn read(&self, into: &mut HoldingStats) {
        into.models.push(lock_std(&self.catalog).stats(&self.name));
    }
}

impl<M: Send + Sync + 'static> fmt::Debug for Waiter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("has_left", &self.caller.is_closed()).finish_non_exhaustive()
    }
}
