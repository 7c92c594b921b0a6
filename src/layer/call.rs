//! The part of a request that runs in the pool: the service's `call`, and the future that it returns.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::trace::Trace;
use crate::admission::Outcome;
use crate::body::ResponseContext;
use crate::pool::Boxed;
use crate::reject::{OnReject, Protocol};

/// A ready service and its request. Polling it calls the service, polls the future that the service returned, and
/// converts the response.
///
/// It is boxed from the start, so that moving it into a pool does not copy the request, and the response future stays
/// small.
///
/// `Q` is the type of the request that the service gets, and `Req` that of the request that the layer got.
pub(super) type BoxedCall<S, Q, Req, R, P> = Boxed<Call<S, Q, Req, R, P>>;

#[pin_project]
pub(super) struct Call<S: Service<Q>, Q, Req, R, P> {
    #[pin]
    state: State<S, Q>,
    reject: R,
    expects_body: bool,
    trace: Option<Trace>,
    protocol: PhantomData<fn(Req) -> P>,
}

#[pin_project(project = StateProj)]
enum State<S: Service<Q>, Q> {
    /// `None` if the call itself panicked.
    Ready { call: Option<(S, Q)> },
    Called {
        #[pin]
        future: S::Future,
    },
}

/// The result of a call, with the response already converted.
pub(super) struct Answer<Res, Err> {
    pub(super) result: Result<Res, Err>,
    pub(super) outcome: Outcome,
}

impl<S, Q, Req, R, P> Call<S, Q, Req, R, P>
where
    S: Service<Q>,
    R: OnReject<Req, S::Response, S::Error>,
    P: Protocol<Req, S::Response, S::Error>,
{
    pub(super) fn boxed(
        service: S,
        request: Q,
        reject: R,
        expects_body: bool,
        trace: Option<Trace>,
    ) -> BoxedCall<S, Q, Req, R, P> {
        let state = State::Ready { call: Some((service, request)) };
        Boxed::new(Self { state, reject, expects_body, trace, protocol: PhantomData })
    }

    /// Polls the call inside of another task of its pool: its body is not that task's.
    pub(super) fn poll_here(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer<R::Response, S::Error>> {
        self.poll_with(cx, false)
    }

    fn poll_with(self: Pin<&mut Self>, cx: &mut Context<'_>, in_pool: bool) -> Poll<Answer<R::Response, S::Error>> {
        let mut this = self.project();
        let entered = this.trace.as_mut().and_then(|trace| trace.poll());
        let mut result = loop {
            match this.state.as_mut().project() {
                StateProj::Ready { call } => {
                    let (mut service, request) = call.take().expect("it is not polled after its call panicked");
                    let future = service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProj::Called { future } => break ready!(future.poll(cx)),
            }
        };
        drop(entered);
        if let Ok(response) = &mut result
            && let Some((queued, ran)) = this.trace.take().and_then(|trace| trace.times())
        {
            P::timed(response, queued, ran);
        }
        let outcome = if P::failed(&result) { Outcome::Error } else { Outcome::Ok };
        let context = if in_pool { ResponseContext::in_pool(*this.expects_body) } else { ResponseContext::inline() };
        let result = result.map(|response| this.reject.pass(response, &context));
        Poll::Ready(Answer { result, outcome })
    }
}

impl<S, Q, Req, R, P> Future for Call<S, Q, Req, R, P>
where
    S: Service<Q>,
    R: OnReject<Req, S::Response, S::Error>,
    P: Protocol<Req, S::Response, S::Error>,
{
    type Output = Answer<R::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx, true)
    }
}
