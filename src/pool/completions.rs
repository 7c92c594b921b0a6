//! Completions that a worker holds back for a moment, so that several callers are woken together.
//!
//! Each caller that is woken by itself may take a thread of the server's runtime out of its sleep, which takes the core
//! from the worker for the sake of one answer. Network cards had the same trouble with one interrupt for each packet, and
//! coalesce them. So does a worker while there is more to be won than lost: its jobs are short, more jobs wait than it
//! holds answers, and its next one is at hand. It tells all of them as soon as one of these does not hold, or the first
//! has waited for [`LONGEST`].
//!
//! A job can be far longer than those before it, and whoever is held back must not wait for it, nor perhaps it for them.
//! So nothing is held unless a timer looks after it every [`TICK`], and has been seen to do so.

use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::admission::Timestamp as Moment;
use crate::shield::shielded;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::timer::{self, Alarm};

/// After so long the worker tells those that it holds, when the job that it has then has ended.
const LONGEST: Duration = Duration::from_micros(500);

/// The worker may be in a longer job by then. So often all that is held is told by the timer.
const TICK: Duration = Duration::from_millis(1);

/// A timer that has not looked for so long since something was held may not look again soon.
const OVERDUE: Duration = Duration::from_millis(2);

/// Jobs are short if so many of them fit into the longest time.
const FEWEST: u32 = 5;

/// So many are held at most.
const MOST: usize = 64;

/// What one worker holds back.
#[derive(Debug, Default)]
pub(super) struct Completions {
    held: Mutex<Held>,
}

/// What a worker knows as its job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(super) now: Moment,
    /// How long the pool's jobs usually take.
    pub(super) usual: Duration,
    /// How many jobs wait, beside the next one, which the worker has.
    pub(super) waiting: usize,
}

#[derive(Debug, Default)]
struct Held {
    callers: Vec<Waker>,
    /// The moment since when the first of them has waited.
    since: Moment,
    timer: Ticks,
    /// Something was to be held since the last tick.
    wanted: bool,
    /// The moment at which something was first held since the last tick.
    unticked: Option<Moment>,
}

/// Whether a timer looks after what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ticks {
    #[default]
    No,
    /// It was asked to. Its thread may not have started, and may not be able to.
    Asked,
    Yes,
}

/// What is done with a caller whose job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Hold,
    Tell,
    /// And a timer is to be asked, so that the next one can be held.
    TellAndAsk,
}

/// The moments at which the timer looks are the same for all workers, so that it wakes once for all.
fn next_tick(now: Instant) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = now.saturating_duration_since(*FIRST.get_or_init(|| now)).as_nanos() % TICK.as_nanos();
    now + TICK - Duration::from_nanos(since as u64)
}

/// Wakes a caller.
pub(super) fn wake(caller: Waker) {
    shielded(|| caller.wake());
}

// === impl Completions ===

impl Completions {
    /// The job of `caller` has ended. It is held back if that is worth it, by the `outlook` of a worker that goes on at
    /// once with its next job. Otherwise it is told, after all that are held.
    pub(super) fn tell(self: &Arc<Self>, caller: Waker, outlook: Option<Outlook>) {
        if self.hold_or_wake(caller, outlook) {
            let this: Weak<Self> = Arc::downgrade(self);
            shielded(|| timer::COMPLETIONS.arm(next_tick(Instant::now()), this));
        }
    }

    /// The same; whether a timer is to be asked.
    pub(super) fn hold_or_wake(&self, caller: Waker, outlook: Option<Outlook>) -> bool {
        let mut held = self.lock();
        let verdict = held.judge(outlook);
        if verdict == Verdict::Hold {
            held.callers.push(caller);
            return false;
        }
        let callers = std::mem::take(&mut held.callers);
        drop(held);
        callers.into_iter().for_each(wake);
        wake(caller);
        verdict == Verdict::TellAndAsk
    }

    /// A job has ended for which nobody waits, and the worker goes on at once with its next one.
    pub(super) fn pass(&self, outlook: Outlook) {
        let has_room = self.lock().has_room(outlook);
        if !has_room {
            self.tell_all();
        }
    }

    /// Tells all that are held: the worker does not go on at once.
    pub(super) fn tell_all(&self) {
        let callers = std::mem::take(&mut self.lock().callers);
        callers.into_iter().for_each(wake);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Alarm for Completions {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        let (callers, goes_on) = self.lock().tick();
        callers.into_iter().for_each(wake);
        goes_on.then(|| next_tick(Instant::now()))
    }
}

// === impl Held ===

impl Held {
    fn judge(&mut self, outlook: Option<Outlook>) -> Verdict {
        let Some(outlook) = outlook.filter(|outlook| self.has_room(*outlook)) else { return Verdict::Tell };
        self.wanted = true;
        match self.timer {
            Ticks::No => {
                self.timer = Ticks::Asked;
                Verdict::TellAndAsk
            }
            Ticks::Asked => Verdict::Tell,
            Ticks::Yes => {
                let unticked = *self.unticked.get_or_insert(outlook.now);
                if outlook.now.since(unticked) > OVERDUE {
                    return Verdict::Tell;
                }
                if self.callers.is_empty() {
                    self.since = outlook.now;
                }
                Verdict::Hold
            }
        }
    }

    /// Whether it is worth it to hold one more.
    fn has_room(&self, Outlook { now, usual, waiting }: Outlook) -> bool {
        let are_short = usual * FEWEST <= LONGEST;
        let is_soon = self.callers.is_empty() || now.since(self.since) < LONGEST;
        are_short && is_soon && self.callers.len() < waiting.min(MOST)
    }

    /// The timer looks: those that are held, and whether it is to come again.
    fn tick(&mut self) -> (Vec<Waker>, bool) {
        let goes_on = std::mem::take(&mut self.wanted);
        self.unticked = None;
        self.timer = if goes_on { Ticks::Yes } else { Ticks::No };
        (std::mem::take(&mut self.callers), goes_on)
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    fn at(micros: u32) -> Moment {
        Moment::default() + MICRO * micros
    }

    /// After so many microseconds, jobs of 20 µs, of which so many wait.
    fn outlook(micros: u32, waiting: usize) -> Option<Outlook> {
        Some(Outlook { now: at(micros), usual: 20 * MICRO, waiting })
    }

    /// A timer looks after what it holds.
    fn looked_after() -> Held {
        let mut held = Held::default();
        assert_eq!(held.judge(outlook(0, 1)), Verdict::TellAndAsk);
        let (callers, goes_on) = held.tick();
        assert!(callers.is_empty() && goes_on);
        held
    }

    /// How many in a row it holds, each of which ends so many microseconds after the one before.
    fn holds(held: &mut Held, micros: u32, waiting: usize) -> usize {
        let mut ends = (0..).step_by(micros as usize);
        std::iter::from_fn(|| {
            let verdict = held.judge(outlook(ends.next()?, waiting));
            (verdict == Verdict::Hold).then(|| held.callers.push(Waker::noop().clone()))
        })
        .count()
    }

    #[test]
    fn nothing_is_held_before_a_timer_has_come_once() {
        let mut held = Held::default();
        let verdicts = [0, 20, 40].map(|micros| held.judge(outlook(micros, 9)));
        assert_eq!(verdicts, [Verdict::TellAndAsk, Verdict::Tell, Verdict::Tell]);
        held.tick();
        assert_eq!(held.judge(outlook(60, 9)), Verdict::Hold);
    }

    #[test]
    fn the_timer_comes_as_long_as_something_was_to_be_held() {
        let mut held = looked_after();
        assert_eq!(holds(&mut held, 20, 3), 3);
        let (callers, goes_on) = held.tick();
        assert_eq!((callers.len(), goes_on), (3, true));
        assert_eq!(held.judge(None), Verdict::Tell);
        assert!(!held.tick().1);
        assert_eq!(held.judge(outlook(9_000, 1)), Verdict::TellAndAsk, "it would not come for this");
    }

    #[test]
    fn the_timer_rests_until_the_next_tick() {
        let completions = Arc::new(Completions::default());
        completions.lock().judge(outlook(0, 1));
        let before = Instant::now();
        let again = completions.clone().ring().expect("something was to be held");
        assert!(again > before);
        assert_eq!([again, again + TICK / 2].map(next_tick), [again + TICK; 2], "the same for all");
        assert_eq!(completions.ring(), None);
    }

    #[test]
    fn nothing_is_held_while_the_timer_is_overdue() {
        let mut held = looked_after();
        let late = |held: &mut Held, micros| held.judge(outlook(micros, 9));
        assert_eq!([0, 2_000, 2_001].map(|at| late(&mut held, at)), [Verdict::Hold, Verdict::Hold, Verdict::Tell]);
        held.tick();
        assert_eq!(late(&mut held, 9_000), Verdict::Hold);
    }

    #[test]
    fn fewer_are_held_than_jobs_wait_and_none_for_long() {
        assert_eq!(holds(&mut looked_after(), 20, 7), 7);
        assert_eq!(holds(&mut looked_after(), 20, 1_000), 25, "half a millisecond");
        assert_eq!(holds(&mut looked_after(), 1, 1_000), MOST);
    }

    #[test]
    fn nothing_is_held_where_jobs_are_long_or_none_is_at_hand() {
        let mut held = looked_after();
        let mut long = outlook(0, 9).expect("there are jobs");
        for (usual, verdict) in [(100 * MICRO, Verdict::Hold), (101 * MICRO, Verdict::Tell)] {
            long.usual = usual;
            assert_eq!(held.judge(Some(long)), verdict);
        }
        assert_eq!([held.judge(None), held.judge(outlook(0, 0))], [Verdict::Tell; 2]);
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ends {
            waiting: usize,
            goes_on: bool,
        },
        /// One that nobody waits for.
        Passes {
            waiting: usize,
        },
        Rests,
        Ticks,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let ends = (0..10_usize, any::<bool>()).prop_map(|(waiting, goes_on)| Step::Ends { waiting, goes_on });
        let passes = (0..10_usize).prop_map(|waiting| Step::Passes { waiting });
        let step = prop_oneof![8 => ends, 1 => passes, 1 => Just(Step::Rests), 1 => Just(Step::Ticks)];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_caller_is_told_once_and_none_is_left_when_the_worker_rests(steps in steps()) {
            let completions = Arc::new(Completions::default());
            // The timer's thread is this one.
            completions.lock().timer = Ticks::Asked;
            let callers: Vec<_> = steps.iter().map(|_| Arc::new(Count::default())).collect();
            let told = || callers.iter().map(|caller| caller.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
            let mut ended = vec![0; steps.len()];
            for (turn, step) in steps.iter().enumerate() {
                match *step {
                    Step::Ends { waiting, goes_on } => {
                        ended[turn] = 1;
                        let outlook = outlook(turn as u32 * 20, waiting).filter(|_| goes_on);
                        completions.tell(callers[turn].clone().into(), outlook);
                        if outlook.is_none() {
                            prop_assert_eq!(told(), ended.clone());
                        }
                    }
                    Step::Passes { waiting } => {
                        let outlook = outlook(turn as u32 * 20, waiting).expect("it goes on");
                        completions.pass(outlook);
                        let held = completions.lock();
                        prop_assert!(held.callers.is_empty() || held.has_room(outlook));
                    }
                    Step::Rests => {
                        completions.tell_all();
                        prop_assert_eq!(told(), ended.clone());
                    }
                    Step::Ticks => {
                        let (due, _) = completions.lock().tick();
                        due.into_iter().for_each(wake);
                        completions.lock().timer = Ticks::Yes;
                        prop_assert_eq!(told(), ended.clone());
                    }
                }
            }
            completions.tell_all();
            prop_assert_eq!(told(), ended);
        }
    }
}
