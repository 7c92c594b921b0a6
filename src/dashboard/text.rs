//! Numbers as people read them, and HTML's escapes.

use std::time::Duration;

/// What stands for a number that is not known.
pub(super) const NONE: &str = "–";

/// Keeps a number and its unit on one line.
const SPACE: char = '\u{a0}';

/// Two significant digits up to ten seconds, whole units beyond.
pub(super) fn duration(time: Duration) -> String {
    let (nanos, seconds) = (time.as_nanos() as f64, time.as_secs());
    match nanos {
        ..999_500.0 => format!("{:.0}{SPACE}µs", nanos / 1e3),
        ..9_950_000.0 => format!("{:.1}{SPACE}ms", nanos / 1e6),
        ..999_500_000.0 => format!("{:.0}{SPACE}ms", nanos / 1e6),
        ..9_950_000_000.0 => format!("{:.1}{SPACE}s", nanos / 1e9),
        ..59_500_000_000.0 => format!("{:.0}{SPACE}s", nanos / 1e9),
        _ if seconds < 3600 => format!("{}{SPACE}min {}{SPACE}s", seconds / 60, seconds % 60),
        _ => format!("{}{SPACE}h {}{SPACE}min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A duration that may not be known.
pub(super) fn maybe(time: Option<Duration>) -> String {
    time.map_or_else(|| NONE.to_owned(), duration)
}

/// Digits in groups of three.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn size(number: usize) -> String {
    count(number as u64)
}

/// Whole numbers as they are, others with two significant digits below ten and as whole numbers above. Not negative.
pub(super) fn number(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 => count(value as u64),
        ..0.995 => format!("{value:.2}"),
        ..9.95 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

/// A ratio with hundredths, or with three digits above 10. Not negative.
pub(super) fn ratio(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let mut value = number as f64 / 1000.0;
    if value < 1.0 {
        return format!("{number}{SPACE}B");
    }
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    let digits = if value < 9.95 { 1 } else { 0 };
    format!("{value:.digits$}{SPACE}{unit}")
}

/// The text as HTML, in an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_their_units() {
        let shown = |nanos| duration(Duration::from_nanos(nanos)).replace(SPACE, " ");
        assert_eq!(
            [0, 999_499, 1_000_000, 12_400_000, 999_900_000, 1_234_000_000, 59_600_000_000].map(shown),
            ["0 µs", "999 µs", "1.0 ms", "12 ms", "1.0 s", "1.2 s", "0 min 59 s"]
        );
        assert_eq!(shown(125_000_000_000), "2 min 5 s");
        assert_eq!(shown(7_500_000_000_000), "2 h 5 min");
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(count), ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.049, 0.5, 1.25, 4.0, 9.96, 1234.5].map(number),
            ["0", "0.05", "0.50", "1.2", "4", "10", "1,235"]
        );
        assert_eq!(
            [0.0, 0.999, 9.994, 9.996, 99.96, 1192.94].map(ratio),
            ["0.00", "1.00", "9.99", "10.0", "100", "1,193"]
        );
        let shown = |number| bytes(number).replace(SPACE, " ");
        assert_eq!([0, 999, 1500, 27_000, 2_000_000_000].map(shown), ["0 B", "999 B", "1.5 kB", "27 kB", "2.0 GB"]);
    }

    #[test]
    fn no_character_of_a_text_is_markup() {
        assert_eq!(escape(r#"<a b="c" d='e'>&"#), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
    }
}
