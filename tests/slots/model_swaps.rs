//! Swaps of one model by key: the model before serves meanwhile, what fails changes nothing, and the budget is exceeded by
//! one model at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tower_offload::slots::{ModelError, ModelLease, Models};
use tower_offload::{PoolConfig, Pools};

use crate::support::{PATIENCE, pools, until};
use crate::tally::{Tally, Value};

/// Models of 10 bytes each, whose loads wait for the test.
struct Loads {
    models: Models<Value>,
    tally: Tally,
    /// Has the key of each load that begins.
    begun: Receiver<String>,
    /// Lets one load end, well or with an error.
    end: Sender<Result<(), &'static str>>,
}

type Swapped = Result<ModelLease<Value>, ModelError>;

impl Loads {
    fn new(pools: &Pools, name: &str, budget: u64, loading: usize) -> Self {
        let tally = Tally::default();
        let (begins, begun) = channel();
        let (end, ends) = channel::<Result<(), &'static str>>();
        let (begins, ends, made) = (Mutex::new(begins), Mutex::new(ends), tally.clone());
        let load = move |key: &str| {
            begins.lock().unwrap().send(key.to_owned()).unwrap();
            // A load that panics below has left the lock.
            let ended = ends.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE).unwrap();
            match ended {
                Err("panic") => panic!("a broken file"),
                ended => ended.map(|()| made.make(1)),
            }
        };
        let models = Models::builder(pools, name).budget(budget).load(load).weigh(|_model| 10);
        let models = models.estimate(|_key| Some(10)).loading(loading).build().unwrap();
        Self { models, tally, begun, end }
    }

    /// Waits until a load of this key has begun.
    fn begun(&self, key: &str) {
        assert_eq!(self.begun.recv_timeout(PATIENCE).unwrap(), key);
    }

    fn end(&self) {
        self.end.send(Ok(())).unwrap();
    }

    /// Loads a model, and holds it.
    async fn held(&self, key: &str) -> ModelLease<Value> {
        self.end();
        let held = self.models.get(key).await.unwrap();
        self.begun(key);
        held
    }

    /// Asks for a swap. When this returns, its caller waits.
    fn swap(&self, key: &str) -> JoinHandle<Swapped> {
        let mut swap = tokio_test::task::spawn(self.models.swap(key));
        assert!(swap.poll().is_pending());
        tokio::spawn(swap)
    }

    async fn number(&self, key: &str) -> usize {
        self.models.run(key, |model| model.number).await.unwrap()
    }
}

async fn ended(swap: JoinHandle<Swapped>) -> Swapped {
    tokio::time::timeout(PATIENCE, swap).await.expect("the swap ends").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_no_caller_and_need_one_model_more() {
    let (pools, tally) = (pools("mload", PoolConfig::new(3).queue_capacity(1000)), Tally::default());
    let made = tally.clone();
    let models = Models::builder(&pools, "mload").budget(20).weigh(|_model| 10);
    let models = models.load(move |_key| Ok::<_, String>(made.make(1))).build().unwrap();
    for key in ["a", "b"] {
        models.run(key, |_model| ()).await.unwrap();
    }
    let done = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (models, done, key) = (models.clone(), done.clone(), ["a", "b"][client % 2]);
            tokio::spawn(async move {
                let mut newest = 0;
                while !done.load(Ordering::SeqCst) {
                    let number = models.run(key, |model| model.number).await.unwrap();
                    assert!(number >= newest, "an earlier model served after a later one");
                    newest = number;
                }
                newest
            })
        })
        .collect();
    for number in 3..23 {
        let key = ["a", "b"][number % 2];
        let swapped = tokio::time::timeout(PATIENCE, models.swap(key)).await.unwrap().unwrap();
        assert_eq!((swapped.number, ModelLease::key(&swapped)), (number, key));
        drop(swapped);
        assert_eq!(models.run(key, |model| model.number).await.unwrap(), number, "the next caller has the new model");
    }
    done.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(tally.peak(), 3, "two models fit, and there is one more");
    until("the models before are dropped", || tally.live() == 2);
    let stats = models.stats();
    assert_eq!((stats.bytes, stats.leaving, stats.evictions, stats.loads_ok), (20, 0, 0, 22));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_fails_or_panics_leaves_the_model_before_serving_and_says_why() {
    let pools = pools("mfail", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mfail", 100, 1);
    drop(loads.held("a").await);
    for (failure, why) in [("half written", "half written"), ("panic", "the task panicked: a broken file")] {
        let swap = loads.swap("a");
        loads.begun("a");
        loads.end.send(Err(failure)).unwrap();
        let error = ended(swap).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the model `a` could not be loaded: {why}"));
        assert_eq!(loads.number("a").await, 1, "the model before serves on");
    }
    let stats = loads.models.stats();
    assert_eq!((stats.loads_ok, stats.loads_failed, stats.bytes, loads.tally.live()), (1, 2, 10, 1));
    // No pause delays the next swap.
    let swap = loads.swap("a");
    loads.begun("a");
    loads.end();
    assert_eq!(ended(swap).await.unwrap().number, 2);
    assert_eq!((loads.number("a").await, loads.tally.live()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_get_the_model_before_while_a_swap_loads_and_those_who_hold_it_keep_it() {
    let pools = pools("mhold", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mhold", 100, 1);
    let held = loads.held("a").await;
    let swap = loads.swap("a");
    loads.begun("a");
    let stats = loads.models.stats();
    assert_eq!((stats.loading, stats.loaded.len(), stats.bytes), (vec!["a".to_owned()], 1, 20));
    assert_eq!(loads.number("a").await, 1, "no caller waits for a swap");
    loads.end();
    let swapped = ended(swap).await.unwrap();
    assert_eq!((swapped.number, held.number, loads.number("a").await), (2, 1, 2));
    assert!(ModelLease::version(&swapped) > ModelLease::version(&held));
    let stats = loads.models.stats();
    assert_eq!((stats.leaving, stats.bytes, loads.tally.live()), (1, 20, 2));
    drop(held);
    let stats = loads.models.stats();
    assert_eq!((stats.leaving, stats.bytes, loads.tally.live()), (0, 10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_that_wait_share_a_load_and_one_that_is_asked_for_during_a_load_gets_a_later_one() {
    let pools = pools("mtwo", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mtwo", 100, 1);
    // The first load of the key runs: it may have read an earlier file.
    let models = loads.models.clone();
    let first = tokio::spawn(async move { models.get("a").await });
    loads.begun("a");
    let (one, two) = (loads.swap("a"), loads.swap("a"));
    loads.end();
    assert_eq!(ended(first).await.unwrap().number, 1);
    loads.begun("a");
    // This one comes when the swap's load runs, too.
    let three = loads.swap("a");
    loads.end();
    assert_eq!((ended(one).await.unwrap().number, ended(two).await.unwrap().number), (2, 2));
    loads.begun("a");
    assert!(!three.is_finished());
    // A load that fails is not the end of the swaps behind it.
    let four = loads.swap("a");
    loads.end.send(Err("half written")).unwrap();
    assert!(matches!(ended(three).await, Err(ModelError::Load { .. })));
    loads.begun("a");
    loads.end();
    assert_eq!(ended(four).await.unwrap().number, 3);
    assert_eq!((loads.models.stats().loads_ok, loads.tally.live()), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_without_room_exceeds_the_budget_by_one_model_and_further_ones_wait() {
    let pools = pools("mroom", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mroom", 20, 2);
    let (a, b) = (loads.held("a").await, loads.held("b").await);
    let (one, two) = (loads.swap("a"), loads.swap("b"));
    loads.begun("a");
    assert_eq!(loads.models.stats().bytes, 30);
    loads.end();
    assert_eq!(ended(one).await.unwrap().number, 3);
    // The first model of `a` is still held, so the budget is exceeded still.
    assert_eq!((loads.models.stats().bytes, loads.begun.try_recv().is_err()), (30, true));
    drop(a);
    loads.begun("b");
    loads.end();
    assert_eq!(ended(two).await.unwrap().number, 4);
    assert_eq!((loads.tally.peak(), b.number), (3, 2));
    drop(b);
    assert_eq!((loads.models.stats().bytes, loads.tally.live()), (20, 2));
    // A load of another model waits until the budget is kept, and a model that is being swapped does not make room for it.
    let swap = loads.swap("a");
    loads.begun("a");
    let models = loads.models.clone();
    let other = tokio::spawn(async move { models.get("c").await });
    until("it waits", || loads.models.stats().loading == ["a", "c"]);
    assert!(loads.begun.try_recv().is_err());
    let stats = loads.models.stats();
    assert_eq!((stats.loaded.len(), stats.evictions, stats.bytes), (2, 0, 30), "both models of the budget serve on");
    loads.end();
    drop(ended(swap).await.unwrap());
    loads.begun("c");
    loads.end();
    assert_eq!((ended(other).await.unwrap().number, loads.tally.peak()), (6, 3));
    assert_eq!((loads.models.stats().evictions, loads.models.stats().bytes), (1, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_whose_callers_have_left_changes_nothing() {
    let pools = pools("mleave", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mleave", 100, 1);
    drop(loads.held("a").await);
    let swap = loads.swap("a");
    loads.begun("a");
    swap.abort();
    assert!(swap.await.unwrap_err().is_cancelled());
    // This one waits for its turn, and leaves as well.
    let waits = loads.swap("b");
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    loads.end();
    until("the new model is dropped", || loads.tally.made() == 2 && loads.tally.live() == 1);
    assert_eq!(loads.number("a").await, 1);
    let stats = loads.models.stats();
    assert_eq!((stats.bytes, stats.loads_ok, stats.loads_failed, stats.loading.len()), (10, 1, 0, 0));
    assert!(loads.begun.try_recv().is_err(), "nobody waits for `b`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_unloaded_during_its_swap_is_gone_and_the_swap_says_so() {
    let pools = pools("munl", PoolConfig::new(2));
    let loads = Loads::new(&pools, "munl", 100, 1);
    drop(loads.held("a").await);
    let (one, two) = (loads.swap("a"), loads.swap("a"));
    loads.begun("a");
    let later = loads.swap("a");
    assert!(loads.models.unload("a"));
    assert_eq!((loads.tally.live(), loads.models.stats().loaded.len()), (0, 0));
    for swap in [one, two, later] {
        assert!(matches!(ended(swap).await, Err(ModelError::Unloaded(key)) if &*key == "a"));
    }
    // A swap after that is no swap of the load that still runs.
    let again = loads.swap("a");
    loads.end();
    loads.begun("a");
    loads.end();
    assert_eq!(ended(again).await.unwrap().number, 3, "the second one was dropped");
    assert_eq!((loads.models.stats().bytes, loads.tally.live()), (10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_of_a_model_that_is_not_loaded_loads_it_however_its_last_load_ended() {
    let pools = pools("mcold", PoolConfig::new(2));
    let loads = Loads::new(&pools, "mcold", 100, 1);
    loop {
        let asked = Instant::now();
        loads.end.send(Err("half written")).unwrap();
        loads.models.get("a").await.unwrap_err();
        loads.begun("a");
        let mut again = tokio_test::task::spawn(loads.models.get("a"));
        if let Poll::Ready(failed) = again.poll() {
            failed.unwrap_err();
            assert!(loads.begun.try_recv().is_err(), "its failure is answered at once");
            break;
        }
        // It is loaded again a second later, which may pass on a slow machine.
        assert!(asked.elapsed() > Duration::from_secs(1));
        loads.end.send(Err("half written")).unwrap();
        again.await.unwrap_err();
        loads.begun("a");
    }
    loads.end();
    assert_eq!(loads.models.swap("a").await.unwrap().number, 1);
    loads.begun("a");
    let error = loads.models.swap("../a").await.unwrap_err();
    assert!(matches!(error, ModelError::BadKey { .. }), "{error}");
}
