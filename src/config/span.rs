//! Times as text: `30s`, `250ms`, `1.5h`.

use std::time::Duration;

/// Each unit with its length in nanoseconds.
#[cfg(feature = "config")]
const UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
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

/// Reads a number with a unit. The error is the fault alone, without a remedy.
#[cfg(feature = "config")]
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = &text[digits.len()..];
    let number = digits.trim_end();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let negative = number.strip_prefix('-').is_some_and(|rest| rest.parse::<f64>().is_ok());
        return Err(if negative { format!("`{text}` is negative") } else { format!("`{text}` is no time") });
    }
    let Some(&(_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("`{text}` is text without a unit"),
            _ => format!("`{unit}` is no unit of time (there are h, m, s, ms, us and ns)"),
        });
    };
    let too_long = || format!("`{text}` is longer than 24h");
    // Whole numbers are exact; a fraction goes through a float, rounded to the nanosecond.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(length).map(Duration::from_nanos).ok_or_else(too_long);
    }
    let fraction: f64 = number.parse().map_err(|_| format!("`{text}` is no time"))?;
    let nanos = (fraction * length as f64).round();
    if nanos < u64::MAX as f64 { Ok(Duration::from_nanos(nanos as u64)) } else { Err(too_long()) }
}
