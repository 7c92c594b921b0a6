//! The future of a response: it submits the request to its pool and waits for the answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::{pin_project, pinned_drop};
use tower_service::Service;

use super::call::{Answer, BoxedCall};
use super::options::Options;
use crate::body::ResponseContext;
use crate::error::{Reason, Rejection, TaskError};
use crate::pool::{Pending, Pool, Submission, TaskOptions};
use crate::reject::{Http, OnReject, Protocol};
use crate::shield::shielded;
use crate::timer::Sleep;
use crate::workload::Workload;

/// The future of [`PoolService`](super::PoolService).
///
/// The request is submitted when this is first polled. Dropping it cancels the request, unless the layer
/// [detaches](crate::PoolLayer::detach) its handlers.
///
/// # Panics
///
/// If it is polled again after it gave the response. With [`resume_panics`](crate::PoolLayer::resume_panics), and for a
/// request that runs inline, also if the handler panics.
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req, R, P = Http>
where
    S: Service<Req>,
    R: OnReject<Req, S::Response, S::Error>,
{
    #[pin]
    state: State<S, Req, R, P>,
    reject: R,
    protocol: P,
    /// Taken by a rejection. A request that runs inline has none, because nothing rejects it.
    hint: Option<R::Hint>,
    options: Options,
}

#[pin_project(project = StateProj)]
pub(super) enum State<S, Req, R, P>
where
    S: Service<Req>,
    R: OnReject<Req, S::Response, S::Error>,
{
    /// The pool is chosen, and the request is not submitted yet. Submitting takes the call.
    Chosen { pool: Pool, call: Option<BoxedCall<S, Req, R, P>>, options: TaskOptions },
    /// No pool was chosen.
    Inline {
        #[pin]
        future: S::Future,
    },
    /// The first poll found that this thread is a worker of the chosen pool.
    Here { call: BoxedCall<S, Req, R, P> },
    /// The request was submitted.
    Pending { pending: Pending<Answer<R::Response, S::Error>>, late: Option<Sleep> },
    /// The request was rejected before it came to a pool.
    Rejected { rejection: Option<Rejection> },
}

impl<S, Req, R, P> ResponseFuture<S, Req, R, P>
where
    S: Service<Req>,
    R: OnReject<Req, S::Response, S::Error>,
{
    pub(super) fn new(state: State<S, Req, R, P>, reject: R, protocol: P, hint: Option<R::Hint>, options: Options) -> Self {
        Self { state, reject, protocol, hint, options }
    }
}

impl<S, Req, R, P> Future for ResponseFuture<S, Req, R, P>
where
    S: Service<Req> + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    R: OnReject<Req, S::Response, S::Error>,
    R::Response: Send + 'static,
    P: Protocol<Req, S::Response, S::Error>,
{
    type Output = Result<R::Response, R::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Inline { future } => {
                    let result = ready!(future.poll(cx));
                    break Ok(result.map(|response| this.reject.pass(response, &ResponseContext::inline())));
                }
                StateProj::Here { call } => {
                    let call = call.as_pin_mut().expect("its content was not dropped");
                    break Ok(ready!(call.poll_here(cx)).result);
                }
                StateProj::Pending { pending, late } => {
                    match ready!(poll_pending(pending, late.as_mut(), this.options, cx)) {
                        Ok(answer) => break Ok(answer.result),
                        // Dropping the pending call cancels it before the caller gets its response, even if the caller
                        // keeps this future.
                        Err(rejection) => State::Rejected { rejection: Some(rejection) },
                    }
                }
                StateProj::Rejected { rejection } => {
                    break Err(rejection.take().expect("a response is given once"));
                }
                StateProj::Chosen { pool, call, options } => {
                    let call = call.take().expect("a request is submitted once");
                    if pool.is_current() {
                        State::Here { call }
                    } else {
                        match submit(pool, call, *options, this.options, this.protocol) {
                            Ok(pending) => State::Pending { pending, late: this.options.late_after(options.deadline) },
                            Err(rejection) => break Err(rejection),
                        }
                    }
                }
            };
            this.state.set(next);
        };
        Poll::Ready(match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(this.reject.fail(error)),
            Err(rejection) => {
                let hint = this.hint.take().expect("a request that can be rejected has a hint, and is answered once");
                this.reject.reject(hint, rejection)
            }
        })
    }
}

fn poll_pending<T>(
    pending: &mut Pending<T>,
    late: Option<&mut Sleep>,
    options: &Options,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Rejection>> {
    if let Poll::Ready(answer) = Pin::new(&mut *pending).poll(cx) {
        return Poll::Ready(answer.map_err(|error| rejection(pending.pool(), error, options)));
    }
    // At the deadline the caller gets its response, and dropping the pending call cancels it.
    let late = late.is_some_and(|late| Pin::new(late).poll(cx).is_ready());
    if late { Poll::Ready(Err(pending.too_late())) } else { Poll::Pending }
}

/// The reason why a submitted request has no response.
fn rejection(pool: &Workload, error: TaskError, options: &Options) -> Rejection {
    match error {
        TaskError::Rejected(rejection) | TaskError::CutOff(rejection) => rejection,
        TaskError::UnknownPool(unknown) => Rejection::new(unknown.name().clone(), Reason::UnknownPool, None),
        TaskError::Panicked(panic) if options.resume_panics => panic.resume(),
        TaskError::Panicked(panic) => {
            shielded(|| tracing::error!(target: "tower_offload", %pool, "a handler panicked: {}", panic.message()));
            Rejection::new(pool.clone(), Reason::Panicked, None)
        }
    }
}

fn submit<S, Req, R, P>(
    pool: &Pool,
    call: BoxedCall<S, Req, R, P>,
    options: TaskOptions,
    layer: &Options,
    protocol: &P,
) -> Result<Pending<Answer<R::Response, S::Error>>, Rejection>
where
    S: Service<Req> + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    R: OnReject<Req, S::Response, S::Error>,
    R::Response: Send + 'static,
    P: Protocol<Req, S::Response, S::Error>,
{
    let function = pool.is_verbose().then(|| call.get()?.request().map(|request| protocol.describe(request))).flatten();
    if pool.is_full_of_streams() {
        return Err(pool.count_rejected(Reason::StreamsFull, || function.unwrap_or_default()));
    }
    let submitted = pool.submit_future(Submission {
        future: call,
        options,
        function: || function.clone().unwrap_or_default(),
        outcome_of: |answer| answer.outcome,
        body: layer.body.clone(),
        patient: false,
    });
    submitted.map_err(|rejected| rejected.rejection)
}

/// Lets the handler of a client that has left run to its end, if the layer detaches handlers.
#[pinned_drop]
impl<S, Req, R, P> PinnedDrop for ResponseFuture<S, Req, R, P>
where
    S: Service<Req>,
    R: OnReject<Req, S::Response, S::Error>,
{
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let (StateProj::Pending { pending, .. }, true) = (this.state.project(), this.options.detach) {
            pending.detach();
        }
    }
}

impl<S, Req, R, P> fmt::Debug for ResponseFuture<S, Req, R, P>
where
    S: Service<Req>,
    R: OnReject<Req, S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
