//! The part of a request that runs in the pool: the service's `call`, and the future it gives.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower_service::Service;

/// A ready service and its request; when polled, the call and the future it gives.
///
/// It has a place in memory of its own from the beginning: on its way into a pool the request is not copied, and the
/// caller does not keep the room that it took.
pub(super) type BoxedCall<S, Req> = Pin<Box<Call<S, Req>>>;

#[pin_project(project = CallProj, project_replace = CallOwned)]
pub(super) enum Call<S: Service<Req>, Req> {
    Ready {
        service: S,
        request: Req,
    },
    Called {
        #[pin]
        future: S::Future,
    },
    /// The call itself panicked.
    Gone,
}

impl<S: Service<Req>, Req> Call<S, Req> {
    pub(super) fn boxed(service: S, request: Req) -> BoxedCall<S, Req> {
        Box::pin(Self::Ready { service, request })
    }

    pub(super) const fn request(&self) -> Option<&Req> {
        match self {
            Self::Ready { request, .. } => Some(request),
            Self::Called { .. } | Self::Gone => None,
        }
    }
}

impl<S: Service<Req>, Req> Future for Call<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(*self, Self::Ready { .. })
            && let CallOwned::Ready { mut service, request } = self.as_mut().project_replace(Self::Gone)
        {
            let future = service.call(request);
            self.set(Self::Called { future });
        }
        match self.project() {
            CallProj::Called { future } => future.poll(cx),
            CallProj::Ready { .. } | CallProj::Gone => panic!("polled after its call panicked"),
        }
    }
}
