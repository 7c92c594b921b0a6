//! What the layers that watch cost in process, over a service that does nothing: the load report of a response, and the
//! clock of an observed poll.
//!
//! The service with the layer and the service without it take turns, a few thousand requests each. A figure is the median
//! of the differences, so that a disturbance affects neither.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tower::{Layer, Service};
use tower_offload::report::LoadReport;
use tower_offload::{PoolLayer, Pools};

use crate::harness::{self, Case, Column, Harness, Scenario, Target};

/// How often the two services take turns in a round.
const TURNS: usize = 100;
const REQUESTS: usize = 2_000;
/// How many polls an observed request takes.
const POLLS: usize = 1_000;

const TEXT: &str = "text";
const JSON: &str = "json";
const BINARY: &str = "bin";

/// A service whose response is there at once, with one header.
#[derive(Clone)]
struct Trivial;

/// A service whose response takes many polls.
#[derive(Clone)]
struct Slow;

/// Ready when it was polled this often.
struct AfterPolls(usize);

/// A body of no bytes.
struct Empty;

pub fn run(harness: &mut Harness) {
    let turns = harness.times(TURNS);
    let pools = Pools::default();
    let report = LoadReport::new(&pools);
    harness.run(Scenario {
        name: "watching, load report of a response".to_owned(),
        columns: &[Column { name: "the report", unit: "ns" }],
        cases: [TEXT, JSON, BINARY].map(|format| case(format, || report_of(&report, format, turns))).into(),
        baseline: TEXT,
        target: Some(Target {
            text: "at most 100 ns in every form",
            reached: |medians| [TEXT, JSON, BINARY].iter().all(|format| medians.of(format, 0) <= 100.0),
        }),
    });
    let observed = PoolLayer::observe(&pools).layer(Slow);
    harness.run(Scenario {
        name: "watching, observe".to_owned(),
        columns: &[Column { name: "a poll", unit: "ns" }],
        cases: vec![case("observe", || {
            vec![difference(
                turns,
                POLLS,
                || call(&mut observed.clone(), Request::new(())),
                || call(&mut Slow, Request::new(())),
            )]
        })],
        baseline: "observe",
        target: Some(Target { text: "at most 60 ns", reached: |medians| medians.of("observe", 0) <= 60.0 }),
    });
}

fn case<'a>(name: &'static str, sample: impl FnMut() -> Vec<f64> + 'a) -> Case<'a> {
    Case { name, sample: Box::new(sample) }
}

/// The nanoseconds that the report in this form takes.
fn report_of(report: &LoadReport, format: &'static str, turns: usize) -> Vec<f64> {
    let request = || {
        let mut request = Request::new(());
        request.headers_mut().insert("endpoint-load-metrics-format", HeaderValue::from_static(format));
        request
    };
    let mut reported = report.layer(Trivial);
    let with = many(|| call(&mut reported, request()));
    let without = many(|| call(&mut Trivial, request()));
    vec![difference(turns, REQUESTS, with, without)]
}

fn many(mut one: impl FnMut()) -> impl FnMut() {
    move || (0..REQUESTS).for_each(|_| one())
}

/// How many nanoseconds longer one of `count` takes, in the median of the turns.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn difference(turns: usize, count: usize, mut with: impl FnMut(), mut without: impl FnMut()) -> f64 {
    let mut differences: Vec<_> = (0..turns)
        .map(|_| {
            let nanos = |took: Duration| took.as_secs_f64() * 1e9 / count as f64;
            nanos(time(&mut with)) - nanos(time(&mut without))
        })
        .collect();
    harness::quantile(&mut differences, 0.5)
}

fn time(run: &mut impl FnMut()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

/// Calls the service and polls its future until the response is there.
fn call<S>(service: &mut S, request: Request<()>)
where
    S: Service<Request<()>>,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(service.call(request));
    while future.as_mut().poll(&mut context).is_pending() {}
}

impl Service<Request<()>> for Trivial {
    type Response = Response<Empty>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Empty>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(request);
        let mut response = Response::new(Empty);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        ready(Ok(response))
    }
}

impl Service<Request<()>> for Slow {
    type Response = ();
    type Error = Infallible;
    type Future = AfterPolls;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<()>) -> Self::Future {
        AfterPolls(POLLS)
    }
}

impl Future for AfterPolls {
    type Output = Result<(), Infallible>;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0 = black_box(self.0 - 1);
        if self.0 == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Body for Empty {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(None)
    }
}
