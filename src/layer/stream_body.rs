//! `StreamBody` as a layer.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{StreamBody, Streamed};

/// A service whose requests have bodies that end with an error when their clients stall; made by [`StreamBody`].
#[derive(Clone, Debug)]
pub struct StreamBodyService<S> {
    inner: S,
    limits: StreamBody,
}

impl<S> Layer<S> for StreamBody {
    type Service = StreamBodyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StreamBodyService { inner, limits: *self }
    }
}

impl<S> StreamBodyService<S> {
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

impl<S, B> Service<Request<B>> for StreamBodyService<S>
where
    S: Service<Request<Streamed<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request.map(|body| self.limits.wrap(body)))
    }
}
