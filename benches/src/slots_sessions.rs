//! A session of a real model for each permit, beside one session behind a mutex.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tower_offload::slots::Slots;
use tower_offload::{Cpu, PoolConfig, Pools};

use crate::batch_functions::{Item, Session, features};
use crate::batch_network as network;
use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::kernel;
use crate::ways::{self, Task, Way};

const SLOTS: &str = "ours";
const MUTEX: &str = "Arc<Mutex<Session>> in a pool";
const THREADS: &str = "two threads, a session each";
const THREAD: &str = "one thread";

/// The permits of the pool, and the sessions.
const SESSIONS: usize = 2;
const CALLERS: usize = 16;
/// The list of a run.
const LIST: usize = 32;

#[derive(Clone)]
struct InSlots(Slots<Session>, Arc<[Item]>);

#[derive(Clone)]
struct Shared(Pools, Arc<Mutex<Session>>, Arc<[Item]>);

pub fn run(harness: &mut Harness) {
    let name = "slots, two sessions of network.onnx, 16 callers";
    if !harness.wants(name) {
        return;
    }
    let (runtime, span) = (ways::runtime(), harness.span(Duration::from_secs(1)));
    let list: Arc<[Item]> = vec![features(); LIST].into();
    let pools = || ways::pools(ways::patient(PoolConfig::new(SESSIONS)));
    let slots =
        Slots::builder(&pools(), Cpu).make(|| Ok::<_, String>(Session::of_network(network::WIDTH))).build_lazy();
    let slots = InSlots(slots.expect("it is complete"), list.clone());
    let shared = Shared(pools(), Arc::new(Mutex::new(Session::of_network(network::WIDTH))), list.clone());
    // The first runs make the sessions, and start the threads of `rten`.
    measure(&runtime, &slots, span / 4);
    measure(&runtime, &shared, span / 4);
    let (runtime, list) = (&runtime, &list);
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &[Column { name: "runs", unit: "runs/s" }, kernel::SWITCHES],
        cases: vec![
            Case { name: SLOTS, sample: Box::new(move || measure(runtime, &slots, span)) },
            Case { name: MUTEX, sample: Box::new(move || measure(runtime, &shared, span)) },
            Case { name: THREADS, sample: Box::new(move || vec![of_threads(SESSIONS, list, span), f64::NAN]) },
            Case { name: THREAD, sample: Box::new(move || vec![of_threads(1, list, span), f64::NAN]) },
        ],
        baseline: SLOTS,
        target: Some(Target {
            text: "twice a mutex's, as far as two threads do twice what one does, within 5 %",
            reached: |medians| {
                let cores = (medians.of(THREADS, 0) / medians.of(THREAD, 0)).min(2.0);
                medians.ratio_to(MUTEX, 0) >= 0.95 * cores
            },
        }),
    });
}

fn measure(runtime: &Runtime, way: &impl Way, span: Duration) -> Vec<f64> {
    let done = ways::measure(runtime, std::slice::from_ref(way), Task::EMPTY, CALLERS, span);
    vec![done.tasks_per_second, done.switches]
}

/// Runs in a second of threads that have a session each and nobody to wait for.
fn of_threads(threads: usize, list: &[Item], span: Duration) -> f64 {
    thread::scope(|scope| {
        let runs = |_| {
            scope.spawn(|| {
                let session = Session::of_network(network::WIDTH);
                session.run(list);
                let (mut runs, began) = (0.0, Instant::now());
                while began.elapsed() < span {
                    session.run(list);
                    runs += 1.0;
                }
                runs / began.elapsed().as_secs_f64()
            })
        };
        let threads: Vec<_> = (0..threads).map(runs).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    })
}

impl Way for InSlots {
    async fn run(&self, _: Task) {
        let list = self.1.clone();
        self.0.run(move |session| session.run(&list)).await.expect("the queue is long enough");
    }
}

impl Way for Shared {
    async fn run(&self, _: Task) {
        let (session, list) = (self.1.clone(), self.2.clone());
        let run = move || session.lock().expect("no run panics").run(&list);
        self.0.run_in_pool(Cpu, run).await.expect("the queue is long enough");
    }
}
