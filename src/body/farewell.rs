//! The end of a body at a drain.
//!
//! A body that streams when the drain is announced ends before its next frame. One that begins later is that of a request
//! which is still served: it ends once it has no frame ready, so that a response which is complete at once stays whole.

use std::pin::Pin;
use std::task::Context;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::grpc::is_grpc;
use crate::config::OnDrain;
use crate::pool::CurrentTask;

/// Ends a body of unknown length when a drain is announced.
pub(super) struct Farewell {
    /// Completes when the drain is announced. `None` if it was announced before the body began.
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
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
        if announced.is_some() {
            return None;
        }
        let mut draining = Some(task.draining());
        draining.take_if(|draining| draining.now_or_never().is_some());
        Some(Self { draining, last, grpc: is_grpc(headers) })
    }

    /// Whether the body ends before its next frame. If not, the announcement of a drain wakes the task.
    pub(super) fn comes_before_next(&mut self, cx: &mut Context<'_>) -> bool {
        self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready())
    }

    /// Whether the body ends because it has no frame ready.
    pub(super) const fn comes_when_pending(&self) -> bool {
        self.draining.is_none()
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
