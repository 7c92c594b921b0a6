//! Bodies that are refused: too large, too slow, too many at once, broken off.

use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version};
use http_body_util::Limited;
use tower::{ServiceBuilder, ServiceExt};
use tower_offload::Deadline;
use tower_offload::body::{Budget, Buffered, ReadBody};

use crate::fixtures::{in_time, json, whole};
use crate::script::{Script, Step, data, echo};

const SOON: Duration = Duration::from_millis(50);
const FOR_EVER: Duration = Duration::from_secs(3600);

async fn answer(read_body: ReadBody, request: Request<Script>) -> Response<String> {
    let service = ServiceBuilder::new().layer(read_body).service(echo::<Buffered<Script>>());
    whole(in_time(service.oneshot(request)).await.unwrap()).await
}

fn post(body: Script) -> Request<Script> {
    Request::post("/").header("transfer-encoding", "chunked").body(body).unwrap()
}

fn patient() -> ReadBody {
    ReadBody::new(1 << 20).within(FOR_EVER).min_rate(0, FOR_EVER)
}

#[tokio::test]
async fn the_client_is_told_what_is_wrong_with_its_body() {
    let response = answer(ReadBody::new(4), post(Script::of([data("four"), data("s")]))).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["connection"], "close");
    let expected = serde_json::json!({
        "type": "about:blank",
        "title": "Payload Too Large",
        "status": 413,
        "detail": "the request's body is larger than 4 bytes",
        "reason": "body_too_large",
        "started": false,
    });
    assert_eq!(json(&response), expected);
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_unread() {
    let stalled = Script::sized([data("fives"), Step::Stall]);
    let response = answer(ReadBody::new(4), post(stalled)).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// Any client can write this `content-type`, and the handler would wait for the rest of the body.
#[tokio::test]
async fn a_client_that_claims_to_send_messages_is_held_to_the_limits_of_the_whole_body() {
    let claim = |rest: Step| {
        let body = Script::of([data("\0\0\0\0\0"), rest]);
        Request::post("/").header("content-type", "application/connect+json").body(body).unwrap()
    };
    for (rest, status) in
        [(Step::Stall, StatusCode::REQUEST_TIMEOUT), (data("more than ten bytes"), StatusCode::PAYLOAD_TOO_LARGE)]
    {
        assert_eq!(answer(ReadBody::new(10).whole().within(SOON), claim(rest)).await.status(), status);
    }
}

#[tokio::test]
async fn a_body_that_stops_is_refused_when_its_time_is_over() {
    for (limits, detail) in [
        (patient().within(SOON), "the request's body took longer than 50ms to arrive"),
        (patient().min_rate(240, SOON), "the request's body arrived at fewer than 240 bytes a second"),
    ] {
        let began = Instant::now();
        let response = answer(limits, post(Script::of([Step::Wait, data("a"), Step::Stall]))).await;
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(
            (json(&response)["reason"].clone(), json(&response)["detail"].clone()),
            ("body_timeout".into(), detail.into())
        );
        assert!(began.elapsed() >= SOON);
    }
}

/// Each byte buys its client time.
#[tokio::test]
async fn a_body_that_arrives_fast_enough_is_waited_for_beyond_the_grace_period() {
    let (frames, body) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<Vec<u8>>>();
    let body = axum::body::Body::from_stream(tokio_stream::wrappers::UnboundedReceiverStream::new(body));
    let service =
        ServiceBuilder::new().layer(patient().min_rate(1000, SOON)).service(echo::<Buffered<axum::body::Body>>());
    let mut response = tokio_test::task::spawn(service.oneshot(Request::new(body)));
    // It waits until the grace period is over, unless something arrives.
    assert!(response.poll().is_pending());
    // A hundred seconds' worth.
    frames.send(Ok(vec![b'x'; 100_000])).unwrap();
    tokio::time::sleep(3 * SOON).await;
    assert!(response.poll().is_pending());
    drop(frames);
    let response = whole(in_time(response).await.unwrap()).await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 100_000));
}

#[tokio::test]
async fn a_body_whose_time_is_over_is_taken_if_it_has_arrived_meanwhile() {
    let late = Script::of([Step::Wait, Step::Wait, data("arrived"), Step::Wait]);
    let response = answer(patient().within(Duration::ZERO), post(Script::of([Step::Wait, data("arrived")]))).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "arrived"));
    let response = answer(patient().within(Duration::ZERO), post(late)).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT, "it is looked for once more, and not for ever");
}

#[tokio::test]
async fn a_deadline_that_passes_while_the_body_is_read_is_a_504() {
    let mut request = post(Script::of([data("a"), Step::Stall]));
    request.extensions_mut().insert(Deadline::after(SOON));
    let response = answer(patient(), request).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(json(&response)["reason"], "deadline_exceeded");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_400() {
    let response = answer(patient(), post(Script::of([data("a"), Step::Fail]))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(json(&response)["reason"], "body_error");
}

#[tokio::test]
async fn a_body_that_another_layer_limits_is_a_413() {
    let service = ServiceBuilder::new().layer(patient()).service(echo::<Buffered<Limited<Script>>>());
    // As tower-http's `RequestBodyLimitLayer` does.
    let request = post(Script::of([data("four"), data("s")])).map(|body| Limited::new(body, 4));
    let response = whole(in_time(service.oneshot(request)).await.unwrap()).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(json(&response)["reason"], "body_too_large");
}

/// Trying again would not help.
#[tokio::test]
async fn a_body_that_is_larger_than_the_whole_budget_is_a_413() {
    let read_body = patient().budget(&Budget::new(4000));
    for body in [
        Script::sized([Step::Data(vec![b'x'; 5000].into())]),
        Script::of([Step::Data(vec![b'x'; 3000].into()), Step::Data(vec![b'x'; 3000].into())]),
    ] {
        let response = answer(read_body.clone(), post(body)).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(json(&response)["reason"], "body_too_large");
        assert!(!response.headers().contains_key("retry-after"));
    }
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_refused_until_others_are_taken() {
    let budget = Budget::new(4000);
    let read_body = patient().budget(&budget);
    // A body that is announced has its place before it arrives.
    let mut first = {
        let service = ServiceBuilder::new().layer(read_body.clone()).service(echo::<Buffered<Script>>());
        let body = Script::sized([Step::Stall, Step::Data(vec![b'x'; 1000].into())]);
        tokio_test::task::spawn(service.oneshot(post(body)))
    };
    assert!(first.poll().is_pending());
    assert!(budget.in_use() >= 1000, "{}", budget.in_use());

    for body in [
        Script::sized([Step::Data(vec![b'x'; 3000].into())]),
        Script::of([Step::Data(vec![b'x'; 500].into()), Step::Data(vec![b'x'; 3000].into())]),
    ] {
        let response = answer(read_body.clone(), post(body)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(json(&response)["reason"], "body_budget");
        assert!(response.headers().contains_key("retry-after"));
    }

    drop(first);
    assert_eq!(budget.in_use(), 0);
    let response = answer(read_body, post(Script::sized([Step::Data(vec![b'x'; 1000].into())]))).await;
    assert_eq!((response.status(), response.body().len()), (StatusCode::OK, 1000));
    assert_eq!(budget.in_use(), 0);
}

#[tokio::test]
async fn a_body_that_has_ended_is_passed_without_being_polled() {
    let service = ServiceBuilder::new().layer(ReadBody::new(0)).service(echo::<Buffered<Script>>());
    let empty = Script { tells_end: true, ..Script::default() };
    let mut call = tokio_test::task::spawn(service.oneshot(Request::new(empty)));
    assert!(call.poll().is_ready());
}

#[tokio::test]
async fn over_http_2_a_refusal_closes_no_connection() {
    let mut request = post(Script::of([data("fives")]));
    *request.version_mut() = Version::HTTP_2;
    let response = answer(ReadBody::new(4), request).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(!response.headers().contains_key("connection"));
}
