//! What is logged of single tasks while `verbose` is on, and which tasks run.

use std::time::Duration;

use tower_offload::{PoolConfig, Pools};
use tracing::subscriber::with_default;

use crate::children::in_child;
use crate::support::{Gate, Held, Log, end_of, hold, stats, until, until_at_rest};

/// Runs `scene` with a subscriber of its own, which tasks carry to their workers.
fn logged(scene: impl FnOnce(&Log)) -> Vec<String> {
    let log = Log::default();
    with_default(log.subscriber(), || scene(&log));
    log.lines()
}

fn verbose(name: &str, config: PoolConfig) -> Pools {
    Pools::builder().pool(name, config).verbose(true).build().unwrap()
}

fn process_data() -> u8 {
    1
}

/// `0.150s` becomes `#s`.
fn without_times(line: &str) -> String {
    let Some(at) = ["Completed in ", "Failed after "].iter().find_map(|words| Some(line.find(words)? + words.len()))
    else {
        return line.to_owned();
    };
    let (before, rest) = line.split_at(at);
    let (seconds, rest) = rest.split_once('s').unwrap();
    assert!(seconds.parse::<f64>().is_ok() && seconds.split('.').nth(1).unwrap().len() == 3, "{line}");
    format!("{before}#s{rest}")
}

#[test]
fn every_task_is_logged_from_its_submission_to_its_end() {
    let pools = verbose("cpu", PoolConfig::new(2));
    let lines = logged(|log| {
        end_of(pools.submit_to_pool("cpu", process_data).unwrap()).unwrap();
        until_at_rest(&pools, "cpu");
        end_of(pools.submit_to_pool("cpu", || -> u8 { panic!("no such picture") }).unwrap()).unwrap_err();
        until("the end is logged", || log.lines().len() == 4);
    });
    let lines: Vec<_> = lines.iter().map(|line| without_times(line)).collect();
    let name = "every_task_is_logged_from_its_submission_to_its_end";
    assert_eq!(
        lines,
        [
            " INFO tower_offload: ThreadPool[cpu] Task #1: Submitting 'process_data' (active_threads=0, queued=0)",
            " INFO tower_offload: ThreadPool[cpu] Task #1: Completed in #s",
            &format!(" INFO tower_offload: ThreadPool[cpu] Task #2: Submitting '{name}' (active_threads=0, queued=0)"),
            " WARN tower_offload: ThreadPool[cpu] Task #2: Failed after #s: no such picture",
        ]
    );
}

#[test]
fn a_submission_says_how_busy_the_pool_is() {
    let pools = verbose("db", PoolConfig::new(2));
    let lines = logged(|_| {
        let held = hold(&pools, "db", 2);
        let queued = pools.submit_to_pool("db", process_data).unwrap();
        held.into_iter().for_each(Held::release);
        end_of(queued).unwrap();
    });
    let submissions: Vec<_> = lines.iter().filter(|line| line.contains("Submitting 'process_data'")).collect();
    assert_eq!(
        submissions,
        [" INFO tower_offload: ThreadPool[db] Task #3: Submitting 'process_data' (active_threads=2, queued=1)"]
    );
}

#[test]
fn a_task_that_is_refused_is_logged() {
    let pools = verbose("full", PoolConfig::new(1).queue_capacity(0));
    let lines = logged(|_| {
        let held = hold(&pools, "full", 1);
        pools.submit_to_pool("full", process_data).unwrap_err();
        held.into_iter().for_each(Held::release);
    });
    let line = r#" WARN tower_offload: a task was refused pool=full reason=queue_full function="process_data""#;
    assert!(lines.iter().any(|other| other == line), "{lines:?}");
}

#[test]
fn a_task_whose_caller_leaves_is_logged() {
    let pools = verbose("left", PoolConfig::new(1));
    let lines = logged(|_| {
        let held = hold(&pools, "left", 1);
        pools.submit_to_pool("left", process_data).unwrap().cancel();
        held.into_iter().for_each(Held::release);
    });
    let line = " INFO tower_offload: ThreadPool[left] Task #2: Cancelled in the queue";
    assert!(lines.iter().any(|other| other == line), "{lines:?}");
}

/// It is dropped by its worker, under the subscriber of the process.
#[test]
fn a_task_that_is_dropped_in_flight_is_logged() {
    in_child(
        "logging::a_task_that_is_dropped_in_flight_is_logged",
        |_| {},
        || {
            let log = Log::of_process();
            let pools = verbose("flight", PoolConfig::new(1));
            let task = pools.submit_to_pool("flight", std::future::pending::<()>()).unwrap();
            until("it awaits", || stats(&pools, "flight").active_tasks.len() == 1);
            task.cancel();
            until("it was dropped", || !log.lines_with("Task #1: Cancelled after ").is_empty());
        },
    );
}

/// This line comes from the timer's thread, under the subscriber of the process.
#[test]
fn a_task_that_is_given_up_in_the_queue_is_logged() {
    in_child(
        "logging::a_task_that_is_given_up_in_the_queue_is_logged",
        |_| {},
        || {
            let log = Log::of_process();
            let pools = verbose("late", PoolConfig::new(1).queue_timeout(Duration::from_millis(5)));
            let held = hold(&pools, "late", 1);
            end_of(pools.submit_to_pool("late", process_data).unwrap()).unwrap_err();
            held.into_iter().for_each(Held::release);
            assert_eq!(stats(&pools, "late").counts.expired, 1);
            let line = " WARN tower_offload: ThreadPool[late] Task #2: Given up in the queue: queue_timeout";
            assert_eq!(log.lines_with("Given up"), [line]);
        },
    );
}

/// Also told from a thread of the library. Nothing more happens in the pool while the overload ends.
#[test]
fn the_begin_and_the_end_of_an_overload_are_logged() {
    in_child(
        "logging::the_begin_and_the_end_of_an_overload_are_logged",
        |_| {},
        || {
            let log = Log::of_process();
            let pools = crate::support::pools("stuck", PoolConfig::new(1));
            let held = hold(&pools, "stuck", 1);
            let queued = pools.submit_to_pool("stuck", process_data).unwrap();
            until("the begin is logged", || !log.lines_with("overload").is_empty());
            held.into_iter().for_each(Held::release);
            end_of(queued).unwrap();
            until("the end is logged", || log.lines_with("overload").len() == 2);
            assert_eq!(
                log.lines_with("overload"),
                [
                    " WARN tower_offload: overload begins: even the tasks that wait least wait too long pool=stuck \
                     queued=1 in_flight=1",
                    " INFO tower_offload: overload has ended pool=stuck",
                ]
            );
        },
    );
}

#[test]
fn the_running_tasks_are_listed_oldest_first_and_only_while_they_run() {
    let pools = verbose("tasks", PoolConfig::new(3));
    let held = hold(&pools, "tasks", 3);
    let gate = Gate::default();
    let waits = gate.clone();
    let queued = pools.submit_to_pool("tasks", move || waits.wait()).unwrap();
    let tasks = stats(&pools, "tasks").active_tasks;
    assert_eq!(
        tasks.iter().map(|task| (task.task_id, task.function.as_str())).collect::<Vec<_>>(),
        [(1, "hold"), (2, "hold"), (3, "hold")]
    );
    assert!(tasks.windows(2).all(|pair| pair[0].running_for >= pair[1].running_for));
    held.into_iter().for_each(Held::release);
    until("the queued one has begun", || stats(&pools, "tasks").active_tasks.len() == 1);
    assert_eq!(stats(&pools, "tasks").active_tasks[0].task_id, 4);
    gate.open();
    end_of(queued).unwrap();
    assert_eq!(stats(&pools, "tasks").active_tasks, []);
}

#[test]
fn without_verbose_nothing_is_logged_or_listed() {
    let pools = crate::support::pools("quiet", PoolConfig::new(1));
    let lines = logged(|_| {
        let held = hold(&pools, "quiet", 1);
        assert_eq!(stats(&pools, "quiet").active_tasks, []);
        held.into_iter().for_each(Held::release);
    });
    assert_eq!(lines, [""; 0]);
}

#[test]
fn a_task_runs_in_the_span_it_was_submitted_in() {
    let pools = crate::support::pools("span", PoolConfig::new(1));
    let lines = logged(|_| {
        let _span = tracing::info_span!("request", id = 7).entered();
        end_of(pools.submit_to_pool("span", || tracing::info!("in the task")).unwrap()).unwrap();
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with(" INFO request{id=7}: "), "{lines:?}");
}
