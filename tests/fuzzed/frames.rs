//! The properties of a response's body that hold for any script of frames, any policy, and any reader.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_offload::body::BodyPolicy;
use tower_offload::{PoolConfig, PoolLayer, PoolStats, Pools};

/// One step of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame of this many bytes.
    Data(u16),
    Trailers(u8),
    /// The body is not ready, and wakes its poller at once.
    Wait,
    /// The body ends with an error.
    Fail,
}

/// A body, its policy and its reader.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    /// Whether the length of its data is announced.
    pub(crate) exact: bool,
    pub(crate) in_pool: bool,
    pub(crate) hold: bool,
    /// In addition to the smallest one.
    pub(crate) buffer: u16,
    /// The reader leaves after this many frames.
    pub(crate) leaves_after: Option<u8>,
}

/// A frame that can be compared.
type Seen = Result<Vec<u8>, HeaderMap>;

struct Scripted {
    steps: VecDeque<Step>,
    left: u64,
    exact: bool,
    sent: Arc<Mutex<Vec<Seen>>>,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let Some(step) = self.steps.pop_front() else { return Poll::Ready(None) };
        let frame = match step {
            Step::Wait => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Step::Fail => {
                self.steps.clear();
                return Poll::Ready(Some(Err("as written")));
            }
            Step::Data(length) => {
                self.left -= u64::from(length);
                let number = self.steps.len() as u8;
                Frame::data(Bytes::from(vec![number; usize::from(length)]))
            }
            Step::Trailers(value) => Frame::trailers(HeaderMap::from_iter([(
                "x-value".parse().expect("a name"),
                HeaderValue::from(u16::from(value)),
            )])),
        };
        self.sent.lock().expect("nothing panics with it").push(seen(&frame));
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.exact && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.exact { SizeHint::with_exact(self.left) } else { SizeHint::new() }
    }
}

fn seen(frame: &Frame<Bytes>) -> Seen {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Ok(data.to_vec()),
        (None, trailers) => Err(trailers.cloned().unwrap_or_default()),
    }
}

/// Reads a script from any bytes: five of the settings, then two for each step.
pub(crate) fn decode(input: &[u8]) -> Script {
    let (settings, steps) = input.split_at(input.len().min(5));
    let setting = |at: usize| settings.get(at).copied().unwrap_or(0);
    let steps = steps.chunks_exact(2).take(200).map(|step| match step[0] % 8 {
        0..=3 => Step::Data(u16::from(step[1]) << (step[0] >> 5)),
        4 | 5 => Step::Wait,
        6 => Step::Trailers(step[1]),
        _ => Step::Fail,
    });
    Script {
        steps: steps.collect(),
        exact: setting(0) & 1 != 0,
        in_pool: setting(0) & 2 != 0,
        hold: setting(0) & 4 != 0,
        buffer: u16::from_be_bytes([setting(1), setting(2)]),
        leaves_after: (setting(3) & 1 != 0).then_some(setting(4)),
    }
}

/// The smallest buffer that a policy may have.
const MIN_BUFFER: usize = 1 << 10;

static POOLS: LazyLock<Pools> = LazyLock::new(|| {
    Pools::builder().pool("cpu", PoolConfig::new(2).concurrency(64)).build().expect("the settings are valid")
});

/// The numbers of the pool are exact only if one script runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn stats() -> PoolStats {
    POOLS.get("cpu").expect("it is built in").stats()
}

/// The reader gets the frames of the body in their order, up to the end, the error, or the point at which it leaves. The
/// size is announced as the body announces it. In the end every permit is released and every task counted.
pub(crate) fn check(script: &Script) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sent = Arc::<Mutex<Vec<Seen>>>::default();
    let fails = script.steps.contains(&Step::Fail);
    let length = |step: &Step| if let Step::Data(length) = step { u64::from(*length) } else { 0 };
    let announced: u64 = script.steps.iter().map(length).sum();
    let body = Scripted {
        steps: script.steps.iter().copied().collect(),
        left: announced,
        exact: script.exact,
        sent: sent.clone(),
    };
    let body = Arc::new(Mutex::new(Some(body)));
    let handler = service_fn(move |_: Request<()>| {
        let body = body.lock().expect("nothing panics with it").take().expect("it is called once");
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let policy = if script.in_pool { BodyPolicy::in_pool() } else { BodyPolicy::on_connection() };
    let policy = if script.hold { policy.hold() } else { policy }.buffer(MIN_BUFFER + usize::from(script.buffer));
    let service = PoolLayer::for_pool(POOLS.get("cpu").expect("it is built in")).body(policy).layer(handler);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (received, end) = runtime.block_on(async {
        let response = service.oneshot(Request::new(())).await.expect("it cannot fail");
        let mut body = response.into_body();
        let announces = (script.exact && !body.is_end_stream()).then_some(announced);
        assert_eq!(body.size_hint().exact().filter(|_| !body.is_end_stream()), announces);
        let (mut received, mut taken) = (Vec::new(), 0);
        loop {
            if script.leaves_after.is_some_and(|frames| received.len() >= usize::from(frames)) {
                return (received, None);
            }
            match body.frame().await {
                None => return (received, Some(Ok(()))),
                Some(Err(error)) => return (received, Some(Err(error.to_string()))),
                Some(Ok(frame)) => {
                    taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                    received.push(seen(&frame));
                    if script.exact && !body.is_end_stream() {
                        assert_eq!(body.size_hint().exact(), Some(announced - taken));
                    }
                }
            }
        }
    });
    let sent = std::mem::take(&mut *sent.lock().expect("nothing panics with it"));
    assert_eq!(received, sent[..received.len()], "in their order");
    match end {
        Some(Ok(())) => assert!(received == sent && !fails, "all of it"),
        Some(Err(error)) => assert!(fails && received == sent, "{error}"),
        None => {}
    }
    let start = Instant::now();
    while stats().in_flight > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "a permit is missing: {:?}", stats());
        std::thread::yield_now();
    }
    let stats = stats();
    assert_eq!(stats.counts.submitted, stats.counts.ended());
    assert_eq!((stats.streams, stats.stream_buffered_bytes, stats.counts.stalled), (0, 0, 0));
}
