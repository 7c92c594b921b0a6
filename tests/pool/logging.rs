//! The log and the list of tasks while `verbose` is on.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use http::{Request, Response};
use tokio_test::block_on;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::body::BodyPolicy;
use tower_offload::pool::TaskOptions;
use tower_offload::{PoolConfig, PoolLayer, Pools, stream};
use tracing::subscriber::with_default;

use crate::children::in_child;
use crate::events::keep_events_enabled;
use crate::support::{Gate, Held, Log, PATIENCE, end_of, hold, stats, until, until_at_rest};

/// Runs `scene` under a subscriber that writes to a log. Tasks carry the subscriber to their workers.
fn logged(scene: impl FnOnce(&Log)) -> Vec<String> {
    keep_events_enabled();
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

async fn resize(picture: u8) -> u8 {
    picture
}

/// `0.150s` becomes `#s`, and `seconds=0.1501234` becomes `seconds=#`.
fn without_times(line: &str) -> String {
    let mut line = line.to_owned();
    for (before, after, decimals) in
        [("Completed in ", "s", Some(3)), ("after ", "s", Some(3)), (" seconds=", " ", None)]
    {
        let Some(start) = line.find(before).map(|at| at + before.len()) else { continue };
        let end = line[start..].find(after).map_or(line.len(), |length| start + length);
        let seconds = &line[start..end];
        assert!(seconds.parse::<f64>().is_ok(), "{line}");
        assert!(decimals.is_none() || decimals == seconds.split('.').nth(1).map(str::len), "{line}");
        line.replace_range(start..end, "#");
    }
    line
}

#[test]
fn every_task_is_logged_from_its_submission_to_its_end() {
    let pools = verbose("cpu", PoolConfig::new(2));
    let mut line_of_closure = 0;
    let lines = logged(|log| {
        end_of(pools.submit_to_pool("cpu", process_data).unwrap()).unwrap();
        until_at_rest(&pools, "cpu");
        line_of_closure = line!() + 1;
        end_of(pools.submit_to_pool("cpu", || -> u8 { panic!("no such picture") }).unwrap()).unwrap_err();
        until("the end is logged", || log.lines().len() == 4);
    });
    let lines: Vec<_> = lines.iter().map(|line| without_times(line)).collect();
    let closure = format!("{}:{line_of_closure}", file!());
    assert_eq!(
        lines,
        [
            " INFO tower_offload: ThreadPool[cpu] Task #1: Submitting 'process_data' (active_threads=0, queued=0) \
             pool=cpu task=1 function=\"process_data\"",
            " INFO tower_offload: ThreadPool[cpu] Task #1: Completed in #s \
             pool=cpu task=1 function=\"process_data\" seconds=#",
            &format!(
                " INFO tower_offload: ThreadPool[cpu] Task #2: Submitting '{closure}' (active_threads=0, queued=0) \
                 pool=cpu task=2 function=\"{closure}\""
            ),
            &format!(
                " WARN tower_offload: ThreadPool[cpu] Task #2: Failed after #s: no such picture \
                 pool=cpu task=2 function=\"{closure}\" seconds=#"
            ),
        ]
    );
}

/// The names of the tasks that `scene` runs, as the log has them.
fn functions(scene: impl FnOnce(&Pools)) -> Vec<String> {
    let pools = verbose("named", PoolConfig::new(1));
    let lines = logged(|_| scene(&pools));
    let name = |line: &String| Some(line.split_once("Submitting '")?.1.split_once('\'')?.0.to_owned());
    lines.iter().filter_map(name).collect()
}

#[test]
fn functions_and_async_functions_have_their_names() {
    let run = |pools: &Pools| {
        end_of(pools.submit_to_pool("named", process_data).unwrap()).unwrap();
        block_on(pools.run_in_pool("named", resize(1))).unwrap();
    };
    assert_eq!(functions(run), ["process_data", "resize"]);
}

/// However they are submitted.
#[test]
fn closures_and_async_blocks_are_called_by_the_line_that_submits_them() {
    let first = line!() + 3;
    let run = |pools: &Pools| {
        let (pool, batch) = (pools.get("named").unwrap(), pools.batch_executor("named", 1).unwrap());
        block_on(pools.run_in_pool("named", || 1)).unwrap();
        block_on(pools.run_in_pool("named", async { 1 })).unwrap();
        end_of(pools.submit_to_pool("named", || 1).unwrap()).unwrap();
        block_on(pool.run(|| 1)).unwrap();
        block_on(pool.run_with(TaskOptions::new(), || 1)).unwrap();
        end_of(pool.submit(|| 1).unwrap()).unwrap();
        end_of(pool.submit_with(TaskOptions::new(), async { 1 }).unwrap()).unwrap();
        block_on(batch.run(|| 1)).unwrap();
        block_on(batch.run_all([|| 1])).pop().unwrap().unwrap();
        let boxed: Box<dyn FnOnce() -> u8 + Send> = Box::new(process_data);
        block_on(pool.run(boxed)).unwrap();
    };
    let lines = (first..first + 9).chain([first + 10]);
    let expected: Vec<_> = lines.map(|line| format!("{}:{line}", file!())).collect();
    assert_eq!(functions(run), expected);
}

async fn heavy_computation(begun: Gate, gate: Gate) {
    begun.open();
    gate.wait();
}

#[test]
fn the_status_block_is_logged_line_by_line() {
    let builder = Pools::builder().without_built_in_pools().verbose(true);
    let pools = builder.pool("io", PoolConfig::new(50)).pool("cpu", PoolConfig::new(1)).build().unwrap();
    let (begun, gate) = (Gate::default(), Gate::default());
    let task = pools.submit_to_pool("cpu", heavy_computation(begun.clone(), gate.clone())).unwrap();
    begun.wait();
    let queued = pools.submit_to_pool("cpu", process_data).unwrap();
    let lines = logged(|_| pools.log_current_status());
    gate.open();
    end_of(task).unwrap();
    end_of(queued).unwrap();
    let lines: Vec<_> = lines.iter().map(|line| line.strip_prefix(" INFO tower_offload: ").unwrap()).collect();
    let (task, seconds) = lines[4].split_once(" (running for ").unwrap();
    assert!(
        seconds.strip_suffix("s)").unwrap().split_once('.').is_some_and(|(_, tenths)| tenths.len() == 1),
        "{seconds}"
    );
    assert_eq!(task, "    └─ Task #1: heavy_computation");
    assert_eq!(
        [&lines[..4], &lines[5..]].concat(),
        [
            "ThreadPoolManager Current Status:",
            "============================================================",
            "  io           | Workers:   0/ 50 (  0.0%) | Queued:   0",
            "  cpu          | Workers:   1/  1 (100.0%) | Queued:   1",
            "------------------------------------------------------------",
            "  Total: 1 active threads, 1 queued tasks",
            "============================================================",
        ]
    );
}

#[test]
fn a_running_task_is_listed_by_the_line_that_submitted_it() {
    let pools = verbose("listed", PoolConfig::new(1));
    let (gate, begun) = (Gate::default(), Gate::default());
    let (waits, begins) = (gate.clone(), begun.clone());
    let task = move || {
        begins.open();
        waits.wait();
    };
    let task = pools.submit_to_pool("listed", task).unwrap();
    let submitted_at = format!("{}:{}", file!(), line!() - 1);
    begun.wait();
    assert_eq!(stats(&pools, "listed").active_tasks[0].function, submitted_at);
    gate.open();
    end_of(task).unwrap();
}

#[test]
fn a_submission_has_the_numbers_of_active_threads_and_queued_tasks() {
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
        [" INFO tower_offload: ThreadPool[db] Task #3: Submitting 'process_data' (active_threads=2, queued=1) \
          pool=db task=3 function=\"process_data\""]
    );
}

#[test]
fn a_task_that_is_rejected_at_once_is_logged() {
    let pools = verbose("full", PoolConfig::new(1).queue_capacity(0));
    let lines = logged(|_| {
        let held = hold(&pools, "full", 1);
        pools.submit_to_pool("full", process_data).unwrap_err();
        held.into_iter().for_each(Held::release);
    });
    let line = " WARN tower_offload: ThreadPool[full] Rejected 'process_data': queue_full \
                pool=full function=\"process_data\" reason=queue_full";
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
    let line = " INFO tower_offload: ThreadPool[left] Task #2: Cancelled in the queue \
                pool=left task=2 function=\"process_data\"";
    assert!(lines.iter().any(|other| other == line), "{lines:?}");
}

async fn pending() {
    std::future::pending::<()>().await;
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
            let task = pools.submit_to_pool("flight", pending()).unwrap();
            until("it awaits", || stats(&pools, "flight").active_tasks.len() == 1);
            task.cancel();
            until("it was dropped", || !log.lines_with("Cancelled after").is_empty());
            assert_eq!(
                without_times(&log.lines_with("Cancelled after")[0]),
                " INFO tower_offload: ThreadPool[flight] Task #1: Cancelled after #s \
                 pool=flight task=1 function=\"pending\" seconds=#"
            );
        },
    );
}

/// Its handler has ended well, and its response was begun.
#[test]
fn a_task_whose_client_left_or_stalled_during_the_body_is_logged_as_that() {
    let pools = verbose("written", PoolConfig::new(1));
    let endless = service_fn(|_: Request<String>| async {
        Ok::<_, Infallible>(Response::new(stream::writer(|out| -> Result<(), std::io::Error> {
            loop {
                out.write_all(&[0; 1024])?;
            }
        })))
    });
    let respond = |stall_timeout| {
        let policy = BodyPolicy::on_connection().stall_timeout(stall_timeout);
        let service = PoolLayer::for_pool(pools.get("written").unwrap()).body(policy).layer(endless);
        block_on(service.oneshot(Request::default())).unwrap()
    };
    logged(|log| {
        let stalls = respond(Duration::from_millis(20));
        until("the end is logged", || log.lines().len() == 2);
        drop(stalls);
        drop(respond(2 * PATIENCE));
        until("the end is logged", || log.lines().len() == 4);
        for (line, end) in [
            (1, " WARN tower_offload: ThreadPool[written] Task #1: Stalled after #s"),
            (3, " INFO tower_offload: ThreadPool[written] Task #2: Cancelled after #s"),
        ] {
            let line = without_times(&log.lines()[line]);
            assert!(line.starts_with(end), "{line}");
        }
    });
}

/// This line comes from the timer's thread, under the subscriber of the process.
#[test]
fn a_task_that_is_rejected_in_the_queue_is_logged() {
    in_child(
        "logging::a_task_that_is_rejected_in_the_queue_is_logged",
        |_| {},
        || {
            let log = Log::of_process();
            let pools = verbose("late", PoolConfig::new(1).queue_timeout(Duration::from_millis(5)));
            let held = hold(&pools, "late", 1);
            end_of(pools.submit_to_pool("late", process_data).unwrap()).unwrap_err();
            held.into_iter().for_each(Held::release);
            assert_eq!(stats(&pools, "late").counts.expired, 1);
            let line = " WARN tower_offload: ThreadPool[late] Task #2: Rejected in the queue: queue_timeout \
                        pool=late task=2 function=\"process_data\" reason=queue_timeout";
            assert_eq!(log.lines_with("Rejected"), [line]);
        },
    );
}

/// Logged by a thread of the library: no task arrives or ends when the overload ends.
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
                    " WARN tower_offload: overload begins: more arrives than the pool can do pool=stuck \
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
    let submitted_at = tasks[0].function.clone();
    assert!(submitted_at.starts_with("tests/pool/support.rs:"), "{submitted_at}");
    assert_eq!(
        tasks.iter().map(|task| (task.task_id, task.function.as_str())).collect::<Vec<_>>(),
        [(1, submitted_at.as_str()), (2, &submitted_at), (3, &submitted_at)]
    );
    assert!(tasks.windows(2).all(|pair| pair[0].running_for >= pair[1].running_for));
    held.into_iter().for_each(Held::release);
    until("the queued one has begun", || stats(&pools, "tasks").active_tasks.len() == 1);
    assert_eq!(stats(&pools, "tasks").active_tasks[0].task_id, 4);
    gate.open();
    end_of(queued).unwrap();
    assert_eq!(stats(&pools, "tasks").active_tasks, []);
}

/// It keeps no waker, and its caller has left: the worker that polled it has the last reference.
#[test]
fn a_task_that_nobody_can_wake_any_more_leaves_the_list_and_releases_its_permit() {
    let pools = verbose("lost", PoolConfig::new(1));
    drop(pools.submit_to_pool("lost", pending()).unwrap());
    until("it was dropped", || stats(&pools, "lost").counts.cancelled == 1);
    let stats = stats(&pools, "lost");
    assert_eq!((stats.in_flight, stats.active_tasks), (0, Vec::new()));
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
