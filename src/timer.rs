//! A thread for everything in this crate that is due at a moment: the end of waiting in a queue, of a drain, and the
//! regular care of the metrics.
//!
//! Pools work without Tokio and their own workers may all be busy, so neither can keep the time. A thread starts when
//! something is due, and ends when nothing has been for a while. There are three, because some of what is due calls code
//! of the application, which may take its time.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::shield::shielded;
use crate::threads;

/// Something that is due at a moment.
pub(crate) trait Alarm: Send + Sync {
    /// Called on the timer's thread, which it must not block; answers when to be called again.
    fn ring(self: Arc<Self>) -> Option<Instant>;
}

pub(crate) struct Timer {
    name: &'static str,
    state: Mutex<State>,
    sooner: Condvar,
}

struct State {
    /// By moment; the number tells alarms of the same moment apart.
    due: BTreeMap<Place, Weak<dyn Alarm>>,
    next_number: u64,
    running: bool,
    /// When the thread could not be started, if it was so the last time.
    failed: Option<Instant>,
}

/// For the ends of waiting: what rings tells callers, and drops what they left.
pub(crate) static TIMER: Timer = Timer::new("offload-timer");

/// For what calls no code of an application, and may not wait for any.
pub(crate) static WATCH: Timer = Timer::new("offload-watch");

/// For what calls the application's recorder of metrics, which takes as long as it takes.
pub(crate) static METRICS: Timer = Timer::new("offload-metrics");

/// Whether one of the threads is needed and could not be started.
static FAILED: AtomicBool = AtomicBool::new(false);

/// How long the thread stays when nothing is due.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// After a thread could not be started, it is not tried for so long.
const BARREN: Duration = Duration::from_secs(1);

/// Tries again to start what could not be started. To be called often: it costs nothing unless there is such a thing.
pub(crate) fn retry() {
    if FAILED.load(Ordering::Relaxed) && FAILED.swap(false, Ordering::Relaxed) {
        [&TIMER, &WATCH, &METRICS].into_iter().for_each(Timer::retry);
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
    let place = TIMER.arm(moment, weak);
    Sleep { bell, place: Some(place) }
}

/// A future that ends at its moment.
pub(crate) struct Sleep {
    bell: Arc<Bell>,
    place: Option<Place>,
}

#[derive(Default)]
struct Bell(Mutex<Ring>);

/// Whether a bell has rung.
enum Ring {
    /// Not yet; whom to wake then.
    ToCome(Option<Waker>),
    Done,
}

// === impl Timer ===

impl Timer {
    const fn new(name: &'static str) -> Self {
        let state = State { due: BTreeMap::new(), next_number: 0, running: false, failed: None };
        Self { name, state: Mutex::new(state), sooner: Condvar::new() }
    }

    /// Rings `alarm` at `at`, if it is still alive then.
    pub(crate) fn arm(&'static self, at: Instant, alarm: Weak<dyn Alarm>) -> Place {
        let mut state = self.lock();
        let first = state.due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        let place = state.insert(at, alarm);
        let mut failure = None;
        if !state.running {
            failure = self.start(&mut state);
        } else if first {
            self.sooner.notify_one();
        }
        drop(state);
        self.complain(failure);
        place
    }

    fn retry(&'static self) {
        let mut state = self.lock();
        let needed = !state.running && !state.due.is_empty();
        let failure = if needed { self.start(&mut state) } else { None };
        drop(state);
        self.complain(failure);
    }

    fn complain(&self, failure: Option<io::Error>) {
        if let Some(error) = failure {
            shielded(|| {
                tracing::error!(
                    target: "tower_offload",
                    thread = self.name, %error,
                    "a thread that keeps the time could not be started; until it can, nobody is told that time is up, \
                     and the metrics stand still"
                );
            });
        }
    }

    fn disarm(&self, place: Place) {
        // Dropped without the lock.
        let _alarm = self.lock().due.remove(&place);
    }

    /// Starts the thread, unless it could not be started a moment ago; answers why it could not, the first time.
    fn start(&'static self, state: &mut State) -> Option<io::Error> {
        if state.failed.is_some_and(|failed| failed.elapsed() < BARREN) {
            FAILED.store(true, Ordering::Relaxed);
            return None;
        }
        match threads::start(self.name.to_owned(), || self.run()) {
            Ok(()) => {
                state.running = true;
                state.failed = None;
                None
            }
            Err(error) => {
                FAILED.store(true, Ordering::Relaxed);
                state.failed.replace(Instant::now()).is_none().then_some(error)
            }
        }
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
            if FAILED.load(Ordering::Relaxed) {
                // A thread that has started sees to those that have not: nothing else may happen that would.
                drop(state);
                retry();
                state = self.lock();
            }
            let first = state.due.first_key_value().map(|((at, _), _)| *at);
            let wait = first.map_or(KEEP_ALIVE, |at| at.saturating_duration_since(Instant::now()));
            let wait = if FAILED.load(Ordering::Relaxed) { wait.min(BARREN) } else { wait };
            let (after, timeout) = self.sooner.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if timeout.timed_out() && state.due.is_empty() && !FAILED.load(Ordering::Relaxed) {
                state.running = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
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
        // A waker is the application's: neither its clone nor its drop runs under the lock.
        let waker = cx.waker();
        let known = match &*self.bell.lock() {
            Ring::Done => return Poll::Ready(()),
            // Not only the bell tells the time: it may have nobody to ring it.
            _ if self.place.is_some_and(|(moment, _)| moment <= Instant::now()) => return Poll::Ready(()),
            Ring::ToCome(known) => known.as_ref().is_some_and(|known| known.will_wake(waker)),
        };
        if known {
            return Poll::Pending;
        }
        let waker = waker.clone();
        let _other = match &mut *self.bell.lock() {
            Ring::Done => return Poll::Ready(()),
            Ring::ToCome(known) => known.replace(waker),
        };
        Poll::Pending
    }
}

/// A request that is answered leaves nothing behind: its deadline may be hours away.
impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            TIMER.disarm(place);
        }
    }
}

// === impl Bell ===

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm for Bell {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        let rung = std::mem::replace(&mut *self.lock(), Ring::Done);
        if let Ring::ToCome(Some(waker)) = rung {
            waker.wake();
        }
        None
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::ToCome(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_that_is_dropped_leaves_the_timer() {
        let sleep = sleep(Duration::from_secs(3600));
        let place = sleep.place.expect("an hour can be counted");
        assert!(TIMER.lock().due.contains_key(&place));
        drop(sleep);
        assert!(!TIMER.lock().due.contains_key(&place));
    }
}
