//! `PoolService`: chooses the pool of each request.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::call::Call;
use super::future::{ResponseFuture, State};
use super::options::Options;
use crate::error::{Cause, Rejection};
use crate::reject::{Reject, Responses};
use crate::select::{Choice, Select, Target};
use crate::terms::Terms;

/// A service whose requests run in workload pools; made by [`PoolLayer`](crate::PoolLayer).
pub struct PoolService<S, W, R = Responses> {
    inner: S,
    choice: Arc<Choice<W>>,
    reject: R,
    options: Options,
}

impl<S, W, R> PoolService<S, W, R> {
    pub(super) const fn new(inner: S, choice: Arc<Choice<W>>, reject: R, options: Options) -> Self {
        Self { inner, choice, reject, options }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, W, R, Req> Service<Req> for PoolService<S, W, R>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    W: Select<Req>,
    R: Reject<Req, S::Response, S::Error>,
{
    type Response = R::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S, Req, R>;

    /// Only the inner service says whether it is ready: a full pool is an answer, not a wait.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.reject.fail(error))
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let hint = self.reject.hint(&request);
        let state = match self.choice.select(&request) {
            Target::Inline => State::Inline { future: self.inner.call(request) },
            Target::Unknown(name) => {
                State::Rejected { rejection: Some(Rejection::new(name, Cause::UnknownPool, None)) }
            }
            Target::Pool(pool) => match self.reject.terms(&mut request, pool.trust()) {
                Ok(terms) => {
                    let selector = &self.choice.selector;
                    let priority = selector.priority(&request).unwrap_or(terms.priority);
                    let caller = selector.caller(&request).or(terms.caller);
                    let terms = Terms { priority, caller, ..terms };
                    // The service that was made ready goes with the request; a fresh clone stays, to be made ready anew.
                    let clone = self.inner.clone();
                    let call = Call::boxed(mem::replace(&mut self.inner, clone), request);
                    State::Chosen { pool, call: Some(call), terms }
                }
                Err(bad) => {
                    let rejection = pool.turn_away(Cause::BadHeader, || self.reject.describe(&request));
                    State::Rejected { rejection: Some(rejection.with_detail(&bad)) }
                }
            },
        };
        ResponseFuture::new(state, self.reject.clone(), hint, self.options)
    }
}

impl<S: Clone, W, R: Clone> Clone for PoolService<S, W, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            choice: self.choice.clone(),
            reject: self.reject.clone(),
            options: self.options,
        }
    }
}

impl<S: fmt::Debug, W: fmt::Debug, R: fmt::Debug> fmt::Debug for PoolService<S, W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService")
            .field("inner", &self.inner)
            .field("choice", &self.choice)
            .field("reject", &self.reject)
            .finish_non_exhaustive()
    }
}
