//! Thousands of clients whose tasks finish, fail, panic, time out, are shed, or are cancelled while queued or in flight, with
//! a shutdown in the middle. At the end every client has its answer, and no task, thread or memory is left.
//!
//! Some clients use the layer, with priorities, deadlines and fair queueing, and the others submit tasks directly. The test
//! runs for some seconds; for ten minutes, run
//!
//! ```sh
//! TOWER_OFFLOAD_STRESS_SECONDS=600 cargo test --release --all-features --test stress -- --nocapture
//! ```
//!
//! `TOWER_OFFLOAD_STRESS_SEED` sets the seed of the first round (1 by default); each round adds one to it.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_offload::error::OffloadError;
use tower_offload::{Deadline, PoolConfig, PoolLayer, PoolStats, Pools, Priority, Reason, TaskError};

const CLIENTS: u64 = 2_000;
/// The workers, the concurrency limit and the queue capacity of each pool.
const SIZES: [(usize, usize, usize); 2] = [(3, 6, 60), (2, 2, 8)];
const POOLS: [&str; 2] = ["wide", "narrow"];
const PATIENCE: Duration = Duration::from_secs(60);
/// The memory of the process is measured after these rounds, and must not have doubled after the next ones.
const SETTLING_ROUNDS: u64 = 5;
const COMPARED_ROUNDS: u64 = 20;

/// Xorshift, with Marsaglia's constants for 64 bits.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The counters that the tasks of a round share.
#[derive(Default)]
struct Watch {
    in_flight: [AtomicUsize; 2],
    /// Tasks that began, that ran to their end, and whose captured value was dropped.
    began: AtomicU64,
    ended: AtomicU64,
    dropped: AtomicU64,
}

/// A value that each task captures. It counts its drop, which must happen once for each task, with whatever result.
struct Captured(Arc<Watch>);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts a task as in flight from its first poll to its end, and checks the limit.
struct InFlight(Arc<Watch>, usize);

impl InFlight {
    fn enter(watch: &Arc<Watch>, pool: usize) -> Self {
        watch.began.fetch_add(1, Ordering::SeqCst);
        let now = watch.in_flight[pool].fetch_add(1, Ordering::SeqCst) + 1;
        assert!(now <= SIZES[pool].1, "{now} tasks are in flight in `{}`", POOLS[pool]);
        Self(watch.clone(), pool)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight[self.1].fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of a request through the layer.
struct Work {
    captured: Captured,
    pool: usize,
    kind: u64,
    seed: u64,
    caller: Option<u64>,
}

/// The error of a service whose handler fails.
#[derive(Debug)]
struct Failed;

/// The results of the clients of a round.
#[derive(Default)]
struct Tally {
    answers: HashMap<Answer, u64>,
    left_in_flight: u64,
    left_while_queued: u64,
}

/// A client that waits for its answer.
type Waiting = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One client's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Value,
    /// An error that a closure or a future returned. For the pool it is a value.
    Failure,
    /// An error that a service returned.
    Error,
    Panicked,
    Rejected(Reason),
    /// None, because the client cancelled the task.
    Left,
}

fn spin(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The task of a client: `kind` decides what it does, and whether it fails.
async fn task(captured: Captured, pool: usize, kind: u64, seed: u64) -> Result<(), ()> {
    let watch = captured.0.clone();
    let in_flight = InFlight::enter(&watch, pool);
    let mut random = Random(seed | 1);
    match kind {
        0 => spin(random.below(50)),
        1 => {
            for _ in 0..random.below(4) {
                yield_once().await;
                spin(random.below(20));
            }
        }
        2 => thread::sleep(Duration::from_micros(random.below(300))),
        3 => {
            let (wake, woken) = tokio::sync::oneshot::channel();
            let micros = random.below(200);
            if micros.is_multiple_of(4) {
                thread::spawn(move || {
                    spin(micros);
                    let _ = wake.send(());
                });
            } else {
                let _ = wake.send(());
            }
            let _ = woken.await;
        }
        4 => {
            yield_once().await;
            watch.ended.fetch_add(1, Ordering::SeqCst);
            drop((in_flight, captured));
            std::panic::resume_unwind(Box::new("as it should"));
        }
        _ => {}
    }
    watch.ended.fetch_add(1, Ordering::SeqCst);
    drop((in_flight, captured));
    if kind == 5 { Err(()) } else { Ok(()) }
}

/// A handler behind the layer, whose responses are the clients' answers.
fn service(
    pools: &Pools,
) -> impl Service<Request<Work>, Response = Response<Answer>, Error = OffloadError<Failed>, Future: Send>
+ Clone
+ Send
+ use<> {
    let handler = service_fn(|request: Request<Work>| async {
        let Work { captured, pool, kind, seed, .. } = request.into_body();
        task(captured, pool, kind, seed).await.map(|()| Response::new(Answer::Value)).map_err(|()| Failed)
    });
    PoolLayer::by(pools, |request: &Request<Work>| Some(POOLS[request.body().pool]))
        .fair_by(|request: &Request<Work>| request.body().caller)
        .errors()
        .layer(handler)
}

fn failure(error: OffloadError<Failed>) -> Answer {
    match error {
        OffloadError::Inner(Failed) => Answer::Error,
        OffloadError::Rejected(rejection) if rejection.reason() == Reason::Panicked => Answer::Panicked,
        OffloadError::Rejected(rejection) => Answer::Rejected(rejection.reason()),
        other => panic!("an unknown error: {other:?}"),
    }
}

/// A request with a priority, and sometimes with a deadline.
fn request(work: Work, random: &mut Random) -> Request<Work> {
    let mut request = Request::new(work);
    let priorities = [Priority::Critical, Priority::High, Priority::Normal, Priority::Low];
    request.extensions_mut().insert(priorities[usize::try_from(random.below(4)).unwrap()]);
    if random.below(4) == 0 {
        request.extensions_mut().insert(Deadline::after(Duration::from_micros(random.below(4_000))));
    }
    request
}

/// Runs some clients one after the other.
fn client(pools: &Pools, watch: &Arc<Watch>, mut random: Random, clients: u64) -> HashMap<Answer, u64> {
    let mut answers = HashMap::new();
    let mut waiting: Vec<(u64, Waiting)> = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    let service = service(pools);
    for _ in 0..clients {
        let pool = usize::try_from(random.below(2)).unwrap();
        let captured = Captured(watch.clone());
        let (kind, seed) = (random.below(6), random.below(u64::MAX));
        let way = random.below(3);
        if way == 0 {
            let work = task(captured, pool, kind, seed);
            let answer = match pools.submit_to_pool(POOLS[pool], work) {
                Ok(handle) if random.below(4) == 0 => {
                    handle.cancel();
                    Answer::Left
                }
                Ok(handle) => match handle.wait_timeout(PATIENCE) {
                    Ok(result) => answer(result),
                    Err(_) => panic!("a client was never answered"),
                },
                Err(error) => answer(Err(error)),
            };
            *answers.entry(answer).or_default() += 1;
        } else {
            let mut future: Waiting = if way == 1 {
                let (pools, work) = (pools.clone(), task(captured, pool, kind, seed));
                Box::pin(async move { answer(pools.run_in_pool(POOLS[pool], work).await) })
            } else {
                let caller = Some(random.below(9)).filter(|caller| *caller > 0);
                let request = request(Work { captured, pool, kind, seed, caller }, &mut random);
                let response = service.clone().oneshot(request);
                Box::pin(async move { response.await.map_or_else(failure, Response::into_body) })
            };
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(answer) => *answers.entry(answer).or_default() += 1,
                Poll::Pending => waiting.push((random.below(3), future)),
            }
        }
        // A third of the waiting clients leaves at some time; the others wait for their answers.
        if waiting.len() > 40 {
            settle(&mut waiting, &mut answers);
        }
    }
    settle(&mut waiting, &mut answers);
    answers
}

fn settle(waiting: &mut Vec<(u64, Waiting)>, answers: &mut HashMap<Answer, u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for (patience, future) in waiting.drain(..) {
        let answer = if patience == 0 {
            drop(future);
            Answer::Left
        } else {
            let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await });
            answer.expect("a client was never answered")
        };
        *answers.entry(answer).or_default() += 1;
    }
}

fn answer(result: Result<Result<(), ()>, TaskError>) -> Answer {
    match result {
        Ok(Ok(())) => Answer::Value,
        Ok(Err(())) => Answer::Failure,
        Err(TaskError::Panicked(_)) => Answer::Panicked,
        Err(TaskError::Rejected(rejection) | TaskError::CutOff(rejection)) => Answer::Rejected(rejection.reason()),
        Err(other) => panic!("{other}"),
    }
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, other: Self) {
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        self.left_in_flight += other.left_in_flight;
        self.left_while_queued += other.left_while_queued;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answers, left_in_flight, left_while_queued } = self;
        write!(f, "{answers:?}; {left_in_flight} dropped in flight, {left_while_queued} or more while queued")
    }
}

fn check(stats: &PoolStats) {
    let held = (stats.queued_tasks + stats.in_flight) as u64;
    assert_eq!(stats.counts.submitted, stats.counts.ended() + held, "{stats:?}");
    assert!(stats.in_flight <= stats.concurrency_limit && stats.queued_tasks <= stats.queue_capacity, "{stats:?}");
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Builds pools, runs the clients, shuts the pools down, and checks all numbers.
fn round(seed: u64) -> Tally {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // In some rounds many tasks exceed the queue timeout, in some none does.
    let queue_timeout = Duration::from_millis([1, 3, 60_000][usize::try_from(random.below(3)).unwrap()]);
    let config = |(workers, limit, capacity)| {
        PoolConfig::new(workers)
            .concurrency(limit)
            .queue_capacity(capacity)
            .queue_timeout(queue_timeout)
            .keep_alive(Duration::from_millis(2))
    };
    let pools = Pools::builder().pool(POOLS[0], config(SIZES[0])).pool(POOLS[1], config(SIZES[1])).build().unwrap();
    let watch = Arc::new(Watch::default());
    let client_threads = 4;
    let clients: Vec<_> = (0..client_threads)
        .map(|_| {
            let (pools, watch) = (pools.clone(), watch.clone());
            let random = Random(random.below(u64::MAX) | 1);
            thread::spawn(move || client(&pools, &watch, random, CLIENTS / client_threads))
        })
        .collect();
    // In most rounds the shutdown begins in the middle, with or without enough time for the accepted tasks.
    let shutdown_at = CLIENTS / 2 + random.below(CLIENTS * 3 / 4);
    let deadline = Duration::from_millis([0, 2, 60_000][usize::try_from(random.below(3)).unwrap()]);
    let submitted = || -> u64 { pools.stats().iter().map(|stats| stats.counts.submitted).sum() };
    while submitted() < shutdown_at && !clients.iter().all(thread::JoinHandle::is_finished) {
        pools.stats().iter().for_each(check);
        thread::yield_now();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(pools.shutdown(deadline));
    pools.stats().iter().for_each(check);

    let mut answers: HashMap<Answer, u64> = HashMap::new();
    for client in clients {
        for (answer, count) in client.join().unwrap() {
            *answers.entry(answer).or_default() += count;
        }
    }
    until("everything has ended", || {
        pools.iter().all(|pool| pool.stats().in_flight == 0 && pool.stats().queued_tasks == 0)
    });
    until("no worker is left", || pools.stats().iter().all(|pool| pool.workers == 0) && threads("offload") == 0);

    let of = |answer| answers.get(&answer).copied().unwrap_or_default();
    let rejected = |reason| of(Answer::Rejected(reason));
    let mut counted: HashMap<&str, u64> = HashMap::new();
    let mut submitted = 0;
    for pool in pools.stats() {
        submitted += pool.counts.submitted;
        pool.counts.by_result().for_each(|(result, count)| *counted.entry(result).or_default() += count);
    }
    let context = format!("seed {seed}: {answers:?}, {counted:?}, {report}");
    assert_eq!(answers.values().sum::<u64>(), CLIENTS, "{context}");
    assert_eq!(submitted, CLIENTS, "{context}");
    assert_eq!(counted.values().sum::<u64>(), CLIENTS, "{context}");
    // A cancelled task may have ended in any way. Every other task was counted by the answer of its client.
    let answered_as = [
        ("ok", of(Answer::Value) + of(Answer::Failure)),
        ("error", of(Answer::Error)),
        ("panicked", of(Answer::Panicked)),
        ("shed", rejected(Reason::Shed)),
        ("expired", rejected(Reason::QueueTimeout) + rejected(Reason::DeadlineExceeded)),
        ("rejected", rejected(Reason::QueueFull) + rejected(Reason::Draining)),
        ("cancelled", 0),
        ("stalled", 0),
    ];
    assert_eq!(counted.len(), answered_as.len(), "{context}");
    let mut unanswered = 0;
    for (result, answered) in answered_as {
        assert!(answered <= counted[result], "{answered} were answered as {result}; {context}");
        unanswered += counted[result] - answered;
    }
    assert_eq!(unanswered, of(Answer::Left), "{context}");
    // Each captured value was dropped once, and every task that counts as finished had run to its end. A client that leaves
    // just when its task times out does not wait until the timer thread has dropped the task.
    let start = Instant::now();
    while watch.dropped.load(Ordering::SeqCst) < CLIENTS && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(watch.dropped.load(Ordering::SeqCst), CLIENTS, "{context}");
    let (began, ended) = (watch.began.load(Ordering::SeqCst), watch.ended.load(Ordering::SeqCst));
    let finished = counted["ok"] + counted["error"] + counted["panicked"];
    assert!(finished <= ended && ended <= began, "{began} began, {ended} ended; {context}");
    assert!(watch.in_flight.iter().all(|now| now.load(Ordering::SeqCst) == 0), "{context}");
    assert_eq!(Arc::strong_count(&watch), 1, "a task was kept: {context}");
    drop(pools);
    // The pool's next timeout may be a minute away, and must not keep the timer thread alive.
    until("no timer is left", || threads("offload-timer") == 0);
    let left_in_flight = began - ended;
    let left_while_queued = counted["cancelled"].saturating_sub(left_in_flight);
    Tally { answers, left_in_flight, left_while_queued }
}

/// The threads of the pools of this kind, or 0 where they cannot be counted.
fn threads(kind: &str) -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    // Linux keeps fifteen letters of a thread's name.
    let of_pools = POOLS.map(|pool| format!("{kind}-{pool}").chars().take(15).collect::<String>());
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| of_pools.iter().any(|pool| name.starts_with(pool))).count()
}

/// The memory that this process holds, in kilobytes.
fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    line.trim().parse().ok()
}

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is `{value}`; give a whole number")))
}

#[test]
fn nothing_is_lost_among_thousands_of_clients() {
    let time = Duration::from_secs(from_environment("TOWER_OFFLOAD_STRESS_SECONDS").unwrap_or(6));
    let first = from_environment("TOWER_OFFLOAD_STRESS_SEED").unwrap_or(1);
    let start = Instant::now();
    let mut sum = Tally::default();
    let mut settled = None;
    let mut rounds = 0;
    for seed in first.. {
        sum.add(round(seed));
        rounds += 1;
        if rounds == SETTLING_ROUNDS {
            settled = memory();
        }
        if start.elapsed() > time && rounds >= SETTLING_ROUNDS + COMPARED_ROUNDS {
            break;
        }
    }
    println!("{} clients in {rounds} rounds, {:?}: {sum}", CLIENTS * rounds, start.elapsed());
    if let (Some(before), Some(after)) = (settled, memory()) {
        println!("{before} kB after {SETTLING_ROUNDS} rounds, {after} kB at the end");
        assert!(after < 2 * before, "the process grew from {before} kB to {after} kB");
    }
    // Each kind of answer occurred.
    let reasons = [Reason::QueueFull, Reason::QueueTimeout, Reason::DeadlineExceeded, Reason::Shed, Reason::Draining];
    let expected = [Answer::Value, Answer::Failure, Answer::Error, Answer::Panicked, Answer::Left];
    for answer in expected.into_iter().chain(reasons.map(Answer::Rejected)) {
        assert!(sum.answers.contains_key(&answer), "no client was answered {answer:?}: {sum}");
    }
    assert!(sum.left_in_flight > 0 && sum.left_while_queued > 0, "{sum}");
}
