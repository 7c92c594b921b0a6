//! Unit tests of how a pool's lock brings tasks and workers together.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::admission::{Finish, Priority};
use crate::dispatch::state::MAX_READY_IN_A_ROW;
use crate::dispatch::workers::Wake;

const START: Timestamp = Timestamp::from_nanos(0);
const SECOND: Duration = Duration::from_secs(1);
const LATE: Timestamp = Timestamp::from_nanos(2_000_000_000);

impl Admit for &str {
    fn admitted(&self, _key: Key, _id: u64) {}
}

/// A task that knows its key.
impl Admit for (&str, &Cell<Option<Key>>) {
    fn admitted(&self, key: Key, _id: u64) {
        self.1.set(Some(key));
    }
}

fn drop_effects<T>(effects: Effects<T>) {
    drop(effects);
}

fn dispatch<T>(settings: Settings, workers: usize, cores: usize) -> Dispatch<T> {
    let dispatch = Dispatch::new(Settings { timeout: SECOND, ..settings }, 0, workers);
    dispatch.set_cores(cores);
    dispatch
}

fn ended(key: &Cell<Option<Key>>) -> Ending {
    let finish = Finish { outcome: Outcome::Ok, ran: None, reader: Duration::ZERO, batch: None };
    Ending { key: key.get().expect("it was admitted"), finish }
}

fn offer<T: Admit + std::fmt::Debug>(dispatch: &Dispatch<T>, now: Timestamp, task: T) -> Effects<T> {
    let (offered, effects) = dispatch.offer(now, Offer::default(), task);
    offered.expect("there is room");
    effects
}

/// A destructor among the effects may block, and the task would wait for it although others could run it.
#[test]
fn a_worker_that_has_effects_to_perform_leaves_its_next_task_to_another() {
    let keys = [(); 3].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(1), 2, 2);
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    let (first, _) = dispatch.next(0, START, WorkerEvent::Started);
    assert_eq!(first.map(|task| task.0), Some("first"));
    drop_effects(offer(&dispatch, START, ("late", &keys[1])));
    drop_effects(offer(&dispatch, LATE, ("next", &keys[2])));
    let (next, effects) = dispatch.next(0, LATE, WorkerEvent::Ended(ended(&keys[0])));
    assert!(next.is_none());
    assert_eq!(effects.rejected.iter().map(|rejected| rejected.task.0).collect::<Vec<_>>(), ["late"]);
    assert!(matches!(effects.wake, Wake::Start(1)), "another worker comes for it");
    let (next, _) = dispatch.next(1, LATE, WorkerEvent::Started);
    assert_eq!(next.map(|task| task.0), Some("next"));
}

/// Performing effects may park the thread, and consume the token of an unpark that was meant for the worker.
#[test]
fn a_worker_tells_late_tasks_before_it_parks_and_takes_what_was_submitted_meanwhile() {
    let keys = [(); 3].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(1).with_capacity(1), 1, 1);
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    drop_effects(offer(&dispatch, START, ("late", &keys[1])));
    let (first, _) = dispatch.next(0, START, WorkerEvent::Started);
    assert!(first.is_some());
    // The permit is released elsewhere, so the worker looks into the queue only as it is about to park.
    drop_effects(dispatch.finish(START, ended(&keys[0])));
    dispatch.lock().workers.end_poll(0, START);
    let told = Cell::new(0);
    let next = dispatch.wait(
        0,
        SECOND,
        || LATE,
        |effects| {
            for rejected in effects.rejected {
                assert_eq!((rejected.task.0, rejected.reason), ("late", Reason::QueueTimeout));
                told.set(told.get() + 1);
                let effects = offer(&dispatch, LATE, ("third", &keys[2]));
                assert!(matches!(effects.wake, Wake::Nobody), "the worker is awake, and will look again");
            }
        },
    );
    assert_eq!((next.map(|task| task.0), told.get()), (Some("third"), 1));
}

/// Two of three are within the limit, and the awake limit has no worker for them.
#[test]
fn a_task_that_waits_for_a_core_is_late_and_is_outranked_like_any_that_is_queued() {
    let first = Cell::new(None);
    let others = [(); 2].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(3), 3, 1);
    dispatch.lower_limit();
    let offer = |level, task| {
        let (offered, effects) = dispatch.offer(START, Offer { level, ..Offer::default() }, task);
        assert_eq!(offered.expect("it is within the limit").queued, 0, "it waits for no permit");
        effects.wake
    };
    assert!(matches!(offer(Priority::Low, ("first", &first)), Wake::Start(0)));
    assert!(matches!(offer(Priority::Low, ("low", &others[0])), Wake::Nobody));
    assert!(matches!(offer(Priority::High, ("high", &others[1])), Wake::Nobody));
    let seen = dispatch.instant(START).admission;
    assert_eq!((seen.in_flight, seen.queued), (3, 0), "the limit has permits for them");

    let (next, _) = dispatch.next(0, START, WorkerEvent::Started);
    assert_eq!(next.map(|task| task.0), Some("first"));
    let (next, effects) = dispatch.next(0, START, WorkerEvent::Ended(ended(&first)));
    assert_eq!(next.map(|task| task.0), Some("high"));
    assert!(effects.is_empty());
    let effects = dispatch.expire(START + SECOND);
    assert_eq!(effects.rejected.iter().map(|rejected| rejected.task.0).collect::<Vec<_>>(), ["low"]);
    let seen = dispatch.instant(START).admission;
    assert_eq!((seen.in_flight, seen.queued), (1, 0));
}

#[test]
fn a_call_of_expire_at_its_very_time_is_followed_by_the_next() {
    let dispatch = Dispatch::new(Settings::fixed(1).with_capacity(3), 0, 1);
    let by = |seconds| Offer { deadline: Some(START + SECOND * seconds), ..Offer::default() };
    let expire_at = |offer| dispatch.offer(START, offer, "task").1.expire_at;
    assert_eq!([Offer::default(), by(1), by(1), by(2)].map(expire_at), [None, Some(START + SECOND), None, None]);
    let effects = dispatch.expire(START + SECOND);
    assert_eq!((effects.rejected.len(), effects.expire_at), (2, Some(START + SECOND * 2)));
}

#[test]
fn a_thread_that_could_not_be_started_is_tried_again_if_a_task_waits_for_it() {
    for waits in [false, true] {
        let keys = [(); 2].map(|()| Cell::new(None));
        let dispatch = dispatch(Settings::fixed(2), 2, 2);
        drop_effects(offer(&dispatch, START, ("first", &keys[0])));
        assert!(dispatch.next(0, START, WorkerEvent::Started).0.is_some());
        assert!(matches!(offer(&dispatch, START, ("second", &keys[1])).wake, Wake::Start(1)));
        if !waits {
            let (next, _) = dispatch.next(0, START, WorkerEvent::Ended(ended(&keys[0])));
            assert_eq!(next.map(|task| task.0), Some("second"));
        }
        let (tasks, effects) = dispatch.start_failed(START, 1);
        assert!(tasks.is_empty() && matches!(effects.wake, Wake::Nobody), "the other worker is there");
        assert_eq!(effects.expire_at.is_some(), waits);
        if let Some(at) = effects.expire_at {
            assert!(matches!(dispatch.expire(at).wake, Wake::Start(1)));
        }
    }
}

/// A future that waits for the end is polled for many reasons.
#[test]
fn a_watcher_that_is_polled_again_is_woken_once() {
    let key = Cell::new(None);
    let dispatch = dispatch(Settings::fixed(2), 1, 1);
    drop_effects(offer(&dispatch, START, ("task", &key)));
    let poll = |except| dispatch.poll_idle(except, Waker::noop());
    assert!(!poll(0) && !poll(0));
    assert!(poll(1), "the task itself may wait for the others");
    assert_eq!(dispatch.expire(START).idle.len(), 0, "a task is in flight");
    assert_eq!(dispatch.finish(START, ended(&key)).idle.len(), 1);
    assert!(poll(0), "nothing is left");
    assert_eq!(dispatch.expire(START).idle.len(), 0, "it was woken already");
}

#[test]
fn a_task_in_place_is_taken_out_of_the_queue_once_and_not_after_its_end() {
    let keys = [(); 2].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(1).with_capacity(1), 1, 1);
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    drop_effects(offer(&dispatch, START, ("queued", &keys[1])));
    let in_flight = || dispatch.instant(START).admission.in_flight;
    let runs_in_place = |key: &Cell<Option<Key>>| dispatch.start_awaited(START, ended(key).key, true).0;
    assert_eq!((runs_in_place(&keys[0]), in_flight()), (true, 1));
    assert_eq!((runs_in_place(&keys[1]), in_flight()), (true, 2));
    assert_eq!((runs_in_place(&keys[1]), in_flight()), (true, 2));
    drop_effects(dispatch.finish(START, ended(&keys[1])));
    assert!(!runs_in_place(&keys[1]));
    drop_effects(offer(&dispatch, START, ("late", &keys[1])));
    assert_eq!(dispatch.expire(LATE).rejected.len(), 1);
    assert!(!runs_in_place(&keys[1]), "it was rejected, whether or not its caller knows");
}

/// Run in place, it might block for a task that is awaited after it.
#[test]
fn a_task_that_is_awaited_is_left_to_another_worker_if_it_has_a_permit_and_there_is_one() {
    for (permits, workers, expected) in [(2, 2, false), (1, 2, true), (2, 1, true)] {
        let keys = [(); 2].map(|()| Cell::new(None));
        let dispatch = dispatch(Settings::fixed(permits).with_capacity(1), workers, 1);
        drop_effects(offer(&dispatch, START, ("outer", &keys[0])));
        assert!(dispatch.next(0, START, WorkerEvent::Started).0.is_some());
        dispatch.lower_limit();
        drop_effects(offer(&dispatch, START, ("inner", &keys[1])));
        let (runs_in_place, effects) = dispatch.start_awaited(START, ended(&keys[1]).key, false);
        assert_eq!(runs_in_place, expected, "{permits} permits, {workers} workers");
        assert!(matches!(effects.wake, Wake::Nobody), "the limit is one");
        let instant = dispatch.instant(START).admission;
        assert_eq!((instant.in_flight, instant.queued), (2, 0));
        let next = dispatch.next(0, START, WorkerEvent::Pending).0;
        assert_eq!(next.is_some(), !runs_in_place, "it is ready only if it does not run in place");
    }
}

/// A worker that called them again would spin until one of them is polled.
#[test]
fn a_worker_that_finds_nothing_does_not_call_the_tasks_that_wait_for_room() {
    let key = Cell::new(None);
    let dispatch = dispatch(Settings::fixed(1).with_capacity(1), 1, 1);
    drop_effects(offer(&dispatch, START, ("task", &key)));
    assert!(dispatch.next(0, START, WorkerEvent::Started).0.is_some());
    assert!(dispatch.wait_for_room(START, true).has_room, "there is a place in the queue");
    let (next, effects) = dispatch.next(0, START, WorkerEvent::Ended(ended(&key)));
    assert!(next.is_none() && effects.has_room);
    let times = Cell::new([START, START, LATE, LATE].into_iter());
    let now = || {
        let mut left = times.take();
        let time = left.next().expect("the worker does not spin");
        times.set(left);
        time
    };
    let next = dispatch.wait(0, Duration::from_millis(1), now, |effects| assert!(!effects.has_room));
    assert!(next.is_none(), "its keep-alive is over");
}

#[test]
fn ended_tasks_beyond_what_the_queue_holds_come_back() {
    let dispatch = Dispatch::new(Settings::fixed(1).with_capacity(1), 0, 1);
    let (back, effects) = dispatch.discard(START, vec!["late"; MIN_DROP_CAPACITY]);
    assert!(back.is_empty() && matches!(effects.wake, Wake::Start(0)), "a worker drops them");
    let (back, _) = dispatch.discard(START, vec!["late"]);
    assert_eq!(back.len(), MIN_DROP_CAPACITY + 1);
}

/// A destructor may block, so the next task is left to another worker meanwhile.
#[test]
fn a_worker_drops_what_has_ended_before_its_next_task() {
    let keys = [(); 2].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(1), 2, 2);
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    let (first, _) = dispatch.next(0, START, WorkerEvent::Started);
    assert!(first.is_some());
    drop_effects(offer(&dispatch, START, ("next", &keys[1])));
    drop_effects(dispatch.discard(START, vec![("ended", &keys[1])]).1);
    let (next, effects) = dispatch.next(0, START, WorkerEvent::Ended(ended(&keys[0])));
    assert!(next.is_none());
    assert_eq!(effects.to_drop.iter().map(|task| task.0).collect::<Vec<_>>(), ["ended"]);
}

/// As above, but the worker finds them when it looks once more.
#[test]
fn a_worker_that_drops_what_has_ended_before_it_parks_leaves_its_next_task_to_another() {
    let keys = [(); 2].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(2), 2, 2);
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    assert!(dispatch.next(0, START, WorkerEvent::Started).0.is_some());
    assert!(dispatch.next(0, START, WorkerEvent::Ended(ended(&keys[0]))).0.is_none());
    drop_effects(dispatch.discard(START, vec![("ended", &keys[0])]).1);
    let effects = offer(&dispatch, START, ("next", &keys[1]));
    assert!(matches!(effects.wake, Wake::Start(1)), "two tasks wait, and one worker looks once more");
    let taken = Cell::new(None);
    let next = dispatch.wait(
        0,
        SECOND,
        || START,
        |effects| {
            if effects.to_drop.is_empty() {
                return;
            }
            taken.set(dispatch.next(1, START, WorkerEvent::Started).0);
            drop(dispatch.close());
        },
    );
    assert!(next.is_none(), "the other one has it");
    assert_eq!(taken.get().map(|task| task.0), Some("next"));
}

/// Otherwise the pool would keep a core that other pools wait for until its next event.
#[test]
fn a_worker_that_parks_is_not_in_use_in_the_report_to_the_budget_of_cores() {
    let keys = [(); 2].map(|()| Cell::new(None));
    let dispatch = dispatch(Settings::fixed(2), 2, 1);
    dispatch.lower_limit();
    drop_effects(offer(&dispatch, START, ("first", &keys[0])));
    let lacks = offer(&dispatch, START, ("second", &keys[1])).report.expect("it has one core");
    assert_eq!((lacks.in_use, lacks.wanted), (1, 2));
    assert!(dispatch.next(0, START, WorkerEvent::Started).0.is_some());
    let (second, _) = dispatch.next(0, START, WorkerEvent::Ended(ended(&keys[0])));
    assert!(second.is_some());
    assert!(dispatch.next(0, START, WorkerEvent::Ended(ended(&keys[1]))).0.is_none());
    let (looks, idle) = (Cell::new(0), Cell::new(None));
    let now = || {
        looks.set(looks.get() + 1);
        if looks.get() < 3 { START } else { LATE }
    };
    let next = dispatch.wait(0, Duration::from_millis(1), now, |effects| {
        if let Some(Report { in_use, wanted, .. }) = effects.report {
            idle.set(Some((looks.get(), in_use, wanted)));
        }
    });
    assert!(next.is_none(), "its keep-alive is over");
    assert_eq!(idle.get(), Some((1, 0, 0)), "it is reported when the worker finds nothing, before it parks");
}

#[test]
fn a_pool_that_drains_says_so() {
    let dispatch = dispatch::<&str>(Settings::fixed(1), 1, 1);
    assert!(!dispatch.is_draining());
    dispatch.drain();
    assert!(dispatch.is_draining());
}

proptest! {
    /// Tasks yield, end, or wait for a wake-up, in any order, while others are submitted.
    #[test]
    fn no_more_than_eight_woken_tasks_are_polled_in_a_row_while_a_queued_one_could_start(
        workers in 1..4_usize,
        limit in 2..12_usize,
        steps in proptest::collection::vec((0..4_usize, 0..8_usize, 0..3_usize), 1..300),
    ) {
        let dispatch = Dispatch::new(Settings::fixed(limit).with_capacity(1000), 0, workers);
        dispatch.set_cores(workers);
        for worker in 0..workers {
            assert!(matches!(dispatch.lock().workers.wake(START, 1), Wake::Start(started) if started == worker));
            dispatch.lock().workers.started(worker);
        }
        let keys: Vec<_> = (0..3 * steps.len()).map(|_| Cell::new(None)).collect();
        let mut tasks = keys.iter().map(|key| ("task", key));
        let mut polled: Vec<Option<(&str, &Cell<_>)>> = vec![None; workers];
        let mut pending = Vec::new();
        let mut in_a_row = 0;
        for (worker, step, submitted) in steps {
            let worker = worker % workers;
            for task in tasks.by_ref().take(submitted) {
                drop_effects(offer(&dispatch, START, task));
            }
            let queued = dispatch.lock().admission.queued();
            let next = match (polled[worker].take(), step) {
                (None, _) => dispatch.lock().take(worker, START, &mut Vec::new()),
                (Some(task), 0) => dispatch.next(worker, START, WorkerEvent::Ended(ended(task.1))).0,
                (Some(task), 1) => {
                    pending.push(task);
                    dispatch.next(worker, START, WorkerEvent::Pending).0
                }
                (Some(task), _) => dispatch.next(worker, START, WorkerEvent::Woken(task)).0,
            };
            dispatch.lock().workers.rechecked(worker);
            polled[worker] = next;
            let state = dispatch.lock();
            let was_woken = next.is_some() && state.admission.queued() == queued;
            in_a_row = if was_woken && state.admission.has_takeable() { in_a_row + 1 } else { 0 };
            drop(state);
            prop_assert!(in_a_row <= usize::from(MAX_READY_IN_A_ROW), "a queued task waits for {in_a_row} that were woken");
            if let Some(task) = pending.pop().filter(|_| step % 2 == 0) {
                drop_effects(dispatch.ready(START, task));
            }
        }
    }
}
