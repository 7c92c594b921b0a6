//! The part of a request that runs in the pool: the service's `call`, and the future that it returns.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower_service::Service;

use crate::pool::Boxed;

/// A ready service and its request. Polling it calls the service, and then polls the future that the service returned.
///
/// It is boxed from the start, so that moving it into a pool does not copy the request, and the response future stays
/// small.
pub(super) type BoxedCall<S, Req> = Boxed<Call<S, Req>>;

#[pin_project(project = CallProj)]
pub(super) enum Call<S: Service<Req>, Req> {
    /// `None` if the call itself panicked.
    Ready { call: Option<(S, Req)> },
    Called {
        #[pin]
        future: S::Future,
    },
}

impl<S: Service<Req>, Req> Call<S, Req> {
    pub(super) fn boxed(service: S, request: Req) -> BoxedCall<S, Req> {
        Boxed::new(Self::Ready { call: Some((service, request)) })
    }

    pub(super) fn request(&self) -> Option<&Req> {
        match self {
            Self::Ready { call } => call.as_ref().map(|(_, request)| request),
            Self::Called { .. } => None,
        }
    }
}

impl<S: Service<Req>, Req> Future for Call<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CallProj::Ready { call } => {
                    let (mut service, request) = call.take().expect("it is not polled after its call panicked");
                    let future = service.call(request);
                    self.set(Self::Called { future });
                }
                CallProj::Called { future } => return future.poll(cx),
            }
        }
    }
}
