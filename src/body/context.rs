//! Converts the response of a handler on the worker that ran it, and decides how its body is polled.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;

use super::buffer::{Buffer, has_room, size};
use super::connection::OnConnection;
use super::error::BoxError;
use super::farewell::Farewell;
use super::frames::{FRAMES_IN_A_ROW, Frames};
use super::next::{Next, outcome_of, poll_next};
use super::pump::{LONGEST_TURN, Producer, Pump};
use super::reader::Reader;
use super::remaining::Remaining;
use super::response::ResponseBody;
use crate::config::{BodyPolicy, RunBody};
use crate::current::CurrentTask;

/// The argument of [`OnReject::pass`](crate::reject::OnReject::pass), which applies the policy of the pool and the layer
/// to the body of a response.
#[derive(Debug)]
pub struct ResponseContext {
    /// Whether a task of the pool ran the handler.
    in_pool: bool,
    /// Whether the client expects the body: it does not after a `HEAD`.
    expects_body: bool,
}

impl ResponseContext {
    pub(crate) const fn in_pool(expects_body: bool) -> Self {
        Self { in_pool: true, expects_body }
    }

    /// The context of a response that no pool has made: bodies stay as the service made them. For tests of an
    /// [`OnReject`](crate::reject::OnReject).
    #[must_use]
    pub const fn inline() -> Self {
        Self { in_pool: false, expects_body: true }
    }

    /// Treats the body by the policy of the pool and the layer.
    ///
    /// If the policy is to poll bodies in the pool, this polls the body for the first time.
    pub fn wrap<B>(&self, response: Response<B>) -> Response<ResponseBody<B>>
    where
        B: Body + Send + 'static,
        B::Data: From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let expects_body = self.expects_body && may_have_body(response.status());
        let task = if self.in_pool && !response.body().is_end_stream() { CurrentTask::get() } else { None };
        let Some(task) = task else { return response.map(ResponseBody::inner) };
        if !expects_body {
            task.expect_no_body();
            return response.map(ResponseBody::inner);
        }
        let policy = task.policy();
        let (mut parts, body) = response.into_parts();
        let size = body.size_hint();
        let announced = announced(&parts.headers).or(size.exact());
        let remaining = Remaining::new(&size, announced);
        let farewell = Farewell::new(&policy.on_drain, &task, announced, &parts.headers);
        // The body of a writer is polled on the connection, and the writer itself holds the permit.
        let by_writer = !task.can_continue();
        let body = if policy.run == RunBody::Pool && !by_writer {
            in_pool(body, remaining, &task, policy, farewell)
        } else if farewell.is_some() || (policy.hold && !by_writer) {
            let hold = policy.hold && !by_writer;
            ResponseBody::on_connection(OnConnection::new(body, remaining, &task, farewell, !by_writer, hold))
        } else if announced.is_none() && !by_writer {
            ResponseBody::observed(body, &task)
        } else {
            ResponseBody::inner(body)
        };
        if let Some(stalled) = task.stall_signal() {
            parts.extensions.insert(stalled);
        }
        Response::from_parts(parts, body)
    }
}

/// Polls the body as far as its buffer allows. The task polls the rest after its answer.
fn in_pool<B>(
    body: B,
    remaining: Remaining,
    task: &CurrentTask,
    policy: &BodyPolicy,
    mut farewell: Option<Farewell>,
) -> ResponseBody<B>
where
    B: Body + Send + 'static,
    B::Data: From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Box::pin(body);
    let mut frames = Frames::default();
    let waker = task.waker();
    let cx = &mut Context::from_waker(&waker);
    // Before the client can have a frame: a drain that is announced from then on ends the body.
    if let Some(farewell) = &mut farewell {
        farewell.begin(cx);
    }
    let end = poll_first(cx, body.as_mut(), &mut frames, policy.buffer);
    if matches!(end, Some(Ok(()))) && !policy.hold {
        return ResponseBody::complete(frames, remaining);
    }
    let mut times = task.frame_times();
    if !frames.is_empty() {
        times.record();
    }
    let buffer = Buffer::new(policy.buffer, policy.stall_timeout, Some(task.clone()));
    let reader = Reader::new(buffer.clone(), remaining);
    frames.for_each(|frame| buffer.push(frame));
    let stalled = buffer.stall_signal();
    let producer = Producer::new(buffer);
    let hold = policy.hold;
    match end {
        Some(end) => {
            drop(body);
            let outcome = outcome_of(&end);
            producer.buffer().end(end);
            task.continue_with(Box::pin(producer.finish(outcome, hold)), hold, stalled);
        }
        None => task.continue_with(Box::pin(Pump::new(body, producer, farewell, times, hold)), hold, stalled),
    }
    ResponseBody::in_pool(reader)
}

/// Takes frames while they are ready, and returns the end of the body if it came.
fn poll_first<B>(
    cx: &mut Context<'_>,
    mut body: Pin<&mut B>,
    frames: &mut Frames<B::Data>,
    capacity: usize,
) -> Option<Result<(), BoxError>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (mut bytes, begun) = (0, Instant::now());
    while frames.len() < FRAMES_IN_A_ROW && has_room(frames, bytes, capacity) && begun.elapsed() <= LONGEST_TURN {
        let Poll::Ready(Next { frame, end }) = poll_next(body.as_mut(), cx) else { return None };
        if let Some(frame) = frame {
            bytes += size(&frame);
            frames.push(frame);
        }
        if end.is_some() {
            return end;
        }
    }
    None
}

/// The length of the body, if the service announces it.
fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a response with this status has a body.
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}
