//! Bodies of responses: polled in the pool or on the connection, with or without the permit, to their end or not.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio_test::assert_pending;
use tower::{ServiceExt, service_fn};
use tower_layer::Layer;
use tower_offload::body::{BodyError, BodyPolicy, OnDrain, ResponseBody};
use tower_offload::reject::{OnReject, ResponseContext};
use tower_offload::stream::{WriterBody, writer};
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools, Reason, Rejection, checkpoint, hold_permit};

use crate::fixtures::{Gate, answer, in_time, json, log_of, place, pools_of, request, stats_of};

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, io::Error>>;

/// A body whose frames the test sends. It records the places where it was polled and dropped.
struct Script {
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, io::Error>>,
    places: Arc<Mutex<Vec<String>>>,
    size: SizeHint,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.places.lock().unwrap().push(place());
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.places.lock().unwrap().push(format!("dropped in {}", place()));
    }
}

/// The frames of a script, and the places where it was polled.
struct Author {
    frames: Option<Frames>,
    places: Arc<Mutex<Vec<String>>>,
}

impl Author {
    fn data(&self, text: &'static str) {
        self.send(Frame::data(Bytes::from_static(text.as_bytes())));
    }

    fn send(&self, frame: Frame<Bytes>) {
        self.frames.as_ref().unwrap().send(Ok(frame)).expect("the body is alive");
    }

    fn end(&mut self) {
        self.frames = None;
    }

    async fn dropped(&self) -> String {
        until("the body is dropped", || {
            self.places.lock().unwrap().last().is_some_and(|last| last.contains("dropped"))
        })
        .await;
        self.places.lock().unwrap().last().cloned().unwrap()
    }
}

fn script() -> (Script, Author) {
    script_of_size(SizeHint::new())
}

fn script_of_size(size: SizeHint) -> (Script, Author) {
    let (frames, receiver) = mpsc::unbounded_channel();
    let places = Arc::<Mutex<Vec<String>>>::default();
    (Script { frames: receiver, places: places.clone(), size }, Author { frames: Some(frames), places })
}

/// The response of a handler that answers with `body`.
async fn respond<B>(pools: &Pools, policy: BodyPolicy, body: B) -> Response<ResponseBody<B>>
where
    B: Body<Data: From<Bytes> + Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = service_fn(move |_: Request<String>| {
        let body = body.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(pools).body(policy).layer(handler);
    in_time(service.oneshot(request("GET", "/"))).await.unwrap()
}

async fn next<B>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>>
where
    B: Body + Unpin,
{
    in_time(body.frame()).await
}

async fn text<B>(body: &mut B) -> String
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let frame = next(body).await.expect("a frame").expect("no error");
    String::from_utf8(frame.into_data().expect("data").to_vec()).unwrap()
}

/// Waits until `holds`, and fails after ten seconds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "not so in 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn in_flight(pools: &Pools) -> usize {
    stats_of(pools, "cpu").in_flight
}

fn is_stalled(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<BodyError>() == Some(&BodyError::Stalled)
}

#[tokio::test]
async fn a_body_in_the_pool_is_polled_and_dropped_by_workers_and_arrives_frame_by_frame() {
    let pools = pools_of(1, 5);
    let (body, mut author) = script();
    let mut response = respond(&pools, BodyPolicy::in_pool(), body).await;
    let body = response.body_mut();
    assert_eq!(in_flight(&pools), 1, "the body has not ended");
    assert_eq!(stats_of(&pools, "cpu").permits_in_use, 0, "the permit was released with the head");
    assert!(!body.is_end_stream());
    for said in ["one", "two", "three"] {
        author.data(said);
        assert_eq!(text(body).await, said);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().unwrap());
    author.send(Frame::trailers(trailers.clone()));
    assert_eq!(next(body).await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    author.end();
    assert!(next(body).await.is_none());
    assert_eq!(author.dropped().await, "dropped in cpu");
    assert!(author.places.lock().unwrap().iter().all(|place| place.ends_with("cpu")));
    until("the permit is released", || in_flight(&pools) == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
}

#[tokio::test]
async fn a_body_that_is_complete_at_its_head_is_taken_on_the_worker_and_holds_no_permit() {
    let pools = pools_of(1, 5);
    let (body, mut author) = script();
    author.data("one");
    author.data("two");
    author.end();
    let mut response = respond(&pools, BodyPolicy::in_pool(), body).await;
    assert_eq!(in_flight(&pools), 0);
    assert_eq!(author.dropped().await, "dropped in cpu");
    let body = response.body_mut();
    assert_eq!([text(body).await, text(body).await], ["one", "two"]);
    assert!(body.is_end_stream());
    assert!(next(body).await.is_none());
    let full = respond(&pools, BodyPolicy::in_pool(), Full::new(Bytes::from_static(b"whole"))).await;
    assert_eq!(full.body().size_hint().exact(), Some(5));
    assert_eq!(full.into_body().collect().await.unwrap().to_bytes(), "whole");
}

#[tokio::test]
async fn the_size_of_a_body_in_the_pool_is_its_own_less_what_was_taken() {
    let pools = pools_of(1, 5);
    let (body, author) = script_of_size(SizeHint::with_exact(9));
    let mut response = respond(&pools, BodyPolicy::in_pool(), body).await;
    assert_eq!(response.body().size_hint().exact(), Some(9));
    author.data("four");
    text(response.body_mut()).await;
    assert_eq!(response.body().size_hint().exact(), Some(5));
    author.data("five!");
    text(response.body_mut()).await;
    assert_eq!(response.body().size_hint().exact(), Some(0));
    // A server has all of it now, and does not ask for its end.
    drop(response);
    until("the permit is released", || in_flight(&pools) == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1, "the body is complete");
}

/// A static file has a `Content-Length`, and a body that does not know its size.
#[tokio::test]
async fn a_body_is_complete_when_the_length_of_its_header_was_taken() {
    for policy in [BodyPolicy::in_pool(), BodyPolicy::in_pool().hold(), BodyPolicy::on_connection().hold()] {
        let pools = pools_of(1, 5);
        let (body, author) = script();
        let body = Arc::new(Mutex::new(Some(body)));
        let handler = service_fn(move |_: Request<String>| {
            let response = Response::builder().header("content-length", "4");
            let response = response.body(body.lock().unwrap().take().unwrap()).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        let service = PoolLayer::<Cpu>::new(&pools).body(policy.on_drain(OnDrain::End)).layer(handler);
        let mut response = in_time(service.oneshot(request("GET", "/"))).await.unwrap();
        pools.announce_drain();
        author.data("four");
        assert_eq!(text(response.body_mut()).await, "four");
        drop(response);
        until("the permit is released", || in_flight(&pools) == 0).await;
        assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
    }
}

#[tokio::test]
async fn a_reader_that_is_behind_holds_the_producer_up_at_the_size_of_the_buffer() {
    let pools = pools_of(1, 5);
    let (body, author) = script();
    let policy = BodyPolicy::in_pool().buffer(1024);
    for _ in 0..100 {
        author.data("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    }
    let mut response = respond(&pools, policy, body).await;
    let polled = || author.places.lock().unwrap().len();
    until("the buffer is full", || polled() >= 6).await;
    for _ in 0..10 {
        assert_eq!(in_time(pools.run_in_pool("cpu", || 7)).await.unwrap(), 7, "the worker is free for others");
    }
    assert_eq!(polled(), 6, "six frames of 64 and 128 bytes fill 1024 bytes");
    for _ in 0..100 {
        assert_eq!(text(response.body_mut()).await.len(), 64);
    }
}

/// The bound of docs/response-bodies.md: `buffer` and one frame above it, or four frames.
#[tokio::test]
async fn a_buffer_holds_as_much_as_is_documented_and_no_more() {
    for (buffer, length) in [(1024, 1), (1024, 4096), (65_536, 16_384), (65_536, 65_536), (300_000, 65_536)] {
        let pools = pools_of(1, 5);
        let (body, author) = script();
        let more = || author.send(Frame::data(Bytes::from(vec![b'x'; length])));
        (0..40).for_each(|_| more());
        let mut response = respond(&pools, BodyPolicy::in_pool().buffer(buffer), body).await;
        let frame = length + 128;
        let buffered = || stats_of(&pools, "cpu").stream_buffered_bytes;
        for _ in 0..2 {
            let full = || buffered() >= buffer && buffered() >= 4 * frame;
            until("the buffer is full", full).await;
            assert!(buffered() < (buffer + frame).max(5 * frame), "{} bytes, frames of {length}", buffered());
            // The worker goes on when the buffer is half empty, or empty.
            while buffered() > buffer / 2 {
                text(response.body_mut()).await;
                more();
            }
        }
    }
}

/// Without this, the connection of a stream that is produced as fast as it is taken keeps its thread until hundreds of
/// kilobytes are to be sent.
#[tokio::test]
async fn a_connection_that_has_taken_many_frames_in_a_row_lets_its_runtime_poll_other_tasks() {
    let pools = pools_of(1, 5);
    let (body, author) = script();
    (0..100).for_each(|_| author.data("x"));
    let response = respond(&pools, BodyPolicy::in_pool(), body).await;
    until("all frames wait", || stats_of(&pools, "cpu").stream_buffered_bytes == 100 * 129).await;
    let mut reader = tokio_test::task::spawn(response.into_body());
    let mut rows = Vec::new();
    for _ in 0..4 {
        let mut taken = 0;
        while reader.enter(|cx, body| body.poll_frame(cx)).is_ready() {
            taken += 1;
        }
        rows.push((taken, reader.is_woken()));
    }
    assert_eq!(rows, [(32, true), (32, true), (32, true), (4, false)]);
    author.data("y");
    until("the connection is woken", || reader.is_woken()).await;
}

#[tokio::test]
async fn a_held_permit_returns_with_the_last_frame() {
    for policy in [BodyPolicy::on_connection().hold(), BodyPolicy::in_pool().hold()] {
        let pools = pools_of(1, 0);
        let (body, mut author) = script();
        let mut response = respond(&pools, policy.clone(), body).await;
        author.data("one");
        assert_eq!(text(response.body_mut()).await, "one");
        let refused = respond(&pools, policy.clone(), Full::new(Bytes::new())).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        author.data("two");
        author.end();
        assert_eq!(in_flight(&pools), 1, "the last frame was not taken");
        assert_eq!(text(response.body_mut()).await, "two");
        assert!(next(response.body_mut()).await.is_none());
        until("the permit is released", || in_flight(&pools) == 0).await;
        let (counts, place) = (stats_of(&pools, "cpu").counts, author.dropped().await);
        assert_eq!((counts.ok, counts.rejected), (1, 1));
        let run = policy.run;
        assert_eq!(place == "dropped in cpu", run == tower_offload::body::RunBody::Pool, "{place}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_body_cancels_it_and_returns_the_permit() {
    for policy in [BodyPolicy::on_connection().hold(), BodyPolicy::in_pool(), BodyPolicy::in_pool().hold()] {
        let pools = pools_of(1, 5);
        let (body, author) = script();
        let mut response = respond(&pools, policy, body).await;
        author.data("one");
        text(response.body_mut()).await;
        drop(response);
        author.dropped().await;
        until("the permit is released", || in_flight(&pools) == 0).await;
        assert_eq!(stats_of(&pools, "cpu").counts.cancelled, 1);
    }
}

#[tokio::test]
async fn a_reader_that_stalls_loses_the_body_the_permit_and_the_buffer_and_its_stream_is_closed() {
    for policy in [BodyPolicy::on_connection().hold(), BodyPolicy::in_pool(), BodyPolicy::in_pool().hold()] {
        let mut stall_timeout = Duration::from_millis(50);
        let (pools, author, mut response) = loop {
            let pools = pools_of(1, 5);
            let (body, author) = script();
            for _ in 0..10 {
                author.data("frame");
            }
            let mut response = respond(&pools, policy.clone().stall_timeout(stall_timeout), body).await;
            // The connection takes one frame, and never asks for the next one.
            if next(response.body_mut()).await.unwrap().is_ok() {
                break (pools, author, response);
            }
            // On a slow machine it is too late even for that one.
            stall_timeout *= 2;
            assert!(stall_timeout < Duration::from_secs(10), "the reader has no time at all");
        };
        until("the permit is released", || in_flight(&pools) == 0).await;
        assert_eq!(author.dropped().await, "dropped in cpu");
        let stats = stats_of(&pools, "cpu");
        assert_eq!((stats.counts.stalled, stats.streams), (1, 0));
        let error = next(response.body_mut()).await.unwrap().unwrap_err();
        assert!(is_stalled(&*error), "{error}");
    }
}

#[tokio::test]
async fn a_reader_that_waits_for_a_slow_producer_has_not_stalled() {
    for policy in [BodyPolicy::on_connection().hold(), BodyPolicy::in_pool().hold()] {
        // On a slow machine the reader may be late itself, but not in all of these tries.
        let mut stall_timeout = Duration::from_millis(20);
        while !waits_for_a_slow_producer(policy.clone(), stall_timeout).await {
            stall_timeout *= 2;
            assert!(stall_timeout < Duration::from_secs(10), "the reader is never in time");
        }
    }
}

/// Whether a reader was in time with each of its own steps. If it was, the body has not stalled, although its producer took
/// longer than the stall timeout for each frame.
async fn waits_for_a_slow_producer(policy: BodyPolicy, stall_timeout: Duration) -> bool {
    let pools = pools_of(1, 5);
    let (body, mut author) = script();
    let mut response = respond(&pools, policy.stall_timeout(stall_timeout), body).await;
    for _ in 0..3 {
        let mut frame = tokio_test::task::spawn(response.body_mut().frame());
        assert_pending!(frame.poll());
        tokio::time::sleep(stall_timeout * 5 / 2).await;
        let waiting = Instant::now();
        author.data("late");
        let frame = in_time(frame).await.unwrap();
        let mut following = tokio_test::task::spawn(response.body_mut().frame());
        let polled = following.poll();
        if waiting.elapsed() >= stall_timeout {
            return false;
        }
        frame.unwrap();
        assert_pending!(polled);
    }
    author.end();
    assert!(in_time(response.body_mut().frame()).await.is_none());
    until("the permit is released", || in_flight(&pools) == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
    true
}

#[tokio::test]
async fn the_error_of_a_body_arrives_and_counts() {
    for policy in [BodyPolicy::on_connection().hold(), BodyPolicy::in_pool()] {
        let pools = pools_of(1, 5);
        let (body, author) = script();
        let mut response = respond(&pools, policy, body).await;
        author.data("one");
        author.frames.as_ref().unwrap().send(Err(io::Error::other("no more rows"))).unwrap();
        assert_eq!(text(response.body_mut()).await, "one");
        let error = next(response.body_mut()).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "no more rows");
        until("the permit is released", || in_flight(&pools) == 0).await;
        assert_eq!(stats_of(&pools, "cpu").counts.error, 1);
    }
}

/// A body that panics at its second poll.
struct Panics(bool);

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(!self.0, "in the body");
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[tokio::test]
async fn a_body_that_panics_in_the_pool_ends_with_an_error_and_the_worker_lives() {
    let pools = pools_of(1, 5);
    let lines = Arc::default();
    let logging = tracing::subscriber::set_default(log_of(&lines));
    let mut response = respond(&pools, BodyPolicy::in_pool(), Panics(false)).await;
    let error = next(response.body_mut()).await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&BodyError::CutOff));
    until("the permit is released", || in_flight(&pools) == 0).await;
    drop(logging);
    let line = "ERROR the body of a response panicked: in the body pool=cpu\n";
    assert_eq!(String::from_utf8_lossy(&lines.lock().unwrap()), line);
    assert_eq!(stats_of(&pools, "cpu").counts.panicked, 1);
    assert_eq!(pools.run_in_pool("cpu", || 7).await.unwrap(), 7);
}

#[tokio::test]
async fn one_that_panics_on_the_connection_counts_as_panicked_and_never_as_complete() {
    let pools = pools_of(1, 5);
    let mut response = respond(&pools, BodyPolicy::on_connection().hold(), Panics(false)).await;
    let panicked = AssertUnwindSafe(next(response.body_mut())).catch_unwind().await;
    assert_eq!(panicked.expect_err("the panic goes on").downcast_ref(), Some(&"in the body"));
    until("the permit is released", || in_flight(&pools) == 0).await;
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.panicked, counts.cancelled), (1, 0));
    assert!(!response.body().is_end_stream());
    let error = next(response.body_mut()).await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&BodyError::CutOff));
}

#[tokio::test]
async fn a_drain_ends_open_bodies_with_the_farewell() {
    let farewell = OnDrain::EndWith(Bytes::from_static(b"event: close\n\n"));
    for policy in [BodyPolicy::on_connection(), BodyPolicy::on_connection().hold(), BodyPolicy::in_pool()] {
        let pools = pools_of(1, 5);
        let (body, author) = script();
        let mut response = respond(&pools, policy.on_drain(farewell.clone()), body).await;
        author.data("one");
        assert_eq!(text(response.body_mut()).await, "one");
        let body = response.body_mut();
        let mut last = tokio_test::task::spawn(body.frame());
        assert_pending!(last.poll());
        pools.announce_drain();
        let last = in_time(last).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(last, "event: close\n\n");
        assert!(next(body).await.is_none());
        author.dropped().await;
        assert!(in_time(pools.shutdown(Duration::from_secs(5))).await.is_complete());
    }
}

#[tokio::test]
async fn a_drain_that_is_announced_as_soon_as_the_response_is_there_ends_its_body() {
    struct Announce(Pools, AtomicUsize);
    impl Wake for Announce {
        fn wake(self: Arc<Self>) {
            self.0.announce_drain();
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let pools = pools_of(1, 5);
    let (body, author) = script();
    author.data("one");
    let policy = BodyPolicy::in_pool().on_drain(OnDrain::EndWith(Bytes::from_static(b"the end")));
    let (begin, begins) = tokio::sync::oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((begins, body))));
    let handler = service_fn(move |_: Request<String>| {
        let (begins, body) = once.lock().unwrap().take().unwrap();
        async { begins.await.map(|()| Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(handler);
    let mut response = Box::pin(service.oneshot(request("GET", "/")));
    let announce = Arc::new(Announce(pools.clone(), AtomicUsize::new(0)));
    assert_pending!(response.as_mut().poll(&mut Context::from_waker(&announce.clone().into())));
    begin.send(()).unwrap();
    until("the worker has woken the caller", || announce.1.load(Ordering::Relaxed) > 0).await;
    let body = in_time(response.await.unwrap().into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "onethe end");
}

/// While a drain is only announced, requests are still served.
#[tokio::test]
async fn a_body_that_begins_after_the_announcement_stays_whole_and_a_stream_of_events_ends_when_it_has_none() {
    let farewell = OnDrain::EndWith(Bytes::from_static(b"event: close\n\n"));
    for policy in [BodyPolicy::on_connection(), BodyPolicy::on_connection().hold(), BodyPolicy::in_pool()] {
        for (media, whole) in [("text/csv", "onetwothree"), ("text/event-stream", "onetwoevent: close\n\n")] {
            let pools = pools_of(1, 5);
            pools.announce_drain();
            let (body, author) = script();
            author.data("one");
            author.data("two");
            let body = Arc::new(Mutex::new(Some(body)));
            let handler = service_fn(move |_: Request<String>| {
                let body = body.lock().unwrap().take().unwrap();
                async move { Ok::<_, Infallible>(Response::builder().header("content-type", media).body(body).unwrap()) }
            });
            let layer = PoolLayer::<Cpu>::new(&pools).body(policy.clone().on_drain(farewell.clone()));
            let response = in_time(layer.layer(handler.clone()).oneshot(request("GET", "/"))).await.unwrap();
            let mut rest = tokio_test::task::spawn(response.into_body().collect());
            let mut author = Some(author);
            if media == "text/csv" {
                assert_pending!(rest.poll());
                author.take().unwrap().data("three");
            }
            assert_eq!(in_time(rest).await.unwrap().to_bytes(), whole);
            drop(author);
            assert!(in_time(pools.shutdown(Duration::from_secs(5))).await.is_complete());
        }
    }
}

#[tokio::test]
async fn a_drain_finishes_a_body_that_was_announced_with_its_length() {
    let pools = pools_of(1, 5);
    let (body, author) = script_of_size(SizeHint::with_exact(6));
    let mut response = respond(&pools, BodyPolicy::in_pool().on_drain(OnDrain::End), body).await;
    pools.announce_drain();
    author.data("onetwo");
    assert_eq!(text(response.body_mut()).await, "onetwo");
}

#[tokio::test]
async fn grpc_ends_at_a_drain_with_the_status_unavailable() {
    let pools = pools_of(1, 5);
    let (body, _author) = script();
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = service_fn(move |_: Request<String>| {
        let body = body.lock().unwrap().take().unwrap();
        let response = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
        async { Ok::<_, Infallible>(response) }
    });
    let policy = BodyPolicy::in_pool().on_drain(OnDrain::EndWith(Bytes::from_static(b"not for gRPC")));
    let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(handler);
    let mut response = in_time(service.oneshot(request("POST", "/"))).await.unwrap();
    pools.announce_drain();
    let trailers = next(response.body_mut()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    assert!(next(response.body_mut()).await.is_none());
}

#[tokio::test]
async fn no_body_is_polled_for_a_head_request_or_a_status_without_a_body() {
    let pools = pools_of(1, 5);
    let polls = Arc::new(AtomicUsize::new(0));
    struct Counts(Arc<AtomicUsize>);
    impl Body for Counts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(None)
        }
    }
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let polls = polls.clone();
        let handler = service_fn(move |_: Request<String>| {
            let response = Response::builder().status(status).body(Counts(polls.clone())).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        let service = PoolLayer::<Cpu>::new(&pools).body(BodyPolicy::in_pool().hold()).layer(handler);
        let response = in_time(service.oneshot(request(method, "/"))).await.unwrap();
        assert_eq!((in_flight(&pools), response.status().as_u16()), (0, status));
    }
    assert_eq!(polls.load(Ordering::Relaxed), 0);
}

/// Which client expects a body is a matter of the protocol.
#[tokio::test]
async fn a_response_of_the_application_to_rejections_keeps_the_policy_for_bodies() {
    #[derive(Clone)]
    struct Own;
    impl<B, E> OnReject<Request<B>, Response<Script>, E> for Own {
        type Hint = ();
        type Response = Response<ResponseBody<Script>>;
        type Error = E;

        fn hint(&self, _: &Request<B>) {}

        fn reject(&self, (): (), rejection: Rejection) -> Result<Self::Response, E> {
            let (body, mut author) = script();
            author.data(rejection.reason().as_str());
            author.end();
            Ok(Response::new(ResponseBody::from(body)))
        }

        fn pass(&self, response: Response<Script>, context: &ResponseContext) -> Self::Response {
            context.wrap(response)
        }

        fn fail(&self, error: E) -> E {
            error
        }
    }
    let pools = pools_of(1, 0);
    let authors = Arc::new(Mutex::new(Vec::new()));
    let handler = service_fn(move |_: Request<String>| {
        let (body, author) = script();
        author.data("one");
        authors.lock().unwrap().push(author);
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let layer = PoolLayer::<Cpu>::new(&pools).body(BodyPolicy::in_pool().hold()).reject_by(Own);
    let service = layer.layer(handler);
    let ask = |method| in_time(service.clone().oneshot(request(method, "/")));
    drop(ask("HEAD").await.unwrap());
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.ok, counts.cancelled), (1, 0), "nobody has left");
    let open = ask("GET").await.unwrap();
    assert_eq!(in_flight(&pools), 1, "the body holds the permit");
    let rejected = ask("GET").await.unwrap();
    assert_eq!(rejected.into_body().collect().await.unwrap().to_bytes(), "queue_full");
    drop(open);
}

#[tokio::test]
async fn a_pool_with_as_many_streams_as_it_may_have_rejects_before_the_handler_begins() {
    let config = PoolConfig::new(2).concurrency(10).body(BodyPolicy::in_pool()).max_streams(1);
    let pools = Pools::builder().pool(Cpu, config).build().unwrap();
    let (body, mut author) = script();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = service_fn(move |_: Request<String>| {
        count.fetch_add(1, Ordering::Relaxed);
        let body = body.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(handler);
    let response = in_time(service.clone().oneshot(request("GET", "/"))).await.unwrap();
    assert_eq!(stats_of(&pools, "cpu").streams, 1);
    let refused = answer(service, request("GET", "/")).await;
    assert_eq!(json(&refused)["reason"], Reason::StreamsFull.as_str());
    assert_eq!((refused.status(), handled.load(Ordering::Relaxed)), (StatusCode::SERVICE_UNAVAILABLE, 1));
    author.end();
    drop(response);
    until("the stream has ended", || stats_of(&pools, "cpu").streams == 0).await;
}

#[tokio::test]
async fn a_request_that_waited_until_there_were_as_many_streams_as_may_be_is_rejected_before_its_handler_begins() {
    let pools =
        Pools::builder().pool(Cpu, PoolConfig::new(1).concurrency(1).body(BodyPolicy::in_pool()).max_streams(1));
    let pools = pools.build().unwrap();
    let gate = Gate::new();
    let (body, mut author) = script();
    let body = Arc::new(Mutex::new(Some(body)));
    let passes = gate.clone();
    let handler = service_fn(move |_: Request<String>| {
        let (body, gate) = (body.clone(), passes.clone());
        async move {
            gate.pass().await;
            Ok::<_, Infallible>(Response::new(body.lock().unwrap().take().unwrap()))
        }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(handler);
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/")));
    gate.arrived(1).await;
    let waits = tokio::spawn(answer(service, request("GET", "/")));
    until("the second one is queued", || stats_of(&pools, "cpu").queued_tasks == 1).await;
    gate.open(1);
    let response = in_time(first).await.unwrap().unwrap();
    let refused = in_time(waits).await.unwrap();
    assert_eq!(json(&refused)["reason"], Reason::StreamsFull.as_str());
    assert_eq!((refused.status(), gate.waiting()), (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert!(refused.headers().contains_key("retry-after"));
    author.end();
    drop(response);
    until("the stream has ended", || stats_of(&pools, "cpu").streams == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.rejected, 1);
}

#[tokio::test]
async fn a_permit_that_is_held_outlives_the_response() {
    let pools = pools_of(1, 0);
    let permits = Arc::new(Mutex::new(Vec::new()));
    let held = permits.clone();
    let handler = service_fn(move |_: Request<String>| {
        held.lock().unwrap().push(hold_permit());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(handler);
    assert_eq!(answer(service.clone(), request("GET", "/")).await.status(), StatusCode::OK);
    assert_eq!(in_flight(&pools), 1);
    assert_eq!(answer(service.clone(), request("GET", "/")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    permits.lock().unwrap().clear();
    until("the permit is released", || in_flight(&pools) == 0).await;
    assert_eq!(answer(service, request("GET", "/")).await.status(), StatusCode::OK);
    // Elsewhere there is no permit.
    drop(hold_permit());
}

#[tokio::test]
async fn streams_that_always_have_a_frame_do_not_keep_new_tasks_out() {
    struct Endless;
    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"token")))))
        }
    }
    let config = PoolConfig::new(2).body(BodyPolicy::in_pool());
    let pools = Pools::builder().pool(Cpu, config).build().unwrap();
    let mut streams = Vec::new();
    for _ in 0..100 {
        let response = respond(&pools, BodyPolicy::in_pool(), Endless).await;
        streams.push(tokio::spawn(async move {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {
                tokio::task::yield_now().await;
            }
        }));
    }
    for _ in 0..100 {
        assert_eq!(in_time(pools.run_in_pool("cpu", || 7)).await.unwrap(), 7);
    }
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    until("all permits are released", || in_flight(&pools) == 0).await;
}

#[tokio::test]
async fn a_writer_runs_on_a_worker_and_blocks_while_its_client_is_behind() {
    let pools = pools_of(1, 5);
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let handler = service_fn(move |_: Request<String>| {
        let count = count.clone();
        let body = writer(move |out| {
            write!(out, "{}", place())?;
            out.flush()?;
            for _ in 0..64 {
                out.write_all(&[7; 16 * 1024])?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, io::Error>(())
        });
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(&pools).layer(handler);
    let mut response = in_time(service.oneshot(request("GET", "/"))).await.unwrap();
    assert_eq!(text(response.body_mut()).await, "cpu");
    let mut before = 0;
    until("the writer waits", || {
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
    assert!(before <= 8, "{before} writes of 16 KiB into a buffer of 64 KiB");
    assert_eq!(in_flight(&pools), 1);
    let rest = in_time(response.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(rest.len(), 1024 * 1024);
    until("the permit is released", || in_flight(&pools) == 0).await;
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
}

/// The body of a handler that writes with `write`, and its result.
async fn written<F>(pools: &Pools, policy: BodyPolicy, write: F) -> ResponseBody<WriterBody>
where
    F: FnOnce(&mut tower_offload::stream::Writer) -> io::Result<()> + Send + 'static,
{
    let write = Arc::new(Mutex::new(Some(write)));
    let handler = service_fn(move |_: Request<String>| {
        let body = writer(write.lock().unwrap().take().unwrap());
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(pools).body(policy).layer(handler);
    in_time(service.oneshot(request("GET", "/"))).await.unwrap().into_body()
}

#[tokio::test]
async fn a_writer_gathers_small_writes_and_sends_a_large_one_in_few_frames() {
    const LENGTHS: [usize; 8] = [10, 100_000, 16 * 1024, 7, 64 * 1024, 1, 200_000, 20 * 1024];
    let all: Vec<u8> = (0..LENGTHS.iter().sum()).map(|place: usize| (place % 251) as u8).collect();
    let source = all.clone();
    let mut body = written(&pools_of(1, 5), BodyPolicy::in_pool(), move |out| {
        let mut rest = &source[..];
        for length in LENGTHS {
            out.write_all(rest.split_off(..length).unwrap())?;
        }
        Ok(())
    })
    .await;
    let (mut received, mut lengths) = (Vec::new(), Vec::new());
    while let Some(frame) = in_time(body.frame()).await {
        let frame = frame.unwrap().into_data().unwrap();
        lengths.push(frame.len());
        received.extend_from_slice(&frame);
    }
    assert_eq!(received, all);
    let (small, large) = (16 * 1024, 64 * 1024);
    assert!(lengths.iter().all(|&length| length <= large), "{lengths:?}");
    let (last, others) = lengths.split_last().unwrap();
    assert!(others.iter().all(|&length| length >= small), "{lengths:?}");
    assert!(*last > 0 && lengths.contains(&large), "{lengths:?}");
}

#[tokio::test]
async fn a_writer_learns_that_its_client_has_left_or_stalled() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let endless = move |out: &mut tower_offload::stream::Writer| -> io::Result<()> {
        loop {
            if let Err(error) = out.write_all(&[7; 1024]) {
                tell.send((error.kind(), checkpoint().is_err())).unwrap();
                return Err(error);
            }
        }
    };
    let pools = pools_of(2, 5);
    let mut body = written(&pools, BodyPolicy::default(), endless.clone()).await;
    next(&mut body).await.unwrap().unwrap();
    drop(body);
    assert_eq!(in_time(told.recv()).await.unwrap(), (io::ErrorKind::BrokenPipe, true));
    let policy = BodyPolicy::default().stall_timeout(Duration::from_millis(50));
    let mut body = written(&pools, policy, endless).await;
    assert_eq!(in_time(told.recv()).await.unwrap().0, io::ErrorKind::TimedOut);
    assert_eq!(stats_of(&pools, "cpu").streams, 0);
    assert!(is_stalled(&*next(&mut body).await.unwrap().unwrap_err()));
    until("the permits are released", || in_flight(&pools) == 0).await;
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.cancelled, counts.stalled), (1, 1));
}

#[tokio::test]
async fn a_request_for_the_head_alone_of_what_a_writer_writes_is_not_cancelled() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = service_fn(move |request: Request<String>| {
        let tell = tell.clone();
        let body = writer(move |out| {
            tell.send(None).unwrap();
            let written = out.write_all(&[7; 1024 * 1024]);
            tell.send(Some(checkpoint().is_ok())).unwrap();
            written
        });
        let status = if request.method() == "HEAD" { 200 } else { 304 };
        async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
    });
    for (method, policy) in [("HEAD", BodyPolicy::default()), ("GET", BodyPolicy::in_pool().hold())] {
        let pools = pools_of(1, 5);
        let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(handler.clone());
        let response = in_time(service.oneshot(request(method, "/"))).await.unwrap();
        assert_eq!(in_time(told.recv()).await.unwrap(), None, "{method}: the writer runs");
        drop(response);
        assert_eq!(in_time(told.recv()).await.unwrap(), Some(true), "{method}: its caller has not left");
        until("the permit is released", || in_flight(&pools) == 0).await;
        let counts = stats_of(&pools, "cpu").counts;
        assert_eq!((counts.ok, counts.cancelled, counts.error), (1, 0, 0), "{method}");
    }
}

#[tokio::test]
async fn a_writer_whose_body_is_not_sent_does_not_run_and_its_request_is_not_cancelled() {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let write = move || {
        let count = count.clone();
        writer(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(())
        })
    };
    let (first, second) = (write.clone(), write);
    let router =
        axum::Router::new().route("/head", axum::routing::get(async move || axum::body::Body::new(first()))).route(
            "/instead",
            axum::routing::get(async move || {
                drop(second());
                tokio::task::yield_now().await;
                "another body"
            }),
        );
    for (method, path, expected) in [("HEAD", "/head", ""), ("GET", "/instead", "another body")] {
        for policy in [BodyPolicy::default(), BodyPolicy::in_pool().hold()] {
            let pools = pools_of(1, 5);
            let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(router.clone());
            let request = Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
            let response = in_time(service.oneshot(request)).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(in_time(response.into_body().collect()).await.unwrap().to_bytes(), expected);
            until("the permit is released", || in_flight(&pools) == 0).await;
            let counts = stats_of(&pools, "cpu").counts;
            assert_eq!((counts.ok, counts.cancelled, counts.error), (1, 0, 0), "{path}");
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_second_writer_of_a_task_has_the_policy_of_its_layer() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = service_fn(move |_: Request<String>| {
        let tell = tell.clone();
        let first = writer(|_| Ok::<_, io::Error>(()));
        let second = writer(move |out| {
            let failed = out.write_all(&[7; 1024 * 1024]);
            tell.send(failed.map_err(|error| error.kind())).unwrap();
            Ok::<_, io::Error>(())
        });
        drop(first);
        async { Ok::<_, Infallible>(Response::new(second)) }
    });
    let pools = pools_of(1, 5);
    let policy = BodyPolicy::default().stall_timeout(Duration::from_millis(50));
    let service = PoolLayer::<Cpu>::new(&pools).body(policy).layer(handler);
    let mut response = in_time(service.oneshot(request("GET", "/"))).await.unwrap();
    assert!(next(response.body_mut()).await.unwrap().is_ok());
    assert_eq!(in_time(told.recv()).await.unwrap(), Err(io::ErrorKind::TimedOut));
}

#[tokio::test]
async fn a_writer_that_fails_or_panics_ends_its_body_with_an_error() {
    let pools = pools_of(2, 5);
    let lines = Arc::default();
    let logging = tracing::subscriber::set_default(log_of(&lines));
    let mut body = written(&pools, BodyPolicy::default(), |out| {
        write!(out, "half")?;
        Err(io::Error::other("the disk is gone"))
    })
    .await;
    let error = loop {
        match next(&mut body).await.expect("it does not end well") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the disk is gone");
    drop(logging);
    let line = " WARN a body could not be written to its end: the disk is gone pool=\"cpu\"\n";
    assert_eq!(String::from_utf8_lossy(&lines.lock().unwrap()), line);
    let mut body = written(&pools, BodyPolicy::default(), |_| panic!("in the writer")).await;
    let error = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&BodyError::CutOff));
    until("the permits are released", || in_flight(&pools) == 0).await;
    let counts = stats_of(&pools, "cpu").counts;
    assert_eq!((counts.error, counts.panicked), (1, 1));
}

#[tokio::test]
async fn a_writer_outside_of_a_pool_runs_on_a_blocking_thread() {
    let body = writer(|out| write!(out, "{}", place()));
    assert_eq!(in_time(body.collect()).await.unwrap().to_bytes(), "inline");
}

#[tokio::test]
async fn a_queued_stream_begins_when_a_held_one_ends() {
    let pools = pools_of(2, 8);
    let gate = Gate::new();
    let (open, handled) = (gate.clone(), gate.clone());
    let handler = service_fn(move |_: Request<String>| {
        let (body, author) = script();
        let open = handled.clone();
        tokio::spawn(async move {
            author.data("begun");
            open.pass().await;
        });
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let service = PoolLayer::<Cpu>::new(&pools).body(BodyPolicy::on_connection().hold()).layer(handler);
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let call = service.clone().oneshot(request("GET", "/"));
            tokio::spawn(async move { call.await.unwrap().into_body().collect().await.unwrap().to_bytes() })
        })
        .collect();
    for _ in 0..5 {
        open.arrived(2).await;
        assert_eq!((open.waiting(), in_flight(&pools)), (0, 2), "two run");
        open.open(2);
    }
    for client in clients {
        assert_eq!(in_time(client).await.unwrap(), "begun");
    }
}
