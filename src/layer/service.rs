//! `PoolService`: chooses the pool of each request.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::call::Call;
use super::future::{ResponseFuture, State};
use super::options::Options;
use crate::error::{Reason, Rejection};
use crate::pool::TaskOptions;
use crate::reject::{Http, OnReject, Protocol, Responses};
use crate::select::{Select, Target};

/// A service whose requests run in workload pools; made by [`PoolLayer`](crate::PoolLayer).
pub struct PoolService<S, W, R = Responses, P = Http> {
    inner: S,
    selector: Arc<W>,
    reject: R,
    protocol: P,
    options: Options,
}

impl<S, W, R, P> PoolService<S, W, R, P> {
    pub(super) const fn new(inner: S, selector: Arc<W>, reject: R, protocol: P, options: Options) -> Self {
        Self { inner, selector, reject, protocol, options }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, W, R, P, Req> Service<Req> for PoolService<S, W, R, P>
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    Req: Send + 'static,
    W: Select<Req>,
    R: OnReject<Req, S::Response, S::Error>,
    R::Response: Send + 'static,
    P: Protocol<Req, S::Response, S::Error>,
{
    type Response = R::Response;
    type Error = R::Error;
    type Future = ResponseFuture<S, Req, R, P>;

    /// Ready when the inner service is. A full pool rejects requests; it does not delay readiness.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.inner.poll_ready(cx).map_err(|error| self.reject.fail(error))
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        if self.protocol.runs_inline(&request) {
            return self.run_inline(request);
        }
        let selection = self.selector.select(&request);
        let pool = match selection.target {
            Target::Inline => return self.run_inline(request),
            Target::Pool(pool) => Ok(pool),
            Target::Unknown(name) => Err(Rejection::new(name, Reason::UnknownPool, None)),
        };
        let hint = self.reject.hint(&request);
        let state = match pool.map(|pool| (self.protocol.terms(&mut request, pool.trust()), pool)) {
            Ok((Ok(terms), pool)) => {
                let options = TaskOptions::of_request(terms, selection.priority, selection.caller);
                // The service that was made ready goes with the request. A fresh clone stays, to be made ready anew.
                let clone = self.inner.clone();
                let call = Call::boxed(mem::replace(&mut self.inner, clone), request, self.reject.clone());
                State::Chosen { pool, call: Some(call), options }
            }
            Ok((Err(bad), pool)) => {
                let rejection = pool.count_rejected(Reason::BadHeader, || self.protocol.describe(&request));
                State::Rejected { rejection: Some(rejection.with_detail(&bad)) }
            }
            Err(unknown) => State::Rejected { rejection: Some(unknown) },
        };
        let options = selection.options.union(&self.options);
        ResponseFuture::new(state, self.reject.clone(), self.protocol.clone(), Some(hint), options)
    }
}

impl<S, W, R, P> PoolService<S, W, R, P> {
    fn run_inline<Req>(&mut self, request: Req) -> ResponseFuture<S, Req, R, P>
    where
        S: Service<Req>,
        R: OnReject<Req, S::Response, S::Error>,
        P: Clone,
    {
        let state = State::Inline { future: self.inner.call(request) };
        ResponseFuture::new(state, self.reject.clone(), self.protocol.clone(), None, self.options.clone())
    }
}

/// The clone shares the selector.
impl<S: Clone, W, R: Clone, P: Clone> Clone for PoolService<S, W, R, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            selector: Arc::clone(&self.selector),
            reject: self.reject.clone(),
            protocol: self.protocol.clone(),
            options: self.options.clone(),
        }
    }
}

impl<S: fmt::Debug, W: fmt::Debug, R: fmt::Debug, P: fmt::Debug> fmt::Debug for PoolService<S, W, R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService")
            .field("inner", &self.inner)
            .field("selector", &self.selector)
            .field("reject", &self.reject)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
