//! The state of a task in one atomic word: its phase, whether it was woken, and the signals for its code.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::sync::AtomicU32;

/// Waits to be polled, in the pool's queue or among its ready tasks. A wake-up changes nothing.
const SCHEDULED: u32 = 0;
/// A worker polls it.
const RUNNING: u32 = 1;
/// Waits for a wake-up after a poll.
const IDLE: u32 = 2;
/// Is never polled again.
const ENDED: u32 = 3;
const PHASE: u32 = 3;

/// Woken while it was polled.
const WOKEN: u32 = 1 << 2;
/// Its first poll has begun.
const STARTED: u32 = 1 << 3;
/// Its caller went away.
const CALLER_LEFT: u32 = 1 << 4;
/// Its deadline has passed.
const LATE: u32 = 1 << 5;
/// A worker of its pool waits for it, and polls it in place.
const AWAITED_ON_WORKER: u32 = 1 << 6;
/// It continues after its answer.
const CONTINUES: u32 = 1 << 7;
/// Its answer can be read, although it has not ended.
const ANSWERED: u32 = 1 << 8;

/// The state of one task, shared by its caller, its wakers and the workers.
///
/// The thread that moves a task from *scheduled* to *running* polls it. An entry in a list of ready tasks does not
/// entitle to poll: a worker that waits for the task may have polled it in place meanwhile.
#[derive(Debug)]
pub(crate) struct TaskState(AtomicU32);

/// What the code of a task can learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signals {
    /// The caller went away.
    pub(crate) caller_left: bool,
    /// The deadline has passed.
    pub(crate) late: bool,
}

/// The signals that a worker finds as it begins a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// This is the first poll.
    pub(crate) first: bool,
    /// The caller went away.
    pub(crate) caller_left: bool,
    /// The deadline passed before the first poll, and the caller knows it: the task must not start.
    pub(crate) too_late: bool,
}

/// The next step of the thread that wakes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// Nothing: the task will be polled anyway, or it has ended.
    Nothing,
    /// Put the task among the ready ones.
    Schedule,
    /// Put the task among the ready ones, and wake its caller: a worker that polls the task in place.
    ScheduleAndWakeCaller,
}

impl TaskState {
    /// The state of a new task, which is scheduled.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(SCHEDULED))
    }

    /// Claims the next poll. `None` if another thread has claimed it, or the task is idle or has ended.
    pub(crate) fn begin_poll(&self) -> Option<Begun> {
        let before = self.update(|state| {
            let starts = state & (CALLER_LEFT | LATE) == 0;
            let started = if starts { STARTED } else { 0 };
            (state & PHASE == SCHEDULED).then_some((state & !(PHASE | WOKEN)) | RUNNING | started)
        })?;
        let first = before & STARTED == 0;
        Some(Begun { first, caller_left: before & CALLER_LEFT != 0, too_late: first && before & LATE != 0 })
    }

    /// Ends a poll that returned `Pending`. The result is that of a wake-up during the poll, if there was one.
    pub(crate) fn end_poll(&self) -> Wakeup {
        let before = self.update(|state| {
            let next = if state & WOKEN == 0 { IDLE } else { SCHEDULED };
            Some((state & !(PHASE | WOKEN)) | next)
        });
        match before {
            Some(state) if state & WOKEN != 0 => Wakeup::of(state),
            _ => Wakeup::Nothing,
        }
    }

    /// Marks the task as ended. Called after its permit was released: from now on its answer can be read.
    pub(crate) fn end(&self) {
        self.update(|state| Some(state | ENDED));
    }

    /// Wakes the task.
    pub(crate) fn wake(&self) -> Wakeup {
        let before = self.update(|state| match state & PHASE {
            IDLE => Some(state & !PHASE),
            RUNNING => Some(state | WOKEN),
            // This writes the same state again. A load alone might return a value older than a poll that has begun
            // meanwhile without seeing the waker's data. With a write, one of the two threads sees the other.
            SCHEDULED => Some(state),
            _ => None,
        });
        match before {
            Some(state) if state & PHASE == IDLE => Wakeup::of(state),
            _ => Wakeup::Nothing,
        }
    }

    /// Notes that the caller went away.
    pub(crate) fn caller_left(&self) {
        self.0.fetch_or(CALLER_LEFT, AcqRel);
    }

    /// Notes that the deadline has passed. Whether the task has started; if not, it never will.
    pub(crate) fn deadline_passed(&self) -> bool {
        self.0.fetch_or(LATE, AcqRel) & STARTED != 0
    }

    /// Notes that a worker of the task's pool waits for it.
    pub(crate) fn awaited_on_worker(&self) {
        self.0.fetch_or(AWAITED_ON_WORKER, AcqRel);
    }

    /// Notes that the task continues after its answer. Called by the thread that polls it.
    pub(crate) fn will_continue(&self) {
        self.0.fetch_or(CONTINUES, AcqRel);
    }

    pub(crate) fn continues(&self) -> bool {
        self.0.load(Relaxed) & CONTINUES != 0
    }

    /// Marks the answer as readable, although the task continues.
    pub(crate) fn answered(&self) {
        self.0.fetch_or(ANSWERED, AcqRel);
    }

    /// Whether the answer was marked as readable before. This writes, so that it sees the latest state.
    pub(crate) fn was_answered(&self) -> bool {
        self.0.fetch_or(0, AcqRel) & ANSWERED != 0
    }

    /// Whether the answer can be read.
    pub(crate) fn has_answer(&self) -> bool {
        let state = self.0.load(Acquire);
        state & ANSWERED != 0 || state & PHASE == ENDED
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Acquire) & PHASE == ENDED
    }

    pub(crate) fn has_started(&self) -> bool {
        self.0.load(Acquire) & STARTED != 0
    }

    /// Costs one relaxed load.
    pub(crate) fn signals(&self) -> Signals {
        let state = self.0.load(Relaxed);
        Signals { caller_left: state & CALLER_LEFT != 0, late: state & LATE != 0 }
    }

    /// Replaces the state by the result of `next`. Returns the state before, or `None` if `next` did.
    fn update(&self, next: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        self.0.fetch_update(AcqRel, Acquire, next).ok()
    }
}

impl Wakeup {
    /// The result of a wake-up in this state.
    const fn of(state: u32) -> Self {
        if state & AWAITED_ON_WORKER == 0 { Self::Schedule } else { Self::ScheduleAndWakeCaller }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_polled_by_one_thread_at_a_time_and_not_after_its_end() {
        let state = TaskState::new();
        assert!(state.begin_poll().is_some_and(|begun| begun.first));
        assert_eq!(state.begin_poll(), None);
        assert_eq!(state.end_poll(), Wakeup::Nothing);
        assert_eq!(state.begin_poll(), None, "nobody woke it");
        assert_eq!([state.wake(), state.wake()], [Wakeup::Schedule, Wakeup::Nothing]);
        assert!(state.begin_poll().is_some_and(|begun| !begun.first));
        state.end();
        assert!(state.has_ended());
        assert_eq!((state.wake(), state.begin_poll()), (Wakeup::Nothing, None));
    }

    #[test]
    fn a_wake_up_during_a_poll_schedules_the_task_again_once() {
        let state = TaskState::new();
        state.begin_poll().expect("it is scheduled");
        assert_eq!([state.wake(), state.wake()], [Wakeup::Nothing; 2]);
        assert_eq!(state.end_poll(), Wakeup::Schedule);
        state.begin_poll().expect("it was woken");
        assert_eq!(state.end_poll(), Wakeup::Nothing);
    }

    #[test]
    fn each_wake_up_also_wakes_the_worker_that_waits_for_the_task() {
        let state = TaskState::new();
        state.awaited_on_worker();
        state.begin_poll().expect("it is scheduled");
        assert_eq!((state.wake(), state.end_poll()), (Wakeup::Nothing, Wakeup::ScheduleAndWakeCaller));
        state.begin_poll().expect("it was woken");
        assert_eq!((state.end_poll(), state.wake()), (Wakeup::Nothing, Wakeup::ScheduleAndWakeCaller));
    }

    #[test]
    fn a_task_whose_deadline_passed_before_its_first_poll_never_starts() {
        let state = TaskState::new();
        assert!(!state.deadline_passed());
        assert!(state.begin_poll().is_some_and(|begun| begun.too_late));
        assert!(!state.has_started());
        let state = TaskState::new();
        state.begin_poll().expect("it is scheduled");
        assert!(state.deadline_passed(), "it has started");
        assert_eq!(state.signals(), Signals { caller_left: false, late: true });
    }
}
