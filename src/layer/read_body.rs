//! `ReadBody` as a layer that stands alone.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{BoxError, Buffered, ReadBody, ReadRequest, ResponseBody};
use crate::inner_service::inner_service;
use crate::reject::ResponseFormat;
use crate::terms::Deadline;

/// A service whose requests have their bodies read first; made by [`ReadBody`].
#[derive(Clone, Debug)]
pub struct ReadBodyService<S> {
    inner: S,
    settings: ReadBody,
}

/// The future of [`ReadBodyService`].
#[pin_project]
pub struct ReadBodyFuture<S: Service<Request<Buffered<B>>>, B> {
    #[pin]
    state: State<S, S::Future, B>,
}

#[pin_project(project = StateProj)]
enum State<S, F, B> {
    Reading {
        service: S,
        request: ReadRequest<B>,
        format: ResponseFormat,
    },
    Called {
        #[pin]
        future: F,
    },
}

impl<S> Layer<S> for ReadBody {
    type Service = ReadBodyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReadBodyService { inner, settings: self.clone() }
    }
}

impl<S> ReadBodyService<S> {
    inner_service!();
}

impl<S, B, RB> Service<Request<B>> for ReadBodyService<S>
where
    S: Service<Request<Buffered<B>>, Response = Response<RB>> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
    RB: Body + Send + 'static,
    RB::Data: From<Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = S::Error;
    type Future = ReadBodyFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let format = ResponseFormat::of(&request);
        let deadline = request.extensions().get().copied().map(Deadline::moment);
        let state = if request.body().is_end_stream() {
            State::Called { future: self.inner.call(request.map(Buffered::unread)) }
        } else {
            // The service that was made ready goes with the request. A fresh clone stays, to be made ready anew.
            let clone = self.inner.clone();
            let service = mem::replace(&mut self.inner, clone);
            State::Reading { service, request: ReadRequest::of(&self.settings, request, None, deadline), format }
        };
        ReadBodyFuture { state }
    }
}

impl<S, B, RB> Future for ReadBodyFuture<S, B>
where
    S: Service<Request<Buffered<B>>, Response = Response<RB>>,
    B: Body,
    B::Error: Into<BoxError>,
    RB: Body + Send + 'static,
    RB::Data: From<Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<RB>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let future = match state.as_mut().project() {
                StateProj::Reading { service, request, format } => match ready!(Pin::new(request).poll(cx)) {
                    Ok(request) => service.call(request),
                    Err(error) => {
                        return Poll::Ready(Ok(format.respond_to_unread(error).map(ResponseBody::own)));
                    }
                },
                StateProj::Called { future } => {
                    return future.poll(cx).map_ok(|response| response.map(ResponseBody::inner));
                }
            };
            state.set(State::Called { future });
        }
    }
}

impl<S: Service<Request<Buffered<B>>>, B> fmt::Debug for ReadBodyFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBodyFuture").finish_non_exhaustive()
    }
}
