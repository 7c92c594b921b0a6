//! Which models are loaded, and which load is next: the rules of `Models`, without a lock, a clock or a thread.
//!
//! - The weight of a model is reserved before its load begins: the weight that it had last, or an estimate. Models that
//!   nobody holds make room, the least recently used one first.
//! - A model without any estimate reserves the weight of the largest model so far. Only one such model is loaded at a
//!   time, so the budget is exceeded by one model at most.
//! - Loads begin in the order in which they were asked for. If the first one does not fit, it waits until a model can go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::MakeError;
use crate::pool::{LoadedModel, ModelsStats};

/// The pause after the first failed load of a key.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How many failures and weights of unloaded models are remembered. Keys may come from clients.
const REMEMBERED: usize = 10_000;

/// The models by key. `W` is a caller that waits.
#[derive(Debug)]
pub(super) struct Catalog<M, W> {
    budget: u64,
    /// How many loads may run at once.
    loading_limit: usize,
    max_waiting: usize,
    entries: BTreeMap<Arc<str>, Entry<M, W>>,
    /// The keys whose loads have not begun.
    pending: VecDeque<Arc<str>>,
    /// The weights that models had last.
    weights: HashMap<Arc<str>, u64>,
    failures: HashMap<Arc<str>, Failed>,
    /// Models that were unloaded while they were held, by version.
    leaving: BTreeMap<u64, Leaving>,
    /// The bytes of loaded models, of leaving models, and of those that are reserved.
    used: u64,
    loading: usize,
    /// Whether a model is being loaded whose weight is not known.
    loads_unknown: bool,
    largest: u64,
    waiting: usize,
    clock: u64,
    next_version: u64,
    loads_ok: u64,
    loads_failed: u64,
    evictions: u64,
}

#[derive(Debug)]
enum Entry<M, W> {
    Pending(Vec<W>),
    Loading { waiters: Vec<W>, reserved: u64, unknown: bool, unloaded: bool },
    Loaded { model: Arc<M>, version: u64, bytes: u64, held: usize, used_at: u64 },
}

#[derive(Debug)]
struct Leaving {
    bytes: u64,
    held: usize,
}

/// A load failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) until: Instant,
    pause: Duration,
}

/// Why a load failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Load(MakeError),
    TooLarge(u64),
    Unloaded,
}

/// What a caller gets that asks for a model.
#[derive(Debug)]
pub(super) enum Got<M> {
    /// The model, which the caller holds from now on.
    Model(Arc<M>, u64),
    /// The last load failed a short time ago.
    Failed(Failed),
    /// The caller waits for the load.
    Waits,
    /// As many callers wait as may.
    Full,
}

/// What a change has removed, to be dropped or answered without the lock.
#[derive(Debug)]
pub(super) struct Freed<M, W> {
    /// Models that make room.
    pub(super) gone: Vec<Arc<M>>,
    /// Callers that have left.
    pub(super) left: Vec<W>,
    /// Loads that cannot be.
    pub(super) failed: Vec<(Arc<str>, Loaded<M, W>)>,
}

/// What becomes of the callers that waited for a load.
#[derive(Debug)]
pub(super) enum Loaded<M, W> {
    /// Each of them holds the model.
    Model(Arc<M>, u64, Vec<W>),
    Failed(Failure, Vec<W>),
}

impl<M, W> Catalog<M, W> {
    pub(super) fn new(budget: u64, loading_limit: usize, max_waiting: usize) -> Self {
        Self {
            budget,
            loading_limit,
            max_waiting,
            entries: BTreeMap::new(),
            pending: VecDeque::new(),
            weights: HashMap::new(),
            failures: HashMap::new(),
            leaving: BTreeMap::new(),
            used: 0,
            loading: 0,
            loads_unknown: false,
            largest: 0,
            waiting: 0,
            clock: 0,
            next_version: 1,
            loads_ok: 0,
            loads_failed: 0,
            evictions: 0,
        }
    }

    /// Whether an estimate of the model's weight would be used.
    pub(super) fn needs_estimate(&self, key: &str) -> bool {
        !self.entries.contains_key(key) && !self.weights.contains_key(key)
    }

    /// Whether callers wait for a load that has not begun.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Asks for a model. `waiter` is called if the caller has to wait.
    pub(super) fn get(&mut self, key: &str, now: Instant, waiter: impl FnOnce() -> W) -> Got<M> {
        self.clock += 1;
        let full = self.waiting >= self.max_waiting;
        match self.entries.get_mut(key) {
            Some(Entry::Loaded { model, version, held, used_at, .. }) => {
                *held += 1;
                *used_at = self.clock;
                return Got::Model(model.clone(), *version);
            }
            Some(Entry::Pending(_) | Entry::Loading { unloaded: false, .. }) if full => return Got::Full,
            Some(Entry::Pending(waiters) | Entry::Loading { waiters, unloaded: false, .. }) => waiters.push(waiter()),
            // The load that runs gives an earlier model.
            Some(Entry::Loading { unloaded: true, .. }) => {
                let pause = FIRST_PAUSE;
                return Got::Failed(Failed { failure: Failure::Unloaded, until: now, pause });
            }
            None => {
                if let Some(failed) = self.failures.get(key).filter(|failed| now < failed.until) {
                    return Got::Failed(failed.clone());
                }
                if full {
                    return Got::Full;
                }
                let key = Arc::<str>::from(key);
                self.entries.insert(key.clone(), Entry::Pending(vec![waiter()]));
                self.pending.push_back(key);
            }
        }
        self.waiting += 1;
        Got::Waits
    }

    /// Begins the next load, if there is one that may begin: its key, and the context of its first caller. `has_left` says
    /// whether a caller waits no longer, `of_caller` gives its estimate of the weight and its context.
    pub(super) fn begin<C>(
        &mut self,
        now: Instant,
        has_left: impl Fn(&W) -> bool,
        of_caller: impl Fn(&W) -> (Option<u64>, C),
        freed: &mut Freed<M, W>,
    ) -> Option<(Arc<str>, C)> {
        while let Some(key) = self.pending.front().cloned() {
            let Some(Entry::Pending(waiters)) = self.entries.get_mut(&key) else {
                self.pending.pop_front();
                continue;
            };
            let before = freed.left.len();
            freed.left.extend(waiters.extract_if(.., |waiter| has_left(waiter)));
            self.waiting -= freed.left.len() - before;
            let Some((estimate, context)) = waiters.first().map(&of_caller) else {
                self.entries.remove(&key);
                self.pending.pop_front();
                continue;
            };
            let known = self.weights.get(&key).copied().or(estimate);
            if let Some(bytes) = known.filter(|&bytes| bytes > self.budget) {
                self.pending.pop_front();
                if let Some(loaded) = self.end_failed(&key, Failure::TooLarge(bytes), now) {
                    freed.failed.push((key, loaded));
                }
                continue;
            }
            let bytes = known.unwrap_or(self.largest.min(self.budget));
            let waits = self.loading >= self.loading_limit || (known.is_none() && self.loads_unknown);
            if waits || !self.make_room(bytes, &mut freed.gone) {
                return None;
            }
            self.pending.pop_front();
            if let Some(entry) = self.entries.get_mut(&key)
                && let Entry::Pending(waiters) = entry
            {
                let waiters = std::mem::take(waiters);
                *entry = Entry::Loading { waiters, reserved: bytes, unknown: known.is_none(), unloaded: false };
            }
            self.used += bytes;
            self.loading += 1;
            self.loads_unknown |= known.is_none();
            return Some((key, context));
        }
        None
    }

    /// Unloads models that nobody holds until there is room for `bytes`; nothing, if that is not enough.
    fn make_room(&mut self, bytes: u64, gone: &mut Vec<Arc<M>>) -> bool {
        let idle: u64 = self.entries.values().filter_map(|entry| entry.idle().map(|(_, bytes)| bytes)).sum();
        if (self.used - idle).saturating_add(bytes) > self.budget {
            return false;
        }
        while self.used.saturating_add(bytes) > self.budget {
            self.evict(gone);
        }
        true
    }

    /// Unloads the least recently used of the models that nobody holds. Whether there was one.
    fn evict(&mut self, gone: &mut Vec<Arc<M>>) -> bool {
        let idle = self.entries.iter().filter_map(|(key, entry)| entry.idle().map(|(used_at, _)| (used_at, key)));
        let Some(key) = idle.min().map(|(_, key)| key.clone()) else { return false };
        if let Some(Entry::Loaded { model, bytes, .. }) = self.entries.remove(&key) {
            self.used -= bytes;
            self.evictions += 1;
            gone.push(model);
        }
        true
    }

    /// A load has ended with a model of this weight. Models that make room for it are added to `gone`.
    pub(super) fn loaded(
        &mut self,
        key: &Arc<str>,
        model: M,
        bytes: u64,
        now: Instant,
        gone: &mut Vec<Arc<M>>,
    ) -> Option<Loaded<M, W>> {
        self.remember_weight(key, bytes);
        let Some(Entry::Loading { unloaded, .. }) = self.entries.get(key) else { return None };
        if *unloaded || bytes > self.budget {
            let failure = if *unloaded { Failure::Unloaded } else { Failure::TooLarge(bytes) };
            gone.push(Arc::new(model));
            return self.end_failed(key, failure, now);
        }
        let waiters = self.end_load(key);
        self.loads_ok += 1;
        self.failures.remove(key);
        self.largest = self.largest.max(bytes);
        self.used += bytes;
        let (model, version) = (Arc::new(model), self.next_version);
        self.next_version += 1;
        self.clock += 1;
        let entry = Entry::Loaded { model: model.clone(), version, bytes, held: waiters.len(), used_at: self.clock };
        self.entries.insert(key.clone(), entry);
        while self.used > self.budget && self.evict(gone) {}
        Some(Loaded::Model(model, version, waiters))
    }

    /// A load has failed.
    pub(super) fn failed(&mut self, key: &Arc<str>, error: MakeError, now: Instant) -> Option<Loaded<M, W>> {
        self.end_failed(key, Failure::Load(error), now)
    }

    fn end_failed(&mut self, key: &Arc<str>, failure: Failure, now: Instant) -> Option<Loaded<M, W>> {
        let was_unloaded = matches!(self.entries.get(key), Some(Entry::Loading { unloaded: true, .. }));
        let waiters = self.end_load(key);
        self.loads_failed += u64::from(!was_unloaded);
        if was_unloaded {
            return Some(Loaded::Failed(Failure::Unloaded, waiters));
        }
        let pause = self.failures.get(key).map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
        if self.failures.len() >= REMEMBERED {
            self.failures.retain(|_, failed| now < failed.until);
        }
        let failure = match failure {
            Failure::Load(error) => Failure::Load(error.with_retry_after(pause)),
            other => other,
        };
        if self.failures.len() < REMEMBERED {
            let failed = Failed { failure: failure.clone(), until: now + pause, pause };
            self.failures.insert(key.clone(), failed);
        }
        Some(Loaded::Failed(failure, waiters))
    }

    /// Ends a load, or one that has not begun, and returns the callers that wait for it.
    fn end_load(&mut self, key: &Arc<str>) -> Vec<W> {
        let waiters = match self.entries.remove(key) {
            Some(Entry::Loading { waiters, reserved, unknown, .. }) => {
                self.used -= reserved;
                self.loading -= 1;
                self.loads_unknown &= !unknown;
                waiters
            }
            Some(Entry::Pending(waiters)) => waiters,
            other => {
                debug_assert!(other.is_none(), "a load ends once");
                Vec::new()
            }
        };
        self.waiting -= waiters.len();
        waiters
    }

    fn remember_weight(&mut self, key: &Arc<str>, bytes: u64) {
        if self.weights.len() >= REMEMBERED && !self.weights.contains_key(key) {
            let entries = &self.entries;
            self.weights.retain(|key, _| entries.contains_key(key));
        }
        self.weights.insert(key.clone(), bytes);
    }

    /// A caller holds a model no longer.
    pub(super) fn release(&mut self, key: &str, version: u64) {
        match self.entries.get_mut(key) {
            Some(Entry::Loaded { version: loaded, held, .. }) if *loaded == version => *held -= 1,
            _ => {
                let leaving = self.leaving.get_mut(&version).expect("a model that is held is loaded or leaving");
                leaving.held -= 1;
                if leaving.held == 0 {
                    self.used -= leaving.bytes;
                    self.leaving.remove(&version);
                }
            }
        }
    }

    /// Unloads a model. Callers that hold it keep it, and those that wait for its load get an error. Whether there was one.
    pub(super) fn unload(&mut self, key: &str, gone: &mut Vec<Arc<M>>) -> (bool, Vec<W>) {
        self.weights.remove(key);
        let failed = self.failures.remove(key).is_some();
        match self.entries.get_mut(key) {
            Some(Entry::Loading { waiters, unloaded, .. }) => {
                *unloaded = true;
                let waiters = std::mem::take(waiters);
                self.waiting -= waiters.len();
                (true, waiters)
            }
            Some(Entry::Pending(_)) => {
                let waiters = self.end_load(&Arc::from(key));
                (true, waiters)
            }
            Some(Entry::Loaded { .. }) => {
                if let Some(Entry::Loaded { model, version, bytes, held, .. }) = self.entries.remove(key) {
                    if held > 0 {
                        self.leaving.insert(version, Leaving { bytes, held });
                    } else {
                        self.used -= bytes;
                    }
                    gone.push(model);
                }
                (true, Vec::new())
            }
            None => (failed, Vec::new()),
        }
    }

    pub(super) fn stats(&self, name: &str) -> ModelsStats {
        let mut loaded = Vec::new();
        let mut loading = Vec::new();
        for (key, entry) in &self.entries {
            match entry {
                Entry::Loaded { version, bytes, held, .. } => {
                    let (version, bytes, held) = (*version, *bytes, *held);
                    loaded.push(LoadedModel { key: key.to_string(), version, bytes, held });
                }
                Entry::Pending(_) | Entry::Loading { .. } => loading.push(key.to_string()),
            }
        }
        ModelsStats {
            name: name.to_owned(),
            budget_bytes: self.budget,
            bytes: self.used,
            loaded,
            loading,
            leaving: self.leaving.len(),
            loads_ok: self.loads_ok,
            loads_failed: self.loads_failed,
            evictions: self.evictions,
        }
    }

    /// Removes every model and every caller that waits.
    pub(super) fn clear(&mut self) -> (Vec<Arc<M>>, Vec<W>) {
        let (mut models, mut waiters) = (Vec::new(), Vec::new());
        for (_, entry) in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Loaded { model, .. } => models.push(model),
                Entry::Pending(waiting) | Entry::Loading { waiters: waiting, .. } => waiters.extend(waiting),
            }
        }
        self.pending.clear();
        (models, waiters)
    }
}

impl<M, W> Default for Freed<M, W> {
    fn default() -> Self {
        Self { gone: Vec::new(), left: Vec::new(), failed: Vec::new() }
    }
}

impl<M, W> Entry<M, W> {
    /// When a model that nobody holds was used last, and its weight.
    const fn idle(&self) -> Option<(u64, u64)> {
        match self {
            Self::Loaded { held: 0, used_at, bytes, .. } => Some((*used_at, *bytes)),
            _ => None,
        }
    }
}
