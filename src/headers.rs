//! Reads the terms of an HTTP request: from its extensions, and from the headers that its pool trusts.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request};

use crate::config::{Malformed, Trust, time_left};
use crate::terms::{Caller, Deadline, Priority, Terms};

/// The error of a trusted header that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHeader {
    name: HeaderName,
    remedy: &'static str,
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

impl BadHeader {
    /// The header `name` cannot be read. `remedy` says what it should be, such as "a whole number".
    #[must_use]
    pub const fn new(name: HeaderName, remedy: &'static str) -> Self {
        Self { name, remedy }
    }

    /// The name of the header.
    #[must_use]
    pub const fn name(&self) -> &HeaderName {
        &self.name
    }
}

impl Terms {
    /// The terms of an HTTP request: the [`Deadline`], the [`Priority`] and the [`Caller`] among its extensions, and
    /// the headers that `trust` names.
    ///
    /// The earlier of two deadlines counts. If it comes from a header, it is also put among the extensions, so that the
    /// handler sees it. The priority of a header wins over that of the extensions.
    ///
    /// [`Http`](crate::reject::Http) calls this for each request. A [`Protocol`](crate::reject::Protocol) of your own
    /// calls it in [`terms`](crate::reject::Protocol::terms).
    ///
    /// # Errors
    ///
    /// If a trusted header cannot be read or appears twice, and `trust` says to [reject](Malformed::Reject) such
    /// requests.
    pub fn of_request<B>(request: &mut Request<B>, trust: &Trust) -> Result<Self, BadHeader> {
        let stated = request.extensions().get::<Deadline>().copied();
        let terms = Self::of_parts(request.headers(), request.extensions(), trust)?;
        if let Some(deadline) = terms.deadline.filter(|_| terms.deadline != stated) {
            request.extensions_mut().insert(deadline);
        }
        Ok(terms)
    }

    /// The same for the headers and extensions of a request, which stay as they are.
    pub(crate) fn of_parts(headers: &HeaderMap, extensions: &Extensions, trust: &Trust) -> Result<Self, BadHeader> {
        let mut terms = Self {
            deadline: extensions.get::<Deadline>().copied(),
            priority: extensions.get::<Priority>().copied().unwrap_or_default(),
            caller: extensions.get::<Caller>().copied(),
        };
        if *trust != Trust::default() {
            read(headers, trust, &mut terms)?;
        }
        Ok(terms)
    }
}

/// Adds what the headers say to `terms`. The earlier of two deadlines counts.
fn read(headers: &HeaderMap, trust: &Trust, terms: &mut Terms) -> Result<(), BadHeader> {
    let reader = Reader { headers, malformed: trust.malformed };
    if let Some(name) = &trust.deadline {
        let left = reader.read(name, time_left, "a time left such as `1.5` (seconds) or `250ms`, up to a day")?;
        shorten(terms, left);
    }
    if trust.grpc_timeout {
        let left =
            reader.read(&GRPC_TIMEOUT, grpc_timeout, "up to eight digits and one of `H`, `M`, `S`, `m`, `u`, `n`")?;
        shorten(terms, left);
    }
    if let Some(name) = &trust.priority {
        let priority = reader.read(name, |text| text.parse().ok(), "one of `critical`, `high`, `normal`, `low`")?;
        terms.priority = priority.unwrap_or(terms.priority);
    }
    Ok(())
}

fn shorten(terms: &mut Terms, left: Option<Duration>) {
    let stated = left.map(Deadline::after);
    terms.deadline = terms.deadline.into_iter().chain(stated).min();
}

struct Reader<'a> {
    headers: &'a HeaderMap,
    malformed: Malformed,
}

impl Reader<'_> {
    /// The value of a header. A header that cannot be read, or appears twice, counts as absent if `malformed` says so.
    fn read<T>(
        &self,
        name: &HeaderName,
        parse: impl Fn(&str) -> Option<T>,
        remedy: &'static str,
    ) -> Result<Option<T>, BadHeader> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let parsed = text(value).and_then(parse).filter(|_| values.next().is_none());
        match (parsed, self.malformed) {
            (None, Malformed::Reject) => Err(BadHeader { name: name.clone(), remedy }),
            (parsed, _) => Ok(parsed),
        }
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().map(str::trim)
}

/// Reads a `grpc-timeout`: at most eight digits and a unit, as the specification of gRPC over HTTP/2 defines it.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 60 * 60),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

impl std::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the header `{}` cannot be read; it is {}, once", self.name, self.remedy)
    }
}

impl std::error::Error for BadHeader {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trust(malformed: Malformed) -> Trust {
        Trust::default()
            .deadline(HeaderName::from_static("x-timeout"))
            .grpc_timeout(true)
            .priority(HeaderName::from_static("x-priority"))
            .malformed(malformed)
    }

    fn terms_of(headers: &[(&'static str, &str)], trust: &Trust) -> Result<Terms, BadHeader> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header")))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            });
        let mut terms = Terms::default();
        read(&headers, trust, &mut terms).map(|()| terms)
    }

    fn left(terms: Terms) -> Option<Duration> {
        terms.deadline.map(Deadline::remaining)
    }

    #[test]
    fn nothing_is_believed_unless_it_is_switched_on() {
        let headers = [("x-timeout", "1"), ("grpc-timeout", "1S"), ("x-priority", "critical")];
        assert_eq!(terms_of(&headers, &Trust::default()), Ok(Terms::default()));
    }

    #[test]
    fn of_two_deadlines_the_earlier_counts() {
        let trust = trust(Malformed::Reject);
        let terms = terms_of(&[("x-timeout", "1h"), ("grpc-timeout", "5M")], &trust).expect("both are well formed");
        assert!(left(terms).is_some_and(|left| left <= Duration::from_secs(300) && left > Duration::from_secs(290)));
    }

    #[test]
    fn a_trusted_priority_goes_before_that_of_the_extensions() {
        for (trust, expected) in [(trust(Malformed::Reject), Priority::Critical), (Trust::default(), Priority::Low)] {
            let mut request = Request::get("/").header("x-priority", "critical").body(()).expect("a request");
            request.extensions_mut().insert(Priority::Low);
            let terms = Terms::of_request(&mut request, &trust).expect("it is a priority");
            assert_eq!(terms.priority, expected);
        }
    }

    #[test]
    fn a_grpc_timeout_has_six_units_and_up_to_eight_digits() {
        for (text, nanos) in [
            ("2H", 7_200_000_000_000),
            ("3M", 180_000_000_000),
            ("4S", 4_000_000_000),
            ("5m", 5_000_000),
            ("6u", 6_000),
            ("7n", 7),
            ("12345678n", 12_345_678),
        ] {
            assert_eq!(grpc_timeout(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for bad in ["", "1", "S", "123456789n", "-1S", "+1S", "1.5S", "1 S", "1s", "1\u{b5}"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_priority_is_read_in_any_case() {
        let terms = terms_of(&[("x-priority", "High")], &trust(Malformed::Reject)).expect("it is a priority");
        assert_eq!(terms.priority, Priority::High);
    }

    #[test]
    fn what_cannot_be_read_is_ignored_or_rejected_as_the_pool_says() {
        let bad: [&[(&'static str, &str)]; 8] = [
            &[("x-timeout", "-1")],
            &[("x-timeout", "soon")],
            &[("x-timeout", "1"), ("x-timeout", "2")],
            &[("grpc-timeout", "123456789S")],
            &[("grpc-timeout", "S")],
            &[("grpc-timeout", "1s")],
            &[("x-priority", "urgent")],
            &[("x-priority", "")],
        ];
        for headers in bad {
            assert_eq!(terms_of(headers, &trust(Malformed::Ignore)), Ok(Terms::default()), "{headers:?}");
            let error = terms_of(headers, &trust(Malformed::Reject)).expect_err("it is rejected");
            assert_eq!(error.name, headers[0].0);
        }
    }

    proptest! {
        #[test]
        fn no_header_does_harm(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in ["x-timeout", "grpc-timeout", "x-priority"] {
                    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]);
                    let mut terms = Terms::default();
                    let _ = read(&headers, &trust(Malformed::Reject), &mut terms);
                    prop_assert!(terms.deadline.is_none_or(|deadline| deadline.remaining().as_secs() <= 365 * 24 * 60 * 60));
                }
            }
        }
    }
}
