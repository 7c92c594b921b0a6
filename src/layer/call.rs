//! The part of a request that runs in the pool: the service's `call`, and the future it gives.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tower_service::Service;

/// A ready service and its request; when polled, the call and the future it gives.
#[pin_project]
pub(super) struct Call<S: Service<Req>, Req> {
    /// Gone once it was called.
    ready: Option<(S, Req)>,
    #[pin]
    future: Option<S::Future>,
}

impl<S: Service<Req>, Req> Call<S, Req> {
    pub(super) const fn new(service: S, request: Req) -> Self {
        Self { ready: Some((service, request)), future: None }
    }

    pub(super) fn request(&self) -> Option<&Req> {
        self.ready.as_ref().map(|(_, request)| request)
    }
}

impl<S: Service<Req>, Req> Future for Call<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some((mut service, request)) = this.ready.take() {
            this.future.set(Some(service.call(request)));
        }
        this.future.as_pin_mut().expect("a service that was called gave a future").poll(cx)
    }
}
