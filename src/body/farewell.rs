//! The end of a body at a drain.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::grpc::is_grpc;
use crate::config::OnDrain;
use crate::pool::CurrentTask;

/// Ends a body of unknown length when a drain is announced.
pub(super) struct Farewell {
    draining: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    last: Option<Bytes>,
    grpc: bool,
}

impl Farewell {
    /// `None` if the body is finished although the pools drain.
    pub(super) fn new(
        action: &OnDrain,
        task: &CurrentTask,
        announced: Option<u64>,
        headers: &HeaderMap,
    ) -> Option<Self> {
        let last = match action {
            OnDrain::Finish => return None,
            OnDrain::End => None,
            OnDrain::EndWith(bytes) => Some(bytes.clone()).filter(|bytes| !bytes.is_empty()),
        };
        // A body that was announced with its length would be incomplete.
        announced.is_none().then(|| Self { draining: task.draining(), last, grpc: is_grpc(headers) })
    }

    /// Waits until the drain is announced.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.draining.as_mut().poll(cx)
    }

    /// The last frames. Over gRPC they are the trailers of the status UNAVAILABLE.
    pub(super) fn frames<D: From<Bytes>>(self) -> impl Iterator<Item = Frame<D>> {
        let Self { last, grpc, .. } = self;
        let data = last.filter(|_| !grpc).map(|bytes| Frame::data(D::from(bytes)));
        data.into_iter().chain(grpc.then(|| Frame::trailers(unavailable())))
    }
}

fn unavailable() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("14"));
    trailers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static("the server is shutting down"));
    trailers
}
