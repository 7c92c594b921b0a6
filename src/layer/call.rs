//! The part of a request that runs in the pool: the service's `call`, and the future that it returns.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::request_body::RequestBody;
use super::trace::Trace;
use crate::admission::Outcome;
use crate::body::{ReadError, ResponseContext};
use crate::reject::{OnReject, Protocol};
use crate::task::Boxed;

/// A ready service and its request. Polling it calls the service, polls the future that the service returned, and
/// converts the response.
///
/// It is boxed from the start, so that moving it into a pool does not copy the request, and the response future stays
/// small. If the body of the request is read first, that is done in the same box.
pub(super) type BoxedCall<S, B, Req, R, P> = Boxed<Call<S, B, Req, R, P>>;

#[pin_project]
pub(super) struct Call<S: Service<B::Request>, B: RequestBody<Req>, Req, R, P> {
    #[pin]
    state: State<S, S::Future, B::Request, B::Reading>,
    reject: R,
    protocol: P,
    expects_body: bool,
    trace: Option<Trace>,
    of: PhantomData<fn(Req)>,
}

#[pin_project(project = StateProj)]
enum State<S, F, Q, D> {
    /// The body of the request is read. `None` once it was.
    Reading {
        service: Option<S>,
        #[pin]
        request: D,
    },
    /// `None` if the call itself panicked.
    Ready { call: Option<(S, Q)> },
    Called {
        #[pin]
        future: F,
    },
}

/// The result of a call, with the response already converted.
pub(super) struct Answer<Res, Err> {
    pub(super) result: Result<Res, Err>,
    pub(super) outcome: Outcome,
}

impl<S, B, Req, R, P> Call<S, B, Req, R, P>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
{
    pub(super) fn boxed(
        service: S,
        request: B::Request,
        reject: R,
        protocol: P,
        expects_body: bool,
        trace: Option<Trace>,
    ) -> BoxedCall<S, B, Req, R, P> {
        let state = State::Ready { call: Some((service, request)) };
        Boxed::new(Self { state, reject, protocol, expects_body, trace, of: PhantomData })
    }

    /// A call whose request has a body that must be [read](Self::poll_read) first.
    pub(super) fn reading(
        service: S,
        request: B::Reading,
        reject: R,
        protocol: P,
        expects_body: bool,
    ) -> BoxedCall<S, B, Req, R, P> {
        let state = State::Reading { service: Some(service), request };
        Boxed::new(Self { state, reject, protocol, expects_body, trace: None, of: PhantomData })
    }

    /// Whether all of the body may have arrived with the head of the request.
    pub(super) fn is_brief(&self) -> bool {
        matches!(&self.state, State::Reading { request, .. } if B::is_brief(request))
    }

    /// Reads the body of the request. `trace` is called when it was read.
    pub(super) fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        trace: impl FnOnce() -> Option<Trace>,
    ) -> Poll<Result<(), ReadError>> {
        let mut this = self.project();
        let StateProj::Reading { service, request } = this.state.as_mut().project() else { return Poll::Ready(Ok(())) };
        let request = ready!(request.poll(cx))?;
        let call = service.take().map(|service| (service, request));
        this.state.set(State::Ready { call });
        *this.trace = trace();
        Poll::Ready(Ok(()))
    }
}

impl<S, B, Req, R, P> Call<S, B, Req, R, P>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
    P: Protocol<Req, S::Response, S::Error>,
{
    /// Polls the call inside of another task of its pool: its body is not that task's.
    pub(super) fn poll_here(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<R::Response, S::Error>> {
        self.poll_with(cx, false)
    }

    fn poll_with(self: Pin<&mut Self>, cx: &mut Context<'_>, in_pool: bool) -> Poll<Answer<R::Response, S::Error>> {
        let mut this = self.project();
        let entered = this.trace.as_mut().and_then(Trace::poll);
        let mut result = loop {
            match this.state.as_mut().project() {
                StateProj::Ready { call } => {
                    let (mut service, request) = call.take().expect("it is not polled after its call panicked");
                    let future = service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProj::Called { future } => break ready!(future.poll(cx)),
                StateProj::Reading { .. } => unreachable!("a request is submitted when its body was read"),
            }
        };
        drop(entered);
        if let Ok(response) = &mut result
            && let Some((queued, ran)) = this.trace.take().and_then(|trace| trace.times())
        {
            this.protocol.timed(response, queued, ran);
        }
        let outcome = if this.protocol.failed(&result) { Outcome::Error } else { Outcome::Ok };
        let context = if in_pool { ResponseContext::in_pool(*this.expects_body) } else { ResponseContext::inline() };
        let result = result.map(|response| this.reject.pass(response, &context));
        Poll::Ready(Answer { result, outcome })
    }
}

impl<S, B, Req, R, P> Future for Call<S, B, Req, R, P>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
    P: Protocol<Req, S::Response, S::Error>,
{
    type Output = Answer<R::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx, true)
    }
}
