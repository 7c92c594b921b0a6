//! Tower layers that run a whole inner service on other threads, as one would write them without a library.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tower::{Layer, Service};

/// The threads that a service's futures are moved to.
#[derive(Clone, Debug)]
pub enum Elsewhere {
    /// Spawned as a task on another runtime.
    Runtime(Handle),
    /// Blocked on by a thread of the current runtime's blocking pool.
    SpawnBlocking,
}

/// A service whose calls run [`Elsewhere`].
#[derive(Clone, Debug)]
pub struct Moved<S> {
    inner: S,
    to: Elsewhere,
}

/// The response of a call that runs elsewhere.
#[derive(Debug)]
pub struct MovedFuture<T>(JoinHandle<Result<T, Infallible>>);

impl<S> Layer<S> for Elsewhere {
    type Service = Moved<S>;

    fn layer(&self, inner: S) -> Moved<S> {
        Moved { inner, to: self.clone() }
    }
}

impl<S, Request> Service<Request> for Moved<S>
where
    S: Service<Request, Error = Infallible> + Clone + Send + 'static,
    S::Response: Send,
    S::Future: Send,
    Request: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = MovedFuture<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The service that was polled ready goes with the request; a fresh clone stays.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let call = async move { inner.call(request).await };
        MovedFuture(match &self.to {
            Elsewhere::Runtime(handle) => handle.spawn(call),
            Elsewhere::SpawnBlocking => {
                let handle = Handle::current();
                tokio::task::spawn_blocking(move || handle.block_on(call))
            }
        })
    }
}

impl<T> Future for MovedFuture<T> {
    type Output = Result<T, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.expect("the handler does not panic"))
    }
}
