//! Selection: the pool of a request.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use http::Request;
use tower::Layer;
use tower_offload::config::Route;
use tower_offload::select::{Select, Selection, Target};
use tower_offload::{Cpu, Db, Embedding, Inference, Io, Marker, PoolConfig, PoolLayer, Pools, Workload};

use crate::fixtures::{answer, json, locator, log_of, request};

/// The name of the pool that a request runs in behind `layer`.
async fn place<W>(layer: &PoolLayer<W>, request: Request<String>) -> String
where
    W: Select<Request<String>> + Clone,
{
    answer(layer.layer(locator()), request).await.into_body()
}

fn pools_with(routes: &[(&str, &str)]) -> Pools {
    let routes = routes.iter().map(|(pattern, pool)| Route::new(pattern, *pool).expect("the pattern is valid"));
    routes.fold(Pools::builder(), tower_offload::pools::PoolsBuilder::route).build().expect("the settings are valid")
}

#[tokio::test]
async fn a_marker_names_its_pool() {
    let pools = Pools::default();
    assert_eq!(place(&PoolLayer::<Io>::new(&pools), request("GET", "/")).await, "io");
    assert_eq!(place(&PoolLayer::<Cpu>::new(&pools), request("GET", "/")).await, "cpu");
    assert_eq!(place(&PoolLayer::<Inference>::new(&pools), request("GET", "/")).await, "inference");
    assert_eq!(place(&PoolLayer::<Embedding>::new(&pools), request("GET", "/")).await, "embedding");
    assert_eq!(place(&PoolLayer::<Db>::new(&pools), request("GET", "/")).await, "db");
}

#[derive(Clone, Copy, Debug, Default)]
struct Thumbnails;

impl Marker for Thumbnails {
    const POOL: &'static str = "thumb-nails";
}

#[tokio::test]
async fn a_marker_of_the_application_names_its_pool() {
    let pools = Pools::builder().pool(Thumbnails, PoolConfig::new(1)).build().unwrap();
    assert_eq!(place(&PoolLayer::<Thumbnails>::new(&pools), request("GET", "/")).await, "thumb-nails");
}

#[test]
fn a_marker_without_a_pool_panics_at_the_line_of_the_caller() {
    static AT: Mutex<Option<(String, u32)>> = Mutex::new(None);
    let pools = Pools::default();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload_as_str() {
        Some(text) if text.contains("thumb-nails") => {
            *AT.lock().unwrap() = info.location().map(|at| (at.file().to_owned(), at.line()));
        }
        _ => before(info),
    }));
    let here = line!() + 1;
    let panic = std::panic::catch_unwind(AssertUnwindSafe(|| PoolLayer::<Thumbnails>::new(&pools))).unwrap_err();
    let sentence = "there is no pool `thumb-nails`; the pools are `io`, `cpu`, `inference`, `embedding`, `db`";
    assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(sentence));
    assert_eq!(*AT.lock().unwrap(), Some((file!().to_owned(), here)));
    assert_eq!(PoolLayer::<Thumbnails>::try_new(&pools).unwrap_err().to_string(), sentence);
}

#[tokio::test]
async fn a_pool_needs_no_marker() {
    let pools = Pools::builder().pool("thumb-nails", PoolConfig::new(1)).build().unwrap();
    let layer = PoolLayer::for_pool(pools.get("thumb-nails").unwrap());
    assert_eq!(place(&layer, request("GET", "/")).await, "thumb-nails");
}

#[tokio::test]
async fn a_route_names_the_pool_of_its_path() {
    let pools = pools_with(&[("/hash", "cpu"), ("/notes/{id}", "db"), ("/files/{*path}", "io")]);
    let layer = PoolLayer::by_route(&pools);
    assert_eq!(place(&layer, request("GET", "/hash")).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/notes/17")).await, "db");
    assert_eq!(place(&layer, request("GET", "/notes/17?with=query")).await, "db");
    assert_eq!(place(&layer, request("GET", "/files/a/b/c.txt")).await, "io");
    for elsewhere in ["/", "/hash/", "/hashes", "/notes", "/notes/", "/notes/17/more", "/files", "/files/"] {
        assert_eq!(place(&layer, request("GET", elsewhere)).await, "inline", "{elsewhere}");
    }
}

#[tokio::test]
async fn a_literal_segment_goes_before_a_parameter_and_before_a_catch_all() {
    let pools = pools_with(&[("/a/{id}", "db"), ("/a/new", "cpu"), ("/b/{*rest}", "io"), ("/b/new", "cpu")]);
    let layer = PoolLayer::by_route(&pools);
    assert_eq!(place(&layer, request("GET", "/a/new")).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/a/news")).await, "db");
    assert_eq!(place(&layer, request("GET", "/b/new")).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/b/new/7")).await, "io");
}

#[tokio::test]
async fn a_route_with_the_method_goes_before_one_for_all_methods() {
    let pools = pools_with(&[("/a/{id}", "db"), ("POST /a/{id}", "cpu"), ("GET /{*rest}", "io")]);
    let layer = PoolLayer::by_route(&pools);
    assert_eq!(place(&layer, request("POST", "/a/1")).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/a/1")).await, "io");
    assert_eq!(place(&layer, request("DELETE", "/a/1")).await, "db");
    assert_eq!(place(&layer, request("BREW", "/a/1")).await, "db");
    assert_eq!(place(&layer, request("BREW", "/b")).await, "inline");
}

#[tokio::test]
async fn head_runs_where_get_does_unless_it_has_a_route() {
    let pools = pools_with(&[("GET /a", "cpu"), ("/a", "io"), ("GET /b", "cpu"), ("HEAD /b", "db"), ("/c", "io")]);
    let layer = PoolLayer::by_route(&pools);
    assert_eq!(place(&layer, request("HEAD", "/a")).await, "cpu");
    assert_eq!(place(&layer, request("HEAD", "/b")).await, "db");
    assert_eq!(place(&layer, request("HEAD", "/c")).await, "io");
}

#[tokio::test]
async fn an_extension_names_the_pool() {
    let layer = PoolLayer::by_extension(&Pools::default());
    let mut with = request("GET", "/");
    with.extensions_mut().insert(Workload::from("db"));
    assert_eq!(place(&layer, with).await, "db");
    assert_eq!(place(&layer, request("GET", "/")).await, "inline");
}

#[tokio::test]
async fn an_extension_that_names_no_pool_is_answered_500_and_logged() {
    let layer = PoolLayer::by_extension(&Pools::default());
    let mut with = request("GET", "/");
    with.extensions_mut().insert(Workload::from("no such\r\npool"));
    let lines = Arc::default();
    let logging = tracing::subscriber::set_default(log_of(&lines));
    let answered = answer(layer.layer(locator()), with).await;
    drop(logging);
    assert_eq!(
        String::from_utf8_lossy(&lines.lock().unwrap()),
        "ERROR a request was rejected, because its selector named a pool that does not exist \
         pool=\"no such\\r\\npool\"\n"
    );
    assert_eq!(answered.status(), 500);
    assert_eq!(answered.headers()["content-type"], "application/problem+json");
    assert!(!answered.headers().contains_key("retry-after"), "waiting does not help");
    let problem = json(&answered);
    assert_eq!(problem["reason"], "unknown_pool");
    assert_eq!(problem["pool"], "no such\r\npool");
    assert_eq!(problem["started"], false);
}

#[tokio::test]
async fn a_closure_names_the_pool_by_text_workload_or_marker() {
    let pools = Pools::default();
    let by_text =
        PoolLayer::by(&pools, |request: &Request<String>| request.headers().contains_key("x").then_some("io"));
    let mut with = request("GET", "/");
    with.headers_mut().insert("x", "y".parse().unwrap());
    assert_eq!(place(&by_text, with).await, "io");
    assert_eq!(place(&by_text, request("GET", "/")).await, "inline");
    let by_workload = PoolLayer::by(&pools, |_: &Request<String>| Some(Workload::EMBEDDING));
    assert_eq!(place(&by_workload, request("GET", "/")).await, "embedding");
    let by_marker = PoolLayer::by(&pools, |_: &Request<String>| Some(Inference));
    assert_eq!(place(&by_marker, request("GET", "/")).await, "inference");
    let wrong = PoolLayer::by(&pools, |_: &Request<String>| Some("cpus".to_owned()));
    assert_eq!(answer(wrong.layer(locator()), request("GET", "/")).await.status(), 500);
}

#[tokio::test]
async fn or_asks_the_next_where_the_one_before_chose_nothing() {
    let pools = pools_with(&[("/hash", "cpu")]);
    let layer = PoolLayer::by_extension(&pools).or(PoolLayer::by_route(&pools)).or(PoolLayer::<Io>::new(&pools));
    let mut with = request("GET", "/hash");
    with.extensions_mut().insert(Workload::DB);
    assert_eq!(place(&layer, with).await, "db");
    assert_eq!(place(&layer, request("GET", "/hash")).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/")).await, "io");
}

#[tokio::test]
async fn or_does_not_hide_a_name_that_is_unknown() {
    let pools = Pools::default();
    let layer = PoolLayer::by_extension(&pools).or(PoolLayer::<Io>::new(&pools));
    let mut with = request("GET", "/");
    with.extensions_mut().insert(Workload::from("disc"));
    assert_eq!(answer(layer.layer(locator()), with).await.status(), 500);
}

#[tokio::test]
async fn a_selector_of_the_application_returns_a_selection() {
    /// It is not `Clone`, so it is put into an `Arc`.
    struct Long(Target);
    impl Select<Request<String>> for Long {
        fn select(&self, request: &Request<String>) -> Selection {
            if request.body().len() > 3 { Selection::new(self.0.clone()) } else { Selection::inline() }
        }
    }
    let pools = Pools::default();
    let layer = PoolLayer::with(Arc::new(Long(pools.target(Cpu).unwrap())));
    assert_eq!(place(&layer, request("GET", "/").map(|_| "long".to_owned())).await, "cpu");
    assert_eq!(place(&layer, request("GET", "/")).await, "inline");
}

#[test]
fn a_layer_that_selects_by_route_warns_if_there_is_no_route() {
    let warnings = |pools: &Pools| {
        let lines = Arc::default();
        tracing::subscriber::with_default(log_of(&lines), || PoolLayer::by_route(pools));
        String::from_utf8(lines.lock().unwrap().clone()).unwrap()
    };
    assert_eq!(
        warnings(&Pools::default()),
        " WARN a layer selects by route, and the settings have no `performance.routes`: it offloads nothing\n"
    );
    assert_eq!(warnings(&pools_with(&[("/hash", "cpu")])), "");
    assert_eq!(warnings(&Pools::disabled()), "");
}

#[tokio::test]
async fn disabled_pools_run_everything_inline_whatever_the_name() {
    let pools = Pools::disabled();
    assert_eq!(place(&PoolLayer::<Cpu>::new(&pools), request("GET", "/")).await, "inline");
    assert_eq!(place(&PoolLayer::<Thumbnails>::try_new(&pools).unwrap(), request("GET", "/")).await, "inline");
    assert_eq!(place(&PoolLayer::by_route(&pools), request("GET", "/")).await, "inline");
    let mut with = request("GET", "/");
    with.extensions_mut().insert(Workload::from("no such pool"));
    assert_eq!(place(&PoolLayer::by_extension(&pools), with).await, "inline");
    let by = PoolLayer::by(&pools, |_: &Request<String>| Some("cpus"));
    assert_eq!(place(&by, request("GET", "/")).await, "inline");
}

#[tokio::test]
async fn the_less_loaded_of_two_pools_is_selected() {
    let one = || PoolConfig::new(1);
    let pools = Pools::builder().pool("gpu0", one()).pool("gpu1", one()).build().unwrap();
    let layer = PoolLayer::least_loaded(&pools, ["gpu0", "gpu1"]).unwrap();
    let hold = |pool: &str| pools.submit_to_pool(pool, std::future::pending::<()>()).unwrap();
    let mut held = vec![hold("gpu0")];
    for _ in 0..10 {
        assert_eq!(place(&layer, request("GET", "/")).await, "gpu1");
    }
    held.push(hold("gpu1"));
    let selector = tower_offload::select::LeastLoaded::new(&pools, ["gpu0", "gpu1"]).unwrap();
    for _ in 0..40 {
        let pool = selector.choose().unwrap().name().clone();
        held.push(hold(pool.as_str()));
        let tasks = |name: &str| {
            let stats = pools.get(name).unwrap().stats();
            stats.in_flight + stats.queued_tasks
        };
        assert!(tasks("gpu0").abs_diff(tasks("gpu1")) <= 1);
    }
    held.into_iter().for_each(tower_offload::TaskHandle::cancel);
}

#[tokio::test]
async fn least_loaded_knows_its_pools() {
    let pools = Pools::default();
    let unknown = PoolLayer::least_loaded(&pools, ["cpu", "gpu"]).unwrap_err();
    assert_eq!(unknown.name().as_str(), "gpu");
    assert_eq!(place(&PoolLayer::least_loaded(&pools, ["db"]).unwrap(), request("GET", "/")).await, "db");
    let disabled = PoolLayer::least_loaded(&Pools::disabled(), ["gpu"]).unwrap();
    assert_eq!(place(&disabled, request("GET", "/")).await, "inline");
}

#[test]
#[should_panic(expected = "there is no pool to choose from")]
fn least_loaded_of_no_pool_is_a_mistake() {
    let _ = PoolLayer::least_loaded(&Pools::default(), [""; 0]);
}
