//! Many models under a budget: one load for all who wait, the least recently used one goes, and bad input is refused.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use tower::{Layer, ServiceExt};
use tower_offload::body::BodyPolicy;
use tower_offload::pool::TaskOptions;
use tower_offload::slots::{ModelError, Models, ModelsBuilder};
use tower_offload::{Deadline, PoolConfig, PoolLayer, Pools, Reason, TaskError};

use crate::support::{Gate, Held, PATIENCE, end_of, hold, pools, until};
use crate::tally::{Tally, Value};

const KEPT: u64 = 100;

/// Models of 10 bytes each, under a budget of `budget`.
fn models(pools: &Pools, name: &str, budget: u64, tally: &Tally) -> ModelsBuilder<Value> {
    let tally = tally.clone();
    let load = move |key: &str| if key == "broken" { Err("half written") } else { Ok(tally.make(1)) };
    Models::builder(pools, name).budget(budget).load(load).weigh(|_model| 10)
}

fn keys(models: &Models<Value>) -> Vec<String> {
    models.stats().loaded.into_iter().map(|model| model.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_of_one_cold_model_cause_one_load() {
    let (pools, tally, gate) = (pools("cold", PoolConfig::new(4)), Tally::default(), Gate::default());
    let (waits, made) = (gate.clone(), tally.clone());
    let models = Models::builder(&pools, "cold").budget(KEPT).weigh(|_model| 10).load(move |_key| {
        waits.wait();
        Ok::<_, String>(made.make(1))
    });
    let models = models.build().unwrap();
    let callers: Vec<_> = (0..100).map(|_| tokio::spawn(models.run("a", |model| model.number))).collect();
    until("it is being loaded", || models.stats().loading == ["a"]);
    assert_eq!(pools.get("cold").unwrap().stats().in_flight, 0, "nobody who waits has a permit");
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!((tally.made(), models.stats().loads_ok), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_model_is_loaded_and_used_while_the_pool_has_as_many_streams_as_it_may_have() {
    let (pools, tally) = (pools("full", PoolConfig::new(2).max_streams(1)), Tally::default());
    let models = models(&pools, "full", KEPT, &tally).build().unwrap();
    let endless = tower::service_fn(|_: http::Request<()>| async {
        let frames = futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        Ok::<_, Infallible>(http::Response::new(StreamBody::new(frames)))
    });
    let layer = PoolLayer::for_pool(pools.get("full").unwrap()).body(BodyPolicy::in_pool());
    let stream = layer.layer(endless).oneshot(http::Request::new(())).await.unwrap();
    assert_eq!(pools.get("full").unwrap().stats().streams, 1);
    assert_eq!(models.run("a", |model| model.number).await.unwrap(), 1);
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_model_goes_and_one_that_is_held_does_not() {
    let (pools, tally) = (pools("lru", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "lru", 30, &tally).build().unwrap();
    for key in ["a", "b", "c", "a"] {
        models.run(key, |_model| ()).await.unwrap();
    }
    assert_eq!(keys(&models), ["a", "b", "c"]);
    let held = models.get("c").await.unwrap();
    for key in ["d", "e"] {
        models.run(key, |_model| ()).await.unwrap();
    }
    assert_eq!((keys(&models), held.number), (vec!["c".to_owned(), "d".to_owned(), "e".to_owned()], 3));
    assert_eq!((tally.live(), tally.peak(), models.stats().evictions), (3, 3, 2), "room is made before a load");
    models.run("a", |_model| ()).await.unwrap();
    assert_eq!(tally.peak(), 3);
    drop((held, models));
    until("all models are dropped with their handle", || tally.live() == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_weights_that_are_known_the_budget_is_never_exceeded() {
    let (pools, tally) = (pools("known", PoolConfig::new(4)), Tally::default());
    let models = models(&pools, "known", 50, &tally).estimate(|_key| Some(10)).loading(3).build().unwrap();
    let callers: Vec<_> = (0..300_usize)
        .map(|number| {
            let models = models.clone();
            tokio::spawn(async move { models.run(&format!("k{}", number * 7 % 20), |_model| ()).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(tally.peak() <= 5, "{}", tally.peak());
    assert_eq!(models.stats().bytes, 10 * models.stats().loaded.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_does_not_fit_waits_until_a_model_can_go_or_its_callers_have_left() {
    let (pools, tally) = (pools("fit", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "fit", 10, &tally).estimate(|_key| Some(10)).build().unwrap();
    let held = models.get("a").await.unwrap();
    let late = TaskOptions::new().deadline(Deadline::after(Duration::from_millis(5)));
    let error = models.run_with(late, "b", |_model| ()).await.unwrap_err();
    let ModelError::Task(TaskError::Rejected(rejection)) = &error else { panic!("{error:?}") };
    assert_eq!(rejection.reason(), Reason::DeadlineExceeded);
    assert_eq!(rejection.to_string(), "pool `fit` gave no answer: the deadline passed before the model was loaded");
    let counts = pools.get("fit").unwrap().stats().counts;
    assert_eq!((counts.submitted, counts.ok, counts.expired), (1, 0, 1), "it counts as a task that was not started");
    assert!(models.stats().loading.is_empty(), "nobody waits for it any more");
    let waits = tokio::spawn(models.run("c", |model| model.number));
    until("it waits", || models.stats().loading == ["c"]);
    assert_eq!(tally.made(), 1);
    drop(held);
    assert_eq!(waits.await.unwrap().unwrap(), 2);
    assert_eq!((keys(&models), tally.peak()), (vec!["c".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_loads_run_at_once_than_may_and_each_on_a_thread_with_a_low_priority() {
    let (pools, running, most) =
        (pools("loads", PoolConfig::new(2)), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (begun, gate) = (Arc::new(Mutex::new(BTreeSet::new())), Gate::default());
    let (runs, peaks, names, waits) = (running.clone(), most.clone(), begun.clone(), gate.clone());
    let models =
        Models::builder(&pools, "loads").budget(KEPT).weigh(|_model: &u8| 1).estimate(|_key| Some(1)).loading(2);
    let models = models.load(move |key| {
        peaks.fetch_max(runs.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        names.lock().unwrap().insert(key.to_owned());
        let nice = rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        waits.wait();
        runs.fetch_sub(1, Ordering::SeqCst);
        if nice == 10 { Ok(0) } else { Err(format!("nice {nice}")) }
    });
    let models = models.build().unwrap();
    let callers: Vec<_> = (0..6).map(|key| tokio::spawn(models.get(&key.to_string()))).collect();
    until("two loads have begun", || running.load(Ordering::SeqCst) == 2);
    gate.open();
    for caller in callers {
        drop(caller.await.unwrap().unwrap());
    }
    assert_eq!((most.load(Ordering::SeqCst), begun.lock().unwrap().len()), (2, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_is_answered_at_once_for_a_while_and_others_are_not_concerned() {
    let (pools, tally) = (pools("fails", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "fails", KEPT, &tally).build().unwrap();
    let begun = Instant::now();
    for _ in 0..10 {
        let error = models.run("broken", |_model| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "the model `broken` could not be loaded: half written");
        let ModelError::Load { error, .. } = error else { panic!("{error}") };
        // The pause doubles with each load that fails.
        let pause = Duration::from_secs(1 << (models.stats().loads_failed - 1));
        assert!(error.retry_after().unwrap() <= pause, "{error:?}");
    }
    // It is tried again a second later, which may pass on a slow machine.
    let failed = models.stats().loads_failed;
    assert!((1..=1 + begun.elapsed().as_secs()).contains(&failed), "{failed} loads in {:?}", begun.elapsed());
    models.run("good", |_model| ()).await.unwrap();
    assert!(models.unload("broken"), "its failure is forgotten");
    models.run("broken", |_model| ()).await.unwrap_err();
    assert_eq!(models.stats().loads_failed, failed + 1);
    let panics = Models::builder(&pools, "fails")
        .budget(1)
        .weigh(|_model: &u8| 1)
        .load(|_key| -> Result<u8, String> { panic!("a broken file") });
    let error = panics.build().unwrap().run("a", |_model| ()).await.unwrap_err();
    assert!(error.to_string().contains("a broken file"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_larger_than_the_budget_is_a_clear_error() {
    let (pools, tally) = (pools("large", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "large", 9, &tally).build().unwrap();
    for _ in 0..3 {
        let error = models.run("a", |_model| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "the model `a` has 10 bytes, and the budget of all models is 9");
    }
    assert_eq!((tally.made(), tally.live()), (1, 0), "it is not loaded again and again");
    assert_eq!(models.stats().loads_failed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_lead_out_of_a_folder_are_refused_before_any_load() {
    let (pools, tally) = (pools("keys", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "keys", KEPT, &tally).build().unwrap();
    for key in ["", "../a", "a/../b", "/etc/passwd", "a//b", ".", "..", "a\\b", "a\0b", "a\nb", &"a".repeat(257)] {
        let error = models.run(key, |_model| ()).await.unwrap_err();
        assert!(matches!(error, ModelError::BadKey { .. }), "{key:?}: {error}");
        assert!(error.to_string().contains("cannot be the key of a model"), "{error}");
    }
    assert_eq!(tally.made(), 0);
    models.run("meta/llama-3.2_1B:q4", |_model| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_unloaded_stays_with_those_who_hold_it() {
    let (pools, tally) = (pools("unload", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "unload", 20, &tally).build().unwrap();
    let held = models.get("a").await.unwrap();
    assert!(models.unload("a") && !models.unload("a"));
    let stats = models.stats();
    assert_eq!((stats.loaded.len(), stats.leaving, stats.bytes, tally.live()), (0, 1, 10, 1));
    assert_eq!(models.run("a", |model| model.number).await.unwrap(), 2, "the next caller loads it again");
    assert_eq!(held.number, 1);
    drop(held);
    assert_eq!((models.stats().leaving, models.stats().bytes, tally.live()), (0, 10, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_leave_while_a_model_loads_hold_nothing() {
    let (pools, tally, gate) = (pools("leave", PoolConfig::new(2)), Tally::default(), Gate::default());
    let (waits, made) = (gate.clone(), tally.clone());
    let models = Models::builder(&pools, "leave").budget(10).weigh(|_model| 10).load(move |_key| {
        waits.wait();
        Ok::<_, String>(made.make(1))
    });
    let models = models.build().unwrap();
    let callers: Vec<_> = (0..10).map(|_| tokio::spawn(models.get("a"))).collect();
    until("it is being loaded", || models.stats().loading == ["a"]);
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    for caller in callers {
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    gate.open();
    // The first model makes room for this one.
    models.run("b", |_model| ()).await.unwrap();
    assert_eq!(keys(&models), ["b"]);
    until("the first model is dropped", || tally.live() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_than_may_wait_are_rejected() {
    let (pools, gate) = (pools("wait", PoolConfig::new(2)), Gate::default());
    let waits = gate.clone();
    let models = Models::builder(&pools, "wait").budget(10).weigh(|_model: &u8| 1).max_waiting(2).load(move |_key| {
        waits.wait();
        Ok::<_, String>(0)
    });
    let models = models.build().unwrap();
    let mut callers: Vec<_> = (0..2).map(|_| tokio_test::task::spawn(models.get("a"))).collect();
    for caller in &mut callers {
        assert!(caller.poll().is_pending());
    }
    let third = models.get("a").await.unwrap_err();
    let ModelError::Task(TaskError::Rejected(rejection)) = &third else { panic!("{third:?}") };
    assert_eq!(rejection.reason(), Reason::QueueFull);
    assert_eq!(rejection.to_string(), "pool `wait` gave no answer: as many callers wait for models as may");
    assert!(third.is_rejected() && rejection.retry_after().is_some());
    let counts = || pools.get("wait").unwrap().stats().counts;
    assert_eq!(counts().submitted, 0, "a caller that asks for a model alone is no task");
    models.run("a", |_model| ()).await.unwrap_err();
    assert_eq!((counts().submitted, counts().rejected), (1, 1));
    gate.open();
    for caller in callers {
        drop(caller.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_have_left_a_load_that_runs_do_not_count_as_waiting() {
    let (pools, gate) = (pools("gone", PoolConfig::new(2)), Gate::default());
    let waits = gate.clone();
    let models = Models::builder(&pools, "gone").budget(100).weigh(|_model: &u8| 1).estimate(|_key| Some(1));
    let models = models.loading(2).max_waiting(3).load(move |key| {
        if key == "slow" {
            waits.wait();
        }
        Ok::<_, String>(7)
    });
    let models = models.build().unwrap();
    for _ in 0..3 {
        let mut caller = tokio_test::task::spawn(models.get("slow"));
        assert!(caller.poll().is_pending());
    }
    assert_eq!(models.stats().loading, ["slow"], "the load runs on");
    assert_eq!(models.run("fast", |model| *model).await.unwrap(), 7);
    gate.open();
    until("the slow one is loaded", || models.stats().loaded.len() == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_models_say_what_they_are_once_and_are_responses_and_statuses() {
    use axum::response::IntoResponse;
    use std::error::Error;

    /// An error with a source.
    #[derive(Debug)]
    struct Half(std::io::Error);
    impl std::fmt::Display for Half {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half written")
        }
    }
    impl Error for Half {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    let pools = pools("errors", PoolConfig::new(1));
    let models = Models::builder(&pools, "errors").budget(1).weigh(|&bytes: &u64| bytes);
    let models = models.load(|key| match key {
        "broken" => Err(Half(std::io::Error::other("the disk"))),
        "large" => Ok(2),
        _ => Ok(1),
    });
    let models = models.build().unwrap();
    for (key, status, code) in [
        ("broken", 503, tonic::Code::Unavailable),
        ("large", 500, tonic::Code::Internal),
        ("../a", 400, tonic::Code::InvalidArgument),
        ("panics", 500, tonic::Code::Internal),
    ] {
        let error = || models.run(key, |_model| -> () { panic!("a secret") });
        let (shown, response) = (error().await.unwrap_err(), error().await.unwrap_err().into_response());
        assert_eq!((shown.is_panic(), shown.is_rejected()), (key == "panics", false));
        assert_eq!(response.status(), status, "{shown}");
        assert_eq!(response.headers().contains_key("retry-after"), key == "broken");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(!body.contains("half written") && !body.contains("secret"), "{body}");
        if key == "broken" {
            assert_eq!(shown.to_string(), "the model `broken` could not be loaded: half written");
            assert_eq!(shown.source().unwrap().to_string(), "the disk", "the error itself is shown already");
            assert!(shown.load_error().is_some());
        }
        let answered = tonic::Status::from(shown);
        assert_eq!(answered.code(), code);
        assert_eq!(answered.metadata().contains_key("grpc-retry-pushback-ms"), key == "broken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_estimated_as_too_large_is_refused_and_no_load_has_failed() {
    let (pools, tally) = (pools("guess", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "guess", 20, &tally).estimate(|key| (key == "a").then_some(21)).build().unwrap();
    let error = models.run("a", |_model| ()).await.unwrap_err();
    assert!(matches!(error, ModelError::TooLarge { bytes: 21, .. }), "{error}");
    assert_eq!((tally.made(), models.stats().loads_failed), (0, 0));
}

/// An error that uses the models when it is dropped.
#[derive(Debug)]
struct Uses(Arc<std::sync::OnceLock<Models<u8>>>);

impl std::fmt::Display for Uses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("half written")
    }
}

impl std::error::Error for Uses {}

impl Drop for Uses {
    fn drop(&mut self) {
        if let Some(models) = self.0.get() {
            let _ = models.stats();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_uses_the_models_when_it_is_dropped_does_not_lock_them_up() {
    let pools = pools("edrop", PoolConfig::new(1));
    let shared = Arc::new(std::sync::OnceLock::new());
    let fails = shared.clone();
    let models = Models::builder(&pools, "edrop").budget(1).weigh(|_model: &u8| 1);
    let models = models.load(move |_key| Err::<u8, _>(Uses(fails.clone()))).build().unwrap();
    assert!(shared.set(models.clone()).is_ok());
    models.get("a").await.map(drop).unwrap_err();
    // The catalog has the last reference to the error.
    let forgets = tokio::task::spawn_blocking(move || models.unload("a"));
    assert!(tokio::time::timeout(PATIENCE, forgets).await.expect("it does not wait for itself").unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_model_is_served_beside_two_that_are_always_in_use() {
    let (pools, tally) = (pools("third", PoolConfig::new(2).queue_capacity(1000)), Tally::default());
    let models = models(&pools, "third", 20, &tally).build().unwrap();
    let done = Arc::<std::sync::atomic::AtomicBool>::default();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (models, done, key) = (models.clone(), done.clone(), ["a", "b"][client % 2]);
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    models.run(key, |_model| std::thread::sleep(Duration::from_millis(1))).await.unwrap();
                }
            })
        })
        .collect();
    until("both are loaded", || models.stats().loads_ok == 2);
    tokio::time::timeout(PATIENCE, models.run("c", |_model| ())).await.expect("it gets its turn").unwrap();
    done.store(true, Ordering::SeqCst);
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("each one is served").unwrap();
    }
    assert!(tally.peak() <= 3, "one model may be larger than it was taken for");
}

#[test]
fn models_that_could_not_work_are_refused_with_the_name_of_the_setting() {
    let (pools, tally) = (Pools::default(), Tally::default());
    let complete = || models(&pools, "cpu", KEPT, &tally);
    let missing = Models::<u8>::builder(&pools, "cpu");
    for (refused, setting) in [
        (missing.build().err().map(|error| error.to_string()), "load: "),
        (complete().budget(0).build().err().map(|error| error.to_string()), "budget: 0"),
        (complete().loading(0).build().err().map(|error| error.to_string()), "loading: 0"),
        (complete().max_waiting(0).build().err().map(|error| error.to_string()), "max_waiting: 0"),
        (complete().nice(-21).build().err().map(|error| error.to_string()), "nice: -21"),
    ] {
        let refused = refused.unwrap();
        assert!(refused.starts_with(setting), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_loads_swaps_and_unloads_leave_no_model_alive() {
    let (pools, tally) = (pools("churn", PoolConfig::new(2)), Tally::default());
    let models = models(&pools, "churn", KEPT, &tally).build().unwrap();
    for _ in 0..1000 {
        models.run("a", |_model| ()).await.unwrap();
        let swapped = models.swap("a").await.unwrap();
        models.swap("broken").await.unwrap_err();
        assert!(models.unload("a"), "it is unloaded while it is held");
        drop(swapped);
    }
    assert_eq!((tally.made(), tally.live()), (2000, 0));
    let stats = models.stats();
    assert_eq!((stats.bytes, stats.leaving, stats.loaded.len(), stats.loading.len()), (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_its_pool_would_reject_loads_no_model_and_makes_none_go() {
    let (pools, tally) = (pools("full", PoolConfig::new(1).queue_capacity(1)), Tally::default());
    let models = models(&pools, "full", 10, &tally).estimate(|_key| Some(10)).build().unwrap();
    models.run("hot", |_model| ()).await.unwrap();
    let held = hold(&pools, "full", 1);
    let queued = pools.submit_to_pool("full", || ()).unwrap();
    let reason = |result| match result {
        Err(ModelError::Task(TaskError::Rejected(rejection))) => rejection.reason(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(models.run("cold", |_model| ()).await), Reason::QueueFull);
    assert_eq!(reason(models.run("hot", |_model| ()).await), Reason::QueueFull);
    let rejected = pools.get("full").unwrap().stats().counts.rejected;
    assert_eq!((keys(&models), tally.made(), rejected), (vec!["hot".to_owned()], 1, 2), "each is counted once");
    held.into_iter().for_each(Held::release);
    end_of(queued).unwrap();
    pools.shutdown(PATIENCE).await;
    assert_eq!(reason(models.run("cold", |_model| ()).await), Reason::Draining);
    assert_eq!(tally.made(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_hangs_delays_no_other_model_once_it_is_given_up() {
    let (pools, tally, gate) = (pools("hangs", PoolConfig::new(1)), Tally::default(), Gate::default());
    let (waits, made) = (gate.clone(), tally.clone());
    let models = Models::builder(&pools, "hangs").budget(KEPT).weigh(|_model| 10).load(move |key: &str| {
        if key == "hangs" {
            waits.wait();
        }
        Ok::<_, String>(made.make(1))
    });
    let models = models.build().unwrap();
    let caller = tokio::spawn(models.run("hangs", |_model| ()));
    until("it is being loaded", || models.stats().loading == ["hangs"]);
    let other = tokio::spawn(models.run("other", |_model| ()));
    until("another load waits", || models.stats().loading == ["hangs", "other"]);
    assert!(models.unload("hangs"));
    assert!(matches!(caller.await.unwrap(), Err(ModelError::Unloaded(_))));
    other.await.unwrap().unwrap();
    gate.open();
    until("the model that nobody wants is dropped", || (tally.made(), tally.live()) == (2, 1));
    models.run("hangs", |_model| ()).await.unwrap();
}
