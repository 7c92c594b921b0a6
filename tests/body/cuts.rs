//! For every cut of a body into frames and polls, the handler gets the bytes and the trailers that were sent.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use proptest::prelude::*;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_offload::body::{BodyRead, Budget, Buffered, ReadBody};

use crate::script::{Got, Script, Step, got};

/// Sizes around those at which frames are kept or copied.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..4_usize, 1..600_usize, 4090..4100_usize, 60_000..70_000_usize]
}

fn frames() -> impl Strategy<Value = Vec<(usize, bool)>> {
    proptest::collection::vec((length(), any::<bool>()), 0..12)
}

/// A body of frames with these lengths, each behind a poll that finds nothing if its flag is set. The bytes at its
/// beginning are `prefix`.
fn script(frames: &[(usize, bool)], prefix: &[u8], trailers: bool, sized: bool, tells_end: bool) -> (Script, Got) {
    let total = frames.iter().map(|(length, _)| length).sum::<usize>();
    let mut bytes: Vec<u8> = (0..total).map(|n| b'a' + (n % 23) as u8).collect();
    bytes.splice(..prefix.len().min(total), prefix.iter().copied().take(total));
    let (mut steps, mut at) = (Vec::new(), 0);
    for &(length, waits) in frames {
        steps.extend(waits.then_some(Step::Wait));
        steps.push(Step::Data(Bytes::copy_from_slice(&bytes[at..at + length])));
        at += length;
    }
    let trailers = trailers.then(|| HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("whole"))]));
    steps.extend(trailers.clone().map(Step::Trailers));
    (Script { sized, tells_end, ..Script::of(steps) }, Got { bytes, trailers })
}

/// What a handler behind `read_body` gets, and whether the body was read to its end before.
fn received(read_body: ReadBody, request: Request<Script>) -> Result<(Got, bool), StatusCode> {
    let service =
        ServiceBuilder::new().layer(read_body).service(service_fn(|request: Request<Buffered<Script>>| async {
            let read = request.extensions().get::<BodyRead>().is_some();
            let mut response = Response::new(String::new());
            response.extensions_mut().insert((got(request.into_body()).await, read));
            Ok::<_, std::convert::Infallible>(response)
        }));
    let mut response = tokio_test::block_on(service.oneshot(request)).unwrap();
    let status = response.status();
    response.extensions_mut().remove().ok_or(status)
}

proptest! {
    #[test]
    fn the_bytes_and_trailers_that_arrive_are_those_that_were_sent(
        frames in frames(), trailers: bool, sized: bool, tells_end: bool,
    ) {
        let (script, sent) = script(&frames, b"", trailers, sized, tells_end);
        let budget = Budget::new(1 << 20);
        let nothing = tells_end && script.steps.is_empty();
        let result = received(ReadBody::new(1 << 20).budget(&budget), Request::new(script));
        prop_assert_eq!(result, Ok((sent, !nothing)));
        prop_assert_eq!(budget.in_use(), 0, "the memory of a body that was taken is given back");
    }

    #[test]
    fn a_body_above_the_limit_is_refused_at_every_cut(frames in frames(), sized: bool, tells_end: bool) {
        let (script, sent) = script(&frames, b"", false, sized, tells_end);
        let budget = Budget::new(1 << 20);
        if let Some(limit) = sent.bytes.len().checked_sub(1) {
            let result = received(ReadBody::new(limit).budget(&budget), Request::new(script.clone()));
            prop_assert_eq!(result, Err(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let result = received(ReadBody::new(sent.bytes.len()).budget(&budget), Request::new(script));
        prop_assert!(result.is_ok());
        prop_assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn messages_that_follow_the_first_one_arrive_as_well(
        frames in frames(), message in length(), trailers: bool, tells_end: bool,
    ) {
        let prefix = [&[0], &u32::try_from(message).unwrap().to_be_bytes()[..]].concat();
        let (script, sent) = script(&frames, &prefix, trailers, false, tells_end);
        let request = Request::builder().header("content-type", "application/grpc").body(script).unwrap();
        let (got, _) = received(ReadBody::new(1 << 20), request).unwrap();
        prop_assert_eq!(got, sent);
    }
}

/// A stream of messages must not be read to its end: its client may wait for an answer to each.
#[test]
fn a_call_is_handed_on_once_its_first_message_is_complete() {
    let message = |text: &[u8]| Step::Data([&[0, 0, 0, 0, text.len() as u8], text].concat().into());
    let grpc = |steps: Vec<Step>| {
        let script = Script { tells_end: true, ..Script::of(steps) };
        Request::builder().header("content-type", "application/grpc+proto").body(script).unwrap()
    };
    let read = |steps| {
        let within = ReadBody::new(10).within(Duration::from_secs(60));
        let service =
            ServiceBuilder::new().layer(within).service(service_fn(|request: Request<Buffered<Script>>| async move {
                let read = request.extensions().get::<BodyRead>().is_some();
                Ok::<_, std::convert::Infallible>(Response::new(read.to_string()))
            }));
        let response = tokio_test::block_on(service.oneshot(grpc(steps))).unwrap();
        (response.status(), response.headers().get("grpc-status").cloned())
    };
    let ok = (StatusCode::OK, None);
    assert_eq!(read(vec![message(b"first"), Step::Stall]), ok, "a stream of messages");
    assert_eq!(read(vec![Step::Wait, message(b"first")]), ok, "a unary call");
    assert_eq!(read(vec![message(b"")]), ok, "an empty message");
    assert_eq!(read(vec![Step::Data(Bytes::from_static(&[0, 0]))]), ok, "the handler sees that it is cut short");
    let long = read(vec![message(b"longer than ten"), Step::Stall]);
    assert_eq!(long, (StatusCode::OK, Some(HeaderValue::from_static("8"))), "RESOURCE_EXHAUSTED");
    let announced = read(vec![Step::Data(Bytes::from_static(&[0, 0xFF, 0, 0, 0])), Step::Stall]);
    assert_eq!(announced.1, Some(HeaderValue::from_static("8")), "refused by its announcement");
}
