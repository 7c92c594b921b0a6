//! `StreamBody` as a layer.

use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{StreamBody, Streamed};
use crate::inner_service::inner_service;

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
    inner_service!();
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
