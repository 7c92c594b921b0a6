//! The rules of admission, one test for each. `fuzzed/` checks its promises over any sequence of calls.

use std::time::Duration;

use tower_offload::Reason;
use tower_offload::admission::{
    Admission, Admitted, Discipline, Key, Limit, Offer, Outcome, Priority, Settings, Timestamp,
};

const TIMEOUT: Duration = Duration::from_millis(100);

const START: Timestamp = Timestamp::from_nanos(0);

fn after(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

fn at(level: Priority) -> Offer {
    Offer { level, ..Offer::default() }
}

/// A pool with one permit, and a task that is in flight in it: the next task is queued.
fn full(settings: Settings) -> (Admission<&'static str>, Key) {
    let mut admission = Admission::new(settings, 1);
    match admission.offer(START, Offer::default(), &mut Vec::new()) {
        Ok(Admitted::InFlight(key)) => (admission, key),
        other => panic!("an empty pool has a permit: {other:?}"),
    }
}

fn queue(
    admission: &mut Admission<&'static str>,
    now: Timestamp,
    offer: Offer,
    task: &'static str,
) -> Result<(), Reason> {
    let Admitted::Queued(key) = admission.offer(now, offer, &mut Vec::new())? else {
        panic!("the task should be queued")
    };
    admission.store(key, task);
    Ok(())
}

/// Ends the task in flight, and starts the next and returns it.
fn start_next(admission: &mut Admission<&'static str>, key: &mut Key, now: Timestamp) -> &'static str {
    assert!(admission.finish(now, *key, Outcome::Ok, Some(Duration::from_millis(1))));
    let taken = admission.take(now, &mut Vec::new()).expect("tasks are queued");
    *key = taken.key;
    taken.task
}

#[test]
fn higher_levels_start_first_and_tasks_of_a_level_in_order_of_arrival() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    let tasks = [
        (Priority::Low, "low"),
        (Priority::Normal, "first"),
        (Priority::Critical, "critical"),
        (Priority::Normal, "second"),
    ];
    for (level, task) in tasks {
        queue(&mut admission, START, at(level), task).unwrap();
    }
    let order: Vec<_> = (0..4).map(|_| start_next(&mut admission, &mut key, START)).collect();
    assert_eq!(order, ["critical", "first", "second", "low"]);
}

#[test]
fn a_lower_level_gets_every_33rd_start_while_a_higher_one_is_queued() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    for _ in 0..10 {
        queue(&mut admission, START, at(Priority::Low), "low").unwrap();
    }
    let mut low = Vec::new();
    for step in 0..330 {
        queue(&mut admission, START, at(Priority::Normal), "normal").unwrap();
        if start_next(&mut admission, &mut key, START) == "low" {
            low.push(step);
        }
    }
    assert_eq!(low, (1..=10).map(|start| start * 33 - 1).collect::<Vec<_>>(), "one start in 33");
}

#[test]
fn two_levels_below_another_each_get_one_start_in_34() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    for _ in 0..10 {
        queue(&mut admission, START, at(Priority::Normal), "normal").unwrap();
        queue(&mut admission, START, at(Priority::Low), "low").unwrap();
    }
    let order: Vec<_> = (0..102)
        .map(|_| {
            queue(&mut admission, START, at(Priority::High), "high").unwrap();
            start_next(&mut admission, &mut key, START)
        })
        .collect();
    let starts_of = |task| (0..order.len()).filter(|&step| order[step] == task).collect::<Vec<_>>();
    assert_eq!(starts_of("normal"), [32, 66, 100]);
    assert_eq!(starts_of("low"), [33, 67, 101]);
}

/// Tasks that start while a level has nothing queued do not count as starts that passed it over.
#[test]
fn starts_while_a_level_is_empty_do_not_bring_its_next_start_forward() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    for _ in 0..100 {
        queue(&mut admission, START, at(Priority::High), "high").unwrap();
        queue(&mut admission, START, at(Priority::Normal), "normal").unwrap();
    }
    for _ in 0..50 {
        start_next(&mut admission, &mut key, START);
    }
    queue(&mut admission, START, at(Priority::Low), "low").unwrap();
    let before =
        std::iter::from_fn(|| Some(start_next(&mut admission, &mut key, START))).take_while(|task| *task != "low");
    assert!(before.count() >= 32, "32 starts pass it over first, as for the others");
}

#[test]
fn a_full_queue_sheds_the_newest_of_a_lower_level_and_rejects_a_task_of_the_same() {
    let (mut admission, _) = full(Settings::fixed(1).with_capacity(3));
    let mut rejected = Vec::new();
    for (level, task) in [(Priority::Low, "old"), (Priority::Low, "new"), (Priority::Normal, "normal")] {
        queue(&mut admission, START, at(level), task).unwrap();
    }
    assert_eq!(queue(&mut admission, START, at(Priority::Low), "low"), Err(Reason::QueueFull));
    let Ok(Admitted::Queued(key)) = admission.offer(START, at(Priority::High), &mut rejected) else {
        panic!("there is room")
    };
    admission.store(key, "high");
    assert_eq!(
        rejected.iter().map(|rejected| (rejected.task, rejected.reason)).collect::<Vec<_>>(),
        [("new", Reason::Shed)]
    );
    let counts = admission.snapshot().counts;
    assert_eq!((counts.shed, counts.rejected), (1, 1));
}

#[test]
fn a_full_queue_sheds_a_task_of_the_caller_with_most_for_a_caller_with_none() {
    let (mut admission, _) = full(Settings::fixed(1).with_capacity(100));
    let by = |caller| Offer { caller: Some(caller), ..Offer::default() };
    for _ in 0..100 {
        queue(&mut admission, START, by(1), "frequent").unwrap();
    }
    assert_eq!(queue(&mut admission, START, by(1), "frequent"), Err(Reason::QueueFull));
    assert_eq!(queue(&mut admission, START, by(2), "rare"), Ok(()));
    assert_eq!(admission.snapshot().counts.shed, 1);
}

#[test]
fn a_queued_task_expires_at_the_sooner_of_its_deadline_and_the_queue_timeout() {
    let settings = Settings { timeout: TIMEOUT, ..Settings::fixed(1) };
    let (mut admission, _) = full(settings);
    let mut rejected = Vec::new();
    for (deadline, task) in [(None, "timeout"), (Some(50), "deadline"), (Some(500), "late deadline")] {
        let offer = Offer { deadline: deadline.map(after), ..Offer::default() };
        queue(&mut admission, START, offer, task).unwrap();
        assert_eq!(admission.expiry_of(START, offer), after(deadline.unwrap_or(100).min(100)));
    }
    assert_eq!(admission.next_expiry(), Some(after(50)));
    admission.expire(after(50), &mut rejected);
    admission.expire(after(99), &mut rejected);
    assert_eq!(admission.next_expiry(), Some(after(100)));
    admission.expire(after(100), &mut rejected);
    let ends: Vec<_> = rejected.iter().map(|rejected| (rejected.task, rejected.reason)).collect();
    let timeout = Reason::QueueTimeout;
    assert_eq!(ends, [("deadline", Reason::DeadlineExceeded), ("timeout", timeout), ("late deadline", timeout)]);
    let past = Offer { deadline: Some(after(100)), ..Offer::default() };
    assert_eq!(admission.offer(after(100), past, &mut rejected), Err(Reason::DeadlineExceeded));
    assert_eq!(admission.snapshot().counts.expired, 4);
}

#[test]
fn retry_after_is_the_time_to_drain_the_queue_plus_up_to_half_of_it() {
    let (mut admission, mut key) = full(Settings { discipline: Discipline::Fifo, ..Settings::fixed(1) });
    for _ in 0..100 {
        queue(&mut admission, START, Offer::default(), "task").unwrap();
    }
    for step in 1..=10 {
        start_next(&mut admission, &mut key, after(step * 100));
    }
    let answers: Vec<_> = (0..100).map(|_| admission.retry_after(after(1000)).as_millis()).collect();
    assert!(answers.iter().all(|answer| (9_100..13_650).contains(answer)), "91 tasks of 100 ms: {answers:?}");
    assert!(answers.iter().min() < answers.iter().max(), "there is jitter");
}

#[test]
fn overload_is_reported_after_an_interval_of_long_waits_and_ends_an_interval_after_them() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    let mut now = 0;
    let mut seen = None;
    // Two tasks arrive for each that ends.
    while now < 400 {
        for _ in 0..2 {
            queue(&mut admission, after(now), Offer::default(), "task").unwrap();
        }
        now += 1;
        start_next(&mut admission, &mut key, after(now));
        if admission.is_overloaded(after(now)) {
            seen.get_or_insert(now);
        }
    }
    assert!(matches!(seen, Some(100..130)), "{seen:?}: 5 ms of wait, then 100 ms of it");
    while admission.snapshot().queued > 0 {
        now += 1;
        start_next(&mut admission, &mut key, after(now));
    }
    assert!(admission.is_overloaded(after(now)), "it was, just now");
    assert!(!admission.is_overloaded(after(now + 100)));
    assert_eq!(admission.snapshot().counts.shed, 0, "all callers are still there");
}

#[test]
fn a_pool_that_starts_no_task_for_target_and_interval_is_overloaded() {
    let (mut admission, _) = full(Settings::fixed(1));
    queue(&mut admission, START, Offer::default(), "task").unwrap();
    assert!(!admission.is_overloaded(after(104)));
    assert!(admission.is_overloaded(after(105)));
}

#[test]
fn a_pool_that_rejects_more_than_it_has_room_for_is_overloaded_however_short_its_queue() {
    let (mut admission, mut key) = full(Settings::fixed(1).with_capacity(1));
    queue(&mut admission, START, Offer::default(), "task").unwrap();
    // Two tasks of a millisecond arrive in each, and one of them finds no room.
    let mut now = 0;
    let mut seen = None;
    while now < 50 {
        now += 1;
        start_next(&mut admission, &mut key, after(now));
        queue(&mut admission, after(now), Offer::default(), "task").unwrap();
        assert_eq!(queue(&mut admission, after(now), Offer::default(), "task"), Err(Reason::QueueFull));
        match seen {
            None => seen = admission.is_overloaded(after(now)).then_some(now),
            Some(_) => assert!(admission.is_overloaded(after(now)), "it still is at {now}"),
        }
    }
    assert_eq!(seen, Some(8), "execution times of lost work");
    start_next(&mut admission, &mut key, after(51));
    assert!(admission.finish(after(52), key, Outcome::Ok, Some(Duration::from_millis(1))));
    assert!(admission.is_overloaded(after(61)), "ten execution times were lost");
    assert!(!admission.is_overloaded(after(62)), "the free permit has made up for them");
}

#[test]
#[ignore = "prints figures of speed; run it with --release"]
fn a_call_costs_the_same_at_any_depth() {
    println!("| depth | offer ns | take + finish ns | cancel ns | with deadlines: offer ns | cancel ns |");
    for depth in [10_usize, 1000, 100_000] {
        let cells = [false, true].map(|deadlines| measure(depth, deadlines));
        let [plain, timed] = cells;
        println!(
            "| {depth} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            plain[0], plain[1], plain[2], timed[0], timed[2]
        );
    }
}

/// Nanoseconds of an offer, of a take with its finish, and of a cancel, in a queue of this depth.
fn measure(depth: usize, deadlines: bool) -> [f64; 3] {
    let settings = Settings { timeout: Duration::from_secs(3600), ..Settings::fixed(1) };
    let (mut admission, mut key) = full(settings.with_capacity(depth + 10_000));
    let (mut rejected, mut spent, mut chance) = (Vec::new(), [0.0; 3], 1_u64);
    let mut fill = |admission: &mut Admission<&'static str>, count: usize| {
        let keys = (0..count).map(|_| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let deadline = deadlines.then(|| START + Duration::from_nanos(1_000_000_000 + (chance >> 24)));
            let offer = Offer { deadline, ..Offer::default() };
            let Ok(Admitted::Queued(key)) = admission.offer(START, offer, &mut Vec::new()) else {
                panic!("it is queued")
            };
            admission.store(key, "task");
            key
        });
        keys.collect::<Vec<_>>()
    };
    fill(&mut admission, depth);
    const ROUNDS: usize = 200;
    const BATCH: usize = 1000;
    for _ in 0..ROUNDS {
        let begun = std::time::Instant::now();
        let keys = fill(&mut admission, BATCH);
        spent[0] += begun.elapsed().as_nanos() as f64;
        let begun = std::time::Instant::now();
        keys.iter().for_each(|&key| assert!(admission.cancel(START, key, Outcome::Cancelled).is_some()));
        spent[2] += begun.elapsed().as_nanos() as f64;
        fill(&mut admission, BATCH);
        let begun = std::time::Instant::now();
        for _ in 0..BATCH {
            admission.finish(START, key, Outcome::Ok, Some(Duration::from_micros(1)));
            key = admission.take(START, &mut rejected).expect("tasks are queued").key;
        }
        spent[1] += begun.elapsed().as_nanos() as f64;
    }
    spent.map(|spent| spent / (ROUNDS * BATCH) as f64)
}

#[test]
fn queued_tasks_that_have_a_free_permit_do_not_count_towards_the_capacity() {
    let mut admission = Admission::new(Settings::fixed(3).with_capacity(1), 1);
    let mut rejected = Vec::new();
    let mut offer = |admission: &mut Admission<_>, task| {
        let Admitted::Queued(key) = admission.offer_to_wait(START, Offer::default(), &mut rejected)? else {
            panic!("`offer_to_wait` starts nothing")
        };
        admission.store(key, task);
        Ok(())
    };
    for task in 0..4 {
        assert_eq!(offer(&mut admission, task), Ok(()), "three are within the limit, and one waits");
    }
    assert_eq!(offer(&mut admission, 4), Err(Reason::QueueFull));
    assert_eq!((admission.takeable(), admission.snapshot().queued), (3, 4));
    let order: Vec<_> = std::iter::from_fn(|| admission.take(START, &mut Vec::new()).map(|taken| taken.task)).collect();
    assert_eq!(order, [0, 1, 2], "in order of arrival, up to the limit");
    assert_eq!((admission.takeable(), admission.snapshot().queued), (0, 1));
}

/// If the cores hold tasks back, fewer run than the limit allows. A task then waits for as long as it would have run
/// longer if as many as the limit shared the cores. Such a wait is not late.
#[test]
fn a_wait_for_a_core_within_the_limit_is_not_late() {
    let overloaded = |limit: usize| {
        let settings = Settings { timeout: Duration::from_secs(60), ..Settings::fixed(limit) };
        let mut admission = Admission::new(settings, 1);
        let mut rejected = Vec::new();
        let mut now = START;
        let mut running: Vec<Key> = Vec::new();
        for round in 0..2000 {
            // Forty tasks are queued. Two run, for ten milliseconds each.
            while admission.snapshot().queued < 40 {
                let Ok(Admitted::Queued(key)) = admission.offer_to_wait(now, Offer::default(), &mut rejected) else {
                    panic!("it is queued")
                };
                admission.store(key, round);
            }
            now = now + Duration::from_millis(10);
            for key in running.drain(..) {
                admission.finish(now, key, Outcome::Ok, Some(Duration::from_millis(10)));
            }
            running.extend((0..2).filter_map(|_| admission.take(now, &mut rejected)).map(|taken| taken.key));
        }
        admission.is_overloaded(now)
    };
    assert!(overloaded(2), "twenty times the run time is late");
    assert!(overloaded(4), "four that share two cores do not run for so long");
    assert!(!overloaded(30), "thirty that share two cores run for fifteen times as long");
}

#[test]
fn a_take_evicts_at_most_a_batch_of_late_tasks() {
    let (mut admission, key) = full(Settings { timeout: TIMEOUT, ..Settings::fixed(1) });
    for _ in 0..500 {
        queue(&mut admission, START, Offer::default(), "late").unwrap();
    }
    assert!(admission.finish(after(1), key, Outcome::Ok, None));
    let mut rejected = Vec::new();
    assert!(admission.take(after(200), &mut rejected).is_none());
    assert!((1..=100).contains(&rejected.len()), "{}", rejected.len());
    assert!(admission.has_takeable(), "there is more");
}

/// The callers' patience is the time that they waited, even if the pool was not called in between.
#[test]
fn callers_that_leave_a_pool_without_other_calls_do_not_make_a_shorter_wait_count_as_overload() {
    let second = Duration::from_secs(1);
    let (mut admission, first) = full(Settings { timeout: 30 * second, ..Settings::fixed(1) });
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let Ok(Admitted::Queued(key)) = admission.offer(START, Offer::default(), &mut Vec::new()) else { panic!() };
        admission.store(key, "leaves");
        waiting.push(key);
    }
    for key in waiting {
        assert!(admission.cancel(after(5_000), key, Outcome::Cancelled).is_some());
    }
    assert!(admission.finish(after(5_000), first, Outcome::Ok, Some(5 * second)));
    assert!(matches!(admission.offer(after(5_000), Offer::default(), &mut Vec::new()), Ok(Admitted::InFlight(_))));
    queue(&mut admission, after(5_000), Offer::default(), "waits").unwrap();
    assert!(!admission.is_overloaded(after(6_000)), "a wait of one second is not late if tasks take five");
}

#[test]
fn each_outcome_and_each_reason_is_counted_once_under_its_result() {
    let outcomes = [
        (Outcome::Ok, "ok"),
        (Outcome::Error, "error"),
        (Outcome::Panicked, "panicked"),
        (Outcome::Cancelled, "cancelled"),
        (Outcome::Expired, "expired"),
        (Outcome::Rejected, "rejected"),
    ];
    for (outcome, name) in outcomes {
        let (mut admission, key) = full(Settings::fixed(1));
        assert!(admission.finish(START, key, outcome, None));
        assert_eq!(results(&admission), [(name, 1)]);
    }
    let reasons = [
        (Reason::QueueFull, "rejected"),
        (Reason::QueueTimeout, "expired"),
        (Reason::Shed, "shed"),
        (Reason::DeadlineExceeded, "expired"),
        (Reason::Draining, "rejected"),
        (Reason::NoWorkers, "rejected"),
        (Reason::CutOff, "cancelled"),
        (Reason::BadHeader, "rejected"),
        (Reason::BodyTooLarge, "rejected"),
        (Reason::BodyTimeout, "rejected"),
        (Reason::BodyBudget, "rejected"),
        (Reason::BodyError, "cancelled"),
    ];
    for (reason, name) in reasons {
        let mut admission = Admission::<()>::new(Settings::fixed(1), 1);
        admission.count_rejected(reason);
        assert_eq!((results(&admission), admission.submitted()), (vec![(name, 1)], 1), "{reason:?}");
    }
}

/// The results with a count above zero, by name.
fn results<T>(admission: &Admission<T>) -> Vec<(&'static str, u64)> {
    let counts = admission.snapshot().counts;
    assert_eq!(counts.by_result().map(|(_, count)| count).sum::<u64>(), counts.ended());
    counts.by_result().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn the_next_expiry_is_the_soonest_deadline_whichever_tasks_are_cancelled() {
    let (mut admission, _) = full(Settings::fixed(1));
    let mut chance = 1_u64;
    let mut draw = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (chance >> 33) % below
    };
    let mut waiting = Vec::new();
    for round in 0..2000 {
        // Up to a few hundred tasks are queued, then cancelled in any order.
        if round < 1000 && draw(3) > 0 || waiting.is_empty() {
            let due = 1 + draw(20_000);
            let offer = Offer { deadline: Some(after(due)), ..Offer::default() };
            let Ok(Admitted::Queued(key)) = admission.offer(START, offer, &mut Vec::new()) else {
                panic!("it is queued")
            };
            admission.store(key, "task");
            waiting.push((due, key));
        } else {
            let soonest = (0..waiting.len()).min_by_key(|&at| waiting[at].0).expect("some wait");
            let leaves = if draw(2) == 0 { soonest } else { draw(waiting.len() as u64) as usize };
            let (_, key) = waiting.swap_remove(leaves);
            assert!(admission.cancel(START, key, Outcome::Cancelled).is_some());
        }
        let soonest = waiting.iter().map(|(due, _)| after(*due)).min();
        assert_eq!(admission.next_expiry(), soonest, "in round {round}");
    }
}

/// The first batch of late tasks is rejected before any task starts. The other late tasks are rejected when they are next.
#[test]
fn no_late_task_starts_although_there_are_more_than_a_batch() {
    for deadline in [None, Some(after(50))] {
        let (mut admission, key) = full(Settings { timeout: TIMEOUT, ..Settings::fixed(1) });
        for _ in 0..50 {
            queue(&mut admission, START, Offer { deadline, ..Offer::default() }, "late").unwrap();
        }
        queue(&mut admission, after(100), Offer::default(), "in time").unwrap();
        assert!(admission.finish(after(100), key, Outcome::Ok, None));
        let mut rejected = Vec::new();
        let taken = std::iter::from_fn(|| {
            admission.has_takeable().then(|| admission.take(after(100), &mut rejected).map(|taken| taken.task))
        });
        assert_eq!(taken.flatten().collect::<Vec<_>>(), ["in time"]);
        let reason = if deadline.is_some() { Reason::DeadlineExceeded } else { Reason::QueueTimeout };
        assert_eq!((rejected.len(), rejected.iter().all(|rejected| rejected.reason == reason)), (50, true));
    }
}

#[test]
fn a_take_evicts_a_few_late_tasks_and_starts_the_next_in_time() {
    let (mut admission, key) = full(Settings { timeout: TIMEOUT, ..Settings::fixed(1) });
    for _ in 0..5 {
        queue(&mut admission, START, Offer::default(), "late").unwrap();
    }
    queue(&mut admission, after(100), Offer::default(), "in time").unwrap();
    assert!(admission.finish(after(100), key, Outcome::Ok, None));
    let mut rejected = Vec::new();
    assert_eq!(admission.take(after(100), &mut rejected).map(|taken| taken.task), Some("in time"));
    assert_eq!(rejected.len(), 5);
}

/// The code that makes a task's payload may panic, so that it is never stored.
#[test]
fn a_queued_task_without_a_payload_is_skipped_and_counted_as_cancelled() {
    let (mut admission, key) = full(Settings::fixed(1));
    assert!(matches!(admission.offer(START, Offer::default(), &mut Vec::new()), Ok(Admitted::Queued(_))));
    queue(&mut admission, START, Offer::default(), "next").unwrap();
    assert!(admission.finish(START, key, Outcome::Ok, None));
    let mut rejected = Vec::new();
    assert_eq!(admission.take(START, &mut rejected).map(|taken| taken.task), Some("next"));
    assert!(rejected.is_empty(), "a task without a payload has no caller to answer");
    assert_eq!(admission.snapshot().counts.cancelled, 1);
}

#[test]
fn a_full_queue_evicts_late_tasks_before_it_sheds_any() {
    let (mut admission, _) = full(Settings { timeout: TIMEOUT, ..Settings::fixed(1).with_capacity(2) });
    for task in ["late", "too"] {
        queue(&mut admission, START, at(Priority::Low), task).unwrap();
    }
    let mut rejected = Vec::new();
    assert!(matches!(admission.offer(after(100), at(Priority::High), &mut rejected), Ok(Admitted::Queued(_))));
    let ends: Vec<_> = rejected.iter().map(|rejected| (rejected.task, rejected.reason)).collect();
    assert_eq!(ends, [("late", Reason::QueueTimeout), ("too", Reason::QueueTimeout)]);
    assert_eq!(admission.snapshot().queued, 1);
}

/// A pool with one permit and tasks of 10 ms, in which four tasks arrive for each that ends. If `leave`, callers leave
/// after 100 ms. Returns how many steps of 10 ms the task that started last had waited, and how many tasks were shed.
fn flooded(discipline: Discipline, leave: bool) -> (u64, u64) {
    flooded_and_answered(discipline, leave, true)
}

/// The same. If `cancelled`, a task whose caller leaves while it is in flight ends as cancelled; otherwise it runs on, and
/// ends as ok.
fn flooded_and_answered(discipline: Discipline, leave: bool, cancelled: bool) -> (u64, u64) {
    let mut admission = Admission::new(Settings { discipline, ..Settings::fixed(1) }, 1);
    let (mut waiting, mut rejected) = (std::collections::VecDeque::new(), Vec::new());
    let mut running: Option<(Key, u64)> = None;
    let mut last = 0;
    for step in 0..400 {
        let now = after(step * 10);
        for _ in 0..4 {
            match admission.offer(now, Offer::default(), &mut rejected) {
                Ok(Admitted::Queued(key)) => {
                    admission.store(key, step);
                    waiting.push_back((step, key));
                }
                Ok(Admitted::InFlight(key)) => running = Some((key, step)),
                Err(reason) => assert_eq!(reason, Reason::QueueFull),
            }
        }
        while leave && waiting.front().is_some_and(|(since, _)| since + 10 <= step) {
            let (_, key) = waiting.pop_front().expect("there is one");
            admission.cancel(now, key, Outcome::Cancelled);
        }
        let (key, since) = running.take().expect("one always runs");
        let left = leave && since + 10 <= step;
        if left && !cancelled {
            assert_eq!(admission.cancel(now, key, Outcome::Cancelled), None, "it does not wait");
        }
        let outcome = if left && cancelled { Outcome::Cancelled } else { Outcome::Ok };
        assert!(admission.finish(now, key, outcome, Some(Duration::from_millis(10))));
        let started = admission.take(now, &mut rejected).expect("tasks are queued");
        (running, last) = (Some((started.key, started.task)), step - started.task);
    }
    (last, admission.snapshot().counts.shed)
}

#[test]
fn while_most_work_is_in_vain_the_newest_task_starts_next_and_old_ones_are_shed() {
    let (waited, shed) = flooded(Discipline::Adaptive, true);
    assert!(waited <= 1 && shed > 500, "{waited} steps, {shed} shed");
    assert_eq!(flooded_and_answered(Discipline::Adaptive, true, false), (waited, shed), "blocking code runs on");
    let (waited, shed) = flooded(Discipline::Fifo, true);
    assert_eq!((waited, shed), (9, 0), "a FIFO queue makes each task wait for almost as long as callers do");
}

/// The full queue rejects the excess, and every queued task is served.
#[test]
fn while_no_caller_leaves_an_overloaded_adaptive_queue_behaves_as_a_fifo_queue() {
    assert_eq!(flooded(Discipline::Adaptive, false), flooded(Discipline::Fifo, false));
}

/// Whether an adaptive limit of 8 moves while `in_flight` tasks are in flight, `waiting` are queued after each start, and
/// `lost` tasks are cancelled in the queue for each that starts.
fn limit_moves(in_flight: usize, waiting: usize, lost: usize) -> bool {
    let settings = Settings { limit: Limit::Adaptive { min: 1, max: 8 }, ..Settings::default() };
    let mut admission = Admission::new(settings, 1);
    let mut running = Vec::new();
    let offer = |admission: &mut Admission<_>, now| {
        let Ok(Admitted::Queued(key)) = admission.offer_to_wait(now, Offer::default(), &mut Vec::new()) else {
            panic!("it is queued")
        };
        admission.store(key, "task");
        key
    };
    (0..1000).map(after).any(|now| {
        while admission.queued() <= waiting {
            offer(&mut admission, now);
        }
        for _ in 0..lost {
            let key = offer(&mut admission, now);
            assert!(admission.cancel(now, key, Outcome::Cancelled).is_some());
        }
        if running.len() == in_flight {
            assert!(admission.finish(now, running.remove(0), Outcome::Ok, Some(Duration::from_millis(1))));
        }
        running.push(admission.take(now, &mut Vec::new()).expect("there is a permit").key);
        admission.snapshot().limit != 8
    })
}

#[test]
fn an_adaptive_limit_moves_only_while_all_permits_are_in_use_tasks_are_queued_and_some_are_lost() {
    assert!(limit_moves(8, 5, 1));
    assert!(!limit_moves(8, 0, 1), "none waits");
    assert!(!limit_moves(7, 5, 1), "there is a permit left");
    assert!(!limit_moves(8, 5, 0), "none is lost");
}

fn patient() -> Offer {
    Offer { patient: true, ..Offer::default() }
}

/// *submitted = Σ results + queued + in flight*.
fn assert_all_counted<T>(admission: &Admission<T>) {
    let now = admission.snapshot();
    assert_eq!(now.counts.submitted, now.counts.ended() + (now.queued + now.in_flight) as u64);
    assert_eq!(now.in_flight, admission.in_flight());
}

#[test]
fn a_queued_task_can_run_inside_the_permit_of_another() {
    let (mut admission, first) = full(Settings::fixed(1));
    let Ok(Admitted::Queued(nested)) = admission.offer(START, Offer::default(), &mut Vec::new()) else { panic!() };
    assert_eq!(admission.start_riding(START, nested), None, "its payload is not stored yet");
    admission.store(nested, "nested");
    assert_eq!(admission.start_riding(START, nested), Some("nested"));
    assert_eq!(admission.start_riding(START, nested), None, "and only once");
    assert_eq!(admission.cancel(START, nested, Outcome::Cancelled), None, "it is not queued any more");
    let now = admission.snapshot();
    assert_eq!((now.queued, now.in_flight, now.permits), (0, 2, 1));
    assert!(admission.has_permit(first) && !admission.has_permit(nested));
    assert_all_counted(&admission);
    assert!(admission.finish(START, nested, Outcome::Ok, Some(TIMEOUT)));
    assert!(!admission.finish(START, nested, Outcome::Ok, Some(TIMEOUT)));
    assert!(admission.finish(START, first, Outcome::Ok, Some(TIMEOUT)));
    assert!(admission.is_idle());
    assert_all_counted(&admission);
}

#[test]
fn a_queued_task_that_another_awaits_starts_ahead_of_others_once_a_permit_is_free() {
    let (mut admission, first) = full(Settings::fixed(1));
    queue(&mut admission, START, Offer::default(), "before").unwrap();
    let Ok(Admitted::Queued(awaited)) = admission.offer(START, Offer::default(), &mut Vec::new()) else { panic!() };
    assert!(admission.finish(START, first, Outcome::Ok, Some(TIMEOUT)));
    assert!(admission.start_awaited(START, awaited).is_none(), "its payload is not stored yet");
    admission.store(awaited, "awaited");
    let started = admission.start_awaited(START, awaited).unwrap();
    assert_eq!((started.key, started.task), (awaited, "awaited"));
    assert!(admission.has_permit(awaited) && !admission.has_takeable());
    let Ok(Admitted::Queued(next)) = admission.offer(START, Offer::default(), &mut Vec::new()) else { panic!() };
    admission.store(next, "next");
    assert!(admission.start_awaited(START, next).is_none(), "no permit is free");
    assert_all_counted(&admission);
    assert!(admission.finish(START, awaited, Outcome::Ok, Some(TIMEOUT)));
    assert_eq!(admission.take(START, &mut Vec::new()).unwrap().task, "before");
}

#[test]
fn a_task_that_finds_the_queue_full_can_run_inside_the_permit_of_another() {
    let (mut admission, _) = full(Settings::fixed(1).with_capacity(0));
    assert_eq!(admission.offer(START, Offer::default(), &mut Vec::new()), Err(Reason::QueueFull));
    let key = admission.offer_riding(START, Offer::default()).unwrap();
    assert_eq!((admission.snapshot().in_flight, admission.snapshot().permits), (2, 1));
    assert_all_counted(&admission);
    let late = Offer { deadline: Some(START), ..Offer::default() };
    assert_eq!(admission.offer_riding(START, late), Err(Reason::DeadlineExceeded));
    admission.drain();
    assert_eq!(admission.offer_riding(START, Offer::default()), Err(Reason::Draining));
    assert!(admission.finish(START, key, Outcome::Ok, None));
    assert_all_counted(&admission);
}

#[test]
fn a_patient_task_is_never_shed_and_has_no_queue_timeout_but_its_deadline_holds() {
    let settings = Settings { timeout: TIMEOUT, ..Settings::fixed(1).with_capacity(2) };
    let (mut admission, mut key) = full(settings);
    assert!(admission.has_room());
    queue(&mut admission, START, Offer { level: Priority::Low, ..patient() }, "patient").unwrap();
    queue(&mut admission, START, Offer { deadline: Some(after(300)), ..patient() }, "with a deadline").unwrap();
    assert_eq!(admission.expiry_of(START, patient()), Timestamp::from_nanos(u64::MAX));
    assert_eq!(admission.next_expiry(), Some(after(300)), "its own deadline holds");
    assert!(!admission.has_room());
    assert_eq!(queue(&mut admission, START, at(Priority::Critical), "critical"), Err(Reason::QueueFull));
    let mut rejected = Vec::new();
    admission.expire(after(300), &mut rejected);
    let ends: Vec<_> = rejected.iter().map(|rejected| (rejected.task, rejected.reason)).collect();
    assert_eq!(ends, [("with a deadline", Reason::DeadlineExceeded)]);
    assert!(admission.has_room() && admission.next_expiry().is_none());
    assert_eq!(start_next(&mut admission, &mut key, after(1_000_000)), "patient");
}

#[test]
fn patient_tasks_and_others_start_in_the_order_of_arrival() {
    let (mut admission, mut key) = full(Settings::fixed(1));
    for step in 0..6 {
        let offer = Offer { patient: step % 2 == 0, ..Offer::default() };
        queue(&mut admission, after(step), offer, ["0", "1", "2", "3", "4", "5"][step as usize]).unwrap();
    }
    let order: Vec<_> = (0..6).map(|_| start_next(&mut admission, &mut key, after(10))).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4", "5"]);
}

/// A task that waits for room may have the lowest level. If `has_room` counted tasks that a higher level would shed, that
/// task would be offered and rejected again and again.
#[test]
fn a_full_queue_has_no_room_even_if_it_would_shed_a_lower_task() {
    let (mut admission, _) = full(Settings::fixed(1).with_capacity(1));
    queue(&mut admission, START, at(Priority::Low), "low").unwrap();
    assert!(!admission.has_room());
    let low = Offer { level: Priority::Low, ..patient() };
    assert_eq!(queue(&mut admission, START, low, "low as well"), Err(Reason::QueueFull));
    queue(&mut admission, START, patient(), "patient").unwrap();
    admission.reject_all(Reason::NoWorkers, &mut Vec::new());
    assert!(admission.has_room());
}

/// So that a request whose body is not read yet is rejected when its upload would be in vain, and not otherwise.
#[test]
fn a_task_is_rejected_early_for_the_reason_of_an_offer_and_counted_the_same() {
    let reject = |admission: &mut Admission<&'static str>, now, offer| {
        let before = admission.snapshot();
        let reason = admission.reject_early(now, offer, &mut Vec::new());
        let after = admission.snapshot();
        let counted = (after.counts.submitted - before.counts.submitted, after.counts.ended() - before.counts.ended());
        assert_eq!(counted, if reason.is_some() { (1, 1) } else { (0, 0) });
        assert_eq!((after.queued, after.permits), (before.queued, before.permits), "nothing is shed for it yet");
        reason
    };
    let (mut admission, _) = full(Settings { capacity: 1, timeout: TIMEOUT, ..Settings::fixed(1) });
    assert_eq!(reject(&mut admission, START, Offer::default()), None, "the queue has room");
    queue(&mut admission, START, Offer::default(), "queued").unwrap();
    assert_eq!(reject(&mut admission, START, Offer::default()), Some(Reason::QueueFull));
    assert_eq!(reject(&mut admission, START, at(Priority::High)), None, "a queued task would make room");
    let late = Offer { deadline: Some(after(1)), ..at(Priority::High) };
    assert_eq!(reject(&mut admission, after(1), late), Some(Reason::DeadlineExceeded));
    let mut expired = Vec::new();
    assert_eq!(admission.reject_early(after(100), Offer::default(), &mut expired), None, "what is due makes room");
    assert_eq!(expired.len(), 1);
    admission.drain();
    assert_eq!(reject(&mut admission, after(100), at(Priority::High)), Some(Reason::Draining));
    assert_all_counted(&admission);
}

#[test]
fn an_evicted_task_says_when_to_retry() {
    let (mut admission, mut key) = full(Settings { discipline: Discipline::Fifo, ..Settings::fixed(1) });
    for _ in 0..20 {
        queue(&mut admission, START, Offer::default(), "task").unwrap();
    }
    for step in 1..=10 {
        start_next(&mut admission, &mut key, after(step * 100));
    }
    let mut rejected = Vec::new();
    admission.reject_all(Reason::NoWorkers, &mut rejected);
    let first = rejected[0].retry_after;
    assert!((900..1_650).contains(&first.as_millis()), "{first:?}: up to eleven tasks of 100 ms");
}

/// No arithmetic overflows, and every task is counted, with extreme times and settings.
#[test]
fn extreme_times_and_settings_overflow_nothing_and_lose_no_task() {
    let last = Timestamp::from_nanos(u64::MAX);
    let spans = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX];
    let limits = [Limit::Fixed(1), Limit::Fixed(usize::MAX), Limit::Adaptive { min: 0, max: usize::MAX }];
    for (step, limit) in limits.into_iter().cycle().take(3 * spans.len().pow(3)).enumerate() {
        let [timeout, low, high] = [step / 3, step / 12, step / 48].map(|at| spans[at % spans.len()]);
        for discipline in [Discipline::Fifo, Discipline::Adaptive] {
            let bounds = tower_offload::admission::Bounds { min: low, max: high };
            let settings = Settings { limit, capacity: 3, timeout, discipline, target: bounds, interval: bounds };
            let mut admission = Admission::new(settings, 1);
            let (mut rejected, mut running) = (Vec::new(), Vec::new());
            for now in [last, START, last, last, after(1), START, START, last] {
                for caller in [None, Some(1)] {
                    let offer = Offer { caller, deadline: caller.map(|_| last), ..Offer::default() };
                    match admission.offer_to_wait(now, offer, &mut rejected) {
                        Ok(Admitted::Queued(key)) => admission.store(key, "task"),
                        Ok(Admitted::InFlight(_)) => panic!("`offer_to_wait` starts nothing"),
                        Err(_) => {}
                    }
                }
                running.extend(admission.take(now, &mut rejected).map(|started| started.key));
                if let Some(key) = running.pop() {
                    assert!(admission.finish(now, key, Outcome::Cancelled, Some(high)));
                }
                admission.expire(now, &mut rejected);
                _ = (admission.is_overloaded(now), admission.retry_after(now), admission.next_expiry());
                assert_all_counted(&admission);
            }
        }
    }
}
