//! The responses to rejections.

use std::convert::Infallible;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use tokio::task::JoinHandle;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_offload::error::OffloadError;
use tower_offload::reject::{OnReject, ResponseContext};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools, Reason, Rejection, Workload};

use crate::fixtures::{Gate, TextService, answer, in_time, json, locator, pools_of, request, stats_of};

/// A service that stands at the gate.
pub(crate) fn standing(gate: &Gate) -> impl TextService + use<> {
    let gate = gate.clone();
    service_fn(move |_: Request<String>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(Response::new("through".to_owned()))
        }
    })
}

/// A task of the pool `cpu` that stands at the gate, once it is there.
async fn hold_cpu(pools: &Pools, gate: &Gate) -> JoinHandle<Response<String>> {
    let holder = tokio::spawn(answer(PoolLayer::<Cpu>::new(pools).layer(standing(gate)), request("GET", "/held")));
    gate.arrived(1).await;
    holder
}

fn of_type(content_type: &str) -> Request<String> {
    let mut request = request("POST", "/");
    request.headers_mut().insert(CONTENT_TYPE, content_type.parse().expect("a header value"));
    request
}

fn whole_seconds(headers: &HeaderMap) -> u64 {
    headers["retry-after"].to_str().expect("digits").parse().expect("whole seconds")
}

#[tokio::test]
async fn a_full_pool_answers_503_with_a_problem_document_and_retry_after() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let holder = hold_cpu(&pools, &gate).await;
    let answered = answer(PoolLayer::<Cpu>::new(&pools).layer(locator()), request("GET", "/")).await;
    assert_eq!(answered.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answered.headers()["content-type"], "application/problem+json");
    assert!(whole_seconds(answered.headers()) >= 1);
    assert_eq!(
        json(&answered),
        serde_json::json!({
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "pool `cpu` gave no answer: its queue is full",
            "pool": "cpu",
            "reason": "queue_full",
            "started": false,
        })
    );
    gate.open(1);
    assert_eq!(holder.await.unwrap().body(), "through");
    assert_eq!(stats_of(&pools, "cpu").counts.rejected, 1);
}

#[tokio::test]
async fn a_full_pool_does_not_touch_another() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let _holder = hold_cpu(&pools, &gate).await;
    let answered = answer(PoolLayer::<tower_offload::Io>::new(&pools).layer(locator()), request("GET", "/")).await;
    assert_eq!(answered.body(), "io");
    gate.open(1);
}

/// The task log calls a request by its method and path, without the query.
#[tokio::test]
async fn a_request_is_shown_by_name_where_tasks_are() {
    for (verbose, shown) in [(true, vec!["GET /held"]), (false, Vec::new())] {
        let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).verbose(verbose).build().unwrap();
        let gate = Gate::new();
        let layer = PoolLayer::<Cpu>::new(&pools);
        shows(&pools, &gate, layer.layer(standing(&gate)), &shown).await;
    }
}

#[tokio::test]
async fn a_request_is_shown_by_name_however_rejections_are_answered() {
    let pools = Pools::builder().pool(Cpu, PoolConfig::new(1)).verbose(true).build().unwrap();
    let gate = Gate::new();
    let layer = || PoolLayer::<Cpu>::new(&pools);
    let with = layer().reject_with(|_: Rejection| Response::new(String::new()));
    shows(&pools, &gate, with.layer(standing(&gate)), &["GET /held"]).await;
    let stands = standing(&gate);
    let same_body = service_fn(move |request| {
        let stands = stands.clone();
        async move { Ok::<_, Infallible>(stands.oneshot(request).await?.map(axum::body::Body::from)) }
    });
    shows(&pools, &gate, layer().same_body().layer(same_body), &["GET /held"]).await;
}

/// While a request of `/held` waits at the gate, the active tasks have these names.
async fn shows<S, B>(pools: &Pools, gate: &Gate, service: S, shown: &[&str])
where
    S: Service<Request<String>, Response = Response<B>, Future: Send, Error: std::fmt::Debug> + Send + 'static,
    B: Body<Data: Send, Error: std::fmt::Debug> + Send + 'static,
{
    let holder = tokio::spawn(answer(service, request("GET", "/held?secret=1")));
    gate.arrived(1).await;
    let tasks = stats_of(pools, "cpu").active_tasks;
    assert_eq!(tasks.iter().map(|task| task.function.as_str()).collect::<Vec<_>>(), shown);
    gate.open(1);
    assert_eq!(holder.await.expect("the handler goes through").body(), "through");
}

#[tokio::test]
async fn a_request_that_waits_longer_than_the_queue_timeout_is_rejected() {
    let cpu = PoolConfig::new(1).queue_timeout(Duration::from_millis(5));
    let pools = Pools::builder().pool(Cpu, cpu).build().unwrap();
    let gate = Gate::new();
    let holder = hold_cpu(&pools, &gate).await;
    let answered = in_time(answer(PoolLayer::<Cpu>::new(&pools).layer(standing(&gate)), request("GET", "/"))).await;
    assert_eq!(answered.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json(&answered)["reason"], "queue_timeout");
    assert_eq!(json(&answered)["started"], false);
    assert!(whole_seconds(answered.headers()) >= 1);
    gate.open(1);
    assert_eq!(holder.await.unwrap().body(), "through");
    assert_eq!(gate.waiting(), 0, "the handler of the late one never ran");
    assert_eq!(stats_of(&pools, "cpu").counts.expired, 1);
}

#[tokio::test]
async fn a_draining_pool_finishes_what_it_has_and_refuses_the_rest() {
    let pools = pools_of(1, 5);
    let gate = Gate::new();
    let holder = hold_cpu(&pools, &gate).await;
    let shutdown = tokio::spawn(pools.shutdown(Duration::from_secs(60)));
    let answered = in_time(async {
        loop {
            let answered = answer(PoolLayer::<Cpu>::new(&pools).layer(locator()), request("GET", "/"));
            // Until the drain begins the request is queued, and leaves the queue as it is given up here.
            tokio::select! {
                biased;
                answered = answered => break answered,
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    assert_eq!(answered.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json(&answered)["reason"], "draining");
    assert!(whole_seconds(answered.headers()) >= 1);
    gate.open(1);
    assert_eq!(holder.await.unwrap().body(), "through");
    assert_eq!(in_time(shutdown).await.unwrap().unfinished(), 0);
}

fn panicking() -> impl TextService {
    service_fn(|request: Request<String>| async move {
        assert!(request.uri().path() != "/panic", "the password is swordfish");
        Ok(Response::new("fine".to_owned()))
    })
}

#[tokio::test]
async fn a_panic_is_answered_500_without_a_word_of_it() {
    let pools = pools_of(1, 5);
    let service = PoolLayer::<Cpu>::new(&pools).layer(panicking());
    for _ in 0..3 {
        let answered = answer(service.clone(), request("GET", "/panic")).await;
        assert_eq!(answered.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(json(&answered)["reason"], "panicked");
        assert_eq!(json(&answered)["started"], true);
        assert!(!answered.headers().contains_key("retry-after"));
        assert!(!format!("{answered:?}").contains("swordfish"));
    }
    assert_eq!(answer(service, request("GET", "/")).await.body(), "fine");
    let stats = stats_of(&pools, "cpu");
    assert_eq!((stats.counts.panicked, stats.counts.ok, stats.workers, stats.in_flight), (3, 1, 1, 0));
}

#[tokio::test]
async fn a_panic_in_call_itself_is_answered_like_one_in_the_future() {
    let service = service_fn(|_: Request<String>| -> std::future::Ready<Result<Response<String>, Infallible>> {
        panic!("before there is a future")
    });
    let answered = answer(PoolLayer::<Cpu>::new(&pools_of(1, 5)).layer(service), request("GET", "/")).await;
    assert_eq!(json(&answered)["reason"], "panicked");
}

#[tokio::test]
async fn a_resumed_panic_goes_on_in_the_response_future_with_its_value() {
    let service = PoolLayer::<Cpu>::new(&pools_of(1, 5)).resume_panics().layer(panicking());
    let panic = tokio::spawn(service.clone().oneshot(request("GET", "/panic"))).await.unwrap_err().into_panic();
    assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("swordfish")));
    assert_eq!(answer(service, request("GET", "/")).await.body(), "fine");
}

#[tokio::test]
async fn a_grpc_client_gets_a_status_without_a_body() {
    let pools = pools_of(1, 0);
    let gate = Gate::new();
    let holder = hold_cpu(&pools, &gate).await;
    for grpc in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        let service = PoolLayer::<Cpu>::new(&pools).layer(locator());
        let response = service.oneshot(of_type(grpc)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{grpc}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "8");
        assert_eq!(response.headers()["grpc-message"], "pool `cpu` gave no answer: its queue is full");
        assert!(response.headers().contains_key("grpc-retry-pushback-ms"));
        assert!(response.body().is_end_stream(), "the headers are the trailers too");
    }
    gate.open(1);
    drop(holder.await);
}

#[tokio::test]
async fn a_grpc_web_client_gets_plain_http() {
    let service = PoolLayer::by_extension(&Pools::default()).layer(locator());
    for http in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "application/json"] {
        let mut request = of_type(http);
        request.extensions_mut().insert(Workload::from("none"));
        let answered = answer(service.clone(), request).await;
        assert_eq!(answered.status(), StatusCode::INTERNAL_SERVER_ERROR, "{http}");
        assert_eq!(answered.headers()["content-type"], "application/problem+json", "{http}");
    }
}

#[tokio::test]
async fn a_grpc_message_is_percent_encoded() {
    let service = PoolLayer::by_extension(&Pools::default()).layer(locator());
    let mut request = of_type("application/grpc");
    request.extensions_mut().insert(Workload::from("50%\r\n\u{f6}"));
    let answered = answer(service, request).await;
    assert_eq!(answered.headers()["grpc-status"], "13");
    let message = answered.headers()["grpc-message"].to_str().unwrap();
    assert_eq!(message, "pool `50%25%0D%0A%C3%B6` gave no answer: there is no such pool");
}

#[tokio::test]
async fn the_users_function_answers_instead() {
    let layer = PoolLayer::by_extension(&Pools::default()).reject_with(|rejection: Rejection| {
        let mut response = Response::new(format!("sorry: {}", rejection.reason()));
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response
    });
    let mut unknown = request("GET", "/");
    unknown.extensions_mut().insert(Workload::from("none"));
    let answered = answer(layer.layer(locator()), unknown).await;
    assert_eq!(answered.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(answered.body(), "sorry: unknown_pool");
}

#[tokio::test]
async fn an_answer_of_500_counts_as_an_error_and_one_of_200_does_not_however_rejections_are_answered() {
    fn fixed<B: Default>(
        status: StatusCode,
    ) -> impl Service<Request<String>, Response = Response<B>, Error = Infallible, Future: Send> + Clone {
        service_fn(move |_| async move {
            let mut response = Response::new(B::default());
            *response.status_mut() = status;
            Ok(response)
        })
    }
    for (status, error, ok) in [(StatusCode::INTERNAL_SERVER_ERROR, 3, 0), (StatusCode::OK, 0, 3)] {
        let pools = pools_of(1, 5);
        let layer = || PoolLayer::<Cpu>::new(&pools);
        layer().layer(fixed::<String>(status)).oneshot(request("GET", "/")).await.unwrap();
        layer().same_body().layer(fixed::<axum::body::Body>(status)).oneshot(request("GET", "/")).await.unwrap();
        let with = layer().reject_with(|_: Rejection| Response::new(String::new()));
        with.layer(fixed::<String>(status)).oneshot(request("GET", "/")).await.unwrap();
        let counts = stats_of(&pools, "cpu").counts;
        assert_eq!((counts.error, counts.ok), (error, ok));
    }
}

#[tokio::test]
async fn an_answer_of_the_users_can_depend_on_the_request() {
    #[derive(Clone)]
    struct Echo;

    impl<E> OnReject<Request<String>, Response<String>, E> for Echo {
        type Hint = String;
        type Response = Response<String>;
        type Error = E;

        fn hint(&self, request: &Request<String>) -> String {
            request.uri().path().to_owned()
        }

        fn reject(&self, path: String, rejection: Rejection) -> Result<Response<String>, E> {
            Ok(Response::new(format!("{path}: {}", rejection.reason())))
        }

        fn pass(&self, response: Response<String>, _context: &ResponseContext) -> Response<String> {
            response.map(|body| format!("passed: {body}"))
        }

        fn fail(&self, error: E) -> E {
            error
        }
    }

    let service = PoolLayer::<Cpu>::new(&pools_of(1, 5)).reject_by(Echo).layer(panicking());
    let answered = service.clone().oneshot(request("GET", "/panic")).await.unwrap();
    assert_eq!(answered.body(), "/panic: panicked");
    assert_eq!(service.oneshot(request("GET", "/")).await.unwrap().body(), "passed: fine");
}

#[tokio::test]
async fn a_service_without_http_gets_typed_errors() {
    let cpu = PoolConfig::new(1).queue_capacity(0);
    let pools = Pools::builder().pool(Cpu, cpu).verbose(true).build().unwrap();
    let gate = Gate::new();
    let held = gate.clone();
    let parse = service_fn(move |text: &'static str| {
        let gate = held.clone();
        async move {
            if text == "hold" {
                gate.pass().await;
            }
            assert!(text != "panic", "as asked");
            text.parse::<u8>()
        }
    });
    let service = PoolLayer::<Cpu>::new(&pools).any_request().layer(parse);

    assert_eq!(service.clone().oneshot("12").await.unwrap(), 12);
    let own = service.clone().oneshot("twelve").await.unwrap_err();
    assert!(matches!(&own, OffloadError::Inner(error) if error.to_string() == "invalid digit found in string"));
    let panicked = service.clone().oneshot("panic").await.unwrap_err();
    assert!(matches!(panicked, OffloadError::Rejected(rejection) if rejection.reason() == Reason::Panicked));

    let holder = tokio::spawn(service.clone().oneshot("hold"));
    gate.arrived(1).await;
    assert_eq!(stats_of(&pools, "cpu").active_tasks[0].function, "&str", "the type of the request");
    let full = service.clone().oneshot("12").await.unwrap_err();
    assert_eq!(full.to_string(), "pool `cpu` gave no answer: its queue is full");
    let OffloadError::Rejected(rejection) = full else { panic!("the pool is full") };
    assert_eq!((rejection.reason(), rejection.started()), (Reason::QueueFull, false));
    assert!(rejection.retry_after().is_some());
    gate.open(1);
    assert!(holder.await.unwrap().is_err(), "`hold` is no number");

    in_time(pools.shutdown(Duration::from_secs(60))).await;
    let late = service.oneshot("12").await.unwrap_err();
    assert!(matches!(late, OffloadError::Rejected(rejection) if rejection.reason() == Reason::Draining));
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.ok, counts.error, counts.panicked, counts.rejected), (1, 2, 1, 2));
}
