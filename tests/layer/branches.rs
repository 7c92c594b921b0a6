//! Each branch of `or` keeps the priorities, the callers and the options that it was made with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::task::JoinHandle;
use tower::{Layer, Service, ServiceExt};
use tower_offload::config::Route;
use tower_offload::error::OffloadError;
use tower_offload::select::{Fixed, Or, Select, Selection, Target};
use tower_offload::{Caller, Cpu, Deadline, Io, PoolConfig, PoolLayer, Pools, Priority, Workload};

use crate::fixtures::{Gate, answer, in_time, json, locator, request, stats_of, until};
use crate::rejections::standing;

/// The pools `cpu` and `io` with a worker and one place in the queue each, and the route `/routed` to `cpu`.
fn one_place() -> Pools {
    let config = PoolConfig::new(1).queue_capacity(1);
    let route = Route::new("/routed", "cpu").expect("the pattern is valid");
    Pools::builder()
        .pool("cpu", config.clone())
        .pool("io", config)
        .route(route)
        .build()
        .expect("the settings are valid")
}

fn low(_: &Request<String>) -> Option<Priority> {
    Some(Priority::Low)
}

/// Holds the worker of `pool`, and queues one request for it through `layer`.
async fn fill<W>(pools: &Pools, pool: &str, layer: &PoolLayer<W>, queued: Request<String>, gate: &Gate) -> Queued
where
    W: Select<Request<String>> + Clone,
{
    let held = PoolLayer::for_pool(pools.get(pool).expect("the pool exists")).layer(standing(gate));
    tokio::spawn(held.oneshot(request("GET", "/held")));
    gate.arrived(1).await;
    let queued = tokio::spawn(answer(layer.layer(locator()), queued));
    until(|| stats_of(pools, pool).queued_tasks == 1).await;
    queued
}

type Queued = JoinHandle<http::Response<String>>;

/// Sends a request of normal priority to the full queue, and returns which request was rejected: `shed` if the queued one was
/// less important, `queue_full` if the new one was rejected.
async fn contest(pools: &Pools, pool: &str, queued: Queued) -> &'static str {
    let normal = PoolLayer::for_pool(pools.get(pool).expect("the pool exists")).layer(locator());
    let mut queued = std::pin::pin!(queued);
    let mut normal = std::pin::pin!(answer(normal, request("GET", "/normal")));
    in_time(async {
        tokio::select! {
            shed = &mut queued => {
                assert_eq!(json(&shed.expect("it is answered"))["reason"], "shed");
                "shed"
            }
            refused = &mut normal => {
                assert_eq!(json(&refused)["reason"], "queue_full");
                "kept"
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_the_first_branch_chose_has_no_priority_of_the_second() {
    let pools = one_place();
    let gate = Gate::new();
    let layer = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools).priority_by(low));
    let queued = fill(&pools, "cpu", &layer, request("GET", "/routed"), &gate).await;
    assert_eq!(contest(&pools, "cpu", queued).await, "kept");
    gate.open(1);
}

#[tokio::test]
async fn a_request_that_the_second_branch_chose_has_its_priority() {
    let pools = one_place();
    let gate = Gate::new();
    let layer = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools).priority_by(low));
    let queued = fill(&pools, "io", &layer, request("GET", "/other"), &gate).await;
    assert_eq!(contest(&pools, "io", queued).await, "shed");
    gate.open(1);
}

#[tokio::test]
async fn a_request_that_the_first_branch_chose_has_its_priority() {
    let pools = one_place();
    let gate = Gate::new();
    let layer = PoolLayer::by_route(&pools).priority_by(low).or(PoolLayer::<Io>::new(&pools));
    let queued = fill(&pools, "cpu", &layer, request("GET", "/routed"), &gate).await;
    assert_eq!(contest(&pools, "cpu", queued).await, "shed");
    gate.open(1);
}

#[tokio::test]
async fn a_request_that_the_second_branch_chose_has_no_priority_of_the_first() {
    let pools = one_place();
    let gate = Gate::new();
    let layer = PoolLayer::by_route(&pools).priority_by(low).or(PoolLayer::<Io>::new(&pools));
    let queued = fill(&pools, "io", &layer, request("GET", "/other"), &gate).await;
    assert_eq!(contest(&pools, "io", queued).await, "kept");
    gate.open(1);
}

#[tokio::test]
async fn a_priority_of_the_whole_is_that_of_both_branches() {
    for (pool, path) in [("cpu", "/routed"), ("io", "/other")] {
        let pools = one_place();
        let gate = Gate::new();
        let layer = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools)).priority_by(low);
        let queued = fill(&pools, pool, &layer, request("GET", path), &gate).await;
        assert_eq!(contest(&pools, pool, queued).await, "shed", "{path}");
        gate.open(1);
    }
}

/// A selector that records the selections of another one.
fn selections<A, B>(first: A, second: B) -> impl Fn(Request<String>) -> Selection
where
    A: Select<Request<String>> + Clone,
    B: Select<Request<String>> + Clone,
{
    #[derive(Clone)]
    struct Shown<W>(W, Arc<Mutex<Option<Selection>>>);

    impl<W: Select<Request<String>>> Select<Request<String>> for Shown<W> {
        fn select(&self, request: &Request<String>) -> Selection {
            let selection = self.0.select(request);
            *self.1.lock().expect("nothing panics with it") = Some(selection.clone());
            selection
        }
    }

    let shown = Arc::new(Mutex::new(None));
    let layer = PoolLayer::with(Shown(first, shown.clone())).or(PoolLayer::with(Shown(second, shown.clone())));
    move |request| {
        drop(layer.layer(locator()).call(request));
        shown.lock().expect("nothing panics with it").take().expect("a selector was asked")
    }
}

#[tokio::test]
async fn a_request_has_the_caller_of_the_branch_that_chose_it() {
    #[derive(Clone)]
    struct Named(Target, &'static str, &'static str);

    impl Select<Request<String>> for Named {
        fn select(&self, request: &Request<String>) -> Selection {
            match request.uri().path() == self.1 {
                true => Selection::new(self.0.clone()).caller(Caller::of(self.2)),
                false => Selection::inline(),
            }
        }
    }

    let pools = one_place();
    let select = selections(
        Named(pools.target(Cpu).unwrap(), "/first", "tenant of the first"),
        Named(pools.target(Io).unwrap(), "/second", "tenant of the second"),
    );
    assert_eq!(select(request("GET", "/first")).caller, Some(Caller::of("tenant of the first")));
    assert_eq!(select(request("GET", "/second")).caller, Some(Caller::of("tenant of the second")));
    assert_eq!(select(request("GET", "/neither")).caller, None);
}

/// A request whose deadline passes while it waits at the gate; the gate, and the deadline.
async fn late<W>(layer: &PoolLayer<W>, path: &str) -> (Queued, Gate, Deadline)
where
    W: Select<Request<String>> + Clone,
{
    let mut time = Duration::from_millis(50);
    loop {
        let (gate, deadline) = (Gate::new(), Deadline::after(time));
        let mut late = request("GET", path);
        late.extensions_mut().insert(deadline);
        let mut response = tokio::spawn(answer(layer.layer(standing(&gate)), late));
        tokio::select! {
            biased;
            () = gate.arrived(1) => return (response, gate, deadline),
            // On a slow machine, the deadline may pass before the request comes to the gate.
            told = &mut response => assert_eq!(json(&told.expect("it is answered"))["started"], false),
        }
        time *= 2;
    }
}

async fn is_cancelled<W>(layer: &PoolLayer<W>, path: &str)
where
    W: Select<Request<String>> + Clone,
{
    let (response, _closed, _) = late(layer, path).await;
    assert_eq!(in_time(response).await.expect("it is answered").status(), StatusCode::GATEWAY_TIMEOUT, "{path}");
}

/// The request runs to its end, although another request with a later deadline is cancelled before.
async fn is_not_cancelled<W>(layer: &PoolLayer<W>, path: &str)
where
    W: Select<Request<String>> + Clone,
{
    let (response, gate, deadline) = late(layer, path).await;
    let other = PoolLayer::<Cpu>::new(&one_place()).cancel_late();
    // The last one has the later deadline.
    while !deadline.has_passed() {
        is_cancelled(&other, "/").await;
    }
    is_cancelled(&other, "/").await;
    gate.open(1);
    assert_eq!(in_time(response).await.expect("it is answered").status(), StatusCode::OK, "{path}");
}

#[tokio::test]
async fn each_branch_keeps_its_own_cancellation() {
    let pools = one_place();
    let second = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools).cancel_late());
    is_not_cancelled(&second, "/routed").await;
    is_cancelled(&second, "/other").await;
    let first = PoolLayer::by_route(&pools).cancel_late().or(PoolLayer::<Io>::new(&pools));
    is_cancelled(&first, "/routed").await;
    is_not_cancelled(&first, "/other").await;
    let both = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools)).cancel_late();
    is_cancelled(&both, "/routed").await;
    is_cancelled(&both, "/other").await;
}

#[tokio::test]
async fn each_branch_keeps_its_own_way_with_panics() {
    let pools = one_place();
    let layer = PoolLayer::by_route(&pools).or(PoolLayer::<Io>::new(&pools).resume_panics());
    let service = layer.layer(tower::service_fn(|_: Request<String>| async {
        panic!("as asked");
        #[allow(unreachable_code, reason = "it tells the type")]
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    }));
    assert_eq!(answer(service.clone(), request("GET", "/routed")).await.status(), 500);
    let resumed = tokio::spawn(answer(service, request("GET", "/other"))).await.unwrap_err();
    assert!(resumed.is_panic());
}

#[tokio::test]
async fn three_branches_keep_their_own_too() {
    let pools = one_place();
    let gate = Gate::new();
    let layer = PoolLayer::by_extension(&pools)
        .or(PoolLayer::by_route(&pools).priority_by(low))
        .or(PoolLayer::<Io>::new(&pools));
    let mut named = request("GET", "/routed");
    named.extensions_mut().insert(Workload::CPU);
    let queued = fill(&pools, "cpu", &layer, named, &gate).await;
    assert_eq!(contest(&pools, "cpu", queued).await, "kept", "the extension chose it");
    gate.open(1);
}

/// The types are those that the documentation of `PoolLayer` names.
#[tokio::test]
async fn a_function_can_return_a_configured_layer() {
    fn named(pools: &Pools) -> PoolLayer<Or<Fixed, Fixed>> {
        PoolLayer::<Cpu>::new(pools).or(PoolLayer::<Io>::new(pools))
    }
    fn opaque(pools: &Pools) -> PoolLayer<impl Select<Request<String>> + Clone + use<>> {
        PoolLayer::by(pools, |request: &Request<String>| request.headers().contains_key("x").then_some(Io))
            .or(named(pools).fair_by(|request: &Request<String>| request.headers().get("x").map(Caller::of)))
            .priority_by(low)
    }
    let pools = one_place();
    assert_eq!(answer(opaque(&pools).layer(locator()), request("GET", "/")).await.body(), "cpu");
    let shared: Result<_, OffloadError<std::convert::Infallible>> =
        opaque(&pools).errors().layer(locator()).oneshot(request("GET", "/")).await;
    assert_eq!(shared.unwrap().body(), "cpu");
}
