//! The future of a response: it submits the request to its pool and waits for the answer.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::{pin_project, pinned_drop};
use tower_service::Service;

use super::call::{Answer, BoxedCall};
use super::options::Options;
use super::request_body::{RequestBody, Unread};
use super::trace::Trace;
use crate::body::ResponseContext;
use crate::error::{Reason, Rejection, TaskError};
use crate::pool::{CancelOnDrop, Pool, Submission, TaskOptions};
use crate::reject::{Http, OnReject, Protocol};
use crate::shield::shielded;
use crate::timer::Sleep;
use crate::workload::Workload;

/// The future of [`PoolService`](super::PoolService).
///
/// The request is submitted when this is first polled, or when its body was read. Dropping it cancels the request,
/// unless the layer [detaches](crate::PoolLayer::detach) its handlers.
///
/// # Panics
///
/// If it is polled again after it gave the response. With [`resume_panics`](crate::PoolLayer::resume_panics), and for a
/// request that runs inline, also if the handler panics.
#[pin_project(PinnedDrop)]
pub struct ResponseFuture<S, Req, R, P = Http, B = Unread>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    #[pin]
    state: State<S, Req, R, P, B>,
    reject: R,
    protocol: P,
    /// Taken by a rejection. A request that runs inline has none, because nothing rejects it.
    hint: Option<R::Hint>,
    options: Options,
}

#[pin_project(project = StateProj)]
pub(super) enum State<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    /// The pool is chosen, and the body of the request must be read.
    Reading { pool: Pool, reading: Reading<S, Req, R, P, B>, task: Task },
    /// The pool is chosen, and the request is not submitted yet. Submitting takes the call.
    Chosen { pool: Pool, call: Option<BoxedCall<S, B, Req, R, P>>, task: Task },
    /// No pool was chosen.
    Inline {
        #[pin]
        future: S::Future,
    },
    /// The first poll found that this thread is a worker of the chosen pool.
    Here { call: BoxedCall<S, B, Req, R, P> },
    /// The request was submitted.
    Pending { pending: PendingAnswer<R::Response, S::Error>, late: Option<Sleep> },
    /// The request was rejected before it came to a pool.
    Rejected { rejection: Option<Rejection> },
}

type PendingAnswer<Res, Err> = CancelOnDrop<Answer<Res, Err>>;

/// How the request is submitted.
#[derive(Default)]
pub(super) struct Task {
    pub(super) options: TaskOptions,
    /// The name of the request in the log, if tasks are logged.
    pub(super) function: Option<String>,
}

/// A request whose body must be read, and the service that was made ready for it.
pub(super) struct Reading<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    /// Taken when the body was read.
    call: Option<BoxedCall<S, B, Req, R, P>>,
    /// The hint for a rejection after the body was read.
    hint: Option<R::Hint>,
    /// Whether the pool was asked if it would reject the request.
    begun: bool,
}

impl<S, Req, R, P, B> ResponseFuture<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    pub(super) fn new(
        state: State<S, Req, R, P, B>,
        reject: R,
        protocol: P,
        hint: Option<R::Hint>,
        options: Options,
    ) -> Self {
        Self { state, reject, protocol, hint, options }
    }
}

impl<S, Req, R, P, B> Future for ResponseFuture<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    B::Request: Send + 'static,
    S: Service<B::Request> + Send + 'static,
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
                StateProj::Reading { pool, reading, task } => {
                    match ready!(reading.poll(pool, task, this.options, cx)) {
                        Ok(()) => {
                            *this.hint = reading.hint.take();
                            State::Chosen { pool: pool.clone(), call: reading.call.take(), task: mem::take(task) }
                        }
                        Err(rejection) => State::Rejected { rejection: Some(rejection) },
                    }
                }
                StateProj::Chosen { pool, call, task } => {
                    let call = call.take().expect("a request is submitted once");
                    if pool.is_current() {
                        State::Here { call }
                    } else {
                        let deadline = task.options.deadline;
                        match submit(pool, call, mem::take(task), this.options) {
                            Ok(pending) => State::Pending { pending, late: this.options.late_after(deadline) },
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
    pending: &mut CancelOnDrop<T>,
    late: Option<&mut Sleep>,
    options: &Options,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Rejection>> {
    if let Poll::Ready(answer) = Pin::new(&mut *pending).poll(cx) {
        return Poll::Ready(answer.map_err(|error| rejection(pending.pool(), error, options)));
    }
    if late.is_none_or(|late| Pin::new(late).poll(cx).is_pending()) {
        return Poll::Pending;
    }
    // At the deadline the caller gets its response. Dropping the pending call cancels it, unless it is detached.
    let rejection = pending.too_late();
    if options.detach && rejection.started() {
        pending.detach();
    }
    Poll::Ready(Err(rejection))
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

fn submit<S, B, Req, R, P>(
    pool: &Pool,
    call: BoxedCall<S, B, Req, R, P>,
    task: Task,
    layer: &Options,
) -> Result<PendingAnswer<R::Response, S::Error>, Rejection>
where
    B: RequestBody<Req>,
    B::Request: Send + 'static,
    S: Service<B::Request> + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: 'static,
    R: OnReject<Req, S::Response, S::Error>,
    R::Response: Send + 'static,
    P: Protocol<Req, S::Response, S::Error>,
{
    let Task { options, function } = task;
    let function = || function.clone().unwrap_or_default();
    let task = Submission::new(call, options, function, |answer| answer.outcome);
    let submitted = pool.submit_future(Submission { body: layer.body.clone(), may_stream: true, ..task });
    submitted.map_err(|rejected| rejected.rejection)
}

impl<S, Req, R, P, B> Reading<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    pub(super) fn new(call: BoxedCall<S, B, Req, R, P>, hint: R::Hint) -> Self {
        Self { call: Some(call), hint: Some(hint), begun: false }
    }

    /// Reads the body, unless the pool would reject the request now.
    ///
    /// A brief body is polled first, because it has often arrived with the head. If all of it is there, nothing is read
    /// in vain, and the pool decides once.
    fn poll(&mut self, pool: &Pool, task: &Task, layer: &Options, cx: &mut Context<'_>) -> Poll<Result<(), Rejection>> {
        let Self { call, begun, .. } = self;
        let function = || task.function.clone().unwrap_or_default();
        let mut request = call.as_mut().and_then(BoxedCall::as_pin_mut).expect("a body is read once");
        let would_reject = || if pool.is_current() { None } else { pool.reject_early(task.options, true, function) };
        let is_new = !mem::replace(begun, true);
        let ask_last = is_new && request.is_brief();
        if is_new
            && !ask_last
            && let Some(rejection) = would_reject()
        {
            return Poll::Ready(Err(rejection));
        }
        let read = match request.as_mut().poll_read(cx, || Trace::begin(layer, pool.name())) {
            Poll::Ready(read) => read,
            Poll::Pending if ask_last => {
                return would_reject().map_or(Poll::Pending, |rejection| Poll::Ready(Err(rejection)));
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(read.map_err(|error| {
            let rejection = pool.count_rejected(error.reason(), function);
            rejection.with_detail(&error).with_retry_after(error.retry_after())
        }))
    }
}

/// Lets the handler of a client that has left run to its end, if the layer detaches handlers.
#[pinned_drop]
impl<S, Req, R, P, B> PinnedDrop for ResponseFuture<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    fn drop(self: Pin<&mut Self>) {
        let this = self.project();
        if let (StateProj::Pending { pending, .. }, true) = (this.state.project(), this.options.detach) {
            pending.detach();
        }
    }
}

impl<S, Req, R, P, B> fmt::Debug for ResponseFuture<S, Req, R, P, B>
where
    B: RequestBody<Req>,
    S: Service<B::Request>,
    R: OnReject<Req, S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
