//! Threads for everything in this crate that is due at a moment: the end of waiting in a queue, of a drain, answers that
//! are held back, and the regular care of the metrics.
//!
//! Pools work without Tokio and their own workers may all be busy, so neither can keep the time. A thread starts when
//! something is due, and ends when nothing has been for a while. Much of what is due calls code of the application, which
//! may take its time; so each pool has a timer for its own queue, and there is one for each kind of the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::shield::shielded;
use crate::threads::{self, BARREN};

/// Something that is due at a moment.
pub(crate) trait Alarm: Send + Sync {
    /// Called on the timer's thread; answers when to be called again.
    fn ring(self: Arc<Self>) -> Option<Instant>;
}

/// A thread that rings alarms, while there are any. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub(crate) struct Timer {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    state: Mutex<State>,
    sooner: Condvar,
}

struct State {
    /// By moment; the number tells alarms of the same moment apart.
    due: BTreeMap<Place, Weak<dyn Alarm>>,
    next_number: u64,
    running: bool,
    /// Nothing more rings.
    closed: bool,
    /// When the thread could not be started, if it was so the last time.
    failed: Option<Instant>,
    /// It is among [`FAILED`].
    listed: bool,
}

/// For what wakes somebody.
static BELLS: LazyLock<Timer> = LazyLock::new(|| Timer::new("offload-timer".to_owned()));

/// For the looks at workers, which may not wait for code of an application.
pub(crate) static WATCH: LazyLock<Timer> = LazyLock::new(|| Timer::new("offload-watch".to_owned()));

/// For the callers that workers hold back, who may not wait for what else is woken.
pub(crate) static COMPLETIONS: LazyLock<Timer> = LazyLock::new(|| Timer::new("offload-answers".to_owned()));

/// For the application's recorder of metrics, which takes as long as it takes.
pub(crate) static METRICS: LazyLock<Timer> = LazyLock::new(|| Timer::new("offload-metrics".to_owned()));

/// The timers whose thread is needed and could not be started, and whether there is any.
static FAILED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static ANY_FAILED: AtomicBool = AtomicBool::new(false);

/// How long the thread stays when nothing is due.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Tries again to start what could not be started. To be called often: it costs nothing unless there is such a thing.
pub(crate) fn retry() {
    if ANY_FAILED.load(Ordering::Relaxed) {
        retry_failed();
    }
}

#[cold]
fn retry_failed() {
    if ANY_FAILED.swap(false, Ordering::Relaxed) {
        let failed = std::mem::take(&mut *FAILED.lock().unwrap_or_else(PoisonError::into_inner));
        for inner in failed.into_iter().filter_map(|inner| inner.upgrade()) {
            Timer { inner }.retry();
        }
    }
}

/// An alarm's place: its moment, and its number.
type Place = (Instant, u64);

/// Ends `span` from now; never, if that is further than the clock can tell.
pub(crate) fn sleep(span: Duration) -> Sleep {
    Instant::now().checked_add(span).map_or_else(|| Sleep { bell: Arc::default(), place: None }, sleep_until)
}

/// Ends at this moment.
pub(crate) fn sleep_until(moment: Instant) -> Sleep {
    let bell = Arc::new(Bell::default());
    let weak: Weak<Bell> = Arc::downgrade(&bell);
    let place = BELLS.arm(moment, weak);
    Sleep { bell, place: Some(place) }
}

/// A future that ends at its moment.
pub(crate) struct Sleep {
    bell: Arc<Bell>,
    place: Option<Place>,
}

#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

// === impl Timer ===

impl Timer {
    /// No thread starts before something is due.
    pub(crate) fn new(name: String) -> Self {
        let state =
            State { due: BTreeMap::new(), next_number: 0, running: false, closed: false, failed: None, listed: false };
        Self { inner: Arc::new(Inner { name, state: Mutex::new(state), sooner: Condvar::new() }) }
    }

    /// Rings `alarm` at `at`, if it is still alive then.
    pub(crate) fn arm(&self, at: Instant, alarm: Weak<dyn Alarm>) -> Place {
        let mut state = self.lock();
        let first = state.is_first(at);
        let place = state.insert(at, alarm);
        self.see_to_it(state, first);
        place
    }

    /// Rings `alarm` at `at`, and nothing that was to ring later; unless something is to ring sooner.
    pub(crate) fn arm_only(&self, at: Instant, alarm: Weak<dyn Alarm>) {
        let mut state = self.lock();
        let first = state.is_first(at);
        let mut overtaken = BTreeMap::new();
        if first {
            overtaken = std::mem::take(&mut state.due);
            state.insert(at, alarm);
        }
        self.see_to_it(state, first);
        // Without the lock.
        drop(overtaken);
    }

    /// Ends the thread; nothing more rings.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let due = std::mem::take(&mut state.due);
        drop(state);
        self.inner.sooner.notify_one();
        // Without the lock.
        drop(due);
    }

    fn disarm(&self, place: Place) {
        // Dropped without the lock.
        let _alarm = self.lock().due.remove(&place);
    }

    fn retry(&self) {
        let mut state = self.lock();
        state.listed = false;
        self.see_to_it(state, false);
    }

    /// Something may be due: the thread is to run, and to look if it comes `sooner` than it thinks.
    fn see_to_it(&self, mut state: MutexGuard<'_, State>, sooner: bool) {
        let mut failure = None;
        if !state.running && !state.due.is_empty() {
            failure = self.start(&mut state);
        } else if sooner {
            self.inner.sooner.notify_one();
        }
        drop(state);
        if let Some(error) = failure {
            shielded(|| {
                tracing::error!(
                    target: "tower_offload",
                    thread = self.inner.name, %error,
                    "a thread that keeps the time could not be started; until it can, what is due does not happen: \
                     nobody is told that time is up, or the metrics stand still"
                );
            });
        }
    }

    /// Starts the thread, unless it could not be started a moment ago; answers why it could not, the first time.
    fn start(&self, state: &mut State) -> Option<io::Error> {
        let mut failure = None;
        if state.failed.is_none_or(|failed| failed.elapsed() >= BARREN) {
            let timer = self.clone();
            match threads::start(self.inner.name.clone(), move || timer.run()) {
                Ok(()) => {
                    (state.running, state.failed) = (true, None);
                    return None;
                }
                Err(error) => failure = state.failed.replace(Instant::now()).is_none().then_some(error),
            }
        }
        if !std::mem::replace(&mut state.listed, true) {
            FAILED.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&self.inner));
        }
        ANY_FAILED.store(true, Ordering::Relaxed);
        failure
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            while let Some(alarm) = state.pop(now) {
                drop(state);
                // An alarm calls wakers, subscribers and recorders of the application.
                let again = shielded(|| alarm.upgrade().and_then(Alarm::ring)).flatten();
                state = self.lock();
                if let Some(at) = again {
                    state.insert(at, alarm);
                }
            }
            if ANY_FAILED.load(Ordering::Relaxed) {
                // A thread that runs sees to those that could not be started: nothing else may happen that would.
                drop(state);
                retry();
                state = self.lock();
            }
            let others_wait = ANY_FAILED.load(Ordering::Relaxed);
            let first = state.due.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(KEEP_ALIVE, |at| at.saturating_duration_since(Instant::now()));
            let wait = if others_wait { wait.min(BARREN) } else { wait };
            if state.closed {
                state.running = false;
                return;
            }
            let waited = self.inner.sooner.wait_timeout(state, wait);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && state.due.is_empty() && !others_wait {
                state.running = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.inner.name).finish()
    }
}

// === impl State ===

impl State {
    /// Whether nothing is due before `at`.
    fn is_first(&self, at: Instant) -> bool {
        self.due.first_key_value().is_none_or(|((first, _), _)| at < *first)
    }

    fn insert(&mut self, at: Instant, alarm: Weak<dyn Alarm>) -> Place {
        self.next_number += 1;
        let place = (at, self.next_number);
        self.due.insert(place, alarm);
        place
    }

    fn pop(&mut self, now: Instant) -> Option<Weak<dyn Alarm>> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

// === impl Sleep ===

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Not only the bell tells the time: it may have nobody to ring it.
        if self.place.is_some_and(|(moment, _)| moment <= Instant::now()) {
            return Poll::Ready(());
        }
        self.bell.waker.register(cx.waker());
        // It may have rung just before.
        if self.bell.rung.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A request that is answered leaves nothing behind: its deadline may be hours away.
impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            BELLS.disarm(place);
        }
    }
}

impl Alarm for Bell {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        self.rung.store(true, Ordering::Release);
        self.waker.wake();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_that_is_dropped_leaves_the_timer() {
        let sleep = sleep(Duration::from_secs(3600));
        let place = sleep.place.expect("an hour can be counted");
        assert!(BELLS.lock().due.contains_key(&place));
        drop(sleep);
        assert!(!BELLS.lock().due.contains_key(&place));
    }
}
