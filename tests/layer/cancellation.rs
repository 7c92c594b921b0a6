//! Cancellation: the caller of a request leaves.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get as on_get;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_offload::{Cancelled, Cpu, PoolLayer, checkpoint};

use crate::fixtures::{
    Gate, TextService, get, http2_client, in_time, json, pools_of, request, serve, stats_of, until, whole,
};

type Answer = Result<Response<String>, Infallible>;

/// A service that counts its calls and then waits at the gate.
fn counted(gate: &Gate) -> (impl TextService + use<>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (gate, counter) = (gate.clone(), calls.clone());
    let service = service_fn(move |_: Request<String>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(Response::new(String::new()))
        }
    });
    (service, calls)
}

#[tokio::test]
async fn dropping_a_queued_request_frees_its_slot_at_once_and_its_handler_never_runs() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let (service, calls) = counted(&gate);
    let service = PoolLayer::<Cpu>::new(&pools).layer(service);
    let mut first = spawn(service.clone().oneshot(request("GET", "/1")));
    assert_pending!(first.poll());
    gate.arrived(1).await;

    let mut second = spawn(service.clone().oneshot(request("GET", "/2")));
    assert_pending!(second.poll());
    assert_eq!(stats_of(&pools, "cpu").queued_tasks, 1);
    let mut third = spawn(service.clone().oneshot(request("GET", "/3")));
    let refused = assert_ready!(third.poll()).unwrap();
    assert_eq!(json(&whole(refused).await)["reason"], "queue_full");

    drop(second);
    assert_eq!(stats_of(&pools, "cpu").queued_tasks, 0);
    let mut fourth = spawn(service.oneshot(request("GET", "/4")));
    assert_pending!(fourth.poll());
    assert_eq!(stats_of(&pools, "cpu").queued_tasks, 1);

    gate.open(2);
    assert_eq!(in_time(first).await.unwrap().status(), 200);
    assert_eq!(in_time(fourth).await.unwrap().status(), 200);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "the second and the third never ran");
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.ok, counts.cancelled, counts.rejected), (4, 2, 1, 1));
}

#[tokio::test]
async fn a_handler_that_fails_because_its_client_has_left_counts_as_cancelled() {
    let pools = pools_of(1, 1);
    let (begin, mut began) = mpsc::unbounded_channel();
    let router = Router::new().route(
        "/",
        on_get(async move || {
            begin.send(()).unwrap();
            loop {
                checkpoint()?;
                std::thread::yield_now();
            }
            #[expect(unreachable_code, reason = "it gives the type of the result")]
            Ok::<(), Cancelled>(())
        }),
    );
    let service = PoolLayer::<Cpu>::new(&pools).layer(router);
    let mut call = spawn(service.oneshot(Request::builder().uri("/").body(axum::body::Body::empty()).unwrap()));
    assert_pending!(call.poll());
    in_time(began.recv()).await.unwrap();
    drop(call);
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.cancelled, counts.error, counts.ok), (1, 0, 0));
}

/// Reports its drop, and the place of it.
#[derive(Clone)]
struct Bell(mpsc::UnboundedSender<String>);

impl Drop for Bell {
    fn drop(&mut self) {
        let _ = self.0.send(crate::fixtures::place());
    }
}

#[tokio::test]
async fn what_a_queued_request_carries_is_dropped_with_it() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let (service, _) = counted(&gate);
    let service = PoolLayer::<Cpu>::new(&pools).layer(service);
    let mut first = spawn(service.clone().oneshot(request("GET", "/1")));
    assert_pending!(first.poll());
    gate.arrived(1).await;
    let (bell, mut rung) = mpsc::unbounded_channel();
    let mut with = request("GET", "/2");
    with.extensions_mut().insert(Bell(bell));
    let mut second = spawn(service.oneshot(with));
    assert_pending!(second.poll());
    assert!(rung.try_recv().is_err());
    drop(second);
    assert!(rung.try_recv().is_ok());
    gate.open(1);
    assert_eq!(in_time(first).await.unwrap().status(), 200);
}

#[tokio::test]
async fn dropping_a_request_in_flight_drops_its_handler_in_the_pool_and_returns_the_permit() {
    let pools = pools_of(1, 0);
    let (bell, mut rung) = mpsc::unbounded_channel();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let service = service_fn(move |_: Request<String>| {
        let (bell, arrived) = (Bell(bell.clone()), arrived.clone());
        async move {
            arrived.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(bell);
            Answer::Ok(Response::new(String::new()))
        }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(service);
    for _ in 0..3 {
        let mut future = spawn(service.clone().oneshot(request("GET", "/")));
        assert_pending!(future.poll());
        in_time(arrivals.recv()).await.unwrap();
        assert_eq!(stats_of(&pools, "cpu").in_flight, 1);
        drop(future);
        assert_eq!(in_time(rung.recv()).await.unwrap(), "cpu");
        until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    }
    assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 3);
}

#[tokio::test]
async fn blocking_code_counts_against_the_limit_until_it_really_ends() {
    let pools = pools_of(1, 0);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let service = service_fn(move |_: Request<String>| {
        let (arrived, wait) = (arrived.clone(), wait.clone());
        async move {
            arrived.send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            Answer::Ok(Response::new(String::new()))
        }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(service);
    let mut left = spawn(service.clone().oneshot(request("GET", "/")));
    assert_pending!(left.poll());
    in_time(arrivals.recv()).await.unwrap();
    drop(left);
    assert_eq!(stats_of(&pools, "cpu").in_flight, 1);
    assert_eq!(service.clone().oneshot(request("GET", "/")).await.unwrap().status(), 503);
    go_on.send(()).unwrap();
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
    go_on.send(()).unwrap();
    assert_eq!(in_time(service.oneshot(request("GET", "/"))).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_whose_future_is_never_polled_is_never_submitted() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let (service, calls) = counted(&gate);
    drop(PoolLayer::<Cpu>::new(&pools).layer(service).oneshot(request("GET", "/")));
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 0);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn dropping_the_service_leaves_its_requests_alone() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let (service, _) = counted(&gate);
    let mut service = PoolLayer::<Cpu>::new(&pools).layer(service);
    let first = tokio::spawn(service.ready().await.unwrap().call(request("GET", "/1")));
    gate.arrived(1).await;
    let mut second = spawn(service.ready().await.unwrap().call(request("GET", "/2")));
    assert_pending!(second.poll());
    drop(service);
    drop(pools);
    gate.open(2);
    assert_eq!(in_time(first).await.unwrap().unwrap().status(), 200);
    assert_eq!(in_time(second).await.unwrap().status(), 200);
}

/// An app with one place in its pool, a gate in it, and the number of handlers that ran.
fn gated(pools: &tower_offload::Pools, gate: &Gate) -> (Router, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (gate, counter) = (gate.clone(), calls.clone());
    let handler = async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        gate.pass().await;
        "through"
    };
    (Router::new().route("/", on_get(handler)).layer(PoolLayer::<Cpu>::new(pools)), calls)
}

#[tokio::test]
async fn fifty_clients_that_disconnect_while_queued_leave_nothing_behind() {
    let pools = pools_of(1, 50);
    let gate = Gate::new();
    let (app, calls) = gated(&pools, &gate);
    let address = serve(app).await;
    let mut held = TcpStream::connect(address).await.unwrap();
    held.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    gate.arrived(1).await;

    let mut clients = Vec::new();
    for _ in 0..50 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    until(|| stats_of(&pools, "cpu").queued_tasks == 50).await;
    drop(clients);
    until(|| stats_of(&pools, "cpu").queued_tasks == 0).await;

    gate.open(50);
    let mut answered = String::new();
    in_time(held.read_to_string(&mut answered)).await.unwrap();
    assert!(answered.starts_with("HTTP/1.1 200 OK\r\n") && answered.ends_with("through"), "{answered}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.ok, counts.cancelled), (51, 1, 50));
}

#[tokio::test]
async fn resetting_http2_streams_while_queued_leaves_nothing_behind() {
    let pools = pools_of(1, 20);
    let gate = Gate::new();
    let (app, calls) = gated(&pools, &gate);
    let address = serve(app).await;
    let client = http2_client();
    let ask = || tokio::spawn(client.request(get(&format!("http://{address}/"))));
    let held = ask();
    gate.arrived(1).await;
    let queued: Vec<_> = (0..20).map(|_| ask()).collect();
    until(|| stats_of(&pools, "cpu").queued_tasks == 20).await;
    queued.iter().for_each(tokio::task::JoinHandle::abort);
    until(|| stats_of(&pools, "cpu").queued_tasks == 0).await;
    gate.open(20);
    assert_eq!(whole(in_time(held).await.unwrap().unwrap()).await.body(), "through");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 20);
}

#[tokio::test]
async fn of_fifty_clients_a_pool_of_one_worker_with_a_queue_of_two_refuses_exactly_47() {
    let pools = pools_of(1, 2);
    let gate = Gate::new();
    let (app, calls) = gated(&pools, &gate);
    let address = serve(app).await;
    let client = crate::fixtures::client();
    let (answered, mut answers) = mpsc::unbounded_channel();
    for _ in 0..50 {
        let (client, answered) = (client.clone(), answered.clone());
        tokio::spawn(async move {
            let response = client.request(get(&format!("http://{address}/"))).await.unwrap();
            answered.send(whole(response).await).unwrap();
        });
    }
    // The gate is shut, so that these are all answers there can be.
    for _ in 0..47 {
        let refused = in_time(answers.recv()).await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(json(&refused)["reason"], "queue_full");
        assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    }
    let stats = stats_of(&pools, "cpu");
    assert_eq!((stats.in_flight, stats.queued_tasks), (1, 2));
    gate.open(3);
    for _ in 0..3 {
        let through = in_time(answers.recv()).await.unwrap();
        assert_eq!((through.status().as_u16(), through.body().as_str()), (200, "through"));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
