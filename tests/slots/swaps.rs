//! Swaps: no task fails, at most one value more lives, and what fails changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tower_offload::slots::{SlotError, SlotGuard, Slots, Swapped};
use tower_offload::{PoolConfig, Pools};

use crate::support::{Gate, PATIENCE, pools, until};
use crate::tally::{Tally, Value};

fn slots(pools: &Pools, name: &str, tally: &Tally) -> Slots<Value> {
    let tally = tally.clone();
    Slots::builder(pools, name).make(move || Ok::<_, String>(tally.make(1))).build_lazy().unwrap()
}

/// Makes `count` values, which are idle afterwards.
async fn fill(slots: &Slots<Value>, count: usize) {
    let meet = Arc::new(std::sync::Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let meet = meet.clone();
            tokio::spawn(slots.run(move |_value| {
                meet.wait();
            }))
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    until("all are idle", || slots.stats().idle == count);
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it ends")
}

fn version(tally: &Tally, version: u32) -> impl Fn() -> Result<Value, String> + Send + Sync + 'static + use<> {
    let tally = tally.clone();
    move || Ok(tally.make(version))
}

/// A version of which one value is made at once, and each further one only when the gate is open.
struct Stuck {
    /// Opens when the second value is being made.
    begun: Gate,
    gate: Gate,
}

impl Stuck {
    fn swap(
        slots: &Slots<Value>,
        tally: &Tally,
        version: u32,
    ) -> (Self, tokio::task::JoinHandle<Result<Swapped, SlotError>>) {
        let this = Self { begun: Gate::default(), gate: Gate::default() };
        let (begins, waits, made) = (this.begun.clone(), this.gate.clone(), tally.clone());
        let attempts = AtomicUsize::new(0);
        let swap = slots.swap(move || {
            if attempts.fetch_add(1, Ordering::SeqCst) > 0 {
                begins.open();
                waits.wait();
            }
            Ok::<_, String>(made.make(version))
        });
        (this, tokio::spawn(swap))
    }

    /// Waits until the second value is being made.
    async fn begun(&self) {
        let begun = self.begun.clone();
        tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_swaps_under_load_fail_no_task_and_need_one_value_more() {
    let (pools, tally) = (pools("load", PoolConfig::new(3).queue_capacity(1000)), Tally::default());
    let slots = slots(&pools, "load", &tally);
    fill(&slots, 3).await;
    let (done, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let clients: Vec<_> = (0..12)
        .map(|_| {
            let (slots, done, served) = (slots.clone(), done.clone(), served.clone());
            tokio::spawn(async move {
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    newest = newest.max(slots.run(|value| value.version).await.unwrap());
                    served.fetch_add(1, Ordering::SeqCst);
                }
                newest
            })
        })
        .collect();
    for number in 2..12 {
        let before = served.load(Ordering::SeqCst);
        let swapped = in_time(slots.swap(version(&tally, number))).await.unwrap();
        assert!(swapped.is_complete() && swapped.error.is_none(), "{swapped:?}");
        assert_eq!(swapped.generation, u64::from(number));
        assert_eq!(slots.run(|value| value.version).await.unwrap(), number);
        until("tasks are served", || served.load(Ordering::SeqCst) > before);
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() >= 1);
    }
    assert_eq!(tally.peak(), 4, "three permits, and one value more");
    until("the values before are dropped", || tally.live() == 3);
    assert!(pools.get("load").unwrap().stats().counts.error == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_whose_first_value_fails_changes_nothing() {
    let (pools, tally) = (pools("first", PoolConfig::new(2)), Tally::default());
    let made = tally.clone();
    let slots = Slots::builder(&pools, "first")
        .make(move || Ok::<_, String>(made.make(1)))
        .warm_up(|value: &mut Value| if value.version == 3 { Err("it gives no answer") } else { Ok(()) });
    let slots = slots.build_lazy().unwrap();
    fill(&slots, 2).await;
    let error = in_time(slots.swap(|| Err("half written"))).await.unwrap_err();
    assert_eq!(error.to_string(), "a value could not be made: half written");
    let error = in_time(slots.swap(|| -> Result<_, String> { panic!("a broken file") })).await.unwrap_err();
    assert!(error.to_string().contains("a broken file"), "{error}");
    let error = in_time(slots.swap(version(&tally, 3))).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
    until("the loader has ended", || slots.stats().loading == 0);
    let stats = slots.stats();
    assert_eq!((stats.generation, stats.idle, stats.outdated), (1, 2, 0));
    assert_eq!((slots.run(|value| value.version).await.unwrap(), tally.live()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_value_that_fails_leaves_the_earlier_one_serving_and_is_tried_again() {
    let (pools, tally) = (pools("later", PoolConfig::new(2)), Tally::default());
    let slots = slots(&pools, "later", &tally);
    fill(&slots, 2).await;
    let (attempts, works) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (counts, asks, made) = (attempts.clone(), works.clone(), tally.clone());
    let make = move || match counts.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(made.make(2)),
        _ if asks.load(Ordering::SeqCst) => Ok(made.make(2)),
        _ => Err("out of memory"),
    };
    let swapped: Swapped = in_time(slots.swap(make)).await.unwrap();
    assert_eq!((swapped.replaced, swapped.outdated, swapped.is_complete()), (1, 1, false));
    assert!(swapped.error.unwrap().to_string().contains("out of memory"));
    let stats = slots.stats();
    assert_eq!((stats.generation, stats.idle, stats.outdated), (2, 2, 1));
    // Both values serve.
    let meet = Arc::new(std::sync::Barrier::new(2));
    let versions: Vec<_> = (0..2)
        .map(|_| {
            let meet = meet.clone();
            tokio::spawn(slots.run(move |value| {
                meet.wait();
                value.version
            }))
        })
        .collect();
    let mut served = Vec::new();
    for version in versions {
        served.push(version.await.unwrap().unwrap());
    }
    served.sort_unstable();
    assert_eq!(served, [1, 2]);
    works.store(true, Ordering::SeqCst);
    until("the loader has tried again", || slots.stats().outdated == 0);
    assert!(attempts.load(Ordering::SeqCst) >= 3);
    until("the value before is dropped", || tally.live() == 2);
    assert_eq!(tally.peak(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_in_use_is_replaced_when_its_task_ends_and_not_before() {
    let (pools, tally) = (pools("use", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "use", &tally);
    let (begun, gate) = (Gate::default(), Gate::default());
    let (begins, waits) = (begun.clone(), gate.clone());
    let task = tokio::spawn(slots.run(move |value| {
        begins.open();
        waits.wait();
        value.version
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    let swap = tokio::spawn(slots.swap(version(&tally, 2)));
    let waiting = slots.clone();
    tokio::task::spawn_blocking(move || until("it is staged", || waiting.stats().generation == 2)).await.unwrap();
    let stats = slots.stats();
    assert_eq!((stats.in_use, stats.loading, stats.outdated, tally.live()), (1, 1, 1, 2));
    assert!(!swap.is_finished());
    gate.open();
    assert_eq!(task.await.unwrap().unwrap(), 1, "the task kept its value");
    let swapped = in_time(swap).await.unwrap().unwrap();
    assert_eq!((swapped.replaced, swapped.outdated), (1, 0));
    assert_eq!(slots.run(|value| value.version).await.unwrap(), 2);
    until("the value before is dropped", || tally.live() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_is_dropped_before_its_first_value_is_ready_changes_nothing() {
    let (pools, tally) = (pools("cancel", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "cancel", &tally);
    fill(&slots, 1).await;
    let (begun, gate, made) = (Gate::default(), Gate::default(), tally.clone());
    let (begins, waits) = (begun.clone(), gate.clone());
    let swap = tokio::spawn(slots.swap(move || {
        begins.open();
        waits.wait();
        Ok::<_, String>(made.make(2))
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    swap.abort();
    assert!(swap.await.unwrap_err().is_cancelled());
    gate.open();
    // The next swap begins after it.
    let swapped = in_time(slots.swap(version(&tally, 3))).await.unwrap();
    assert_eq!((swapped.generation, swapped.replaced), (2, 1));
    assert_eq!(slots.run(|value| value.version).await.unwrap(), 3);
    until("the other values are dropped", || tally.live() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_is_dropped_after_it_took_effect_goes_on() {
    let (pools, tally) = (pools("goes", PoolConfig::new(2)), Tally::default());
    let slots = slots(&pools, "goes", &tally);
    fill(&slots, 2).await;
    let (stuck, swap) = Stuck::swap(&slots, &tally, 2);
    stuck.begun().await;
    assert_eq!(slots.stats().generation, 2);
    swap.abort();
    stuck.gate.open();
    until("the other one is replaced as well", || slots.stats().outdated == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_swaps_the_later_one_prevails_and_the_earlier_one_ends() {
    let (pools, tally) = (pools("two", PoolConfig::new(3)), Tally::default());
    let slots = slots(&pools, "two", &tally);
    fill(&slots, 3).await;
    let (stuck, first) = Stuck::swap(&slots, &tally, 2);
    stuck.begun().await;
    let mut second = tokio_test::task::spawn(slots.swap(version(&tally, 3)));
    assert!(second.poll().is_pending());
    stuck.gate.open();
    let second = in_time(second).await.unwrap();
    assert_eq!((second.generation, second.outdated), (3, 0));
    let first = in_time(first).await.unwrap().unwrap();
    assert_eq!(first.generation, 2);
    assert!(!first.is_complete(), "the second swap has replaced the rest: {first:?}");
    fill(&slots, 3).await;
    assert_eq!(slots.run(|value| value.version).await.unwrap(), 3);
    until("the values before are dropped", || tally.live() == 3);
    assert_eq!(tally.peak(), 4, "two swaps need no more than one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_swap_lasts_the_version_before_stands_in_for_a_new_value_that_fails() {
    let (pools, tally) = (pools("stand", PoolConfig::new(3)), Tally::default());
    let slots = slots(&pools, "stand", &tally);
    let (begun, gate) = (Gate::default(), Gate::default());
    let (begins, waits) = (begun.clone(), gate.clone());
    let holds = tokio::spawn(slots.run(move |_value| {
        begins.open();
        waits.wait();
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    let (attempts, made) = (AtomicUsize::new(0), tally.clone());
    let swap = tokio::spawn(slots.swap(move || match attempts.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(made.make(2)),
        _ => Err("only one fits"),
    }));
    let waiting = slots.clone();
    tokio::task::spawn_blocking(move || until("it is staged", || waiting.stats().generation == 2)).await.unwrap();
    // This task takes the staged value, and the next one would need another.
    let (took, release) = (Gate::default(), Gate::default());
    let (takes, releases) = (took.clone(), release.clone());
    let staged = tokio::spawn(slots.run(move |value| {
        takes.open();
        releases.wait();
        value.version
    }));
    tokio::task::spawn_blocking(move || took.wait()).await.unwrap();
    assert_eq!(slots.run(|value| value.version).await.unwrap(), 1, "no request fails because of a swap");
    assert!(!in_time(swap).await.unwrap().unwrap().is_complete());
    gate.open();
    release.open();
    holds.await.unwrap().unwrap();
    assert_eq!(staged.await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_that_fails_is_not_tried_again_by_each_task_while_the_version_before_stands_in() {
    let pools = pools("pause", PoolConfig::new(2));
    let slots = Slots::builder(&pools, "pause").make(|| Ok::<_, String>(1_u32)).build_lazy().unwrap();
    let (begun, gate) = (Gate::default(), Gate::default());
    let (begins, waits) = (begun.clone(), gate.clone());
    // The swap lasts as long as this value is in use.
    let holds = tokio::spawn(slots.run(move |_value| {
        begins.open();
        waits.wait();
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    let attempts = Arc::<AtomicUsize>::default();
    let counts = attempts.clone();
    let swap = tokio::spawn(slots.swap(move || match counts.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(2),
        _ => Err("only one fits"),
    }));
    let waiting = slots.clone();
    tokio::task::spawn_blocking(move || until("it is staged", || waiting.stats().generation == 2)).await.unwrap();
    let inside = slots.clone();
    let started = std::time::Instant::now();
    // Each task of a hundred drops its value, so the next one needs another. The first one gets the staged value.
    let versions = pools.run_in_pool("pause", move || {
        let versions = (0..100).map(|_| {
            let guard = inside.take()?;
            let version = *guard;
            SlotGuard::discard(guard);
            Ok(version)
        });
        versions.collect::<Result<Vec<u32>, SlotError>>()
    });
    let versions = versions.await.unwrap().unwrap();
    assert_eq!((versions[0], &versions[1..]), (2, &[1; 99][..]));
    // The pauses are 50 ms, 100 ms and so on, up to a second, and there is one attempt after each.
    let (tried, took) = (attempts.load(Ordering::SeqCst), started.elapsed());
    let most = 2 + usize::try_from(took.as_millis() / 50).unwrap();
    assert!(tried <= 1 + most, "{tried} attempts in {took:?}");
    assert!(slots.stats().error.unwrap().contains("only one fits"));
    gate.open();
    holds.await.unwrap().unwrap();
    in_time(swap).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_drains_takes_no_swap_and_ends_the_one_that_lasts() {
    let (pools, tally) = (pools("drain", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "drain", &tally);
    fill(&slots, 1).await;
    let (begun, gate, made) = (Gate::default(), Gate::default(), tally.clone());
    let (begins, waits) = (begun.clone(), gate.clone());
    let swap = tokio::spawn(slots.swap(move || {
        begins.open();
        waits.wait();
        Ok::<_, String>(made.make(2))
    }));
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    assert!(pools.shutdown(Duration::from_secs(5)).await.is_complete(), "a shutdown does not wait for a swap");
    gate.open();
    for swap in [in_time(swap).await.unwrap(), in_time(slots.swap(version(&tally, 3))).await] {
        let error = swap.unwrap_err();
        assert!(error.is_rejected() && error.to_string().contains("shutting down"), "{error}");
    }
    assert_eq!((tally.live(), slots.stats().generation), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_are_dropped_end_the_loader_and_every_value() {
    let (pools, tally) = (pools("gone", PoolConfig::new(2)), Tally::default());
    let slots = slots(&pools, "gone", &tally);
    fill(&slots, 2).await;
    let (stuck, swap) = Stuck::swap(&slots, &tally, 2);
    stuck.begun().await;
    swap.abort();
    let _ = swap.await;
    drop(slots);
    assert_eq!(tally.live(), 0);
    stuck.gate.open();
    until("the value that was being made is dropped", || tally.made() == 4 && tally.live() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_replaced_by_a_thread_with_a_low_priority() {
    let (pools, tally) = (pools("nice", PoolConfig::new(1)), Tally::default());
    let slots = slots(&pools, "nice", &tally);
    fill(&slots, 1).await;
    let made = tally.clone();
    in_time(slots.swap(move || {
        let nice = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let name = std::thread::current().name().map(str::to_owned);
        assert_eq!((nice, name.as_deref()), (10, Some("offload-loader")));
        assert!(tokio::runtime::Handle::try_current().is_ok(), "it is in the runtime of the swap's caller");
        Ok::<_, String>(made.make(2))
    }))
    .await
    .unwrap();
    until("the replaced value is dropped", || tally.live() == 1);
    assert_eq!(tally.dropped_by(), ["offload-loader"], "no task waits for a destructor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slots_that_are_built_swapped_and_dropped_leave_no_value_alive() {
    let (pools, tally) = (pools("churn", PoolConfig::new(1)), Tally::default());
    for _ in 0..1000 {
        let slots = slots(&pools, "churn", &tally);
        slots.run(|_value| ()).await.unwrap();
        in_time(slots.swap(version(&tally, 2))).await.unwrap();
        assert!(slots.run(|_value| panic!("it is dropped")).await.is_err());
        slots.run(|_value| ()).await.unwrap();
    }
    until("the values are dropped", || tally.live() == 0);
    assert_eq!(tally.made(), 3000);
    assert!(pools.get("churn").unwrap().stats().holdings.slots.is_empty());
}
