//! Times as text: `30s`, `250ms`, `1.5h`.

use std::time::Duration;

/// The longest accepted time. A longer one is probably a mistyped unit.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest accepted header value, in bytes. The longest time with nanoseconds has 16 characters.
const LONGEST_TEXT: usize = 32;

const SECOND: u64 = 1_000_000_000;

/// Each unit with its length in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

/// The shortest exact form, in the largest unit up to seconds that needs no fraction.
pub(crate) fn in_words(time: Duration) -> String {
    let nanos = time.as_nanos();
    match nanos {
        _ if nanos.is_multiple_of(1_000_000_000) => format!("{}s", time.as_secs()),
        _ if nanos.is_multiple_of(1_000_000) => format!("{}ms", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!("{}us", nanos / 1_000),
        _ => format!("{nanos}ns"),
    }
}

/// Reads a number with a unit. The error describes the fault, without a remedy.
#[cfg(feature = "config")]
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = split(text);
    if !is_number(number) {
        let negative = number.strip_prefix('-').is_some_and(|rest| rest.parse::<f64>().is_ok());
        return Err(if negative { format!("`{text}` is negative") } else { format!("`{text}` is no time") });
    }
    let Some(length) = length_of(unit) else {
        return Err(match unit {
            "" if number.parse::<f64>().is_ok() => format!("`{text}` is text without a unit"),
            "" => format!("`{text}` is no time"),
            _ => format!("`{unit}` is no unit of time (there are h, m, s, ms, us and ns)"),
        });
    };
    match times(number, length) {
        Some(Ok(time)) => Ok(time),
        Some(Err(TooLong)) => Err(format!("`{text}` is longer than 24h")),
        None => Err(format!("`{text}` is no time")),
    }
}

/// Reads the time left as a header says it: seconds such as `1.5`, or a number with a unit such as `250ms`. Zero is a
/// time here: nothing is left. `None` if it is no time, negative, longer than a day, or longer than any honest text.
pub(crate) fn time_left(text: &str) -> Option<Duration> {
    if text.len() > LONGEST_TEXT {
        return None;
    }
    let (number, unit) = split(text.trim());
    let length = if unit.is_empty() { SECOND } else { length_of(unit)? };
    if !is_number(number) {
        return None;
    }
    let time = times(number, length)?.ok()?;
    (time <= LONGEST).then_some(time)
}

/// The number and the unit after it.
fn split(text: &str) -> (&str, &str) {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    (digits.trim_end(), &text[digits.len()..])
}

/// Only digits and points: no sign, no exponent, no infinity.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

fn length_of(unit: &str) -> Option<u64> {
    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length)
}

/// The error of a time whose nanoseconds do not fit in 64 bits.
struct TooLong;

/// The product of a number and a unit's length in nanoseconds; `None` if the text is not a number.
fn times(number: &str, length: u64) -> Option<Result<Duration, TooLong>> {
    // Whole numbers are exact; a fraction goes through a float, rounded to the nanosecond.
    if let Ok(whole) = number.parse::<u64>() {
        return Some(whole.checked_mul(length).map(Duration::from_nanos).ok_or(TooLong));
    }
    let fraction: f64 = number.parse().ok()?;
    let nanos = (fraction * length as f64).round();
    Some(if nanos < u64::MAX as f64 { Ok(Duration::from_nanos(nanos as u64)) } else { Err(TooLong) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_the_time_left_in_seconds_or_with_a_unit() {
        for (text, expected) in [
            ("1.5", Duration::from_millis(1500)),
            ("30", Duration::from_secs(30)),
            ("250ms", Duration::from_millis(250)),
            (" 30 s ", Duration::from_secs(30)),
            ("2m", Duration::from_secs(120)),
            ("0", Duration::ZERO),
            ("0ms", Duration::ZERO),
            (".5", Duration::from_millis(500)),
            ("86400", LONGEST),
            ("24h", LONGEST),
            ("86399.999999999", LONGEST - Duration::from_nanos(1)),
        ] {
            assert_eq!(time_left(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn what_a_header_cannot_mean_is_no_time_left() {
        for text in [
            "",
            " ",
            "s",
            ".",
            "1.2.3",
            "-1",
            "-0",
            "+1",
            "1e3",
            "inf",
            "NaN",
            "1,5",
            "5 days",
            "5S",
            "0x10",
            "1 5",
            "1;2",
            "86401",
            "24.1h",
            "18446744073709551615",
            "99999999999999999999h",
            "\u{b2}s",
            "\u{665}s",
            "1\0",
        ] {
            assert_eq!(time_left(text), None, "{text:?}");
        }
        let longest = format!("{}1s", "0".repeat(LONGEST_TEXT - 2));
        assert_eq!(time_left(&longest), Some(Duration::from_secs(1)));
        assert_eq!(time_left(&format!("0{longest}")), None);
    }
}
