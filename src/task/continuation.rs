//! The work of a task after its answer: it polls the body of its response, writes it, or holds its permit.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::admission::Outcome;
use crate::stall::StallSignal;
use crate::sync::{AtomicU32, lock_std as lock};

/// The work of a task after its answer. Its outcome is that of the task, unless it is [`Outcome::Ok`].
pub(crate) type ContinuationFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Keeps a task in flight after its answer. Most tasks need nothing of it, and no memory for it.
#[derive(Default)]
pub(crate) struct Continuation(OnceLock<Box<State>>);

#[derive(Default)]
struct State {
    /// Taken while a worker polls it.
    future: Mutex<Option<ContinuationFuture>>,
    stalled: Mutex<Option<StallSignal>>,
    /// Whether the future runs inside the task's permit.
    keeps_permit: AtomicBool,
    /// The guards that hold the permit.
    held: AtomicU32,
    /// The client expects no body, so it has not left when the body is dropped.
    bodiless: AtomicBool,
    /// The nanoseconds for which the task waited for the reader of its body.
    reader: AtomicU64,
}

impl Continuation {
    /// Stores the future of a task that has none.
    pub(crate) fn set(&self, future: ContinuationFuture, keeps_permit: bool, stalled: StallSignal) {
        let state = self.state();
        let before = lock(&state.future).replace(future);
        debug_assert!(before.is_none(), "a task continues once");
        *lock(&state.stalled) = Some(stalled);
        state.keeps_permit.store(keeps_permit, Ordering::Relaxed);
    }

    /// Whether the task keeps its permit after its answer.
    pub(crate) fn keeps_permit(&self) -> bool {
        self.0.get().is_some_and(|state| state.keeps_permit.load(Ordering::Relaxed)) || self.is_held()
    }

    pub(crate) fn stalled(&self) -> Option<StallSignal> {
        lock(&self.0.get()?.stalled).clone()
    }

    /// Notes that the client expects no body. A task without a continuation writes none.
    pub(crate) fn expect_no_body(&self) {
        if let Some(state) = self.0.get() {
            state.bodiless.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn expects_no_body(&self) -> bool {
        self.0.get().is_some_and(|state| state.bodiless.load(Ordering::Relaxed))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some_and(|state| lock(&state.future).is_some())
    }

    pub(crate) fn take(&self) -> Option<ContinuationFuture> {
        lock(&self.0.get()?.future).take()
    }

    pub(crate) fn put_back(&self, future: ContinuationFuture) {
        *lock(&self.state().future) = Some(future);
    }

    pub(crate) fn hold(&self) {
        self.state().held.fetch_add(1, Ordering::AcqRel);
    }

    /// Releases one guard. Whether it was the last one.
    pub(crate) fn release(&self) -> bool {
        self.state().held.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.get().is_some_and(|state| state.held.load(Ordering::Acquire) > 0)
    }

    pub(crate) fn waited_for_reader(&self, waited: Duration) {
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.state().reader.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn reader_time(&self) -> Duration {
        Duration::from_nanos(self.0.get().map_or(0, |state| state.reader.load(Ordering::Relaxed)))
    }

    fn state(&self) -> &State {
        self.0.get_or_init(Box::default)
    }
}

/// The outcome of a task whose answer and continuation had these outcomes.
pub(crate) const fn combined(answer: Outcome, continuation: Outcome) -> Outcome {
    match continuation {
        Outcome::Ok => answer,
        other => other,
    }
}
