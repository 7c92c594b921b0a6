//! The ways to run a piece of work from async code: ours, and its alternatives.

use std::convert::Infallible;
use std::fmt::Debug;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tower::util::ServiceExt;
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_executor::ExecutorLayer;

use crate::kernel::Kernel;

/// A piece of work that keeps a core busy.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    turns: u64,
}

/// How many turns of a [`Task`] this machine does in a microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    pub turns_per_micro: f64,
}

/// A way to run a task and to wait for it.
pub trait Way: Clone + Send + Sync + 'static {
    fn run(&self, task: Task) -> impl Future<Output = ()> + Send;
}

/// A wait that no scenario reaches.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may run at once where a way has such a limit: that of the `cpu` pool.
pub const LIMIT: usize = 30;

/// Runs the task where it stands.
#[derive(Clone)]
pub struct Direct;

#[derive(Clone)]
pub struct SpawnBlocking;

#[derive(Clone)]
pub struct SpawnBlockingLimited(Arc<Semaphore>);

/// Spawns the task on another Tokio runtime.
#[derive(Clone)]
pub struct Dedicated(pub Handle);

/// rayon with a oneshot channel, as in `tokio-rayon`.
#[derive(Clone)]
pub struct Rayon(pub Arc<rayon::ThreadPool>);

/// `run_in_pool`.
#[derive(Clone)]
pub struct Ours(pub Pools);

/// A Tower service that does the task when it is called.
#[derive(Clone)]
pub struct Tower<S>(S);

// === impl Task ===

impl Task {
    pub const EMPTY: Self = Self { turns: 0 };

    /// Computes in registers only, because the speed of the stack depends on the thread.
    #[inline(never)]
    pub fn run(self) {
        let mut value = black_box(1_u64);
        for turn in 0..self.turns {
            value = value.wrapping_mul(31) ^ turn;
        }
        black_box(value);
    }
}

// === impl Speed ===

impl Speed {
    /// The best of many short trials: the others were disturbed.
    pub fn measure() -> Self {
        const TURNS: u64 = 100_000;
        let trial = |_| {
            let began = Instant::now();
            Task { turns: TURNS }.run();
            began.elapsed()
        };
        let best = (0..200).map(trial).min().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let turns_per_micro = TURNS as f64 / (best.as_secs_f64() * 1e6);
        Self { turns_per_micro }
    }

    /// A task that takes `span` on an idle core.
    pub fn task(self, span: Duration) -> Task {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number is enough")]
        let turns = (span.as_secs_f64() * 1e6 * self.turns_per_micro) as u64;
        Task { turns }
    }
}

// === impl Way ===

impl Way for Direct {
    async fn run(&self, task: Task) {
        task.run();
    }
}

impl Way for SpawnBlocking {
    async fn run(&self, task: Task) {
        tokio::task::spawn_blocking(move || task.run()).await.expect("the task does not panic");
    }
}

impl Default for SpawnBlockingLimited {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LIMIT)))
    }
}

impl Way for SpawnBlockingLimited {
    async fn run(&self, task: Task) {
        let permit = self.0.clone().acquire_owned().await.expect("the semaphore is never closed");
        let work = move || {
            task.run();
            drop(permit);
        };
        tokio::task::spawn_blocking(work).await.expect("the task does not panic");
    }
}

impl Way for Dedicated {
    async fn run(&self, task: Task) {
        self.0.spawn(async move { task.run() }).await.expect("the task does not panic");
    }
}

impl Way for Rayon {
    async fn run(&self, task: Task) {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || {
            task.run();
            let _ = sender.send(());
        });
        receiver.await.expect("the task does not panic");
    }
}

impl Way for Ours {
    async fn run(&self, task: Task) {
        self.0.run_in_pool(Cpu, move || task.run()).await.expect("the queue is long enough");
    }
}

impl<S> Way for Tower<S>
where
    S: Service<Task, Response = ()> + Clone + Send + Sync + 'static,
    S::Error: Debug,
    S::Future: Send,
{
    async fn run(&self, task: Task) {
        // As a server does: each request has a clone of the service.
        self.0.clone().oneshot(task).await.expect("the service refuses nothing");
    }
}

// === the services ===

/// The handler of a Tower service: it does the task where it is polled.
async fn handle(task: Task) -> Result<(), Infallible> {
    task.run();
    Ok(())
}

async fn handle_blocking(task: Task) -> Result<(), BoxError> {
    Ok(tokio::task::spawn_blocking(move || task.run()).await?)
}

/// `Buffer` and `ConcurrencyLimit` in front of `spawn_blocking`: Tower's own way to limit and to queue.
pub fn buffer(runtime: &Runtime) -> impl Way + use<> {
    let _in_runtime = runtime.enter();
    Tower(ServiceBuilder::new().buffer(10_000).concurrency_limit(LIMIT).service(service_fn(handle_blocking)))
}

/// `tower-resilience-executor` over a dedicated runtime.
pub fn executor(runtime: &Handle) -> impl Way + use<> {
    Tower(ExecutorLayer::new(runtime.clone()).layer(service_fn(handle)))
}

/// The same behind `tower-resilience-bulkhead`, which limits it.
pub fn executor_with_bulkhead(runtime: &Handle) -> impl Way + use<> {
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(LIMIT).build().expect("the limit is not zero");
    let executor = ExecutorLayer::new(runtime.clone()).layer(service_fn(handle));
    Tower(bulkhead.layer(executor))
}

/// `PoolLayer` on a Tower service.
pub fn layer(pools: &Pools) -> impl Way + use<> {
    Tower(PoolLayer::<Cpu>::new(pools).any_request().layer(service_fn(handle)))
}

// === what they run on ===

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime with a thread for each core.
pub fn runtime() -> Runtime {
    runtime::Builder::new_multi_thread()
        .worker_threads(cores())
        .enable_all()
        .build()
        .expect("a runtime needs only threads")
}

/// Sets the subscriber of the process. It writes no colours, as one that writes to a file.
pub fn subscribe() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::sink).init();
}

pub fn rayon() -> Rayon {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cores()).build().expect("a pool needs only threads");
    Rayon(Arc::new(pool))
}

/// The default pools; the queue of `cpu` is long enough for every scenario.
pub fn pools(cpu: PoolConfig) -> Pools {
    Pools::builder().pool(Cpu, cpu.queue_capacity(10_000)).build().expect("the settings are right")
}

/// A queue that never sheds: a pool with the default target rightly sheds some of 2,000 callers that all wait for each
/// other, but no alternative rejects any.
pub fn patient(pool: PoolConfig) -> PoolConfig {
    pool.queue_target(PATIENCE..=PATIENCE)
}

/// The `cpu` pool as it is if nothing is said, but patient.
pub fn default_cpu() -> PoolConfig {
    patient(PoolConfig::new(LIMIT))
}

/// The results of a number of callers.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub tasks_per_second: f64,
    /// Context switches for each task.
    pub switches: f64,
    /// Microseconds in the kernel for each task.
    pub kernel: f64,
}

/// Runs `callers` that each run one task after the other.
pub fn measure(runtime: &Runtime, ways: &[impl Way], task: Task, callers: usize, span: Duration) -> Done {
    let stop = Arc::new(AtomicBool::new(false));
    let (began, before) = (Instant::now(), Kernel::so_far());
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let (way, stop) = (ways[caller % ways.len()].clone(), stop.clone());
            runtime.spawn(async move {
                for done in 1_u32.. {
                    way.run(task).await;
                    if stop.load(Ordering::Relaxed) {
                        return done;
                    }
                }
                u32::MAX
            })
        })
        .collect();
    std::thread::sleep(span);
    stop.store(true, Ordering::Relaxed);
    let done: f64 = runtime.block_on(async {
        let mut sum = 0.0;
        for caller in callers {
            sum += f64::from(caller.await.expect("a caller does not panic"));
        }
        sum
    });
    let (took, kernel) = (began.elapsed(), Kernel::so_far().since(before));
    Done {
        tasks_per_second: done / took.as_secs_f64(),
        switches: kernel.switches / done,
        kernel: kernel.time.as_secs_f64() * 1e6 / done,
    }
}
