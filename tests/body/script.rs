//! A body that follows a script, and a service that returns what it gets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Service, service_fn};

/// What a scripted body does at one poll.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing has arrived. The reader is woken at once.
    Wait,
    Fail,
    /// Nothing arrives any more.
    Stall,
}

/// A body that follows a script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) steps: VecDeque<Step>,
    /// Whether it announces its length.
    pub(crate) sized: bool,
    /// Whether it says that it has ended before it is polled for its end.
    pub(crate) tells_end: bool,
}

impl Script {
    pub(crate) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    /// A body that announces its length.
    pub(crate) fn sized(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { sized: true, tells_end: true, ..Self::of(steps) }
    }
}

pub(crate) fn data(text: &'static str) -> Step {
    Step::Data(Bytes::from_static(text.as_bytes()))
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err(io::Error::other("it broke off"))),
            Some(Step::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Stall) => {
                self.steps.push_front(Step::Stall);
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.sized {
            return SizeHint::default();
        }
        let lengths = self.steps.iter().map(|step| if let Step::Data(bytes) = step { bytes.len() as u64 } else { 0 });
        SizeHint::with_exact(lengths.sum())
    }
}

/// The body and the trailers that a handler gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// Reads a body frame by frame, and checks what it says about itself on the way.
pub(crate) async fn got<B>(body: B) -> Got
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let mut body = Box::pin(body);
    let mut got = Got::default();
    let (mut hint, mut before) = (body.size_hint(), 0);
    loop {
        let ended = body.is_end_stream();
        let Some(frame) = body.frame().await else { break };
        assert!(!ended, "a body that has ended gives {frame:?}");
        match frame.unwrap().into_data() {
            Ok(bytes) => got.bytes.extend_from_slice(&bytes),
            Err(frame) => assert!(got.trailers.replace(frame.into_trailers().unwrap()).is_none()),
        }
        let read = (got.bytes.len() - before) as u64;
        if let Some(exact) = hint.exact() {
            assert_eq!(body.size_hint().exact(), Some(exact - read));
        }
        (hint, before) = (body.size_hint(), got.bytes.len());
    }
    assert!(hint.lower() == 0, "{hint:?} is left of a body that has ended");
    got
}

/// A service whose response has what it got: the bytes as its body, and the trailers as an extension.
pub(crate) fn echo<B>()
-> impl Service<Request<B>, Response = Response<String>, Error = Infallible, Future: Send> + Clone
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
{
    service_fn(|request: Request<B>| async move {
        let Got { bytes, trailers } = got(request.into_body()).await;
        let mut response = Response::new(String::from_utf8(bytes).expect("it is text"));
        response.extensions_mut().insert(trailers);
        Ok(response)
    })
}
