//! The loader of a swap: one thread at a time, which makes the values of the new version aside and lets them replace the
//! earlier ones.
//!
//! 1. It makes and warms up the first value. If that fails, or the caller has left, nothing has changed.
//! 2. Under the lock, the swap takes effect: new values are of the new version from now on. The first one is *staged*.
//! 3. The staged value replaces a value of an earlier version that is idle, or the next one that a task puts back
//!    (`stack.rs`). The loader drops the replaced value, and only then makes the next one. So there is one value more
//!    than the pool has permits, and no task waits for a value to be made or dropped.
//! 4. If a later value cannot be made, the earlier ones serve on. The loader tries again after a pause.
//! 5. When no value of an earlier version is left, the thread ends.
//!
//! A swap that is requested meanwhile begins as soon as nothing is staged. Once it takes effect, the earlier swap ends.
//! The thread parks without the lock. Whoever changes what it waits for unparks it, and a token that is left by an
//! earlier unpark makes it look once more, so the order of the two does not matter.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::bounds::Bounds;
use super::inner::{Inner, Loader, State, discard};
use super::recipe::{Hooks, Version};
use super::request::{Request, Rollout};
use super::stack::{Gone, Slot};
use crate::error::{MakeError, SlotError};
use crate::shield::shielded;
use crate::sync::{MutexGuard, current, park_timeout};

/// The pause after the first later value that could not be made.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the loader waits at most before it looks whether the pool drains.
const LOOK: Duration = Duration::from_secs(1);

/// The loader of one `Slots`.
pub(super) struct Rollouts<T> {
    pub(super) inner: Arc<Inner<T>>,
    pub(super) hooks: Arc<Hooks<T>>,
    pub(super) bounds: Bounds,
}

/// What the loader does next.
enum Step<T> {
    /// It drops replaced values.
    Drop(Gone<T>),
    /// It makes the first value of a swap.
    Begin(Request<T>, u64),
    /// It makes a further value of the version.
    Next(Arc<Version<T>>),
    /// It waits for a change.
    Wait(Duration),
    End,
}

/// The pause after failures.
#[derive(Default)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
}

impl<T: Send + 'static> Rollouts<T> {
    /// Runs until no swap is left.
    pub(super) fn run(self) {
        let running = Running::begin(&self);
        let mut pause = Pause::default();
        loop {
            // Bound first, so that the lock is released.
            let step = self.step(&pause);
            match step {
                Step::Drop(gone) => discard(gone),
                Step::Begin(request, generation) => {
                    if self.begin(request, generation) {
                        pause = Pause::default();
                    }
                }
                Step::Next(version) => {
                    self.next(&version, &mut pause);
                    // It may be the last reference to a function of the application.
                    shielded(|| drop(version));
                }
                Step::Wait(limit) => park_timeout(limit),
                Step::End => break,
            }
        }
        drop(running);
    }

    fn step(&self, pause: &Pause) -> Step<T> {
        let draining = self.bounds.is_draining();
        let mut state = self.inner.lock();
        let replaced = state.stack.take_replaced();
        if !replaced.is_empty() {
            // A new value that was not needed is among them, and has replaced none.
            let generation = state.stack.generation();
            let earlier = replaced.iter().filter(|slot| slot.generation != generation).count();
            if let Some(rollout) = &mut state.rollout {
                rollout.replaced += earlier;
            }
            return Step::Drop(replaced);
        }
        if state.current.is_none() || draining {
            return self.stop(state);
        }
        if state.stack.is_staged() {
            return Step::Wait(LOOK);
        }
        if let Some(request) = state.requests.pop_front() {
            let generation = state.stack.generation() + 1;
            return Step::Begin(request, generation);
        }
        let outdated = state.stack.outdated();
        if outdated == 0 {
            let previous = state.previous.take();
            let rollout = state.rollout.take();
            state.loader = Loader::None;
            drop(state);
            end_rollout(rollout, 0);
            shielded(|| drop(previous));
            return Step::End;
        }
        if let Some(left) = pause.until.and_then(|until| until.checked_duration_since(Instant::now())) {
            return Step::Wait(left.min(LOOK));
        }
        state.current.clone().map_or(Step::End, Step::Next)
    }

    /// The slots are closed, or the pool drains: no further value is made.
    fn stop(&self, mut state: MutexGuard<'_, State<T>>) -> Step<T> {
        let outdated = state.stack.outdated();
        let requests = std::mem::take(&mut state.requests);
        let rollout = state.rollout.take();
        state.loader = Loader::None;
        let closed = state.current.is_none();
        drop(state);
        end_rollout(rollout, outdated);
        for request in requests {
            request.fail(if closed { SlotError::Closed } else { self.bounds.draining().into() });
        }
        Step::End
    }

    /// Makes the first value of a swap, and lets the swap take effect. Whether it has.
    fn begin(&self, request: Request<T>, generation: u64) -> bool {
        if request.has_left() {
            request.give_up();
            return false;
        }
        let version = Arc::new(Version { generation, make: request.make.clone() });
        let made = request.context.run(|| version.produce(&self.hooks));
        let slot = match made {
            Ok(slot) => slot,
            Err(error) => {
                self.warn(generation, &error, "a swap changed nothing: its first value could not be made");
                request.fail(error.into());
                shielded(|| drop(version));
                return false;
            }
        };
        let limit = self.bounds.limit();
        let draining = self.bounds.is_draining();
        let mut state = self.inner.lock();
        let refused = match (state.current.is_none(), draining) {
            (true, _) => Some(SlotError::Closed),
            (_, true) => Some(self.bounds.draining().into()),
            _ => None,
        };
        if refused.is_some() || request.has_left() {
            drop(state);
            discard(vec![slot]);
            match refused {
                Some(error) => request.fail(error),
                None => request.give_up(),
            }
            shielded(|| drop(version));
            return false;
        }
        let outdated = state.stack.live();
        let (rollout, make) = request.take_effect(generation);
        let earlier = state.rollout.replace(rollout);
        let before = state.current.replace(version);
        let older = std::mem::replace(&mut state.previous, before);
        let failure = state.failure.take();
        state.stack.begin_version(slot, limit);
        drop(state);
        end_rollout(earlier, outdated);
        shielded(|| drop(make));
        shielded(|| drop(older));
        shielded(|| drop(failure));
        true
    }

    /// Makes a further value of the version.
    fn next(&self, version: &Version<T>, pause: &mut Pause) {
        let context = self.inner.lock().rollout.as_ref().map(|rollout| rollout.context.clone());
        let Some(context) = context else { return };
        match context.run(|| version.produce(&self.hooks)) {
            Ok(slot) => {
                *pause = Pause::default();
                self.stage(slot);
            }
            Err(error) => {
                pause.begin();
                self.warn(
                    version.generation,
                    &error,
                    "a value of the new version could not be made: the earlier one serves on",
                );
                let mut state = self.inner.lock();
                let outdated = state.stack.outdated();
                let report = state.rollout.as_mut().map(|rollout| rollout.report(outdated));
                drop(state);
                if let Some(report) = report {
                    report.send(Some(error.with_retry_after(pause.length)));
                }
            }
        }
        shielded(|| drop(context));
    }

    fn stage(&self, slot: Box<Slot<T>>) {
        let limit = self.bounds.limit();
        let mut state = self.inner.lock();
        let unwanted = if state.current.is_none() || slot.generation != state.stack.generation() {
            Some(slot)
        } else {
            state.stack.stage(slot, limit);
            None
        };
        drop(state);
        discard(unwanted.into_iter().collect());
    }

    fn warn(&self, generation: u64, error: &MakeError, message: &str) {
        let pool = self.bounds.name();
        shielded(
            || tracing::warn!(target: "tower_offload", %pool, slots = self.inner.name, generation, %error, "{message}"),
        );
    }
}

/// Ends a swap: its caller gets its result, unless it has one.
fn end_rollout(rollout: Option<Rollout>, outdated: usize) {
    if let Some(mut rollout) = rollout {
        rollout.report(outdated).send(None);
        shielded(|| drop(rollout));
    }
}

/// The thread runs. If it unwinds, no swap waits for it: all of them fail, and the next one starts another thread.
pub(super) struct Running<'a, T: Send + 'static>(&'a Rollouts<T>);

impl<'a, T: Send + 'static> Running<'a, T> {
    pub(super) fn begin(rollouts: &'a Rollouts<T>) -> Self {
        rollouts.inner.lock().loader = Loader::Running(current());
        Self(rollouts)
    }
}

impl<T: Send + 'static> Drop for Running<'_, T> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let mut state = self.0.inner.lock();
        let outdated = state.stack.outdated();
        let requests = std::mem::take(&mut state.requests);
        let rollout = state.rollout.take();
        state.loader = Loader::None;
        drop(state);
        end_rollout(rollout, outdated);
        let error = MakeError::new("the thread that makes values has panicked");
        requests.into_iter().for_each(|request| request.fail(error.clone().into()));
    }
}

impl Pause {
    fn begin(&mut self) {
        self.length = if self.length.is_zero() { FIRST_PAUSE } else { (self.length * 2).min(LONGEST_PAUSE) };
        self.until = Some(Instant::now() + self.length);
    }
}
