//! Bodies that are read before their requests take a place in a pool.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio_test::task::Spawn;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_offload::body::{BodyPolicy, Budget, Buffered, ReadBody};
use tower_offload::{Cpu, Deadline, PoolConfig, PoolLayer, Pools};

use crate::fixtures::{Gate, in_time, json, place, pools_of, stats_of, until, whole};
use crate::script::{Script, Step, data, got};

const FOR_EVER: Duration = Duration::from_secs(3600);

fn read_body() -> ReadBody {
    ReadBody::new(1 << 20).within(FOR_EVER).min_rate(0, FOR_EVER)
}

type App = tower::util::BoxCloneSyncService<Request<Script>, Response<String>, Infallible>;

/// A handler that passes the gate if its path is `/hold`, and responds with its place and its body.
fn app(pools: &Pools, gate: &Gate) -> App {
    app_with(pools, gate, read_body())
}

fn app_with(pools: &Pools, gate: &Gate, read_body: ReadBody) -> App {
    let gate = gate.clone();
    let layer = PoolLayer::<Cpu>::new(pools).read_body(read_body).reject_with(|rejection| {
        let mut response = Response::new(rejection.reason().to_string());
        *response.status_mut() = rejection.status();
        response
    });
    let service = ServiceBuilder::new().layer(layer).service(service_fn(move |request: Request<Buffered<Script>>| {
        let gate = gate.clone();
        async move {
            if request.uri().path() == "/hold" {
                gate.pass().await;
            }
            let body = String::from_utf8(got(request.into_body()).await.bytes).unwrap();
            Ok::<_, Infallible>(Response::new(format!("{} {body}", place())))
        }
    }));
    let whole = async |result: Result<Response<_>, Infallible>| Ok(whole(result.unwrap()).await);
    App::new(ServiceBuilder::new().then(whole).service(service))
}

fn post(path: &str, body: Script) -> Request<Script> {
    Request::post(path).header("content-length", "1").body(body).unwrap()
}

/// A body of which a part has arrived.
fn half() -> Script {
    Script::of([data("half"), Step::Stall])
}

fn begin(service: &App, request: Request<Script>) -> Spawn<tower::util::Oneshot<App, Request<Script>>> {
    tokio_test::task::spawn(service.clone().oneshot(request))
}

async fn answer(service: &App, request: Request<Script>) -> (StatusCode, String) {
    let (parts, body) = in_time(service.clone().oneshot(request)).await.unwrap().into_parts();
    (parts.status, body)
}

#[tokio::test]
async fn a_request_is_handled_in_the_pool_with_the_body_that_was_read() {
    let pools = pools_of(1, 0);
    let body = Script::of([Step::Wait, data("whole "), Step::Wait, data("body")]);
    let answer = answer(&app(&pools, &Gate::new()), post("/", body)).await;
    assert_eq!(answer, (StatusCode::OK, "cpu whole body".to_owned()));
}

#[tokio::test]
async fn clients_that_send_half_a_body_hold_no_place_in_the_pool() {
    let pools = pools_of(1, 0);
    let app = app(&pools, &Gate::new());
    let mut slow: Vec<_> = (0..50).map(|_| begin(&app, post("/", half()))).collect();
    assert!(slow.iter_mut().all(|request| request.poll().is_pending()));
    let stats = stats_of(&pools, "cpu");
    assert_eq!((stats.in_flight, stats.queued_tasks, stats.counts.submitted), (0, 0, 0));
    assert_eq!(answer(&app, post("/", Script::of([data("quick")]))).await.1, "cpu quick");
    drop(slow);
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1, "a client that left before was never a task of the pool");
}

#[tokio::test]
async fn a_request_that_the_pool_would_reject_now_is_rejected_unread() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let app = app(&pools, &gate);
    let unread = || Script::of([Step::Stall]);

    let mut late = post("/", unread());
    late.extensions_mut().insert(Deadline::after(Duration::ZERO));
    assert_eq!(answer(&app, late).await, (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded".to_owned()));

    let holder = tokio::spawn(app.clone().oneshot(post("/hold", Script::of([data("held")]))));
    gate.arrived(1).await;
    assert_eq!(answer(&app, post("/", unread())).await, (StatusCode::SERVICE_UNAVAILABLE, "queue_full".to_owned()));
    gate.open(1);
    assert_eq!(in_time(holder).await.unwrap().unwrap().body(), "cpu held");

    in_time(pools.shutdown(FOR_EVER)).await;
    assert_eq!(answer(&app, post("/", unread())).await, (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()));
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.ok, counts.expired, counts.rejected), (4, 1, 1, 2));
}

#[tokio::test]
async fn a_request_is_rejected_unread_while_the_pool_has_as_many_streams_as_it_may_have() {
    let config = PoolConfig::new(1).body(BodyPolicy::in_pool()).max_streams(1);
    let pools = Pools::builder().pool(Cpu, config).build().unwrap();
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(read_body());
    let endless = service_fn(async |_: Request<Buffered<Script>>| {
        Ok::<_, Infallible>(Response::new(Script::of([data("event"), Step::Stall])))
    });
    let service = ServiceBuilder::new().layer(layer).service(endless);
    let stream = in_time(service.clone().oneshot(post("/", Script::of([data("whole")])))).await.unwrap();
    let refused = in_time(service.oneshot(post("/", Script::of([Step::Stall])))).await.unwrap();
    assert_eq!((stream.status(), refused.status()), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(json(&whole(refused).await)["reason"], "streams_full");
}

/// A more important request takes the place of a queued one, so it must be read although the queue is full.
#[tokio::test]
async fn a_request_that_a_full_queue_makes_room_for_is_read() {
    let pools = pools_of(1, 1);
    let gate = Gate::new();
    let app = app(&pools, &gate);
    let holder = tokio::spawn(app.clone().oneshot(post("/hold", Script::of([data("held")]))));
    gate.arrived(1).await;
    let queued = tokio::spawn(app.clone().oneshot(post("/", Script::of([data("queued")]))));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    let mut important = post("/", Script::of([Step::Wait, data("important")]));
    important.extensions_mut().insert(tower_offload::Priority::High);
    let important = tokio::spawn(app.clone().oneshot(important));
    assert_eq!(in_time(queued).await.unwrap().unwrap().body(), "shed");
    gate.open(1);
    assert_eq!(in_time(important).await.unwrap().unwrap().body(), "cpu important");
    in_time(holder).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_body_is_read_is_a_504_and_counts_as_expired() {
    let pools = pools_of(1, 0);
    let mut request = post("/", half());
    request.extensions_mut().insert(Deadline::after(Duration::from_millis(50)));
    let answer = answer(&app(&pools, &Gate::new()), request).await;
    assert_eq!(answer, (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded".to_owned()));
    assert_eq!(stats_of(&pools, "cpu").counts.expired, 1);
}

#[tokio::test]
async fn bodies_that_are_refused_count_as_rejected() {
    let pools = pools_of(1, 0);
    let soon = Duration::from_millis(20);
    let refused = [
        (ReadBody::new(1), Script::of([data("two")]), StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        (read_body().within(soon), half(), StatusCode::REQUEST_TIMEOUT, "body_timeout"),
    ];
    for (index, (read_body, body, status, reason)) in refused.into_iter().enumerate() {
        let answer = answer(&app_with(&pools, &Gate::new(), read_body), post("/", body)).await;
        assert_eq!(answer, (status, reason.to_owned()));
        let counts = stats_of(&pools, "cpu").counts;
        assert_eq!((counts.submitted, counts.rejected), (index as u64 + 1, index as u64 + 1));
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_counts_as_cancelled() {
    let pools = pools_of(1, 0);
    let answer = answer(&app(&pools, &Gate::new()), post("/", Script::of([data("a"), Step::Fail]))).await;
    assert_eq!(answer, (StatusCode::BAD_REQUEST, "body_error".to_owned()));
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.submitted, counts.cancelled), (1, 1));
}

#[tokio::test]
async fn the_pools_share_a_budget_for_bodies_that_are_read_or_queued() {
    const MIB: usize = 1 << 20;
    let config = PoolConfig::new(1).queue_capacity(10);
    let pools = Pools::builder().pool("cpu", config).body_budget(MIB).build().unwrap();
    let gate = Gate::new();
    let app = app(&pools, &gate);
    let body = |length: usize| Script::sized([Step::Wait, Step::Data(vec![b'x'; length].into())]);
    let holder = tokio::spawn(app.clone().oneshot(post("/hold", Script::of([data("held")]))));
    gate.arrived(1).await;
    // It is read and waits in the queue, with its body in memory.
    let queued = tokio::spawn(app.clone().oneshot(post("/", body(MIB / 2))));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    let refused = answer(&app, post("/", body(MIB / 2))).await;
    assert_eq!(refused, (StatusCode::SERVICE_UNAVAILABLE, "body_budget".to_owned()));
    queued.abort();
    until(|| stats_of(&pools, "cpu").queued_tasks == 0).await;
    let queued = tokio::spawn(app.clone().oneshot(post("/", body(MIB / 2))));
    gate.open(1);
    assert_eq!(in_time(queued).await.unwrap().unwrap().body().len(), "cpu ".len() + MIB / 2);
    in_time(holder).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_rejection_closes_the_connection_only_if_the_body_is_unread() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let holding = gate.clone();
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(read_body());
    let app = ServiceBuilder::new().layer(layer).service(service_fn(move |_: Request<Buffered<Body>>| {
        let gate = holding.clone();
        async move {
            gate.pass().await;
            Ok::<_, Infallible>(Response::new("held".to_owned()))
        }
    }));
    let request = |body| Request::post("/").header("transfer-encoding", "chunked").body(body).unwrap();
    // The pool has room while the body is read, and none when it has arrived.
    let (frames, body) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<&str>>();
    let mut read = tokio_test::task::spawn(
        app.clone().oneshot(request(Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(body)))),
    );
    frames.send(Ok("half")).unwrap();
    assert!(read.poll().is_pending());
    let holder = tokio::spawn(app.clone().oneshot(request(Body::from("held"))));
    gate.arrived(1).await;
    drop(frames);
    let read = whole(in_time(read).await.unwrap()).await;
    assert_eq!(json(&read)["reason"], "queue_full");
    assert!(!read.headers().contains_key("connection"));

    let endless = Body::from_stream(tokio_stream::pending::<std::io::Result<&str>>());
    let unread = whole(in_time(app.clone().oneshot(request(endless))).await.unwrap()).await;
    assert_eq!(json(&unread)["reason"], "queue_full");
    assert_eq!(unread.headers()["connection"], "close");
    gate.open(1);
    in_time(holder).await.unwrap().unwrap();
}

/// A short body that its client sends when it is told to.
struct Unpolled;

impl http_body::Body for Unpolled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the client would send its body in vain")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(5)
    }
}

#[tokio::test]
async fn a_full_pool_reads_a_short_body_that_has_arrived_and_asks_for_no_other() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let holding = gate.clone();
    let budget = Budget::new(1 << 20);
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(read_body().budget(&budget));
    let app = ServiceBuilder::new().layer(layer).service(service_fn(move |_: Request<Buffered<Body>>| {
        let gate = holding.clone();
        async move {
            gate.pass().await;
            Ok::<_, Infallible>(Response::new("held".to_owned()))
        }
    }));
    let request = |body: Body| Request::post("/").header("content-length", "5").body(body).unwrap();
    let holder = tokio::spawn(app.clone().oneshot(request(Body::from("holds"))));
    gate.arrived(1).await;

    let half = Body::new(Script::sized([data("short"), Step::Stall]));
    let mut expecting = request(Body::new(Unpolled));
    expecting.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    for (what, request, closes) in [
        ("a body that has arrived", request(Body::from("short")), false),
        ("a body whose end has not arrived", request(half), true),
        ("a body that waits for a permission", expecting, true),
    ] {
        let refused = whole(in_time(app.clone().oneshot(request)).await.unwrap()).await;
        assert_eq!(json(&refused)["reason"], "queue_full", "{what}");
        assert_eq!(refused.headers().contains_key("connection"), closes, "{what}");
    }
    assert_eq!(budget.in_use(), 0, "a body that was refused gives its memory back");
    gate.open(1);
    in_time(holder).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_runs_inline_is_not_read() {
    let pools = pools_of(1, 0);
    let layer = PoolLayer::by(&pools, |_: &Request<Script>| None::<&'static str>).read_body(ReadBody::new(1));
    let app = ServiceBuilder::new().layer(layer).service(service_fn(async |request: Request<Buffered<Script>>| {
        let body = got(request.into_body()).await.bytes;
        Ok::<_, Infallible>(Response::new(String::from_utf8(body).unwrap()))
    }));
    let response = in_time(app.oneshot(post("/", Script::of([data("longer than one byte")])))).await.unwrap();
    assert_eq!(whole(response).await.body(), "longer than one byte");
}

#[tokio::test]
async fn rejections_may_be_errors() {
    let pools = pools_of(1, 0);
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1)).errors();
    let app = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(async |_: Request<Buffered<Script>>| Ok::<_, Infallible>(Response::new(String::new()))));
    let error = in_time(app.oneshot(post("/", Script::of([data("two")])))).await.unwrap_err();
    assert_eq!(error.to_string(), "pool `cpu` gave no answer: the request's body is larger than 1 bytes");
}
