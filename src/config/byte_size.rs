//! Sizes in bytes as text: `512KiB`, `16MiB`.

use std::ops::RangeInclusive;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// Each unit with its size in bytes, the largest first.
const UNITS: [(&str, usize); 4] = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// The accepted sizes of a thread's stack. A smaller stack is too small for a handler; a larger size is a mistyped
/// unit.
const STACK: RangeInclusive<usize> = 64 * KIB..=GIB;

pub(crate) const STACK_REMEDY: &str = "give a size from 64KiB to 1GiB, such as `16MiB`";

/// The shortest exact form, such as `16MiB`.
pub(crate) fn in_words(bytes: usize) -> String {
    let unit = UNITS.iter().find(|(_, length)| bytes > 0 && bytes.is_multiple_of(*length));
    let (name, length) = unit.unwrap_or(&UNITS[3]);
    format!("{}{name}", bytes / length)
}

/// Reads a whole number with a unit. The error describes the fault, without a remedy.
#[cfg(feature = "config")]
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = &text[number.len()..];
    let number = number.trim_end();
    if !number.is_empty() && !number.bytes().all(|byte| byte.is_ascii_digit()) {
        let negative = number.strip_prefix('-').is_some_and(|rest| rest.parse::<f64>().is_ok());
        let fault = if negative { "negative" } else { "no whole number with a unit" };
        return Err(format!("`{text}` is {fault}"));
    }
    if number.is_empty() {
        return Err(format!("`{text}` is no size"));
    }
    if unit.is_empty() {
        return Err(format!("`{text}` is text without a unit"));
    }
    let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is no unit of size (there are GiB, MiB, KiB and B)"));
    };
    let bytes = number.parse().ok().and_then(|number: usize| number.checked_mul(*length));
    bytes.ok_or_else(|| format!("`{text}` is more than {}", in_words(*STACK.end())))
}

pub(crate) fn check_stack(bytes: usize) -> Result<(), String> {
    let fault = if bytes < *STACK.start() {
        format!("{} is less than {}", in_words(bytes), in_words(*STACK.start()))
    } else if bytes > *STACK.end() {
        format!("{} is more than {}", in_words(bytes), in_words(*STACK.end()))
    } else {
        return Ok(());
    };
    Err(format!("{fault}; {STACK_REMEDY}"))
}
