//! The end of a body at a drain.
//!
//! A body that streams when the drain is announced ends before its next frame. One that begins later is that of a request
//! which is still served, so it stays whole. Only server-sent events and gRPC, which may have no end, are told apart: they
//! end once they have no frame ready.

use std::pin::Pin;
use std::task::Context;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::grpc::{is_event_stream, is_grpc};
use crate::config::OnDrain;
use crate::current::CurrentTask;

/// Ends a body of unknown length when a drain is announced.
pub(super) struct Farewell {
    draining: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    began: Began,
    last: Option<Bytes>,
    grpc: bool,
    may_be_endless: bool,
}

/// When the body was polled for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Began {
    NotYet,
    BeforeDrain,
    WhileDraining,
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
        let grpc = is_grpc(headers);
        let may_be_endless = grpc || is_event_stream(headers);
        Some(Self { draining: task.draining(), began: Began::NotYet, last, grpc, may_be_endless })
    }

    /// The body is polled for the first time, unless it was before.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        if self.began == Began::NotYet {
            let announced = self.draining.as_mut().poll(cx).is_ready();
            self.began = if announced { Began::WhileDraining } else { Began::BeforeDrain };
        }
    }

    /// Whether the body ends before its next frame, which is not its first. If not, the announcement of a drain wakes the
    /// task.
    pub(super) fn comes_before_next(&mut self, cx: &mut Context<'_>) -> bool {
        if self.began == Began::NotYet {
            self.begin(cx);
            return false;
        }
        self.began == Began::BeforeDrain && self.draining.as_mut().poll(cx).is_ready()
    }

    /// Whether the body ends because it has no frame ready.
    pub(super) fn comes_when_pending(&self) -> bool {
        self.began == Began::WhileDraining && self.may_be_endless
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
