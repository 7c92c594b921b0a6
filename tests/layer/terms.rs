//! The terms of requests: deadlines, priorities and callers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, Request, Response, StatusCode};
use tokio::task::JoinHandle;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_offload::config::{Malformed, Trust};
use tower_offload::pool::TaskOptions;
use tower_offload::{
    Caller, Cpu, Deadline, Io, PoolConfig, PoolLayer, Pools, Priority, Reason, Rejection, StatsService,
};

use crate::fixtures::{Gate, TextService, answer, in_time, json, locator, request, stats_of, until};

fn one_worker(queue_capacity: usize, trust: Trust) -> Pools {
    let cpu = PoolConfig::new(1).queue_capacity(queue_capacity).trust(trust);
    Pools::builder().pool(Cpu, cpu).build().expect("the settings are valid")
}

fn trusting() -> Trust {
    Trust::default()
        .deadline(HeaderName::from_static("x-timeout"))
        .grpc_timeout(true)
        .priority(HeaderName::from_static("x-priority"))
        .malformed(Malformed::Reject)
}

/// A service that records the path of each request, and holds those of `/held` at the gate.
fn noting(gate: &Gate, notes: &Arc<Mutex<Vec<String>>>) -> impl TextService + use<> {
    let (gate, notes) = (gate.clone(), notes.clone());
    service_fn(move |request: Request<String>| {
        let (gate, notes) = (gate.clone(), notes.clone());
        async move {
            let path = request.uri().path().to_owned();
            notes.lock().expect("no test panics with it").push(path.clone());
            if path == "/held" {
                gate.pass().await;
            }
            Ok(Response::new(path))
        }
    })
}

fn spawn<S>(service: &S, request: Request<String>) -> JoinHandle<Response<String>>
where
    S: Service<Request<String>, Error: std::fmt::Debug, Future: Send> + Clone + Send + 'static,
    S: Service<Request<String>, Response = Response<tower_offload::reject::ResponseBody<String>>>,
{
    tokio::spawn(answer(service.clone(), request))
}

fn with_header(name: &'static str, value: &str) -> Request<String> {
    let mut request = request("GET", "/");
    request.headers_mut().insert(name, value.parse().expect("a header value"));
    request
}

#[tokio::test]
async fn a_queued_request_is_rejected_at_its_deadline_and_never_starts() {
    let pools = one_worker(10, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).layer(noting(&gate, &notes));
    let holder = spawn(&service, request("GET", "/held"));
    gate.arrived(1).await;
    let mut late = request("GET", "/late");
    late.extensions_mut().insert(Deadline::after(Duration::from_millis(20)));
    let told = in_time(spawn(&service, late)).await.unwrap();
    assert_eq!((told.status(), &json(&told)["reason"]), (StatusCode::GATEWAY_TIMEOUT, &"deadline_exceeded".into()));
    assert_eq!(json(&told)["started"], false);
    assert_eq!(stats_of(&pools, "cpu").queued_tasks, 0);
    gate.open(1);
    holder.await.unwrap();
    assert_eq!(*notes.lock().unwrap(), ["/held"]);
    assert_eq!(stats_of(&pools, "cpu").counts.expired, 1);
}

#[tokio::test]
async fn a_request_that_is_past_its_deadline_is_rejected_at_once() {
    let pools = one_worker(10, Trust::default());
    let mut late = request("GET", "/");
    late.extensions_mut().insert(Deadline::after(Duration::ZERO));
    let told = answer(PoolLayer::<Cpu>::new(&pools).layer(locator()), late).await;
    assert_eq!((told.status(), &json(&told)["started"]), (StatusCode::GATEWAY_TIMEOUT, &false.into()));
}

/// With each kind of response to rejections.
#[tokio::test]
async fn headers_are_believed_however_rejections_are_answered() {
    async fn never<B>(_: Request<String>) -> Result<Response<B>, Infallible> {
        panic!("it is past its deadline");
    }
    let pools = one_worker(10, trusting());
    let layer = || PoolLayer::<Cpu>::new(&pools);
    let late = || with_header("x-timeout", "0");
    layer().layer(service_fn(never::<String>)).oneshot(late()).await.unwrap();
    layer().same_body().layer(service_fn(never::<axum::body::Body>)).oneshot(late()).await.unwrap();
    let with = layer().reject_with(|rejection: Rejection| Response::new(rejection.reason().to_string()));
    with.layer(service_fn(never::<String>)).oneshot(late()).await.unwrap();
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.expired, counts.panicked), (3, 0), "{counts:?}");
}

#[tokio::test]
async fn a_handler_sees_the_deadline_of_a_header_that_its_pool_believes() {
    let seen = service_fn(|request: Request<String>| async move {
        let left = request.extensions().get::<Deadline>().map(|deadline| deadline.remaining().as_secs());
        Ok::<_, std::convert::Infallible>(Response::new(left.map_or_else(String::new, |left| left.to_string())))
    });
    for (header, value, seconds) in [("x-timeout", "60s", 60), ("grpc-timeout", "1H", 3600)] {
        let layer = PoolLayer::<Cpu>::new(&one_worker(10, trusting()));
        let answered = answer(layer.layer(seen), with_header(header, value)).await;
        // A part of it has passed.
        let left: u64 = answered.body().parse().unwrap();
        assert!((seconds - 30..seconds).contains(&left), "{header}: {value}: {left}");
    }
    let other = PoolLayer::<Cpu>::new(&one_worker(10, trusting()));
    assert_eq!(answer(other.layer(seen), with_header("x-other", "60s")).await.body(), "");
    let nobody = PoolLayer::<Cpu>::new(&one_worker(10, Trust::default()));
    assert_eq!(answer(nobody.layer(seen), with_header("x-timeout", "60s")).await.body(), "");
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_a_400_that_names_it() {
    let pools = one_worker(10, trusting());
    let service = PoolLayer::<Cpu>::new(&pools).layer(locator());
    for (header, value) in [("x-timeout", "soon"), ("grpc-timeout", "1"), ("x-priority", "urgent")] {
        let told = answer(service.clone(), with_header(header, value)).await;
        assert_eq!((told.status(), &json(&told)["reason"]), (StatusCode::BAD_REQUEST, &"bad_header".into()));
        assert!(json(&told)["detail"].as_str().is_some_and(|detail| detail.contains(header)), "{told:?}");
    }
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.rejected, counts.ended()), (3, 3, 3));
    let ignoring = one_worker(10, trusting().malformed(Malformed::Ignore));
    let service = PoolLayer::<Cpu>::new(&ignoring).layer(locator());
    assert_eq!(answer(service, with_header("x-timeout", "soon")).await.body(), "cpu");
}

#[tokio::test]
async fn a_pool_trusts_what_all_pools_trust_unless_it_says_otherwise() {
    let own = PoolConfig::new(1).trust(Trust::default());
    let pools = Pools::builder().trust(trusting()).pool("io", own).build().unwrap();
    let late = || with_header("x-timeout", "0");
    let cpu = answer(PoolLayer::<Cpu>::new(&pools).layer(locator()), late()).await;
    assert_eq!(cpu.status(), StatusCode::GATEWAY_TIMEOUT);
    let io = answer(PoolLayer::<Io>::new(&pools).layer(locator()), late()).await;
    assert_eq!(io.body(), "io");
}

#[tokio::test]
async fn a_full_queue_makes_room_for_what_is_more_important() {
    let pools = one_worker(1, trusting());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools)
        .priority_by(|request: &Request<String>| (request.uri().path() == "/low").then_some(Priority::Low))
        .fair_by(|_: &Request<String>| None::<String>)
        .or(PoolLayer::by_extension(&pools))
        .layer(noting(&gate, &notes));
    let holder = spawn(&service, request("GET", "/held"));
    gate.arrived(1).await;
    let low = spawn(&service, request("GET", "/low"));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;

    let normal = || {
        let mut normal = request("GET", "/normal");
        normal.extensions_mut().insert(Priority::Normal);
        spawn(&service, normal)
    };
    let mut critical = with_header("x-priority", "critical");
    *critical.uri_mut() = "/critical".parse().unwrap();
    let made_room = normal();
    let told = in_time(low).await.unwrap();
    assert_eq!((told.status(), &json(&told)["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &"shed".into()));
    let critical = spawn(&service, critical);
    let told = in_time(made_room).await.unwrap();
    assert_eq!(json(&told)["reason"], "shed");
    let refused = in_time(normal()).await.unwrap();
    assert_eq!(json(&refused)["reason"], "queue_full", "what is less important makes nobody leave");
    gate.open(1);
    assert_eq!(in_time(critical).await.unwrap().body(), "/critical");
    holder.await.unwrap();
    assert_eq!(*notes.lock().unwrap(), ["/held", "/critical"]);
}

/// Sends a request whose handler waits for the gate until its deadline passes, and checks its response.
async fn late_in_flight(gate: &Gate, send: impl Fn(Request<String>) -> JoinHandle<Response<String>>) {
    let mut time = Duration::from_millis(50);
    let told = loop {
        let mut held = request("GET", "/held");
        held.extensions_mut().insert(Deadline::after(time));
        let told = in_time(send(held)).await.unwrap();
        assert_eq!(told.status(), StatusCode::GATEWAY_TIMEOUT);
        if gate.waiting() > 0 {
            break told;
        }
        // On a slow machine, the deadline may pass before the handler begins.
        time *= 2;
    };
    assert_eq!(json(&told)["started"], true);
}

#[tokio::test]
async fn a_handler_in_flight_is_cancelled_at_its_deadline_if_the_layer_says_so() {
    let pools = one_worker(10, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).cancel_late().layer(noting(&gate, &notes));
    late_in_flight(&gate, |request| spawn(&service, request)).await;
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 1);
}

/// Whether its client still waits, or has left before, makes no difference.
#[tokio::test]
async fn a_detached_handler_runs_to_its_end_although_its_deadline_passes() {
    let pools = one_worker(10, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).cancel_late().detach().layer(noting(&gate, &notes));
    late_in_flight(&gate, |request| spawn(&service, request)).await;
    gate.open(1);
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    // Nothing is cancelled, either, if the client leaves.
    let before = stats_of(&pools, "cpu").counts.submitted;
    let left = spawn(&service, request("GET", "/held"));
    until(|| stats_of(&pools, "cpu").counts.submitted == 1 + before).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    assert_eq!(stats_of(&pools, "cpu").in_flight, 1);
    gate.open(1);
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.ok, counts.cancelled), (2, 0));
}

/// The layer and the pool both notice the deadline, and either may be first.
#[tokio::test]
async fn a_queued_request_that_is_rejected_at_its_deadline_counts_as_expired() {
    const LATE: usize = 50;
    let pools = one_worker(LATE, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).cancel_late().layer(noting(&gate, &notes));
    let holder = spawn(&service, request("GET", "/held"));
    gate.arrived(1).await;
    let deadline = Deadline::after(Duration::from_millis(50));
    let late: Vec<_> = (0..LATE)
        .map(|_| {
            let mut late = request("GET", "/late");
            late.extensions_mut().insert(deadline);
            spawn(&service, late)
        })
        .collect();
    for late in late {
        assert_eq!(in_time(late).await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    }
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.expired, counts.cancelled), (LATE as u64, 0));
    gate.open(1);
    holder.await.unwrap();
}

#[tokio::test]
async fn a_caller_with_many_requests_does_not_delay_another() {
    let pools = one_worker(200, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let fair = PoolLayer::<Cpu>::new(&pools)
        .fair_by(|request: &Request<String>| request.uri().path().get(..2).map(str::to_owned))
        .priority_by(|_: &Request<String>| None);
    let service = PoolLayer::by_extension(&pools).or(fair).layer(noting(&gate, &notes));
    let ahead = ahead_of_the_other(&pools, &gate, &notes, |path| spawn(&service, request("GET", path))).await;
    // Each caller has eight virtual queues, and one request of each may start first.
    assert!(ahead <= 9, "the one of the other caller came after {ahead} others: {notes:?}");
}

#[tokio::test]
async fn a_caller_among_the_extensions_does_not_delay_another() {
    let pools = one_worker(200, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).layer(noting(&gate, &notes));
    let ahead = ahead_of_the_other(&pools, &gate, &notes, |path| {
        let mut request = request("GET", path);
        request.extensions_mut().insert(Caller::of(&path[..2]));
        spawn(&service, request)
    })
    .await;
    assert!(ahead <= 9, "the one of the other caller came after {ahead} others: {notes:?}");
}

/// Queues a hundred requests of one caller (`/a…`), and then one of another (`/b`); how many start before that one.
async fn ahead_of_the_other(
    pools: &Pools,
    gate: &Gate,
    notes: &Mutex<Vec<String>>,
    ask: impl Fn(&str) -> JoinHandle<Response<String>>,
) -> usize {
    let holder = ask("/held");
    gate.arrived(1).await;
    let mut tasks = Vec::new();
    for number in 0..100 {
        tasks.push(ask(&format!("/a{number}")));
        until(|| stats_of(pools, "cpu").queued_tasks == number + 1).await;
    }
    tasks.push(ask("/b"));
    until(|| stats_of(pools, "cpu").queued_tasks == 101).await;
    gate.open(1);
    in_time(holder).await.expect("it is answered");
    for task in tasks {
        in_time(task).await.expect("it is answered");
    }
    notes.lock().expect("nothing panics with it").iter().position(|path| path == "/b").expect("it ran")
}

#[tokio::test]
async fn readiness_ends_when_the_pools_drain() {
    let pools = one_worker(10, Trust::default());
    let all = StatsService::new(&pools);
    let only_io = StatsService::new(&pools).ready_by(["io"]).unwrap();
    assert!(StatsService::new(&pools).ready_by(["iot"]).is_err());
    let ready = answer(all.clone(), request("GET", "/health/thread-pools/ready")).await;
    assert_eq!((ready.status(), &json(&ready)["ready"]), (StatusCode::OK, &true.into()));
    pools.shutdown(Duration::ZERO).await;
    let ready = all.oneshot(request("GET", "/ready")).await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready = answer(only_io, request("GET", "/ready")).await;
    assert_eq!(json(&ready), serde_json::json!({ "ready": false, "reason": "draining", "pools": {} }));
}

#[tokio::test]
async fn readiness_ends_while_a_pool_that_it_goes_by_is_overloaded() {
    let pools = one_worker(10, Trust::default());
    let (gate, notes) = (Gate::new(), Arc::default());
    let service = PoolLayer::<Cpu>::new(&pools).layer(noting(&gate, &notes));
    let by_default = StatsService::new(&pools);
    let stats = StatsService::new(&pools).ready_by(["cpu"]).unwrap();
    let ready = || answer(stats.clone(), request("GET", "/ready"));
    let holder = spawn(&service, request("GET", "/held"));
    gate.arrived(1).await;
    let queued = spawn(&service, request("GET", "/queued"));
    let is = |status: StatusCode| {
        in_time(async move {
            loop {
                let told = ready().await;
                if told.status() == status {
                    break json(&told);
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let told = is(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(told, serde_json::json!({ "ready": false, "pools": { "cpu": "overloaded" } }));
    let others = answer(by_default, request("GET", "/ready")).await;
    assert_eq!(others.status(), StatusCode::OK, "one pool's overload is no reason to take the server out");
    gate.open(1);
    holder.await.unwrap();
    assert_eq!(in_time(queued).await.unwrap().body(), "/queued");
    assert_eq!(is(StatusCode::OK).await, serde_json::json!({ "ready": true, "pools": {} }));
}

/// A handler outside of a layer asks the pool for the options of its request.
#[test]
fn a_pool_reads_the_options_of_a_request_as_its_layer_does() {
    let pools = one_worker(10, trusting());
    let cpu = pools.get(Cpu).expect("it is built in");
    let options_of = |request: Request<String>| cpu.options_of(request.headers(), request.extensions());
    assert_eq!(options_of(request("GET", "/")).expect("nothing is wrong"), TaskOptions::new());
    let high = options_of(with_header("x-priority", "high")).expect("it can be read");
    assert_eq!(high, TaskOptions::new().priority(Priority::High));
    let mut known = request("GET", "/");
    let (deadline, caller) = (Deadline::after(Duration::from_secs(5)), Caller::of("someone"));
    known.extensions_mut().insert(deadline);
    known.extensions_mut().insert(caller);
    assert_eq!(options_of(known).expect("nothing is wrong"), TaskOptions::new().deadline(deadline).caller(caller));
    let rejection = options_of(with_header("x-timeout", "soon")).expect_err("it cannot be read");
    assert_eq!(rejection.reason(), Reason::BadHeader);
    assert!(rejection.to_string().contains("x-timeout"), "{rejection}");
    assert_eq!(cpu.stats().counts.rejected, 1);
}
