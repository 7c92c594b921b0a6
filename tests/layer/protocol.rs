//! The protocol of a layer (deadlines, priorities, errors, names) is the same with every response to rejections.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::routing::post;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_offload::config::Trust;
use tower_offload::error::OffloadError;
use tower_offload::reject::{BadHeader, OnReject, Protocol, ResponseContext, ResponseFormat, Terms};
use tower_offload::{Cpu, Deadline, Io, PoolConfig, PoolLayer, Pools, Priority, Reason, Rejection};

use crate::fixtures::{Gate, answer, get, in_time, json, locator, pools_of, request, stats_of, until};
use crate::rejections::standing;

/// A response of the application to rejections: a text. It repeats nothing of the protocol.
#[derive(Clone)]
struct Bare;

impl<B, E> OnReject<Request<B>, Response<String>, E> for Bare {
    type Hint = ResponseFormat;
    type Response = Response<String>;
    type Error = E;

    fn hint(&self, request: &Request<B>) -> ResponseFormat {
        ResponseFormat::of(request)
    }

    fn reject(&self, format: ResponseFormat, rejection: Rejection) -> Result<Response<String>, E> {
        Ok(format.respond(&rejection).map(|_| format!("bare: {}", rejection.reason())))
    }

    fn pass(&self, response: Response<String>, _context: &ResponseContext) -> Response<String> {
        response
    }

    fn fail(&self, error: E) -> E {
        error
    }
}

fn late() -> Request<String> {
    let mut late = request("GET", "/late");
    late.extensions_mut().insert(Deadline::after(Duration::ZERO));
    late
}

#[tokio::test]
async fn a_custom_response_keeps_deadlines_statuses_and_names() {
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).verbose(true).build().unwrap();
    let layer = PoolLayer::<Cpu>::new(&pools).reject_by(Bare);
    let told = layer.layer(locator()).oneshot(late()).await.unwrap();
    assert_eq!((told.status(), told.body().as_str()), (StatusCode::GATEWAY_TIMEOUT, "bare: deadline_exceeded"));
    let failing = service_fn(|_: Request<String>| async {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        Ok::<_, Infallible>(response)
    });
    layer.layer(failing).oneshot(request("GET", "/")).await.unwrap();
    let gate = Gate::new();
    let held = tokio::spawn(layer.layer(standing(&gate)).oneshot(request("GET", "/held?secret=1")));
    gate.arrived(1).await;
    assert_eq!(stats_of(&pools, "cpu").active_tasks[0].function, "GET /held");
    gate.open(1);
    in_time(held).await.unwrap().unwrap();
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.expired, counts.error, counts.ok), (1, 1, 1));
}

#[tokio::test]
async fn typed_errors_of_an_http_service_keep_them_too() {
    let pools = pools_of(1, 1);
    let layer = PoolLayer::<Cpu>::new(&pools).errors();
    let told = layer.layer(locator()).oneshot(late()).await.unwrap_err();
    assert!(matches!(told, OffloadError::Rejected(rejection) if rejection.reason() == Reason::DeadlineExceeded));
    let failing = service_fn(|_: Request<String>| async {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        Ok::<_, Infallible>(response)
    });
    layer.layer(failing).oneshot(request("GET", "/")).await.unwrap();
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.expired, counts.error, counts.ok), (1, 1, 0));

    // A priority among the extensions: a queued request of low priority makes room.
    let gate = Gate::new();
    tokio::spawn(layer.layer(standing(&gate)).oneshot(request("GET", "/held")));
    gate.arrived(1).await;
    let mut low = request("GET", "/low");
    low.extensions_mut().insert(Priority::Low);
    let low = tokio::spawn(layer.layer(locator()).oneshot(low));
    until(|| stats_of(&pools, "cpu").queued_tasks == 1).await;
    let normal = tokio::spawn(layer.layer(locator()).oneshot(request("GET", "/normal")));
    let shed = in_time(low).await.unwrap().unwrap_err();
    assert!(matches!(shed, OffloadError::Rejected(rejection) if rejection.reason() == Reason::Shed));
    gate.open(1);
    assert_eq!(in_time(normal).await.unwrap().unwrap().body(), "cpu");
}

#[tokio::test]
async fn typed_errors_go_through_axums_handle_error() {
    async fn told(error: OffloadError<Infallible>) -> (StatusCode, String) {
        (StatusCode::IM_A_TEAPOT, error.to_string())
    }
    let pools = pools_of(1, 1);
    let layers = ServiceBuilder::new().layer(HandleErrorLayer::new(told)).layer(PoolLayer::<Cpu>::new(&pools).errors());
    let app: Router = Router::new().route("/", axum::routing::get(|| async { "fine" }).route_layer(layers));
    assert_eq!(answer(app.clone(), get("/")).await.body(), "fine");
    pools.shutdown(Duration::ZERO).await;
    let told = answer(app, get("/")).await;
    assert_eq!(
        (told.status(), told.body().as_str()),
        (StatusCode::IM_A_TEAPOT, "pool `cpu` gave no answer: it is shutting down")
    );
}

#[tokio::test]
async fn requests_of_another_type_have_the_terms_that_their_protocol_reads() {
    struct Call {
        method: &'static str,
        deadline: Option<Deadline>,
    }

    #[derive(Clone)]
    struct Rpc(Arc<Mutex<Vec<Trust>>>);

    impl<Err> Protocol<Call, Result<(), ()>, Err> for Rpc {
        fn terms(&self, call: &mut Call, trust: &Trust) -> Result<Terms, BadHeader> {
            self.0.lock().expect("nothing panics with it").push(trust.clone());
            let mut terms = Terms::default();
            terms.deadline = call.deadline;
            Ok(terms)
        }

        fn failed(&self, result: &Result<Result<(), ()>, Err>) -> bool {
            !matches!(result, Ok(Ok(())))
        }

        fn describe(&self, call: &Call) -> String {
            call.method.to_owned()
        }

        fn runs_inline(&self, call: &Call) -> bool {
            call.method == "health"
        }
    }

    let trust = Trust::default().grpc_timeout(true);
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1).trust(trust.clone())).build().unwrap();
    let seen = Arc::default();
    let layer = PoolLayer::<Cpu>::new(&pools).errors().protocol(Rpc(Arc::clone(&seen)));
    let service = layer.layer(service_fn(|call: Call| async move {
        Ok::<_, Infallible>(if call.method == "fail" { Err(()) } else { Ok(()) })
    }));
    let call = |method| Call { method, deadline: None };
    service.clone().oneshot(call("fine")).await.unwrap().unwrap();
    service.clone().oneshot(call("fail")).await.unwrap().unwrap_err();
    service.clone().oneshot(call("health")).await.unwrap().unwrap();
    let late = Call { method: "late", deadline: Some(Deadline::after(Duration::ZERO)) };
    service.oneshot(late).await.unwrap_err();
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.ok, counts.error, counts.expired, counts.submitted), (1, 1, 1, 3));
    assert_eq!(*seen.lock().unwrap(), [trust.clone(), trust.clone(), trust]);
}

#[tokio::test]
async fn every_answer_over_http_1_closes_a_connection_whose_body_is_unread() {
    let pools = pools_of(1, 1);
    pools.shutdown(Duration::ZERO).await;
    let upload = || {
        let mut upload = request("POST", "/");
        upload.headers_mut().insert(CONTENT_LENGTH, 8.into());
        upload
    };
    let layer = || PoolLayer::<Cpu>::new(&pools);
    let page = || {
        service_fn(|_: Request<String>| async { Ok::<_, Infallible>(Response::new(axum::body::Body::from("never"))) })
    };
    let closes = |headers: &http::HeaderMap| headers.get(CONNECTION).is_some_and(|value| value == "close");
    assert!(closes(answer(layer().layer(locator()), upload()).await.headers()));
    assert!(closes(answer(layer().same_body().layer(page()), upload()).await.headers()));
    let with = layer().reject_with(|_| Response::new("sorry".to_owned()));
    assert!(closes(answer(with.layer(locator()), upload()).await.headers()));
    assert!(closes(layer().reject_by(Bare).layer(locator()).oneshot(upload()).await.unwrap().headers()));
    assert!(!closes(answer(layer().layer(locator()), request("GET", "/")).await.headers()));
}

/// `?` in a handler gives the document that the layer would give.
#[tokio::test]
async fn handlers_return_rejections_as_axum_responses() {
    use axum::extract::State;
    use tower_offload::TaskError;

    async fn full(State(pools): State<Pools>) -> Result<String, TaskError> {
        let ran = pools.run_in_pool(Cpu, || "ran").await?;
        Ok(ran.to_owned())
    }
    async fn panics(State(pools): State<Pools>) -> Result<String, TaskError> {
        let never = pools.run_in_pool(Io, || -> u8 { panic!("the password is swordfish") }).await?;
        Ok(never.to_string())
    }
    async fn unknown(State(pools): State<Pools>) -> Result<String, TaskError> {
        Ok(pools.get("cpus")?.name().to_string())
    }
    async fn rejection() -> Result<String, Rejection> {
        Err(Rejection::new(tower_offload::Workload::CPU, Reason::QueueFull, Some(Duration::from_secs(3))))
    }
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let held = gate.clone();
    let _held = pools.submit_to_pool(Cpu, async move { held.pass().await }).unwrap();
    gate.arrived(1).await;
    let app = Router::new()
        .route("/full", post(full))
        .route("/panics", post(panics))
        .route("/unknown", post(unknown))
        .route("/rejection", post(rejection))
        .with_state(pools);
    let ask = async |path: &str| {
        let answered = answer(app.clone(), request("POST", path).map(axum::body::Body::from)).await;
        assert_eq!(answered.headers()["content-type"], "application/problem+json", "{path}");
        (answered.status().as_u16(), answered.headers().contains_key("retry-after"), json(&answered))
    };
    let (status, retry, document) = ask("/full").await;
    assert_eq!(
        (status, retry, &document["reason"], &document["pool"]),
        (503, true, &"queue_full".into(), &"cpu".into())
    );
    assert_eq!(document["started"], false);
    let (status, retry, document) = ask("/panics").await;
    assert_eq!(
        (status, retry, &document["reason"], &document["started"]),
        (500, false, &"panicked".into(), &true.into())
    );
    assert!(!document.to_string().contains("swordfish"));
    let (status, _, document) = ask("/unknown").await;
    assert_eq!((status, &document["reason"], &document["pool"]), (500, &"unknown_pool".into(), &"cpus".into()));
    assert_eq!(ask("/rejection").await.0, 503);
    gate.open(1);
}

#[tokio::test]
async fn rejections_are_grpc_statuses_with_a_pushback() {
    use tonic::{Code, Status};
    use tower_offload::TaskError;

    let rejection = |reason| Rejection::new(tower_offload::Workload::CPU, reason, Some(Duration::from_millis(1500)));
    let status = Status::from(rejection(Reason::QueueFull));
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "pool `cpu` gave no answer: its queue is full")
    );
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1500");
    for (reason, code) in [
        (Reason::Draining, Code::Unavailable),
        (Reason::DeadlineExceeded, Code::DeadlineExceeded),
        (Reason::BadHeader, Code::InvalidArgument),
        (Reason::CutOff, Code::Internal),
    ] {
        assert_eq!(Status::from(TaskError::from(rejection(reason))).code(), code);
    }
    let pools = pools_of(1, 1);
    let panicked = pools.run_in_pool(Cpu, || panic!("the password is swordfish")).await.unwrap_err();
    let status = Status::from(panicked);
    assert_eq!((status.code(), status.message()), (Code::Internal, "the task panicked"));
    let unknown: Status = pools.get("cpus").unwrap_err().into();
    assert_eq!(unknown.code(), Code::Internal);
}
