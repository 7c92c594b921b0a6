//! SQLite reads for callers that arrive four times as often as two connections can serve, and leave after 100 ms.
//!
//! What is possible is what two threads answer that have a connection each, and take the newest caller from a stack. They
//! share the cores with the callers, as the others do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_offload::pool::TaskOptions;
use tower_offload::slots::Slots;
use tower_offload::{Db, Deadline, PoolConfig, Pools};

use crate::batch_arrivals::{Answers, Arrivals, PATIENCE, WARM_UP};
use crate::harness::{Case, Column, Harness, Scenario, Target, quantile};
use crate::ways;

const SLOTS: &str = "ours";
const R2D2: &str = "r2d2 inside a pool of 2 workers";
const R2D2_MANY: &str = "r2d2 inside a pool of 25 workers";
const R2D2_BLOCKING: &str = "r2d2 in spawn_blocking";
const THREADS: &str = "two threads with a stack";

const CONNECTIONS: usize = 2;
const LOAD: f64 = 4.0;
/// Many short samples rather than a few long ones: the two of a round then find a machine of the same speed.
const SPAN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 9;
const QUEUE: usize = 1024;
const ROWS: u32 = 1_000_000;
/// The rows that a read sums up.
const READ: u32 = 200_000;

/// A file with a table, which is removed with this value.
struct Database {
    folder: PathBuf,
}

/// The callers that wait, the newest last. `None` once no more of them come.
struct Stack {
    callers: Mutex<Option<Vec<Caller>>>,
    pushed: Condvar,
}

struct Caller {
    due: Instant,
    turn: u32,
    answer: oneshot::Sender<rusqlite::Result<f64>>,
}

/// Opens connections for `r2d2` as the crate `r2d2_sqlite` does, which needs an older `rusqlite`.
struct Manager(PathBuf);

pub fn run(harness: &mut Harness) {
    let name = "slots, SQLite reads, overload of 4, callers that leave after 100 ms";
    let in_vain = "slots, SQLite reads, more callers of r2d2 than connections";
    if !harness.wants(name) && !harness.wants(in_vain) {
        return;
    }
    let (runtime, database) = (ways::runtime(), Database::create());
    let path = database.path();
    let span = harness.span(SPAN).max(WARM_UP + Duration::from_millis(500));
    let possible = reads_of_threads(&path, span);
    let cases = |kinds: &[&'static str]| kinds.iter().map(|kind| case(kind, &runtime, &path, possible, span)).collect();
    let columns = [Column { name: "good answers", unit: "/s" }, Column { name: "p99 of the good", unit: "ms" }];
    let target = Target {
        text: "at least 0.99 of the answers that are possible, in the median of the rounds",
        reached: |medians| medians.paired(SLOTS, THREADS) >= 0.99,
    };
    let scenario = Scenario {
        name: name.to_owned(),
        columns: &columns,
        cases: cases(&[SLOTS, R2D2, THREADS]),
        baseline: THREADS,
        target: Some(target),
    };
    harness.run_rounds(ROUNDS, scenario, Some(THREADS));
    harness.run(Scenario {
        name: in_vain.to_owned(),
        columns: &columns,
        cases: cases(&[R2D2_MANY, R2D2_BLOCKING, THREADS]),
        baseline: THREADS,
        target: None,
    });
}

/// Each sample has a new pool, which has an empty queue.
fn case<'a>(kind: &'static str, runtime: &'a Runtime, path: &'a Path, possible: f64, span: Duration) -> Case<'a> {
    let mut seed = 0;
    let sample = move || {
        seed += 1;
        let arrivals = Arrivals { runtime, per_second: LOAD * possible, span, seed };
        let answers = match kind {
            SLOTS => in_slots(path, arrivals),
            R2D2 => in_pool(r2d2(path), CONNECTIONS, arrivals),
            R2D2_MANY => in_pool(r2d2(path), 25, arrivals),
            R2D2_BLOCKING => in_spawn_blocking(r2d2(path), arrivals),
            _ => on_threads(path, arrivals),
        };
        let mut good = answers.latencies();
        #[expect(clippy::cast_precision_loss, reason = "nobody asks 2^53 times")]
        let rate = good.len() as f64 / answers.counted.as_secs_f64();
        vec![rate, quantile(&mut good, 0.99)]
    };
    Case { name: kind, sample: Box::new(sample) }
}

fn in_slots(path: &Path, arrivals: Arrivals<'_>) -> Answers {
    let (pools, path) = (pools(CONNECTIONS), path.to_owned());
    let slots = Slots::builder(&pools, Db).make(move || Connection::open(&path)).build_lazy().expect("it is complete");
    let mut turn = 0;
    arrivals.run(move |due| {
        turn += 1;
        let answer = slots.run_with(options(due), move |connection| read(connection, turn));
        async move { answer.await.map_err(drop)?.map_err(drop) }
    })
}

fn in_pool(connections: r2d2::Pool<Manager>, workers: usize, arrivals: Arrivals<'_>) -> Answers {
    let pools = pools(workers);
    let mut turn = 0;
    arrivals.run(move |due| {
        turn += 1;
        let connections = connections.clone();
        let pool = pools.get(Db).expect("it exists");
        let answer = pool.run_with(options(due), move || read_with(&connections, due, turn));
        async move { answer.await.map_err(drop)? }
    })
}

fn in_spawn_blocking(connections: r2d2::Pool<Manager>, arrivals: Arrivals<'_>) -> Answers {
    let mut turn = 0;
    arrivals.run(move |due| {
        turn += 1;
        let connections = connections.clone();
        async move { tokio::task::spawn_blocking(move || read_with(&connections, due, turn)).await.map_err(drop)? }
    })
}

fn on_threads(path: &Path, arrivals: Arrivals<'_>) -> Answers {
    let stack = Arc::new(Stack::default());
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (stack, path) = (stack.clone(), path.to_owned());
            std::thread::spawn(move || {
                let mut connection = Connection::open(path).expect("the file can be opened");
                while let Some(Caller { due, turn, answer }) = stack.pop() {
                    if due.elapsed() < PATIENCE {
                        // The caller may have left.
                        let _ = answer.send(read(&mut connection, turn));
                    }
                }
            })
        })
        .collect();
    let (callers, mut turn) = (stack.clone(), 0);
    let answers = arrivals.run(move |due| {
        turn += 1;
        let (answer, answered) = oneshot::channel();
        callers.push(Caller { due, turn, answer });
        async move { answered.await.map_err(drop)?.map_err(drop) }
    });
    stack.close();
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    answers
}

fn pools(workers: usize) -> Pools {
    Pools::builder().pool(Db, PoolConfig::new(workers).queue_capacity(QUEUE)).build().expect("it is valid")
}

fn options(due: Instant) -> TaskOptions {
    TaskOptions::new().deadline(Deadline::at(due + PATIENCE))
}

fn r2d2(path: &Path) -> r2d2::Pool<Manager> {
    let size = u32::try_from(CONNECTIONS).expect("a small number");
    r2d2::Pool::builder().max_size(size).build(Manager(path.to_owned())).expect("the file can be opened")
}

/// Reads with a connection of `r2d2`, unless none is free before the caller leaves.
fn read_with(connections: &r2d2::Pool<Manager>, due: Instant, turn: u32) -> Result<f64, ()> {
    let left = (due + PATIENCE).saturating_duration_since(Instant::now());
    let mut connection = connections.get_timeout(left).map_err(drop)?;
    read(&mut connection, turn).map_err(drop)
}

fn read(connection: &mut Connection, turn: u32) -> rusqlite::Result<f64> {
    let sum = "SELECT sum(value) FROM readings WHERE id > ?1 AND id <= ?1 + ?2";
    let after = turn.wrapping_mul(100_003) % (ROWS - READ);
    connection.prepare_cached(sum)?.query_row([after, READ], |row| row.get(0))
}

/// Reads in a second.
fn reads_of_threads(path: &Path, span: Duration) -> f64 {
    let reads = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(path).expect("the file can be opened");
                    read(&mut connection, 0).expect("it has the table");
                    let (mut reads, began) = (0.0, Instant::now());
                    for turn in 1.. {
                        read(&mut connection, turn).expect("it has the table");
                        reads += 1.0;
                        if began.elapsed() >= span {
                            break;
                        }
                    }
                    reads / began.elapsed().as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect::<Vec<f64>>()
    });
    reads.iter().sum()
}

impl Default for Stack {
    fn default() -> Self {
        Self { callers: Mutex::new(Some(Vec::new())), pushed: Condvar::new() }
    }
}

impl Stack {
    fn push(&self, caller: Caller) {
        if let Some(callers) = &mut *self.callers.lock().expect("no caller panics") {
            callers.push(caller);
        }
        self.pushed.notify_one();
    }

    fn close(&self) {
        *self.callers.lock().expect("no caller panics") = None;
        self.pushed.notify_all();
    }

    /// Waits for a caller.
    fn pop(&self) -> Option<Caller> {
        let callers = self.callers.lock().expect("no caller panics");
        let is_empty = |callers: &mut Option<Vec<_>>| callers.as_ref().is_some_and(Vec::is_empty);
        self.pushed.wait_while(callers, is_empty).expect("no caller panics").as_mut()?.pop()
    }
}

impl Database {
    fn create() -> Self {
        let folder = std::env::temp_dir().join(format!("tower-offload-benches-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("the folder for temporary files can be written");
        let database = Self { folder };
        let rows = format!(
            "CREATE TABLE readings (id INTEGER PRIMARY KEY, value REAL NOT NULL) STRICT;
             WITH RECURSIVE ids (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {ROWS})
             INSERT INTO readings SELECT id, id % 1000 / 7.0 FROM ids;"
        );
        let connection = Connection::open(database.path()).expect("the file can be written");
        connection.execute_batch(&rows).expect("the disk has room");
        database
    }

    fn path(&self) -> PathBuf {
        self.folder.join("readings.db")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl r2d2::ManageConnection for Manager {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> rusqlite::Result<Connection> {
        Connection::open(&self.0)
    }

    fn is_valid(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        connection.execute_batch("SELECT 1")
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}
