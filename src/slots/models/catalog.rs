//! Which models are loaded, and which load is next: the rules of `Models`, without a lock, a clock or a thread.
//!
//! - The weight of a model is reserved before its load begins: the weight that it had last, or an estimate. Models that
//!   nobody holds make room, the least recently used one first.
//! - A model without any estimate reserves the weight of the largest model so far. Only one such model is loaded at a
//!   time, so the budget is exceeded by one model at most.
//! - Loads begin in the order in which they were asked for. If the first one cannot begin, it waits until a model can go,
//!   and those behind it that fit begin meanwhile, except while models make room for the first one.
//! - A load that has found no room for a second makes room: callers of the model that was asked for least recently wait as
//!   if it were not loaded, until those that hold it have let it go. A model serves for a second before that, and for as
//!   long as its load took. If it is still held a second later, its callers are served again; the next attempt is after 4
//!   seconds and lasts for 4, and so on. So a caller that holds a model and asks for it again waits for itself for a
//!   limited time.
//! - A swap loads a model beside the one that serves, which cannot go meanwhile. Other models do not make room for the
//!   short time: if the new one does not fit, the budget is exceeded until the earlier one is dropped. Only one load at a
//!   time may exceed it.
//! - A load that runs cannot be stopped. If its model is unloaded, it counts no longer among those that may run at once, and
//!   keeps only its bytes until it ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::MakeError;
use crate::pool::{LoadedModel, ModelsStats};

/// The pause after the first failed load of a key.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a model serves at least before it makes room although it is in use.
const SHORTEST_SERVICE: Duration = Duration::from_secs(1);

/// How many failures and weights of unloaded models are remembered. Keys may come from clients.
const REMEMBERED: usize = 10_000;

/// How many loads that cannot begin others may pass. It bounds the time for which the lock is held.
const PASSED: usize = 32;

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
    /// Errors of the application that are to be dropped without the lock.
    forgotten: Vec<Failure>,
    /// Models that were unloaded while they were held, by version.
    leaving: BTreeMap<u64, Leaving>,
    /// The bytes of loaded models, of leaving models, and of those that are reserved.
    used: u64,
    loading: usize,
    /// Whether a load runs that may exceed the budget.
    exceeding: bool,
    largest: u64,
    waiting: usize,
    clock: u64,
    next_version: u64,
    loads_ok: u64,
    loads_failed: u64,
    evictions: u64,
}

/// A model that serves, a load, or both: a swap.
#[derive(Debug)]
struct Entry<M, W> {
    serving: Option<Serving<M>>,
    load: Option<Load<W>>,
}

#[derive(Debug)]
struct Serving<M> {
    model: Arc<M>,
    version: u64,
    bytes: u64,
    held: usize,
    used_at: u64,
    /// Until then it makes no room while it is in use.
    stays_until: Instant,
    /// Callers wait as if it were not loaded, so that it makes room.
    closing: bool,
}

/// A load that somebody asked for.
#[derive(Debug)]
struct Load<W> {
    waiters: Vec<W>,
    /// Callers of swaps that were asked for after the load had begun: it may give an earlier model than they mean.
    next: Vec<W>,
    /// Whether a swap asked for it, so that the model that serves is no answer.
    swap: bool,
    asked: Instant,
    /// `None` while the load waits for its turn.
    begun: Option<Begun>,
    /// Whether the model was unloaded meanwhile.
    unloaded: bool,
}

/// What a load that runs has reserved.
#[derive(Debug)]
struct Begun {
    at: Instant,
    reserved: u64,
    /// The weight is not known, or a swap found no room.
    may_exceed: bool,
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
    /// Loads that cannot be, and those that are not needed.
    pub(super) ended: Vec<(Arc<str>, Loaded<M, W>)>,
}

/// A model that serves no more, and its version. It counts as held until [`Catalog::release`] is called for it, so that
/// its bytes are free once it is dropped.
pub(super) type Unloaded<M> = (Arc<M>, u64);

/// What becomes of the callers that waited for a load.
#[derive(Debug)]
pub(super) enum Loaded<M, W> {
    /// Each of them holds the model. A swap has replaced the earlier one, which the caller of this releases.
    Model {
        version: u64,
        waiters: Vec<(W, Arc<M>)>,
        replaced: Option<Unloaded<M>>,
    },
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
            forgotten: Vec::new(),
            leaving: BTreeMap::new(),
            used: 0,
            loading: 0,
            exceeding: false,
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

    /// Whether a model of this key is loaded.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.serving.is_some())
    }

    /// How many loads are queued.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.pending.len()
    }

    /// Asks for a model. `waiter` is called if the caller has to wait.
    pub(super) fn get(&mut self, key: &str, now: Instant, waiter: impl FnOnce() -> W) -> Got<M> {
        self.clock += 1;
        match self.entries.get_mut(key) {
            Some(Entry { serving: Some(serving), .. }) if !serving.closing => {
                serving.held += 1;
                serving.used_at = self.clock;
                return Got::Model(serving.model.clone(), serving.version);
            }
            // The load that runs gives an earlier model.
            Some(Entry { load: Some(Load { unloaded: true, .. }), .. }) => {
                let pause = FIRST_PAUSE;
                return Got::Failed(Failed { failure: Failure::Unloaded, until: now, pause });
            }
            Some(_) => {}
            None => {
                if let Some(failed) = self.failures.get(key).filter(|failed| now < failed.until) {
                    return Got::Failed(failed.clone());
                }
            }
        }
        self.wait(key, now, false, waiter)
    }

    /// Asks for a load that begins after this call, even if the model is loaded.
    pub(super) fn swap(&mut self, key: &str, now: Instant, waiter: impl FnOnce() -> W) -> Got<M> {
        // A model that was too large may be another one now.
        if self.weights.get(key).is_some_and(|&bytes| bytes > self.budget) {
            self.weights.remove(key);
        }
        self.wait(key, now, true, waiter)
    }

    /// Lets a caller wait for the load of the key, or for a new one if there is none.
    fn wait(&mut self, key: &str, now: Instant, swap: bool, waiter: impl FnOnce() -> W) -> Got<M> {
        if self.waiting >= self.max_waiting {
            return Got::Full;
        }
        self.waiting += 1;
        match self.entries.get_mut(key).and_then(|entry| entry.load.as_mut()) {
            Some(load) if swap && load.begun.is_some() => load.next.push(waiter()),
            Some(load) => {
                load.swap |= swap;
                load.waiters.push(waiter());
            }
            None => self.queue(&Arc::from(key), now, swap, vec![waiter()]),
        }
        Got::Waits
    }

    /// Forgets the callers of a key that have left. A load that has not begun, and that nobody waits for any more, is not
    /// queued any longer. The waiters are returned, to be dropped without the lock.
    pub(super) fn forget_left(&mut self, key: &str, has_left: impl Fn(&W) -> bool) -> Vec<W> {
        let Some(load) = self.entries.get_mut(key).and_then(|entry| entry.load.as_mut()) else { return Vec::new() };
        let mut left: Vec<W> = load.waiters.extract_if(.., |waiter| has_left(waiter)).collect();
        left.extend(load.next.extract_if(.., |waiter| has_left(waiter)));
        let unwanted = load.begun.is_none() && load.waiters.is_empty();
        self.waiting -= left.len();
        if unwanted {
            self.end_load(key);
            self.forget_pending(key);
        }
        left
    }

    /// Removes a load that will not begin from the queue, so that the queue is no longer than the loads that wait.
    fn forget_pending(&mut self, key: &str) {
        self.pending.retain(|pending| **pending != *key);
    }

    /// Queues a load.
    fn queue(&mut self, key: &Arc<str>, asked: Instant, swap: bool, waiters: Vec<W>) {
        let entry = self.entries.entry(key.clone()).or_insert(Entry { serving: None, load: None });
        entry.load = Some(Load { waiters, next: Vec::new(), swap, asked, begun: None, unloaded: false });
        self.pending.push_back(key.clone());
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
        let mut makes_room = false;
        let begun = self.begin_first(now, has_left, of_caller, freed, &mut makes_room);
        if !makes_room {
            self.reopen(freed);
        }
        begun
    }

    /// The same. `makes_room` is set if models are closing for the first load that waits.
    fn begin_first<C>(
        &mut self,
        now: Instant,
        has_left: impl Fn(&W) -> bool,
        of_caller: impl Fn(&W) -> (Option<u64>, C),
        freed: &mut Freed<M, W>,
        makes_room: &mut bool,
    ) -> Option<(Arc<str>, C)> {
        // The loads that cannot begin yet, and that others pass. Room is made for the first of them that lacks it.
        let (mut passed, mut lacks_room) = (0, false);
        while let Some(key) = self.pending.get(passed).filter(|_| passed < PASSED).cloned() {
            let entry = self.entries.get_mut(&key);
            let Some(Entry { serving, load: Some(load @ Load { begun: None, .. }) }) = entry else {
                self.pending.remove(passed);
                continue;
            };
            let before = freed.left.len();
            freed.left.extend(load.waiters.extract_if(.., |waiter| has_left(waiter)));
            self.waiting -= freed.left.len() - before;
            let swaps = serving.is_some();
            let waited = now.saturating_duration_since(load.asked);
            let is_closing = serving.as_mut().is_some_and(|serving| std::mem::take(&mut serving.closing));
            if is_closing && !load.swap {
                // The load for which it made room begins no more.
                self.serve_waiting(&key, freed);
                continue;
            }
            let Some((estimate, context)) = load.waiters.first().map(&of_caller) else {
                self.end_load(&key);
                self.pending.remove(passed);
                continue;
            };
            // A swap loads another model, so the last weight may be wrong.
            let last = self.weights.get(&key).copied();
            let known = if swaps { estimate.or(last) } else { last.or(estimate) };
            if let Some(bytes) = known.filter(|&bytes| bytes > self.budget) {
                self.pending.remove(passed);
                if let Some(loaded) = self.end_failed(&key, Failure::TooLarge(bytes), now) {
                    freed.ended.push((key, loaded));
                }
                continue;
            }
            let bytes = known.unwrap_or(self.largest.min(self.budget));
            let mut may_exceed = known.is_none();
            if self.loading >= self.loading_limit {
                return None;
            }
            if may_exceed && self.exceeding {
                passed += 1;
                continue;
            }
            if swaps && self.used.saturating_add(bytes) > self.budget {
                if self.exceeding || self.used > self.budget {
                    passed += 1;
                    continue;
                }
                may_exceed = true;
            } else if !self.make_room(bytes, &mut freed.gone) {
                if !lacks_room && is_time_to_make_room(waited) {
                    *makes_room = self.close(bytes, now);
                    return None;
                }
                lacks_room = true;
                passed += 1;
                continue;
            }
            self.pending.remove(passed);
            if let Some(load) = self.entries.get_mut(&key).and_then(|entry| entry.load.as_mut()) {
                load.begun = Some(Begun { at: now, reserved: bytes, may_exceed });
            }
            self.used += bytes;
            self.loading += 1;
            self.exceeding |= may_exceed;
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

    /// Lets callers wait for models in use, the ones that were asked for least recently first, so that there will be room for
    /// `bytes`; for none, if that would not be enough. Whether there will be room.
    fn close(&mut self, bytes: u64, now: Instant) -> bool {
        let goes = |entry: &Entry<M, W>| {
            let closing = entry.serving.as_ref().filter(|serving| serving.closing).map(|serving| serving.bytes);
            closing.or(entry.idle().map(|(_, bytes)| bytes))
        };
        let leaving: u64 = self.leaving.values().map(|leaving| leaving.bytes).sum();
        let going = leaving + self.entries.values().filter_map(goes).sum::<u64>();
        let mut missing = (self.used - going).saturating_add(bytes).saturating_sub(self.budget);
        let of_load = |entry: &Entry<M, W>| entry.load.is_some();
        let mut in_use: Vec<_> = self.entries.values_mut().filter(|entry| !of_load(entry)).collect();
        let mut in_use: Vec<_> = in_use.iter_mut().filter_map(|entry| entry.serving.as_mut()).collect();
        in_use.retain(|serving| serving.held > 0 && !serving.closing && serving.stays_until <= now);
        in_use.sort_by_key(|serving| serving.used_at);
        let mut count = 0;
        while missing > 0 {
            let Some(serving) = in_use.get(count) else { return false };
            missing = missing.saturating_sub(serving.bytes);
            count += 1;
        }
        in_use.iter_mut().take(count).for_each(|serving| serving.closing = true);
        true
    }

    /// Serves the callers of closing models again: the load for which they made room waits no longer, or has to pause.
    fn reopen(&mut self, freed: &mut Freed<M, W>) {
        let mut waiting = Vec::new();
        for (key, Entry { serving, load }) in &mut self.entries {
            let closing = serving.as_mut().is_some_and(|serving| std::mem::take(&mut serving.closing));
            if closing && load.as_ref().is_some_and(|load| !load.swap) {
                waiting.push(key.clone());
            }
        }
        for key in waiting {
            self.serve_waiting(&key, freed);
        }
    }

    /// Gives the model that serves to the callers that wait for it to be loaded again.
    fn serve_waiting(&mut self, key: &Arc<str>, freed: &mut Freed<M, W>) {
        self.forget_pending(key);
        let Some(Load { waiters, .. }) = self.end_load(key) else { return };
        let Some(serving) = self.entries.get_mut(key).and_then(|entry| entry.serving.as_mut()) else { return };
        serving.held += waiters.len();
        let waiters = waiters.into_iter().map(|waiter| (waiter, serving.model.clone())).collect();
        let version = serving.version;
        freed.ended.push((key.clone(), Loaded::Model { version, waiters, replaced: None }));
    }

    /// Unloads the least recently used of the models that nobody holds. Whether there was one.
    fn evict(&mut self, gone: &mut Vec<Arc<M>>) -> bool {
        let idle = self.entries.iter().filter_map(|(key, entry)| entry.idle().map(|(used_at, _)| (used_at, key)));
        let Some(key) = idle.min().map(|(_, key)| key.clone()) else { return false };
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        if let Some(Serving { model, bytes, .. }) = entry.serving.take() {
            self.used -= bytes;
            self.evictions += 1;
            gone.push(model);
        }
        if entry.load.is_none() {
            self.entries.remove(&key);
        }
        true
    }

    /// A load has ended with a model of this weight. Models that make room for it are added to `gone`. A swap changes
    /// nothing if all of its callers have left.
    pub(super) fn loaded(
        &mut self,
        key: &Arc<str>,
        model: M,
        bytes: u64,
        now: Instant,
        has_left: impl Fn(&W) -> bool,
        gone: &mut Vec<Arc<M>>,
    ) -> Option<Loaded<M, W>> {
        let Entry { serving, load: Some(Load { waiters, unloaded, .. }) } = self.entries.get(key)? else { return None };
        let unwanted = *unloaded || (serving.is_some() && waiters.iter().all(has_left));
        if !unwanted {
            self.remember_weight(key, bytes);
        }
        if unwanted || bytes > self.budget {
            gone.push(Arc::new(model));
            let failure = if unwanted { Failure::Unloaded } else { Failure::TooLarge(bytes) };
            return self.end_failed(key, failure, now);
        }
        let Load { waiters, next, begun, .. } = self.end_load(key)?;
        let took = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun.at));
        self.loads_ok += 1;
        self.forgotten.extend(self.failures.remove(key).map(|failed| failed.failure));
        self.largest = self.largest.max(bytes);
        self.used += bytes;
        let (model, version) = (Arc::new(model), self.next_version);
        self.next_version += 1;
        self.clock += 1;
        // There is no reference to the model but these, so it is dropped before its bytes count as free.
        let waiters: Vec<_> = waiters.into_iter().map(|waiter| (waiter, model.clone())).collect();
        let (held, used_at, stays_until) = (waiters.len(), self.clock, now + took.max(SHORTEST_SERVICE));
        let serving = Serving { model, version, bytes, held, used_at, stays_until, closing: false };
        let entry = self.entries.entry(key.clone()).or_insert(Entry { serving: None, load: None });
        let before = entry.serving.replace(serving);
        // The other models make no room for the one that was replaced.
        let beside = before.as_ref().map_or(0, |before| before.bytes);
        let replaced = before.map(|before| self.leave(before));
        self.queue_next(key, now, next);
        while self.used - beside > self.budget && self.evict(gone) {}
        Some(Loaded::Model { version, waiters, replaced })
    }

    /// A load has failed.
    pub(super) fn failed(&mut self, key: &Arc<str>, error: MakeError, now: Instant) -> Option<Loaded<M, W>> {
        self.end_failed(key, Failure::Load(error), now)
    }

    fn end_failed(&mut self, key: &Arc<str>, failure: Failure, now: Instant) -> Option<Loaded<M, W>> {
        let Load { waiters, next, unloaded, begun, .. } = self.end_load(key)?;
        let failure = if unloaded {
            self.forgotten.push(failure);
            Failure::Unloaded
        } else {
            failure
        };
        // After a swap, the model before serves on, and the next swap is tried at once.
        let failure = match failure {
            Failure::Unloaded => failure,
            _ if self.entries.contains_key(key) => failure,
            failure => self.remember_failure(key, failure, now),
        };
        // A model that is known to be too large is not loaded.
        self.loads_failed += u64::from(begun.is_some() && !matches!(failure, Failure::Unloaded));
        self.queue_next(key, now, next);
        Some(Loaded::Failed(failure, waiters))
    }

    /// Remembers a failure, so that callers get it until the next attempt.
    fn remember_failure(&mut self, key: &Arc<str>, failure: Failure, now: Instant) -> Failure {
        let pause = self.failures.get(key).map_or(FIRST_PAUSE, |failed| (failed.pause * 2).min(LONGEST_PAUSE));
        if self.failures.len() >= REMEMBERED {
            let forgotten = &mut self.forgotten;
            self.failures.retain(|_, failed| {
                let stays = now < failed.until;
                if !stays {
                    forgotten.push(std::mem::replace(&mut failed.failure, Failure::Unloaded));
                }
                stays
            });
        }
        let failure = match failure {
            Failure::Load(error) => Failure::Load(error.with_retry_after(pause)),
            other => other,
        };
        if self.failures.len() < REMEMBERED {
            let failed = Failed { failure: failure.clone(), until: now + pause, pause };
            let before = self.failures.insert(key.clone(), failed);
            self.forgotten.extend(before.map(|failed| failed.failure));
        }
        failure
    }

    /// Ends a load, or one that has not begun.
    fn end_load(&mut self, key: &str) -> Option<Load<W>> {
        let entry = self.entries.get_mut(key)?;
        let load = entry.load.take()?;
        if entry.serving.is_none() {
            self.entries.remove(key);
        }
        if let Some(Begun { reserved, may_exceed, .. }) = load.begun {
            self.used -= reserved;
            if !load.unloaded {
                self.loading -= 1;
                self.exceeding &= !may_exceed;
            }
        }
        self.waiting -= load.waiters.len();
        Some(load)
    }

    /// Queues the load of the swaps that were asked for while another load of the key ran.
    fn queue_next(&mut self, key: &Arc<str>, now: Instant, next: Vec<W>) {
        if !next.is_empty() {
            self.queue(key, now, true, next);
        }
    }

    /// The model serves no more. It counts as held once more than it is.
    fn leave(&mut self, Serving { model, version, bytes, held, .. }: Serving<M>) -> Unloaded<M> {
        self.leaving.insert(version, Leaving { bytes, held: held + 1 });
        (model, version)
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
        let serving = self.entries.get_mut(key).and_then(|entry| entry.serving.as_mut());
        if let Some(serving) = serving.filter(|serving| serving.version == version) {
            serving.held -= 1;
            return;
        }
        let leaving = self.leaving.get_mut(&version).expect("a model that is held is loaded or leaving");
        leaving.held -= 1;
        if leaving.held == 0 {
            self.used -= leaving.bytes;
            self.leaving.remove(&version);
        }
    }

    /// Unloads a model. Callers that hold it keep it, and those that wait for its load get an error. `None` if there is
    /// nothing of this key.
    pub(super) fn unload(&mut self, key: &str) -> Option<(Option<Unloaded<M>>, Vec<W>)> {
        self.weights.remove(key);
        let failed = self.failures.remove(key).map(|failed| {
            self.forgotten.push(failed.failure);
            (None, Vec::new())
        });
        let Some(entry) = self.entries.get_mut(key) else { return failed };
        let serving = entry.serving.take();
        let mut waiters = Vec::new();
        if let Some(load) = &mut entry.load {
            waiters = std::mem::take(&mut load.waiters);
            waiters.append(&mut load.next);
            // A load that never ends must not keep others from beginning.
            if let (Some(Begun { may_exceed, .. }), false) = (&load.begun, load.unloaded) {
                self.loading -= 1;
                self.exceeding &= !may_exceed;
            }
            load.unloaded = true;
        }
        self.waiting -= waiters.len();
        if entry.load.as_ref().is_none_or(|load| load.begun.is_none()) {
            self.entries.remove(key);
            self.forget_pending(key);
        }
        Some((serving.map(|serving| self.leave(serving)), waiters))
    }

    pub(super) fn stats(&self, name: &str) -> ModelsStats {
        let mut loaded = Vec::new();
        let mut loading = Vec::new();
        for (key, Entry { serving, load }) in &self.entries {
            if let Some(Serving { version, bytes, held, .. }) = serving {
                let (version, bytes, held) = (*version, *bytes, *held);
                loaded.push(LoadedModel { key: key.to_string(), version, bytes, held });
            }
            if load.is_some() {
                loading.push(key.to_string());
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
        for (_, Entry { serving, load }) in std::mem::take(&mut self.entries) {
            models.extend(serving.map(|serving| serving.model));
            waiters.extend(load.into_iter().flat_map(|load| load.waiters.into_iter().chain(load.next)));
        }
        self.pending.clear();
        self.forgotten.extend(self.failures.drain().map(|(_, failed)| failed.failure));
        (models, waiters)
    }

    /// The errors that were forgotten, to be dropped without the lock.
    pub(super) fn take_forgotten(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.forgotten)
    }
}

/// Whether a load that has waited for this long makes room: from 1 to 2 seconds, from 4 to 8, from 16 to 32, and so on. In
/// between, models in use serve everybody, so that nobody waits for itself for ever.
fn is_time_to_make_room(waited: Duration) -> bool {
    waited.as_secs().checked_ilog2().is_some_and(|doublings| doublings % 2 == 0)
}

impl<M, W> Default for Freed<M, W> {
    fn default() -> Self {
        Self { gone: Vec::new(), left: Vec::new(), ended: Vec::new() }
    }
}

impl<M, W> Entry<M, W> {
    /// When a model was used last that nobody holds and that is not being swapped, and its weight.
    fn idle(&self) -> Option<(u64, u64)> {
        let may_go = |serving: &&Serving<M>| serving.held == 0 && (self.load.is_none() || serving.closing);
        let serving = self.serving.as_ref().filter(may_go);
        serving.map(|serving| (serving.used_at, serving.bytes))
    }
}
