//! The contract of Tower services: which instance is called, when it is ready, and which clones are made.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_offload::body::BodyPolicy;
use tower_offload::error::OffloadError;
use tower_offload::layer::PoolService;
use tower_offload::reject::Responses;
use tower_offload::report::LoadReport;
use tower_offload::select::Fixed;
use tower_offload::{Cpu, Io, PoolLayer, Pools, Workload};
use tower_test::mock;

use crate::fixtures::{Gate, answer, in_time, locator, place, pools_of, request, stats_of};

#[test]
fn layer_service_and_future_are_as_free_as_what_is_inside() {
    fn clone_send_sync<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn clone_send<T: Clone + Send + 'static>(_: &T) {}
    fn send<T: Send + 'static>(_: &T) {}
    let pools = Pools::default();
    clone_send_sync(&PoolLayer::<Cpu>::new(&pools));
    clone_send_sync(&PoolLayer::by_extension(&pools).or(PoolLayer::by_route(&pools)));
    let mut service = PoolLayer::<Cpu>::new(&pools).layer(locator::<String>());
    clone_send_sync(&service);
    clone_send_sync(&PoolLayer::<Cpu>::new(&pools).errors().resume_panics().layer(locator::<String>()));
    send(&service.call(request("GET", "/")));
    let boxed = BoxCloneService::new(locator::<String>());
    clone_send(&PoolLayer::<Cpu>::new(&pools).layer(boxed));
}

/// The connection keeps the future for as long as the request is queued, so it should be small.
#[test]
fn the_future_has_no_room_for_the_request() {
    type Large = [u8; 4096];
    let inner = service_fn(|request: Large| ready(Ok::<_, Infallible>(request.len())));
    let mut service = PoolLayer::<Cpu>::new(&Pools::default()).any_request().layer(inner);
    let future = service.call([0; 4096]);
    assert!(size_of_val(&future) < size_of::<Large>() / 4, "{} bytes", size_of_val(&future));
}

/// Counts its calls in a `Cell`, so it is not `Sync`.
#[derive(Clone)]
struct NotSync(Cell<u32>);

impl Service<Request<String>> for NotSync {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<String>) -> Self::Future {
        self.0.set(self.0.get() + 1);
        ready(Ok(Response::new(format!("{} {}", self.0.get(), place()))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_sync_is_offloaded_from_any_thread() {
    let service = PoolLayer::<Cpu>::new(&Pools::default()).layer(NotSync(Cell::new(4)));
    let answered = tokio::spawn(answer(service, request("GET", "/"))).await.unwrap();
    assert_eq!(answered.body(), "5 cpu");
}

/// Counts its clones, and panics if it is called before this instance was made ready.
#[derive(Debug)]
struct Strict {
    clones: Arc<AtomicUsize>,
    ready: bool,
}

impl Strict {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let clones = Arc::new(AtomicUsize::new(0));
        (Self { clones: clones.clone(), ready: false }, clones)
    }
}

impl Clone for Strict {
    /// A clone is not ready, whatever the original is.
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { clones: self.clones.clone(), ready: false }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Response<String>;
    type Error = &'static str;
    type Future = Ready<Result<Response<String>, &'static str>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<String>) -> Self::Future {
        let was_ready = std::mem::replace(&mut self.ready, false);
        ready(if was_ready { Ok(Response::new(place())) } else { Err("called without being ready") })
    }
}

#[tokio::test]
async fn the_instance_that_was_made_ready_is_the_one_that_is_called() {
    let pools = Pools::default();
    let mut service = PoolLayer::<Cpu>::new(&pools).layer(Strict::new().0);
    for _ in 0..3 {
        let response = service.ready().await.unwrap().call(request("GET", "/")).await.unwrap();
        assert_eq!(crate::fixtures::whole(response).await.body(), "cpu");
    }
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let unready = service.clone().call(request("GET", "/")).await;
    assert_eq!(unready.unwrap_err(), "called without being ready", "a clone is to be made ready anew");
}

#[tokio::test]
async fn an_offloaded_request_clones_the_service_once() {
    let (strict, clones) = Strict::new();
    let mut service = PoolLayer::<Cpu>::new(&Pools::default()).layer(strict);
    for requests in 1..=5 {
        let response = service.ready().await.unwrap().call(request("GET", "/")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(clones.load(Ordering::SeqCst), requests);
    }
}

#[tokio::test]
async fn an_inline_request_clones_nothing() {
    let (strict, clones) = Strict::new();
    let mut service = PoolLayer::by_extension(&Pools::default()).layer(strict);
    for _ in 0..5 {
        assert_eq!(service.ready().await.unwrap().call(request("GET", "/")).await.unwrap().status(), 200);
    }
    let mut unknown = request("GET", "/");
    unknown.extensions_mut().insert(Workload::from("none"));
    assert_eq!(service.ready().await.unwrap().call(unknown).await.unwrap().status(), 500);
    assert_eq!(clones.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn readiness_is_that_of_the_inner_service_alone() {
    let pools = pools_of(1, 0);
    let (mut service, mut inner) = mock::spawn_layer::<&str, &str, _>(PoolLayer::<Cpu>::new(&pools).any_request());
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());

    // The pool is full now, and that does not show.
    let gate = Gate::new();
    let held = gate.clone();
    let _holder = pools.submit_to_pool(Cpu, async move { held.pass().await }).unwrap();
    gate.arrived(1).await;
    assert_ready_ok!(service.poll_ready());
    let refused = in_time(service.call("question")).await.unwrap_err();
    assert!(matches!(refused, OffloadError::Rejected(rejection) if rejection.pool() == &Workload::CPU));
    gate.open(1);

    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    inner.send_error("out of order");
    let error = assert_ready_err!(service.poll_ready());
    assert_eq!(error.to_string(), "out of order");
}

#[tokio::test]
async fn readiness_passes_through_the_layers_without_a_pool() {
    type Reply = Response<String>;
    let pools = Pools::default();
    let (mut observed, mut inner) = mock::spawn_layer::<Request<String>, Reply, _>(PoolLayer::observe(&pools));
    inner.allow(0);
    assert_pending!(observed.poll_ready());
    inner.send_error("out of order");
    assert_ready_err!(observed.poll_ready());

    let (mut reported, mut inner) = mock::spawn_layer::<Request<String>, Reply, _>(LoadReport::new(&pools));
    inner.allow(0);
    assert_pending!(reported.poll_ready());
    inner.send_error("out of order");
    assert_ready_err!(reported.poll_ready());
}

#[tokio::test]
async fn the_request_reaches_the_service_and_its_answer_the_caller() {
    let (mut service, mut inner) =
        mock::spawn_layer::<&str, &str, _>(PoolLayer::<Cpu>::new(&Pools::default()).any_request());
    assert_ready_ok!(service.poll_ready());
    let response = tokio::spawn(service.call("question"));
    let (question, respond) = in_time(inner.next_request()).await.unwrap();
    assert_eq!(question, "question");
    respond.send_response("answer");
    assert_eq!(in_time(response).await.unwrap().unwrap(), "answer");

    assert_ready_ok!(service.poll_ready());
    let response = tokio::spawn(service.call("question"));
    let (_, respond) = in_time(inner.next_request()).await.unwrap();
    respond.send_error("no answer");
    let error = in_time(response).await.unwrap().unwrap_err();
    assert!(matches!(error, OffloadError::Inner(error) if error.to_string() == "no answer"));
}

#[derive(Debug, PartialEq)]
struct NotFound(u32);

#[tokio::test]
async fn errors_of_the_service_pass_unchanged_in_their_own_type() {
    let failing = service_fn(|_: Request<String>| async { Err::<Response<String>, _>(NotFound(7)) });
    let pools = Pools::default();
    let offloaded: Result<_, NotFound> =
        PoolLayer::<Cpu>::new(&pools).layer(failing).oneshot(request("GET", "/")).await;
    assert_eq!(offloaded.unwrap_err(), NotFound(7));
    let inline: Result<_, NotFound> = PoolLayer::by_extension(&pools).layer(failing).oneshot(request("GET", "/")).await;
    assert_eq!(inline.unwrap_err(), NotFound(7));
    assert_eq!(stats_of(&pools, "cpu").counts.error, 1);
}

#[tokio::test]
async fn the_call_and_every_poll_of_its_future_run_in_the_pool() {
    /// Notes where it is polled, and wants to be polled five times.
    struct Noting(Vec<String>);

    impl Future for Noting {
        type Output = Result<Response<String>, Infallible>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            self.0.push(place());
            if self.0.len() < 6 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(Ok(Response::new(self.0.join(" "))))
        }
    }

    let service = service_fn(|_: Request<String>| Noting(vec![place()]));
    let answered = answer(PoolLayer::<Io>::new(&Pools::default()).layer(service), request("GET", "/")).await;
    assert_eq!(answered.body(), "io io io io io io");
}

#[tokio::test]
async fn a_request_is_submitted_when_its_future_is_first_polled() {
    let pools = Pools::default();
    let mut service = PoolLayer::<Cpu>::new(&pools).layer(locator());
    let future = service.ready().await.unwrap().call(request("GET", "/"));
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 0);
    drop(service);
    assert_eq!(future.await.unwrap().status(), 200);
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1);
}

#[tokio::test]
async fn the_service_inside_can_be_had_back() {
    let (strict, clones) = Strict::new();
    let mut service: PoolService<Strict, Fixed> = PoolLayer::<Cpu>::new(&Pools::default()).layer(strict);
    assert!(!service.get_ref().ready);
    service.get_mut().ready = true;
    assert!(service.into_inner().ready);
    assert_eq!(clones.load(Ordering::SeqCst), 0);
}

#[test]
fn the_services_inside_other_layers_can_be_had_back() {
    let pools = Pools::default();
    let mut observed = PoolLayer::observe(&pools).layer(1);
    *observed.get_mut() += 1;
    assert_eq!((*observed.get_ref(), observed.into_inner()), (2, 2));
    let mut reported = LoadReport::new(&pools).layer(1);
    *reported.get_mut() += 1;
    assert_eq!((*reported.get_ref(), reported.into_inner()), (2, 2));
}

#[test]
fn a_policy_for_bodies_that_can_have_no_effect_panics_when_the_layer_is_built() {
    fn panics<T>(build: impl FnOnce(PoolLayer<Fixed>) -> T) -> bool {
        let layer = PoolLayer::<Cpu>::new(&Pools::default());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(build(layer)))).is_err()
    }
    assert!(panics(|layer| layer.body(BodyPolicy::in_pool()).errors()));
    assert!(panics(|layer| layer.body(BodyPolicy::in_pool()).any_request()));
    assert!(panics(|layer| layer.body(BodyPolicy::in_pool()).same_body()));
    assert!(panics(|layer| layer.errors().body(BodyPolicy::in_pool())));
    assert!(panics(|layer| layer.same_body().or(PoolLayer::<Io>::new(&Pools::default())).body(BodyPolicy::in_pool())));
    let with_policy = || PoolLayer::<Io>::new(&Pools::default()).body(BodyPolicy::in_pool());
    assert!(panics(|layer| layer.errors().or(with_policy())));
    assert!(panics(|layer| layer.or(with_policy()).errors()));
    assert!(panics(|layer| with_policy().or(layer).same_body()));
    assert!(!panics(|layer| layer.or(with_policy())));
    assert!(!panics(|layer| layer.body(BodyPolicy::in_pool())));
    assert!(!panics(|layer| layer.errors().reject_by(Responses).body(BodyPolicy::in_pool())));
}

#[test]
fn a_policy_for_bodies_that_makes_no_sense_panics_and_says_what_is_wrong_with_it() {
    let policy = BodyPolicy::in_pool().stall_timeout(std::time::Duration::ZERO).buffer(0);
    let build = || drop(PoolLayer::<Cpu>::new(&Pools::default()).body(policy));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build)).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("body.stall_timeout: 0 is no time at all; ") && text.contains("body.buffer: "), "{text}");
}
