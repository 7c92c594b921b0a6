//! Bodies that stream into their handlers, and clients that stall.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_offload::body::{Buffered, ReadBody, ReadError, StreamBody, Streamed};
use tower_offload::{Cpu, PoolLayer};

use crate::fixtures::{in_time, pools_of, stats_of, until};
use crate::script::{Script, Step, data};

const SOON: Duration = Duration::from_millis(30);
const FOR_EVER: Duration = Duration::MAX;

/// Reads a body frame by frame: the text, and the error at its end.
async fn read(mut body: Streamed<Script>) -> (String, Option<ReadError>) {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
            Err(error) => {
                assert!(body.frame().await.is_none(), "the error is the end");
                return (text, Some(*error.downcast_ref().unwrap()));
            }
        }
    }
    (text, None)
}

async fn send(limits: StreamBody, body: Script) -> (String, Option<ReadError>) {
    let service =
        ServiceBuilder::new().layer(limits).service(service_fn(async |request: Request<Streamed<Script>>| {
            Ok::<_, Infallible>(read(request.into_body()).await)
        }));
    in_time(service.oneshot(Request::new(body))).await.unwrap()
}

#[tokio::test]
async fn a_body_that_arrives_is_passed_on() {
    let body = Script::of([Step::Wait, data("all "), Step::Wait, data("of it")]);
    assert_eq!(send(StreamBody::new(FOR_EVER), body).await, ("all of it".to_owned(), None));
}

#[tokio::test]
async fn a_client_that_sends_nothing_for_the_timeout_is_an_error() {
    let stalled = send(StreamBody::new(SOON), Script::of([data("half"), Step::Stall])).await;
    assert_eq!(stalled, ("half".to_owned(), Some(ReadError::Stalled { timeout: SOON })));
}

#[tokio::test]
async fn a_client_below_the_least_rate_is_an_error() {
    let limits = StreamBody::new(FOR_EVER).min_rate(1 << 30, SOON);
    let slow = send(limits, Script::of([data("half"), Step::Stall])).await;
    assert_eq!(slow, ("half".to_owned(), Some(ReadError::TooSlow { bytes_per_second: 1 << 30 })));
}

#[tokio::test]
async fn a_client_that_stalls_gives_the_permit_of_its_handler_back() {
    let pools = pools_of(1, 0);
    let service = ServiceBuilder::new().layer(StreamBody::new(SOON)).layer(PoolLayer::<Cpu>::new(&pools)).service(
        service_fn(async |request: Request<Streamed<Script>>| {
            let (text, error) = read(request.into_body()).await;
            Ok::<_, Infallible>(Response::new(format!("{text} {}", error.unwrap())))
        }),
    );
    let response = in_time(service.oneshot(Request::new(Script::of([data("half"), Step::Stall])))).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "half nothing of the request's body arrived for 30ms");
    until(|| stats_of(&pools, "cpu").in_flight == 0).await;
}

/// The rest of a gRPC stream, for example, which follows the message that was read.
#[tokio::test]
async fn it_bounds_what_follows_the_part_that_was_read() {
    let pools = pools_of(1, 0);
    let layers = ServiceBuilder::new()
        .layer(StreamBody::new(SOON))
        .layer(PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(100)));
    let service = layers.service(service_fn(async |request: Request<Buffered<Streamed<Script>>>| {
        let mut body = request.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "\0\0\0\0\u{1}x");
        let error = body.frame().await.unwrap().unwrap_err();
        Ok::<_, Infallible>(Response::new(error.to_string()))
    }));
    let body = Script::of([data("\0\0\0\0\u{1}x"), Step::Stall]);
    let request = Request::builder().header("content-type", "application/grpc").body(body).unwrap();
    let response = in_time(service.oneshot(request)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "nothing of the request's body arrived for 30ms");
}
