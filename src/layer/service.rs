//! `PoolService`: chooses the pool of each request.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::call::Call;
use super::future::{Reading, ResponseFuture, State, Task};
use super::options::Options;
use super::request_body::{RequestBody, Unread};
use super::trace::Trace;
use crate::error::{Reason, Rejection};
use crate::inner_service::inner_service;
use crate::pool::{Pool, TaskOptions};
use crate::reject::{Http, OnReject, Protocol, Responses};
use crate::select::{Select, Target};
use crate::shield::shielded;
use crate::terms::Deadline;

/// A service whose requests run in workload pools; made by [`PoolLayer`](crate::PoolLayer).
pub struct PoolService<S, W, R = Responses, P = Http, B = Unread> {
    inner: S,
    selector: Arc<W>,
    reject: R,
    protocol: P,
    body: B,
    options: Options,
}

impl<S, W, R, P, B> PoolService<S, W, R, P, B> {
    pub(super) const fn new(inner: S, selector: Arc<W>, reject: R, protocol: P, body: B, options: Options) -> Self {
        Self { inner, selector, reject, protocol, body, options }
    }

    inner_service!();
}

impl<S, W, R, P, B, Req> Service<Req> for PoolService<S, W, R, P, B>
where
    B: RequestBody<Req>,
    B::Request: Send + 'static,
    S: Service<B::Request> + Clone + Send + 'static,
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
    type Future = ResponseFuture<S, Req, R, P, B>;

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
            Target::Unknown(name) => {
                // It is a fault of the application, and no pool counts it.
                let why = "a request was rejected, because its selector named a pool that does not exist";
                shielded(|| tracing::error!(target: "tower_offload", pool = ?name, "{why}"));
                Err(Rejection::new(name, Reason::UnknownPool, None))
            }
        };
        let layer = selection.options.union(&self.options);
        let hint = self.reject.hint(&request);
        let state = match pool.map(|pool| (self.protocol.terms(&mut request, &pool.plan().trust), pool)) {
            Ok((Ok(terms), pool)) => {
                let options = TaskOptions::of_request(terms, selection.priority, selection.caller);
                self.chosen(pool, options, &layer, request)
            }
            Ok((Err(bad), pool)) => {
                let rejection = pool.count_rejected(Reason::BadHeader, || self.protocol.describe(&request));
                State::Rejected { rejection: Some(rejection.with_detail(&bad)) }
            }
            Err(unknown) => State::Rejected { rejection: Some(unknown) },
        };
        ResponseFuture::new(state, self.reject.clone(), self.protocol.clone(), Some(hint), layer)
    }
}

impl<S, W, R, P, B> PoolService<S, W, R, P, B> {
    /// The state of a request that a pool is chosen for.
    fn chosen<Req>(&mut self, pool: Pool, options: TaskOptions, layer: &Options, request: Req) -> State<S, Req, R, P, B>
    where
        B: RequestBody<Req>,
        S: Service<B::Request> + Clone,
        R: OnReject<Req, S::Response, S::Error>,
        P: Protocol<Req, S::Response, S::Error>,
    {
        let task = Task { options, function: pool.plan().verbose.then(|| self.protocol.describe(&request)) };
        let expects_body = self.protocol.expects_body(&request);
        // The service that was made ready goes with the request. A fresh clone stays, to be made ready anew.
        let clone = self.inner.clone();
        let service = mem::replace(&mut self.inner, clone);
        let deadline = options.deadline.map(Deadline::moment);
        let look = |request: &Req| self.reject.hint(request);
        match self.body.read(request, look, pool.body_budget(), deadline) {
            Ok((request, hint)) => {
                let call = Call::reading(service, request, self.reject.clone(), self.protocol.clone(), expects_body);
                State::Reading { pool, reading: Reading::new(call, hint), task }
            }
            Err(request) => {
                let trace = Trace::begin(layer, pool.name());
                let call =
                    Call::boxed(service, request, self.reject.clone(), self.protocol.clone(), expects_body, trace);
                State::Chosen { pool, call: Some(call), task }
            }
        }
    }

    fn run_inline<Req>(&mut self, request: Req) -> ResponseFuture<S, Req, R, P, B>
    where
        B: RequestBody<Req>,
        S: Service<B::Request>,
        R: OnReject<Req, S::Response, S::Error>,
        P: Clone,
    {
        let state = State::Inline { future: self.inner.call(B::unread(request)) };
        ResponseFuture::new(state, self.reject.clone(), self.protocol.clone(), None, self.options.clone())
    }
}

/// The clone shares the selector.
impl<S: Clone, W, R: Clone, P: Clone, B: Clone> Clone for PoolService<S, W, R, P, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            selector: Arc::clone(&self.selector),
            reject: self.reject.clone(),
            protocol: self.protocol.clone(),
            body: self.body.clone(),
            options: self.options.clone(),
        }
    }
}

impl<S, W, R, P, B> fmt::Debug for PoolService<S, W, R, P, B>
where
    S: fmt::Debug,
    W: fmt::Debug,
    R: fmt::Debug,
    P: fmt::Debug,
    B: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolService")
            .field("inner", &self.inner)
            .field("selector", &self.selector)
            .field("reject", &self.reject)
            .field("protocol", &self.protocol)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
