//! The future of a response: it brings the request into its pool, and waits there for the answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project::pin_project;
use tower_service::Service;

use super::call::Call;
use crate::admission::Outcome;
use crate::error::{Cause, JobError, Rejection};
use crate::pool::{Pending, Pool, Submission};
use crate::reject::Reject;
use crate::workload::Workload;

/// The future of [`PoolService`](crate::PoolService).
///
/// The request is submitted when this is first polled. Dropping it cancels the request.
#[pin_project]
pub struct ResponseFuture<S, Req, R>
where
    S: Service<Req>,
    R: Reject<Req, S::Response, S::Error>,
{
    #[pin]
    state: State<S, Req>,
    reject: R,
    /// Taken by a rejection.
    hint: Option<R::Hint>,
    resume_panics: bool,
}

#[pin_project(project = StateProj)]
enum State<S: Service<Req>, Req> {
    /// Not polled yet.
    Chosen { pool: Pool, call: Option<Call<S, Req>> },
    /// No pool was chosen.
    Inline {
        #[pin]
        future: S::Future,
    },
    /// The first poll found that this thread is a worker of the chosen pool.
    Here {
        #[pin]
        call: Call<S, Req>,
    },
    /// A worker polls it.
    Pending { pending: Pending<Answer<S, Req>> },
    /// The chosen pool does not exist.
    Unknown { name: Workload },
}

/// What the inner service gives.
type Answer<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

impl<S, Req, R> ResponseFuture<S, Req, R>
where
    S: Service<Req>,
    R: Reject<Req, S::Response, S::Error>,
{
    pub(super) fn inline(future: S::Future, reject: R, hint: R::Hint) -> Self {
        Self { state: State::Inline { future }, reject, hint: Some(hint), resume_panics: false }
    }

    pub(super) fn new(
        way: Result<(Pool, Call<S, Req>), Workload>,
        reject: R,
        hint: R::Hint,
        resume_panics: bool,
    ) -> Self {
        let state = match way {
            Ok((pool, call)) => State::Chosen { pool, call: Some(call) },
            Err(name) => State::Unknown { name },
        };
        Self { state, reject, hint: Some(hint), resume_panics }
    }
}

impl<S, Req, R> Future for ResponseFuture<S, Req, R>
where
    S: Service<Req> + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    R: Reject<Req, S::Response, S::Error>,
{
    type Output = Result<R::Response, R::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = loop {
            let next = match this.state.as_mut().project() {
                StateProj::Inline { future } => break Ok(ready!(future.poll(cx))),
                StateProj::Here { call } => break Ok(ready!(call.poll(cx))),
                StateProj::Pending { pending } => {
                    let answer = ready!(Pin::new(&mut *pending).poll(cx));
                    break answer.map_err(|error| rejection(pending.pool(), error, *this.resume_panics));
                }
                StateProj::Unknown { name } => break Err(Rejection::new(name.clone(), Cause::UnknownPool, None)),
                StateProj::Chosen { pool, call } => {
                    let call = call.take().expect("a request is submitted once");
                    if pool.is_current() {
                        State::Here { call }
                    } else {
                        match submit(pool, call, this.reject) {
                            Ok(pending) => State::Pending { pending },
                            Err(rejection) => break Err(rejection),
                        }
                    }
                }
            };
            this.state.set(next);
        };
        Poll::Ready(match answer {
            Ok(Ok(response)) => Ok(this.reject.pass(response)),
            Ok(Err(error)) => Err(this.reject.fail(error)),
            Err(rejection) => {
                let hint = this.hint.take().expect("a response is given once");
                this.reject.reject(hint, rejection)
            }
        })
    }
}

/// Why a request that was submitted has no answer.
fn rejection(pool: &Workload, error: JobError, resume_panics: bool) -> Rejection {
    match error {
        JobError::Rejected(rejection) => rejection,
        JobError::UnknownPool(unknown) => Rejection::new(unknown.name().clone(), Cause::UnknownPool, None),
        JobError::Panicked(panic) if resume_panics => panic.resume(),
        JobError::Panicked(panic) => {
            tracing::error!(target: "tower_offload", %pool, "a handler panicked: {}", panic.message());
            Rejection::new(pool.clone(), Cause::Panicked, None)
        }
    }
}

fn submit<S, Req, R>(pool: &Pool, call: Call<S, Req>, reject: &R) -> Result<Pending<Answer<S, Req>>, Rejection>
where
    S: Service<Req> + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    R: Reject<Req, S::Response, S::Error>,
{
    let function = pool.is_verbose().then(|| call.request().map(|request| reject.describe(request))).flatten();
    pool.submit(Submission {
        future: call,
        function: || function.unwrap_or_default(),
        outcome_of: |result| if R::failed(result) { Outcome::Error } else { Outcome::Ok },
    })
}

impl<S, Req, R> fmt::Debug for ResponseFuture<S, Req, R>
where
    S: Service<Req>,
    R: Reject<Req, S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
