//! The lock of one `Slots`, and how values are taken and put back.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::recipe::Version;
use super::request::{Request, Rollout};
use super::stack::{Gone, Slot, Stack};
use crate::admission::Key;
use crate::error::{MakeError, SlotError};
use crate::metrics::holdings::Holding;
use crate::pool::{HoldingStats, Pool, SlotsStats, TaskOptions};
use crate::pools::IntoTask;
use crate::shield::shielded;
use crate::sync::{Mutex, MutexGuard, Thread, lock};
use crate::terms::Priority;
use crate::timer::{Alarm, alarm};

/// The first pause after a value could not be made. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The time until the next attempt to drop idle values, if the pool rejects the task that would do it.
const RETRY: Duration = Duration::from_secs(1);

/// A task that uses a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskId {
    /// A task of the pool.
    OfPool(Key),
    /// A use without a pool: the pools are disabled.
    Alone(u64),
}

/// The values of one `Slots`. Once the slots are closed, it has none, and no function of the application.
pub(super) struct Inner<T> {
    pub(super) name: String,
    state: Mutex<State<T>>,
    /// Whether the timer is set to let values go.
    armed: Arc<AtomicBool>,
}

pub(super) struct State<T> {
    pub(super) stack: Stack<T, TaskId>,
    /// The version of new values; `None` once the slots are closed.
    pub(super) current: Option<Arc<Version<T>>>,
    /// The version before, until a swap has replaced all of its values.
    pub(super) previous: Option<Arc<Version<T>>>,
    /// Why the last value could not be made, while none was made since.
    pub(super) failure: Option<Failure>,
    /// Swaps that have not begun.
    pub(super) requests: VecDeque<Request<T>>,
    /// The swap whose values replace the earlier ones.
    pub(super) rollout: Option<Rollout>,
    pub(super) loader: Loader,
    alarm: Option<Alarm>,
}

/// The thread that makes the values of a swap.
#[derive(Debug, Default)]
pub(super) enum Loader {
    #[default]
    None,
    /// It was started, and has not taken the lock yet.
    Starting,
    Running(Thread),
}

/// Values could not be made.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: MakeError,
    /// Until then, tasks that need a new value get the same error.
    until: Instant,
    pause: Duration,
    /// Whether the version before has failed too, so that it is not tried either.
    all_fail: bool,
}

impl<T> Inner<T> {
    pub(super) fn new(name: String, keep_alive: Option<Duration>, version: Version<T>) -> Self {
        let state = State {
            stack: Stack::new(keep_alive),
            current: Some(Arc::new(version)),
            previous: None,
            failure: None,
            requests: VecDeque::new(),
            rollout: None,
            loader: Loader::None,
            alarm: None,
        };
        Self { name, state: Mutex::new(state), armed: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// Changes the values under the lock, and then drops those that go. Wakes the loader if it waits for the change.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State<T>, &mut Gone<T>) -> R) -> R {
        let mut gone = Vec::new();
        let mut state = self.lock();
        let before = state.awaited_by_loader();
        let result = change(&mut state, &mut gone);
        let loader = if before == state.awaited_by_loader() { None } else { state.loader.thread() };
        drop(state);
        if let Some(loader) = loader {
            loader.unpark();
        }
        discard(gone);
        result
    }

    /// Notes that a value of the newest version could not be made; the error for the tasks that need one until the next
    /// attempt.
    pub(super) fn failed(&self, error: MakeError) -> MakeError {
        let (error, before) = self.lock().failed(error);
        shielded(|| drop(before));
        error
    }

    /// Notes that the version before cannot stand in, until the next attempt.
    pub(super) fn stand_in_failed(&self) {
        if let Some(failure) = &mut self.lock().failure {
            failure.all_fail = true;
        }
    }

    /// Adds a swap. Whether the caller has to start a loader for it.
    pub(super) fn add_request(&self, request: Request<T>) -> bool {
        let mut state = self.lock();
        state.requests.push_back(request);
        let is_first = matches!(state.loader, Loader::None);
        if is_first {
            state.loader = Loader::Starting;
        }
        let loader = state.loader.thread();
        drop(state);
        if let Some(loader) = loader {
            loader.unpark();
        }
        is_first
    }

    pub(super) fn stats(&self) -> SlotsStats {
        let state = self.lock();
        let error = state.failure.as_ref().map(|failure| failure.error.clone());
        let stats = SlotsStats {
            name: self.name.clone(),
            generation: state.stack.generation(),
            idle: state.stack.idle(),
            in_use: state.stack.in_use(),
            loading: state.stack.making() + usize::from(state.rollout_is_making()),
            outdated: state.stack.outdated(),
            error: None,
        };
        drop(state);
        // The error is of the application: it is shown and dropped without the lock, and its panic changes nothing.
        let shown = error.as_ref().map(|error| shielded(|| error.to_string()).unwrap_or_else(unreadable));
        shielded(|| drop(error));
        SlotsStats { error: shown, ..stats }
    }

    /// Drops all idle values, and every function of the application. Waiting swaps fail.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        let gone = state.stack.clear();
        let versions = (state.current.take(), state.previous.take());
        let swaps = (std::mem::take(&mut state.requests), state.rollout.take());
        let (alarm, failure) = (state.alarm.take(), state.failure.take());
        let loader = state.loader.thread();
        drop(state);
        if let Some(loader) = loader {
            loader.unpark();
        }
        drop(alarm);
        shielded(|| drop(failure));
        discard(gone);
        let (current, previous) = versions;
        shielded(|| drop(current));
        shielded(|| drop(previous));
        let (requests, rollout) = swaps;
        requests.into_iter().for_each(|request| request.fail(SlotError::Closed));
        shielded(|| drop(rollout));
    }
}

impl<T: Send + 'static> Inner<T> {
    /// Sets the timer to the time at which the next idle value goes, unless it is set. A task of the pool drops the
    /// value, because a destructor may block.
    pub(super) fn arm(self: &Arc<Self>, pool: &Pool) {
        self.arm_after(pool, None);
    }

    /// The same, and not before `earliest`.
    fn arm_after(self: &Arc<Self>, pool: &Pool, earliest: Option<Instant>) {
        if self.armed.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        let Some(at) = state.stack.next_expiry(Instant::now()).filter(|_| state.current.is_some()) else { return };
        if self.armed.swap(true, Ordering::AcqRel) {
            return;
        }
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        let (pool, slots, armed) = (pool.clone(), Arc::downgrade(self), self.armed.clone());
        let fired = move || {
            armed.store(false, Ordering::Release);
            let (weak, again) = (slots.clone(), pool.clone());
            let expire = move || {
                if let Some(slots) = weak.upgrade() {
                    slots.change(|state, gone| state.stack.expire(Some(Instant::now()), gone));
                    slots.arm(&again);
                }
            };
            let options = TaskOptions::new().priority(Priority::Low);
            let accepted = pool.submit_own(IntoTask::into_task(expire), options, "idle values of slots");
            // The queue may be full of tasks that use none of these values.
            if let (false, false, Some(slots)) = (accepted, pool.is_draining(), slots.upgrade()) {
                slots.arm_after(&pool, Instant::now().checked_add(RETRY));
            }
        };
        // The timer that has fired is dropped without the lock.
        let old = state.alarm.replace(alarm(at, fired));
        drop(state);
        drop(old);
    }
}

impl<T: Send + 'static> Holding for Inner<T> {
    fn read(&self, into: &mut HoldingStats) {
        into.slots.push(self.stats());
    }
}

fn unreadable() -> String {
    "the error panics when it is shown".to_owned()
}

/// Drops values. The panic of a destructor ends there.
pub(super) fn discard<T>(gone: Gone<T>) {
    for slot in gone {
        shielded(|| drop::<Box<Slot<T>>>(slot));
    }
}

// === impl State ===

impl<T> State<T> {
    /// What the loader waits for: that the staged value is put in its place, or that no earlier value is left.
    fn awaited_by_loader(&self) -> Option<(bool, bool)> {
        matches!(self.loader, Loader::Running(_)).then(|| (self.stack.is_staged(), self.stack.outdated() == 0))
    }

    fn rollout_is_making(&self) -> bool {
        matches!(self.loader, Loader::Running(_) | Loader::Starting) && !self.stack.is_staged()
    }

    /// Notes that a value could not be made: the error for the tasks that need one until the next attempt, and the failure
    /// before, to be dropped without the lock.
    fn failed(&mut self, error: MakeError) -> (MakeError, Option<Failure>) {
        let now = Instant::now();
        let pause = match &self.failure {
            None => FIRST_PAUSE,
            // Another attempt of the same time.
            Some(failure) if now < failure.until => failure.pause,
            Some(failure) => (failure.pause * 2).min(LONGEST_PAUSE),
        };
        let error = error.with_retry_after(pause);
        let failure = Failure { error: error.clone(), until: now + pause, pause, all_fail: false };
        let before = self.failure.replace(failure);
        (error, before)
    }

    /// The error of the last attempt, if it is too early for the next one, and whether the version before has failed too.
    pub(super) fn paused(&self) -> (Option<MakeError>, bool) {
        let Some(failure) = &self.failure else { return (None, false) };
        let Some(left) = failure.until.checked_duration_since(Instant::now()) else { return (None, false) };
        (Some(failure.error.clone().with_retry_after(left)), failure.all_fail)
    }
}

impl Loader {
    fn thread(&self) -> Option<Thread> {
        match self {
            Self::Running(thread) => Some(thread.clone()),
            Self::None | Self::Starting => None,
        }
    }
}

impl<T> fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("name", &self.name).finish_non_exhaustive()
    }
}
