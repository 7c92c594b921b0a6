//! The properties of the header parser that hold for any headers that a pool trusts.

use std::convert::Infallible;
use std::future::{Future, Ready};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, service_fn};
use tower_offload::config::{Malformed, Trust};
use tower_offload::reject::{BadHeader, Http, Protocol, Terms};
use tower_offload::{Cpu, Deadline, PoolConfig, PoolLayer, Pools, Priority};

const DEADLINE: HeaderName = HeaderName::from_static("x-deadline");
const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const DAY: f64 = 24.0 * 60.0 * 60.0;

// One bit each: the headers that the pool trusts, and the request's own extensions.
const BELIEVE_DEADLINE: u8 = 1;
const BELIEVE_GRPC: u8 = 2;
const BELIEVE_PRIORITY: u8 = 4;
const REJECT: u8 = 8;
const HAS_DEADLINE: u8 = 16;
const HAS_PRIORITY: u8 = 32;

/// The first byte has the switches above; each line after it is a header: `d` for a deadline, `g` for `grpc-timeout`,
/// `p` for a priority, `c` for a content type, and then its value. The pool must read the same terms as the simpler
/// parser below. A malformed header is ignored, or the request is rejected with a response that names the header.
pub(crate) fn check(data: &[u8]) {
    let Some((&switches, lines)) = data.split_first() else { return };
    let mut request = request(switches, lines);
    let expected = Expected::read(switches, &request);
    let earliest = Instant::now();
    let told = terms(&mut request, &trust(switches));
    let latest = Instant::now();
    match (&expected.bad, told) {
        (None, Ok(terms)) => expected.compare(&terms, earliest, latest, &request),
        (Some(name), Err(bad)) => {
            assert!(bad.to_string().starts_with(&format!("the header `{name}` cannot be read; it is ")), "{bad}");
            rejected(switches, request, name);
        }
        (_, told) => panic!("{told:?} for {request:?}, expected {expected:?}"),
    }
}

fn request(switches: u8, lines: &[u8]) -> Request<()> {
    let mut request = Request::new(());
    for line in lines.split(|&byte| byte == b'\n') {
        let Some((which, value)) = line.split_first() else { continue };
        let name = match which {
            b'd' => DEADLINE,
            b'g' => GRPC_TIMEOUT,
            b'p' => PRIORITY,
            _ => CONTENT_TYPE,
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.headers_mut().append(name, value);
        }
    }
    if switches & HAS_DEADLINE != 0 {
        request.extensions_mut().insert(Deadline::after(Duration::from_secs(10)));
    }
    if switches & HAS_PRIORITY != 0 {
        request.extensions_mut().insert(Priority::High);
    }
    request
}

fn trust(switches: u8) -> Trust {
    let mut trust = Trust::default().grpc_timeout(switches & BELIEVE_GRPC != 0);
    trust.deadline = (switches & BELIEVE_DEADLINE != 0).then_some(DEADLINE);
    trust.priority = (switches & BELIEVE_PRIORITY != 0).then_some(PRIORITY);
    trust.malformed(if switches & REJECT != 0 { Malformed::Reject } else { Malformed::Ignore })
}

fn terms(request: &mut Request<()>, trust: &Trust) -> Result<Terms, BadHeader> {
    <Http as Protocol<Request<()>, Response<Full<Bytes>>, Infallible>>::terms(&Http, request, trust)
}

/// Pools that differ in the headers that they trust.
static POOLS: LazyLock<[Pools; 16]> = LazyLock::new(|| {
    std::array::from_fn(|switches| {
        let cpu = PoolConfig::new(1).trust(trust(switches as u8));
        Pools::builder().pool(Cpu, cpu).build().expect("the settings are valid")
    })
});

/// Sends a request to the pool, and reads the response. It never reaches a handler, so nothing runs.
fn rejected(switches: u8, request: Request<()>, name: &HeaderName) {
    let grpc = request.headers().get(CONTENT_TYPE).is_some_and(|value| is_grpc(value.as_bytes()));
    let service = service_fn(|_: Request<()>| -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
        unreachable!("the request is rejected")
    });
    let layer = PoolLayer::<Cpu>::new(&POOLS[usize::from(switches & 15)]);
    let mut context = Context::from_waker(Waker::noop());
    let answer = pin!(layer.layer(service).call(request)).poll(&mut context);
    let Poll::Ready(Ok(answer)) = answer else { panic!("a request that is rejected has its answer at once") };
    if grpc {
        assert_eq!((answer.status(), &answer.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(3)));
        let message = answer.headers()["grpc-message"].to_str().expect("it is encoded");
        assert!(message.contains(name.as_str()), "{message}");
        return;
    }
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let Poll::Ready(Ok(body)) = pin!(answer.into_body().collect()).poll(&mut context) else { panic!("it is at hand") };
    let problem: serde_json::Value = serde_json::from_slice(&body.to_bytes()).expect("it is JSON");
    assert_eq!((&problem["reason"], &problem["started"]), (&"bad_header".into(), &false.into()));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(name.as_str())), "{problem}");
}

fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'+' || rest[0] == b';')
}

/// The expected terms.
#[derive(Debug, Default)]
struct Expected {
    /// The seconds left, by header.
    left: Vec<f64>,
    /// The deadline among the request's extensions.
    had: Option<Deadline>,
    priority: Priority,
    /// The first malformed header, if the pool refuses those.
    bad: Option<HeaderName>,
}

impl Expected {
    fn read(switches: u8, request: &Request<()>) -> Self {
        let had = request.extensions().get().copied();
        let priority = request.extensions().get().copied().unwrap_or_default();
        let mut expected = Self { had, priority, ..Self::default() };
        let believed = |switch, name| (switches & switch != 0).then(|| value_of(request, &name)).flatten();
        let mut bad = Vec::new();
        if let Some(value) = believed(BELIEVE_DEADLINE, DEADLINE) {
            let left = value.as_deref().and_then(seconds);
            bad.extend(left.is_none().then_some(DEADLINE));
            expected.left.extend(left);
        }
        if let Some(value) = believed(BELIEVE_GRPC, GRPC_TIMEOUT) {
            let left = value.as_deref().and_then(grpc_seconds);
            bad.extend(left.is_none().then_some(GRPC_TIMEOUT));
            expected.left.extend(left);
        }
        if let Some(value) = believed(BELIEVE_PRIORITY, PRIORITY) {
            let word = value.map(|value| value.to_lowercase());
            let place = ["critical", "high", "normal", "low"].iter().position(|known| word.as_deref() == Some(*known));
            bad.extend(place.is_none().then_some(PRIORITY));
            expected.priority = place.map_or(expected.priority, |place| Priority::ALL[place]);
        }
        expected.bad = bad.into_iter().next().filter(|_| switches & REJECT != 0);
        expected
    }

    /// Checks the deadline; it was computed between the two instants.
    fn compare(&self, terms: &Terms, earliest: Instant, latest: Instant, request: &Request<()>) {
        assert_eq!((terms.priority, terms.caller), (self.priority, None), "{request:?}");
        assert_eq!(request.extensions().get::<Deadline>(), terms.deadline.as_ref(), "the handler sees what counts");
        let left = self.left.iter().copied().reduce(f64::min);
        let Some(deadline) = terms.deadline else {
            assert_eq!((left, self.had), (None, None), "{request:?}");
            return;
        };
        let after = |moment| deadline.moment().saturating_duration_since(moment).as_secs_f64();
        if Some(deadline) == self.had {
            assert!(left.is_none_or(|left| left >= after(latest) - 1e-8), "{request:?}");
            return;
        }
        assert!(self.had.is_none_or(|had| deadline < had), "of two deadlines the earlier counts");
        // A time of more than a year is cut to one year.
        let left = left.expect("a new deadline comes from a header").min(365.0 * DAY);
        let slack = left * 1e-12 + 1e-8;
        assert!((after(latest) - slack..=after(earliest) + slack).contains(&left), "{left} s, {request:?}");
    }
}

/// `None` if the header is missing; `Some(None)` if it appears twice or is not text.
fn value_of(request: &Request<()>, name: &HeaderName) -> Option<Option<String>> {
    let values: Vec<_> = request.headers().get_all(name).iter().collect();
    match values[..] {
        [] => None,
        [value] => Some(value.to_str().ok().map(|text| text.trim().to_owned())),
        _ => Some(None),
    }
}

/// Up to 32 characters: digits with at most one point among them, and a unit. Read to the nanosecond, up to a day.
fn seconds(text: &str) -> Option<f64> {
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9), ("", 1e9)];
    let (unit, length) = units.into_iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let points = number.bytes().filter(|byte| *byte == b'.').count();
    if text.len() > 32 || digits == 0 || points > 1 || digits + points < number.len() {
        return None;
    }
    let nanos = (number.parse::<f64>().ok()? * length).round();
    (nanos <= DAY * 1e9).then_some(nanos / 1e9)
}

/// `1*8DIGIT ("H" / "M" / "S" / "m" / "u" / "n")`.
fn grpc_seconds(text: &str) -> Option<f64> {
    let length = match text.as_bytes().last()? {
        b'H' => 3600.0,
        b'M' => 60.0,
        b'S' => 1.0,
        b'm' => 1e-3,
        b'u' => 1e-6,
        b'n' => 1e-9,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    let fits = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse::<f64>().expect("these are digits") * length)
}
