//! How values are made, checked, and let go.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_offload::slots::{BuildError, SlotError, Slots};
use tower_offload::{PoolConfig, Pools};

use crate::support::{Gate, PATIENCE, pools, until};
use crate::tally::{Tally, Value};

/// The longest time for which a value that could not be made is not tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_made_or_warmed_up_stops_the_start() {
    let pools = pools("start", PoolConfig::new(1));
    let failed = Slots::<u8>::builder(&pools, "start").make(|| Err("no such file")).build().await.unwrap_err();
    assert_eq!(failed.to_string(), "a value could not be made: no such file");
    let cold = Slots::builder(&pools, "start").make(|| Ok::<_, String>(7)).warm_up(|value: &mut u8| {
        assert_eq!(*value, 7);
        Err("the shape is wrong")
    });
    assert!(cold.build().await.unwrap_err().to_string().contains("the shape is wrong"));
    let panics = Slots::<u8>::builder(&pools, "start").make(|| -> Result<u8, String> { panic!("at the start") });
    let error = panics.build().await.unwrap_err();
    assert!(matches!(&error, BuildError::First(SlotError::Make(_))) && error.to_string().contains("at the start"));
    let slots = Slots::builder(&pools, "start").make(|| Ok::<_, String>(7)).warm_up(|value: &mut u8| {
        *value += 1;
        Ok::<_, String>(())
    });
    let slots = slots.build().await.unwrap();
    assert_eq!(slots.stats().idle, 1, "the first value is there before the first task");
    assert_eq!(slots.run(|value| *value).await.unwrap(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_made_fails_its_task_and_those_of_the_next_moment_without_another_attempt() {
    let pools = pools("fail", PoolConfig::new(1));
    let (attempts, works) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (counts, asks) = (attempts.clone(), works.clone());
    let slots = Slots::builder(&pools, "fail").make(move || {
        counts.fetch_add(1, Ordering::SeqCst);
        if asks.load(Ordering::SeqCst) { Ok(7_u8) } else { Err("the database is away") }
    });
    let slots = slots.build_lazy().unwrap();
    let started = std::time::Instant::now();
    let error = slots.run(|value| *value).await.unwrap_err();
    let made = error.make_error().unwrap();
    assert_eq!(made.inner().to_string(), "the database is away");
    let pause = made.retry_after().unwrap();
    assert!(slots.stats().error.unwrap().contains("away"));
    loop {
        let before = attempts.load(Ordering::SeqCst);
        let second = slots.run(|value| *value).await.unwrap_err();
        if attempts.load(Ordering::SeqCst) == before {
            assert!(second.make_error().unwrap().retry_after().unwrap() <= LONGEST_PAUSE);
            break;
        }
        // The pause was over, as it may be on a slow machine. The next one is longer.
        assert!(started.elapsed() > pause, "{second}");
    }
    works.store(true, Ordering::SeqCst);
    let served = async { while slots.run(|value| *value).await.is_err() {} };
    tokio::time::timeout(PATIENCE, served).await.expect("the pause is at most a second");
    assert_eq!((slots.stats().idle, slots.stats().error), (1, None));
    let counts = pools.get("fail").unwrap().stats().counts;
    assert!(counts.error >= 2 && counts.panicked == 0, "{counts:?}");
}

/// An error that uses the slots when it is shown and when it is dropped.
#[derive(Clone, Debug, Default)]
struct Uses(Arc<std::sync::OnceLock<std::sync::Weak<Slots<u8>>>>);

impl Uses {
    fn generation(&self) -> Option<u64> {
        // Taking a value needs the lock, and shows no error.
        let slots = self.0.get()?.upgrade()?;
        slots.here(|_value| ()).is_err().then_some(1)
    }
}

impl std::fmt::Display for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "used: {:?}", self.generation())
    }
}

impl std::error::Error for Uses {}

impl Drop for Uses {
    fn drop(&mut self) {
        self.generation();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_uses_the_slots_when_it_is_shown_or_dropped_does_not_lock_them_up() {
    let pools = pools("shown", PoolConfig::new(1));
    let (error, works) = (Uses::default(), Arc::<AtomicBool>::default());
    let (fails, asks) = (error.clone(), works.clone());
    let slots = Slots::builder(&pools, "shown")
        .make(move || if asks.load(Ordering::SeqCst) { Ok(7_u8) } else { Err(fails.clone()) });
    let slots = Arc::new(slots.build_lazy().unwrap());
    assert!(error.0.set(Arc::downgrade(&slots)).is_ok());
    let inside = slots.clone();
    // In a task of the pool, so that the error reaches the lock.
    let shown = pools.submit_to_pool("shown", move || {
        drop(inside.here(|value| *value));
        inside.stats().error
    });
    let shown = tokio::time::timeout(PATIENCE, shown.unwrap()).await.expect("it does not wait for itself").unwrap();
    assert_eq!(shown.unwrap(), "a value could not be made: used: Some(1)");
    works.store(true, Ordering::SeqCst);
    let served = async { while slots.run(|value| *value).await.is_err() {} };
    tokio::time::timeout(PATIENCE, served).await.expect("the pause is at most a second");
    assert_eq!(slots.stats().error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_of_no_use_any_more_is_replaced_before_its_task_sees_it() {
    let (pools, tally) = (pools("check", PoolConfig::new(2)), Tally::default());
    let (made, broken) = (tally.clone(), Arc::new(Mutex::new(Vec::<usize>::new())));
    let checks = broken.clone();
    let slots = Slots::builder(&pools, "check").make(move || Ok::<_, String>(made.make(1))).recycle(
        move |value: &mut Value| {
            assert!(value.number != 3, "a check that panics");
            !checks.lock().unwrap().contains(&value.number)
        },
    );
    let slots = slots.build_lazy().unwrap();
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 1);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 1);
    broken.lock().unwrap().push(1);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    broken.lock().unwrap().push(2);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 3);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 4);
    assert_eq!(tally.live(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_value_is_let_go_after_a_while_by_a_worker_of_the_pool() {
    let (pools, tally) = (pools("idle", PoolConfig::new(2)), Tally::default());
    let made = tally.clone();
    let slots = Slots::builder(&pools, "idle").make(move || Ok::<_, String>(made.make(1)));
    let slots = slots.keep_alive(Duration::from_millis(20)).build().await.unwrap();
    until("the value is dropped", || tally.live() == 0);
    let dropped_by = tally.dropped_by();
    assert!(dropped_by[0].starts_with("offload-idle-"), "{dropped_by:?}");
    assert_eq!(slots.stats().idle, 0);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    until("that one is dropped, too", || tally.live() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_at_the_end_of_its_life_is_not_used_again() {
    let (pools, tally) = (pools("age", PoolConfig::new(1)), Tally::default());
    let made = tally.clone();
    let slots = Slots::builder(&pools, "age").make(move || Ok::<_, String>(made.make(1)));
    let slots = slots.max_lifetime(Duration::from_millis(20)).build_lazy().unwrap();
    // A task that uses its value for longer keeps it.
    let number = slots.run(|value| {
        std::thread::sleep(Duration::from_millis(25));
        value.number
    });
    assert_eq!(number.await.unwrap(), 1);
    until("it is dropped as it is put back", || tally.live() == 0);
    assert_eq!(slots.run(|value| value.number).await.unwrap(), 2);
    until("an idle one is dropped as well", || tally.live() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_value_is_let_go_although_the_queue_was_full_and_no_hook_of_the_application_runs_on_the_timer() {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let seen = threads.clone();
    let pools = Pools::builder().pool("full", PoolConfig::new(1).queue_capacity(0)).context(move || {
        seen.lock().unwrap().push(std::thread::current().name().unwrap_or("none").to_owned());
        |run: &mut dyn FnMut()| run()
    });
    let (pools, tally) = (pools.build().unwrap(), Tally::default());
    let made = tally.clone();
    let slots = Slots::builder(&pools, "full").make(move || Ok::<_, String>(made.make(1)));
    let slots = slots.keep_alive(Duration::from_millis(20)).build_lazy().unwrap();
    let (inside, gate) = (slots.clone(), Gate::default());
    let waits = gate.clone();
    // The task puts its value back, and keeps its permit.
    let task = pools.submit_to_pool("full", move || {
        drop(inside.take().unwrap());
        waits.wait();
    });
    until("the pool has rejected the task that drops it", || pools.get("full").unwrap().stats().counts.rejected > 0);
    assert_eq!(tally.live(), 1);
    gate.open();
    task.unwrap().await.unwrap();
    until("it is tried again", || tally.live() == 0);
    let threads = threads.lock().unwrap();
    assert!(!threads.is_empty() && threads.iter().all(|name| name != "offload-timer"), "{threads:?}");
}
