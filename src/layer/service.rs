//! `PoolService`: chooses the pool of each request.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::call::Call;
use super::future::ResponseFuture;
use crate::reject::{Reject, Responses};
use crate::select::{Choice, Select, Target};

/// A service whose requests run in workload pools; made by [`PoolLayer`](crate::PoolLayer).
pub struct PoolService<S, W, R = Responses> {
    inner: S,
    choice: Arc<Choice<W>>,
    reject: R,
    resume_panics: bool,
}

impl<S, W, R> PoolService<S, W, R> {
    pub(super) const fn new(inner: S, choice: Arc<Choice<W>>, reject: R, resume_panics: bool) -> Self {
        Self { inner, choice, reject, resume_panics }
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

    fn call(&mut self, request: Req) -> Self::Future {
        let hint = self.reject.hint(&request);
        let target = self.choice.select(&request);
        let way = match target {
            Target::Inline => return ResponseFuture::inline(self.inner.call(request), self.reject.clone(), hint),
            Target::Pool(pool) => {
                // The service that was made ready goes with the request; a fresh clone stays and is made ready anew.
                let clone = self.inner.clone();
                Ok((pool, Call::new(mem::replace(&mut self.inner, clone), request)))
            }
            Target::Unknown(name) => Err(name),
        };
        ResponseFuture::new(way, self.reject.clone(), hint, self.resume_panics)
    }
}

impl<S: Clone, W, R: Clone> Clone for PoolService<S, W, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            choice: self.choice.clone(),
            reject: self.reject.clone(),
            resume_panics: self.resume_panics,
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
