//! Shared by the tests: gates that hold tasks, bounded waiting, and the states of the process's threads.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tower_offload::TaskHandle;
use tower_offload::{Deadline, PoolConfig, PoolStats, Pools, Reason, TaskError};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;

/// How long a test waits for an event before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A gate at which tasks wait until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(*open, "nobody opened the gate");
    }
}

/// A task that blocks its worker.
pub(crate) struct Held {
    handle: TaskHandle<()>,
    gate: Gate,
}

impl Held {
    /// Opens the task's gate, and waits for the task's end.
    pub(crate) fn release(self) {
        self.gate.open();
        end_of(self.handle).unwrap();
    }
}

/// The default pools and a pool `name`.
pub(crate) fn pools(name: &str, config: PoolConfig) -> Pools {
    Pools::builder().pool(name, config).build().unwrap()
}

pub(crate) fn stats(pools: &Pools, name: &str) -> PoolStats {
    pools.get(name).unwrap().stats()
}

/// Submits `tasks` tasks that block a worker each. All of them have begun when this returns.
pub(crate) fn hold(pools: &Pools, name: &str, tasks: usize) -> Vec<Held> {
    (0..tasks)
        .map(|_| {
            let (gate, begun) = (Gate::default(), Gate::default());
            let handle = {
                let (gate, begun) = (gate.clone(), begun.clone());
                let hold = move || {
                    begun.open();
                    gate.wait();
                };
                pools.submit_to_pool(name, hold).unwrap()
            };
            begun.wait();
            Held { handle, gate }
        })
        .collect()
}

pub(crate) fn end_of<T>(handle: TaskHandle<T>) -> Result<T, TaskError> {
    handle.wait_timeout(PATIENCE).expect("the task did not end")
}

/// The value of a task that begins before its deadline. On a slow machine the deadline may pass before that; then the
/// task is run again, with twice the time.
pub(crate) fn begun_in_time<T>(mut run: impl FnMut(Deadline) -> Result<T, TaskError>) -> T {
    let mut time = Duration::from_millis(20);
    loop {
        match run(Deadline::after(time)) {
            Ok(value) => return value,
            Err(TaskError::Rejected(late)) if late.reason() == Reason::DeadlineExceeded && time < PATIENCE => time *= 2,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until `holds` returns true, and fails after `PATIENCE`.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until `holds` returns true five times in a row, for conditions that may be true for a moment by chance.
pub(crate) fn until_it_lasts(what: &str, mut holds: impl FnMut() -> bool) {
    let mut times = 0;
    until(what, || {
        times = if holds() { times + 1 } else { 0 };
        times == 5
    });
}

/// Waits until the pool has no task and no active worker.
pub(crate) fn until_at_rest(pools: &Pools, name: &str) {
    until("the pool is at rest", || {
        let stats = stats(pools, name);
        (stats.active_threads, stats.in_flight, stats.queued_tasks) == (0, 0, 0)
    });
}

/// Checks what holds at any instant: each submitted task has ended, is queued or is in flight, and no number exceeds
/// its limit.
pub(crate) fn check_numbers(stats: &PoolStats) {
    let held = (stats.queued_tasks + stats.in_flight) as u64;
    assert_eq!(stats.counts.submitted, stats.counts.ended() + held, "{stats:?}");
    assert!(stats.in_flight <= stats.concurrency_limit, "{stats:?}");
    assert!(stats.queued_tasks <= stats.queue_capacity, "{stats:?}");
    assert!(stats.active_threads <= stats.workers, "{stats:?}");
    assert!(stats.workers <= stats.max_workers, "{stats:?}");
}

/// The number of the pool's threads. The pool's name has at most six letters, because Linux keeps fifteen of a
/// thread's.
pub(crate) fn threads_of(pool: &str) -> usize {
    states_of(pool).len()
}

/// Waits until the pool has `threads` threads, and all of them sleep. An awake thread may also sleep for a moment,
/// while it waits for the pool's lock.
pub(crate) fn until_asleep(pool: &str, threads: usize) {
    until_it_lasts("all workers sleep", || states_of(pool) == vec!['S'; threads]);
}

/// Waits until all other threads of this process sleep.
pub(crate) fn until_others_sleep() {
    let this = format!("{} ", rustix::thread::gettid().as_raw_nonzero());
    until_it_lasts("all other threads sleep", || {
        states_where(|stat| !stat.starts_with(&this)).into_iter().all(|state| state == 'S')
    });
}

/// The kernel's state letters of the pool's threads.
fn states_of(pool: &str) -> Vec<char> {
    let start = format!("(offload-{pool}-");
    assert!(start.len() < 16);
    states_where(|stat| stat.contains(&start))
}

/// The state letters of all threads whose `stat` line satisfies `is_such`.
fn states_where(is_such: impl Fn(&str) -> bool) -> Vec<char> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats.filter(|stat| is_such(stat)).filter_map(|stat| stat.rsplit(") ").next()?.chars().next()).collect()
}

/// A log in memory.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// A subscriber that writes here, without the times.
    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).without_time().finish()
    }

    /// The log of the whole process. Only for a test that runs alone in a child process.
    pub(crate) fn of_process() -> Self {
        let log = Self::default();
        tracing::subscriber::set_global_default(log.subscriber()).unwrap();
        log
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(text)).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
