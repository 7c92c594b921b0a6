//! Unit tests of the counts of workers.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_nanos(7);
const MANY: usize = 1000;

/// Wakes a worker that has to be started.
fn start(workers: &mut Workers, now: Timestamp, waiting: usize) -> Option<WorkerId> {
    match workers.wake(now, waiting) {
        Wake::Start(worker) => Some(worker),
        Wake::Nobody => None,
        Wake::Unpark(_) => panic!("nobody is parked"),
    }
}

/// A pool whose tasks take a millisecond, so that workers do not wait for each other to wake. This thread stands for
/// each of the workers that have started.
fn started(count: usize, max: usize, cores: usize) -> Workers {
    let mut workers = Workers::new(max);
    workers.set_cores(cores);
    (0..100).for_each(|_| workers.limit.record_poll(Duration::from_millis(1)));
    for worker in 0..count {
        assert_eq!(start(&mut workers, NOW, MANY), Some(worker));
        workers.started(worker);
    }
    assert_eq!((workers.present, workers.coming()), (count, (0, 0)));
    workers
}

#[test]
fn no_more_workers_wake_at_a_time_than_there_are_cores() {
    let mut workers = started(0, 8, 2);
    assert_eq!([(); 3].map(|()| start(&mut workers, NOW, MANY)), [Some(0), Some(1), None]);
    workers.started(0);
    assert_eq!([(); 2].map(|()| start(&mut workers, NOW, MANY)), [Some(2), None]);
    assert_eq!((workers.present, workers.coming()), (3, (2, 0)));
}

#[test]
fn while_the_backlog_is_short_one_worker_wakes_at_a_time() {
    let mut workers = Workers::new(8);
    workers.set_cores(4);
    (0..1000).for_each(|_| workers.limit.record_poll(Duration::from_micros(10)));
    assert_eq!([3, 9].map(|waiting| start(&mut workers, NOW, waiting)), [Some(0), None]);
    assert_eq!(start(&mut workers, NOW, 20), Some(1), "200 µs of work");
}

#[test]
fn no_worker_wakes_for_a_task_that_one_is_coming_for() {
    let mut workers = started(2, 8, 4);
    assert_eq!([0, 1, 1, 2].map(|waiting| start(&mut workers, NOW, waiting)), [None, Some(2), None, Some(3)]);
    (2..4).for_each(|worker| workers.started(worker));
    workers.will_recheck(0);
    assert_eq!(workers.coming(), (0, 1));
    assert_eq!([1, 2].map(|waiting| start(&mut workers, NOW, waiting)), [None, Some(4)]);
    workers.started(4);
    (0..2).for_each(|_| workers.rechecked(0));
    assert_eq!(workers.coming(), (0, 0), "it rechecked once");
    assert_eq!(start(&mut workers, NOW, 1), Some(5));
}

#[test]
fn the_number_of_a_worker_that_left_is_the_next_to_be_taken() {
    let mut workers = started(3, 3, 8);
    assert_eq!(start(&mut workers, NOW, MANY), None, "the pool may have no more");
    workers.leave(1);
    assert_eq!([(); 2].map(|()| start(&mut workers, NOW, MANY)), [Some(1), None]);
}

#[test]
fn the_worker_that_parked_last_is_unparked_first_and_before_a_thread_is_started() {
    let mut workers = started(3, 4, 8);
    (0..3).for_each(|worker| workers.park(worker));
    for waking in 1..=2 {
        assert!(matches!(workers.wake(NOW, MANY), Wake::Unpark(_)));
        assert_eq!(workers.coming(), (waking, 0));
    }
    assert!(workers.unparked(2) && workers.unparked(1), "they were woken");
    assert_eq!(workers.coming(), (0, 0));
    assert!(!workers.unparked(0), "the wake-up was spurious");
    assert_eq!((start(&mut workers, NOW, MANY), workers.coming()), (Some(3), (1, 0)), "nobody is parked any more");
    workers.park(0);
    assert!(!workers.unparked(0), "it was not woken since");
}

#[test]
fn a_pool_that_closes_unparks_every_worker() {
    let mut workers = started(3, 3, 1);
    (0..2).for_each(|worker| workers.park(worker));
    let unparked = workers.unpark_all().len();
    assert_eq!((unparked, workers.coming()), (2, (2, 0)), "however many may wake at a time otherwise");
    assert!(workers.unparked(0) && workers.unparked(1));
    assert_eq!((workers.unpark_all().len(), workers.coming()), (0, (0, 0)));
}

#[test]
fn after_a_failed_start_no_other_is_tried_for_a_while() {
    let mut workers = started(1, 4, 8);
    assert_eq!(start(&mut workers, NOW, 1), Some(1));
    workers.start_failed(NOW, 1);
    assert_eq!((workers.present, workers.coming()), (1, (0, 0)));
    let (late, over) = (NOW + (START_BACKOFF - Duration::from_nanos(1)), NOW + START_BACKOFF);
    for soon in [NOW, late] {
        assert_eq!((start(&mut workers, soon, 1), workers.start_blocked_until(soon)), (None, Some(over)));
    }
    assert_eq!((workers.start_blocked_until(over), start(&mut workers, over, 1)), (None, Some(1)));
}

/// The tasks that wait for the worker are then rejected.
#[test]
fn without_any_worker_a_start_is_tried_in_any_case() {
    let mut workers = Workers::new(4);
    workers.set_cores(8);
    for _ in 0..3 {
        assert_eq!(start(&mut workers, NOW, 1), Some(0));
        workers.start_failed(NOW, 0);
    }
}

#[test]
fn the_awake_limit_says_how_many_may_be_awake_and_poll() {
    let mut workers = started(3, 8, 2);
    assert!(!workers.exceeds_limit() && workers.has_worker_for_another(7) && !workers.has_worker_for_another(8));
    (0..3).for_each(|worker| workers.begin_poll(worker, NOW));
    assert!(workers.has_worker_for_another(4) && !workers.has_worker_for_another(5));
    workers.lower_limit();
    assert!(workers.exceeds_limit() && !workers.has_worker_for_another(0));
    (1..3).for_each(|worker| workers.end_poll(worker, NOW));
    workers.park(2);
    assert!(!workers.exceeds_limit());
    assert!(matches!(workers.wake(NOW, 1), Wake::Nobody), "two are awake");
    workers.park(1);
    assert!(matches!(workers.wake(NOW, 1), Wake::Unpark(_)));
}

#[test]
fn how_long_a_poll_took_counts_once_and_not_if_it_was_aborted() {
    let at = |millis| NOW + Duration::from_millis(millis);
    let mut workers = Workers::new(8);
    workers.set_cores(2);
    assert_eq!(start(&mut workers, NOW, 1), Some(0));
    workers.started(0);
    workers.begin_poll(0, NOW);
    workers.abort_poll(0);
    assert_eq!((workers.active, workers.limit.mean_poll_time()), (0, Duration::ZERO));
    assert_eq!(workers.poll_time(at(50)), Duration::ZERO);
    workers.begin_poll(0, NOW);
    assert_eq!((workers.active, workers.poll_time(at(20))), (1, Duration::from_millis(20)));
    workers.end_poll(0, at(50));
    let usual = workers.limit.mean_poll_time();
    assert!(workers.active == 0 && usual > Duration::ZERO);
    assert_eq!(workers.poll_time(at(70)), Duration::from_millis(50));
}

#[cfg(target_os = "linux")]
#[test]
fn the_sampler_starts_once_while_more_are_awake_than_cores_and_again_when_it_has_ended() {
    let mut workers = started(2, 8, 2);
    assert!(!workers.starts_sampler(0));
    assert_eq!(start(&mut workers, NOW, 1), Some(2));
    assert_eq!([(); 2].map(|()| workers.starts_sampler(0)), [true, false]);
    workers.started(2);
    workers.leave(2);
    while workers.observe(NOW, &[], 0, 1, false).is_some() {
        assert!(!workers.starts_sampler(1), "it runs already");
    }
    assert!(!workers.starts_sampler(0));
    assert_eq!(start(&mut workers, NOW, 1), Some(2));
    assert!(workers.starts_sampler(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_sample_for_a_tick_of_the_budget_neither_starts_nor_ends_the_sampler() {
    let mut workers = started(2, 8, 2);
    assert!(workers.observe(NOW, &[], 0, 1, true).is_some());
    assert_eq!(start(&mut workers, NOW, 1), Some(2));
    assert!(workers.starts_sampler(0), "it did not run");
    workers.started(2);
    workers.leave(2);
    while workers.observe(NOW, &[], 0, 1, true).is_some() {}
    assert_eq!(start(&mut workers, NOW, 1), Some(2));
    assert!(!workers.starts_sampler(0), "it still runs");
}

/// Each polls a task since the time of its number.
#[cfg(target_os = "linux")]
#[test]
fn of_many_workers_each_sample_has_others_and_none_that_is_parked() {
    const COUNT: usize = 100;
    let mut workers = started(COUNT, COUNT, COUNT);
    (0..COUNT).for_each(|worker| workers.begin_poll(worker, Timestamp::from_nanos(worker as u64)));
    [3, 70].into_iter().for_each(|worker| workers.park(worker));
    let mut sample = || {
        let since = |(_, since): (_, Option<Timestamp>)| since.expect("it polls a task").as_nanos() as usize;
        workers.sample().0.into_iter().map(since).collect::<Vec<_>>()
    };
    let awake: Vec<_> = (0..COUNT).filter(|worker| ![3, 70].contains(worker)).collect();
    let in_turn: Vec<_> = awake.iter().copied().cycle().take(3 * SAMPLE).collect();
    assert_eq!([sample(), sample(), sample()].concat(), in_turn);
}

/// The state of a worker's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    None,
    Starts,
    Awake,
    Polls,
    Rechecks,
    Parked,
    Woken,
}

proptest! {
    /// The counts agree with the threads, whatever these do, and while tasks wait that nobody comes for a worker is
    /// woken if there is one.
    #[test]
    fn the_counts_agree_with_the_threads(
        max in 1..6_usize,
        cores in 1..4_usize,
        steps in proptest::collection::vec((0..6_usize, 0..8_usize, 0..5_usize), 0..200),
    ) {
        use self::Thread::*;
        let mut workers = Workers::new(max);
    workers.set_cores(cores);
        let mut threads = vec![None; max];
        let mut stack = Vec::new();
        for (worker, step, waiting) in steps {
            let worker = worker % max;
            match (threads[worker], step) {
                (Starts, 0) => {
                    workers.start_failed(NOW, worker);
                    threads[worker] = None;
                }
                (Starts, _) => {
                    workers.started(worker);
                    threads[worker] = Awake;
                }
                (Awake, 0 | 1) => {
                    workers.begin_poll(worker, NOW);
                    threads[worker] = Polls;
                }
                (Awake, 2) => {
                    workers.will_recheck(worker);
                    threads[worker] = Rechecks;
                }
                (Awake, 3 | 4) => {
                    workers.park(worker);
                    stack.push(worker);
                    threads[worker] = Parked;
                }
                (Awake, 5) => {
                    workers.leave(worker);
                    threads[worker] = None;
                }
                (Polls, 0) => {
                    workers.abort_poll(worker);
                    threads[worker] = Awake;
                }
                (Polls, 1..5) => {
                    workers.end_poll(worker, NOW);
                    threads[worker] = Awake;
                }
                (Rechecks, _) => {
                    workers.rechecked(worker);
                    threads[worker] = Awake;
                }
                (Parked, 0) => {
                    prop_assert!(!workers.unparked(worker));
                    stack.retain(|&other| other != worker);
                    threads[worker] = Awake;
                }
                (Woken, _) => {
                    prop_assert!(workers.unparked(worker));
                    threads[worker] = Awake;
                }
                _ => {
                    // A thread that starts counts as coming only while no worker is parked.
                    let comes = |thread: &&Thread| match thread {
                        Starts => stack.is_empty(),
                        thread => matches!(thread, Woken | Rechecks),
                    };
                    let coming = threads.iter().filter(comes).count();
                    match workers.wake(NOW, waiting) {
                        Wake::Start(started) => {
                            prop_assert!(stack.is_empty() && waiting > coming);
                            prop_assert_eq!(std::mem::replace(&mut threads[started], Starts), None);
                        }
                        Wake::Unpark(_) => {
                            prop_assert!(waiting > coming);
                            let top = stack.pop().expect("somebody is parked");
                            threads[top] = Woken;
                        }
                        Wake::Nobody => {
                            let can = !stack.is_empty() || threads.iter().all(|&thread| thread == None);
                            prop_assert!(coming > 0 || waiting == 0 || !can, "{waiting} tasks wait for nobody");
                        }
                    }
                }
            }
            let count = |of: &[Thread]| threads.iter().filter(|thread| of.contains(thread)).count();
            prop_assert_eq!(workers.present, max - count(&[None]));
            prop_assert_eq!(workers.coming(), (count(&[Starts, Woken]), count(&[Rechecks])));
            prop_assert_eq!(workers.active, count(&[Polls]));
            prop_assert_eq!(workers.awake(), workers.present - count(&[Parked]));
        }
    }
}
