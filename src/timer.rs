//! The two helper threads of the process. `offload-timer` serves queue timeouts, deadlines, the sampler and sleeps;
//! `offload-metrics` publishes metrics.
//!
//! Pools work without Tokio, and all their workers may be blocked, so neither can serve as the timer. A helper thread
//! starts when a callback is set, and ends after a while without any. Both call code of the application, without a lock of
//! this module: `offload-timer` calls wakers, and `offload-metrics` calls the metrics recorder, which may take long. A
//! destructor of the application runs here if a callback holds the last handle of a buffer, a pool or slots.
//!
//! If a helper thread cannot be started, the next call that needs it tries again, and so does the other helper thread
//! while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::shield::shielded;
use crate::threads::{self, START_BACKOFF};

/// Queue timeouts, deadlines, the sampler, and sleeps.
pub(crate) static TIMER: Timer = Timer::new("offload-timer");

/// Publication of the metrics.
pub(crate) static METRICS: Timer = Timer::new("offload-metrics");

/// How long a helper thread stays without a callback.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The callback of a timer. It returns the time of its next call, if there is one.
type Callback = Box<dyn FnMut() -> Option<Instant> + Send>;

/// A helper thread, and the callbacks that it calls at their times.
pub(crate) struct Timer {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    due: BTreeMap<Entry, Callback>,
    next_number: u64,
    running: bool,
    /// The time of the last start of the thread, if it failed.
    failed: Option<Instant>,
}

/// The time of a callback, and a number that distinguishes callbacks of the same time.
type Entry = (Instant, u64);

/// A timer that keeps the earliest of the times that it is set to.
#[derive(Debug, Default)]
pub(crate) struct Earliest(Mutex<Option<Alarm>>);

/// A callback that is set. Dropping this cancels it.
#[derive(Debug)]
pub(crate) struct Alarm(Entry);

/// Calls `callback` at `time`.
pub(crate) fn alarm(time: Instant, mut callback: impl FnMut() + Send + 'static) -> Alarm {
    Alarm(TIMER.set(time, move || {
        callback();
        None
    }))
}

/// Ends after `duration`; never, if that is beyond the range of the clock.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    Instant::now().checked_add(duration).map_or_else(|| Sleep { bell: Arc::default(), alarm: None }, sleep_until)
}

/// Ends at `time`.
pub(crate) fn sleep_until(time: Instant) -> Sleep {
    let bell = Arc::new(Bell::default());
    let rings = bell.clone();
    let alarm = alarm(time, move || rings.ring());
    Sleep { bell, alarm: Some(alarm) }
}

/// A future that ends at its time.
///
/// Dropping it removes its callback from the timer, because the deadline of a request may be hours away.
pub(crate) struct Sleep {
    bell: Arc<Bell>,
    alarm: Option<Alarm>,
}

#[derive(Default)]
struct Bell {
    fired: AtomicBool,
    waker: AtomicWaker,
}

// === impl Timer ===

impl Timer {
    const fn new(name: &'static str) -> Self {
        let state = State { due: BTreeMap::new(), next_number: 0, running: false, failed: None };
        Self { name, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Calls `callback` at `at`, and again at each time that it returns.
    pub(crate) fn set(&'static self, at: Instant, callback: impl FnMut() -> Option<Instant> + Send + 'static) -> Entry {
        let callback: Callback = Box::new(callback);
        let mut state = self.lock();
        let first = state.is_first(at);
        let entry = state.insert(at, callback);
        self.ensure_running(state, first);
        entry
    }

    /// The same, unless the thread could not be started a moment ago. Whether the callback was set.
    pub(crate) fn try_set(
        &'static self,
        at: Instant,
        callback: impl FnMut() -> Option<Instant> + Send + 'static,
    ) -> bool {
        if self.lock().failed.is_some_and(|failed| failed.elapsed() < START_BACKOFF) {
            return false;
        }
        let entry = self.set(at, callback);
        let runs = self.is_running();
        if !runs {
            self.cancel(entry);
        }
        runs
    }

    fn cancel(&self, entry: Entry) {
        // The callback is dropped without the lock.
        let _callback = self.lock().due.remove(&entry);
    }

    /// Starts the thread if it does not run and a callback is set. Wakes it if a callback is due `sooner` than all
    /// others.
    fn ensure_running(&'static self, mut state: MutexGuard<'_, State>, sooner: bool) {
        let mut failure = None;
        if !state.running && !state.due.is_empty() {
            match threads::start(self.name.to_owned(), None, || self.run()) {
                Ok(()) => (state.running, state.failed) = (true, None),
                Err(error) => failure = state.failed.replace(Instant::now()).is_none().then_some(error),
            }
        } else if sooner {
            self.changed.notify_one();
        }
        drop(state);
        if let Some(error) = failure {
            shielded(|| {
                tracing::error!(
                    target: "tower_offload",
                    thread = self.name, %error,
                    "a helper thread could not be started: until it can, timeouts do not fire, or metrics are not published"
                );
            });
        }
    }

    fn run(&'static self) {
        let mut state = self.lock();
        loop {
            while let Some(mut callback) = state.pop(Instant::now()) {
                drop(state);
                // A callback calls wakers, subscribers and recorders of the application.
                let again = shielded(&mut callback).flatten();
                let Some(at) = again else {
                    shielded(|| drop(callback));
                    state = self.lock();
                    continue;
                };
                state = self.lock();
                state.insert(at, callback);
            }
            drop(state);
            let other = if std::ptr::eq(self, &TIMER) { &METRICS } else { &TIMER };
            let other_waits = other.is_stopped_by_failure();
            state = self.lock();
            let first = state.due.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
            if first.is_some_and(|first| first.is_zero()) {
                continue;
            }
            let wait = first.unwrap_or(KEEP_ALIVE).min(if other_waits { START_BACKOFF } else { Duration::MAX });
            let timeout;
            (state, timeout) = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && state.due.is_empty() && !other_waits {
                state.running = false;
                return;
            }
        }
    }

    /// Whether this callback is set, and the thread runs that calls it.
    fn will_call(&self, entry: Entry) -> bool {
        let state = self.lock();
        state.running && state.due.contains_key(&entry)
    }

    /// Whether the thread runs. If it could not be started, no callback is called.
    pub(crate) fn is_running(&self) -> bool {
        self.lock().running
    }

    /// Whether a callback is set, and the thread still cannot be started.
    fn is_stopped_by_failure(&'static self) -> bool {
        let state = self.lock();
        if state.failed.is_none() || state.due.is_empty() {
            return false;
        }
        // The other helper thread calls this each second.
        self.ensure_running(state, false);
        self.lock().failed.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timer").field(&self.name).finish()
    }
}

// === impl State ===

impl State {
    /// Whether nothing is due before `at`.
    fn is_first(&self, at: Instant) -> bool {
        self.due.first_key_value().is_none_or(|((first, _), _)| at < *first)
    }

    fn insert(&mut self, at: Instant, callback: Callback) -> Entry {
        self.next_number += 1;
        let entry = (at, self.next_number);
        self.due.insert(entry, callback);
        entry
    }

    fn pop(&mut self, now: Instant) -> Option<Callback> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

// === impl Earliest ===

impl Earliest {
    /// Calls `callback` at `at`, unless a callback is set to an earlier time. A callback that is set to a later time is
    /// cancelled.
    pub(crate) fn set(&self, at: Instant, callback: impl FnMut() + Send + 'static) {
        let is_sooner = |Alarm(entry): &mut Alarm| entry.0 <= at && TIMER.will_call(*entry);
        if self.lock().as_mut().is_some_and(is_sooner) {
            return;
        }
        // Set without the lock: if the helper thread cannot be started, a subscriber of the application is called.
        let alarm = alarm(at, callback);
        let mut set = self.lock();
        let other = if set.as_mut().is_some_and(is_sooner) { Some(alarm) } else { set.replace(alarm) };
        drop(set);
        drop(other);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Alarm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sleep ===

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The time is checked here as well, because the helper thread may not have been started.
        if self.alarm.as_ref().is_some_and(|Alarm((time, _))| *time <= Instant::now()) {
            return Poll::Ready(());
        }
        self.bell.waker.register(cx.waker());
        // The timer may have fired before the waker was registered.
        if self.bell.fired.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        TIMER.cancel(self.0);
    }
}

impl Bell {
    fn ring(&self) {
        self.fired.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_sleep_that_is_dropped_leaves_the_timer() {
        let sleep = sleep(Duration::from_secs(3600));
        let entry = sleep.alarm.as_ref().expect("an hour can be counted").0;
        assert!(TIMER.lock().due.contains_key(&entry));
        drop(sleep);
        assert!(!TIMER.lock().due.contains_key(&entry));
    }

    /// The thread is late, and the time of the callback has passed.
    #[test]
    fn a_callback_that_is_due_is_not_replaced_by_a_later_one() {
        let (is_late, goes_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (stops, starts) = (is_late.clone(), goes_on.clone());
        TIMER.set(Instant::now(), move || {
            stops.wait();
            starts.wait();
            None
        });
        is_late.wait();
        let (timer, at) = (Earliest::default(), Instant::now());
        let (sender, called) = channel();
        timer.set(at, move || sender.send("the first").expect("the test waits for it"));
        timer.set(at + Duration::from_secs(3600), || ());
        goes_on.wait();
        assert_eq!(called.recv_timeout(Duration::from_secs(30)), Ok("the first"));
    }

    #[test]
    fn a_timer_that_is_set_anew_keeps_its_earliest_time_only() {
        let timer = Earliest::default();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let set = |seconds| {
            timer.set(at(seconds), || ());
            timer.0.lock().expect("no test panics").as_ref().expect("it is set").0
        };
        let (first, later, sooner) = (set(3600), set(7200), set(1800));
        assert_eq!(first, later);
        let due = |entry| TIMER.lock().due.contains_key(&entry);
        assert_eq!((due(first), due(sooner)), (false, true));
        drop(timer);
        assert!(!due(sooner));
    }
}
