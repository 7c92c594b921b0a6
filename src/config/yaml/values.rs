//! Reads single values: checks the type and the range, and writes the message if either is wrong.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;

use super::tree::Data;
use crate::config::byte_size::{self, Size};
use crate::config::duration;
use crate::config::nearest::{list, nearest};
use crate::config::overload::Concurrency;
use crate::config::pool::{Cores, Workers};
use crate::config::rules::{self, Count, TIME_REMEDY};
use crate::config::scale;

/// The message about a value of the wrong type.
pub(super) fn wrong(data: &Data, wanted: &str, remedy: &str) -> String {
    match data {
        Data::Null => format!("nothing is given; {remedy}"),
        other => format!("{} is not {wanted}; {remedy}", other.shown()),
    }
}

pub(super) fn flag(data: &Data) -> Result<bool, String> {
    match data {
        Data::Bool(value) => Ok(*value),
        other => Err(wrong(other, "true or false", "give `true` or `false`")),
    }
}

fn number(data: &Data, rule: &Count) -> Result<i128, String> {
    match data {
        Data::Integer(number) => rule.check(*number).map(|()| *number),
        // In quotes or with leading zeros, YAML reads a number as text.
        Data::Text(text) => match text.parse::<i128>() {
            Ok(number) => Err(format!("{} is no number for YAML; write {number}", data.shown())),
            Err(_) => Err(wrong(data, "a whole number", &rule.remedy())),
        },
        other => Err(wrong(other, "a whole number", &rule.remedy())),
    }
}

pub(super) fn size(data: &Data, rule: &Count) -> Result<usize, String> {
    narrow(data, rule)
}

pub(super) fn nice(data: &Data) -> Result<i32, String> {
    narrow(data, &rules::NICE)
}

pub(super) fn port(data: &Data) -> Result<u16, String> {
    narrow(data, &rules::PORT)
}

fn narrow<T: TryFrom<i128>>(data: &Data, rule: &Count) -> Result<T, String> {
    number(data, rule)?.try_into().map_err(|_| rule.remedy())
}

pub(super) fn share(data: &Data) -> Result<u32, String> {
    narrow(data, &rules::SHARE)
}

pub(super) fn workers(data: &Data, rule: &Count) -> Result<Workers, String> {
    auto_or_count(data, rule, Workers::Auto)
}

pub(super) fn cores(data: &Data) -> Result<Cores, String> {
    auto_or_count(data, &rules::CORES, Cores::Auto)
}

fn auto_or_count<T: Copy + From<usize>>(data: &Data, rule: &Count, auto: T) -> Result<T, String> {
    match data {
        Data::Text(text) if text == "auto" => Ok(auto),
        Data::Text(text) if nearest(text, &["auto"]).is_some() => word(data, &[("auto", auto)]),
        other => size(other, rule).map(T::from),
    }
}

/// Reads a number of bytes, or a text with a unit.
pub(super) fn bytes(data: &Data, rule: &Size) -> Result<usize, String> {
    let size = match data {
        Data::Integer(bytes) if *bytes < 0 => Err(format!("{bytes} is negative")),
        Data::Integer(bytes) => u64::try_from(*bytes).map_err(|_| rule.exceeded_by(&bytes.to_string())),
        Data::Text(text) => byte_size::parse(text, rule),
        other => return Err(wrong(other, "a size", &rule.remedy())),
    };
    rule.narrow(size.map_err(|fault| format!("{fault}; {}", rule.remedy()))?)
}

/// Reads a fixed limit, or the word `adaptive`, which means the limit of the same name.
pub(super) fn concurrency(data: &Data, adaptive: Concurrency) -> Result<Concurrency, String> {
    match data {
        Data::Text(text) if text == "adaptive" => Ok(adaptive),
        Data::Text(text) if nearest(text, &["adaptive"]).is_some() => word(data, &[("adaptive", adaptive)]),
        other => size(other, &rules::CONCURRENCY).map(Concurrency::Fixed),
    }
}

/// Reads one of several words, each with its meaning.
pub(super) fn word<T: Clone>(data: &Data, known: &[(&str, T)]) -> Result<T, String> {
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let Data::Text(text) = data else {
        return Err(wrong(data, "a word", &format!("give one of {}", list(&words))));
    };
    if let Some((_, meaning)) = known.iter().find(|(word, _)| word == text) {
        return Ok(meaning.clone());
    }
    let remedy = match nearest(text, &words) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("give one of {}", list(&words)),
    };
    Err(format!("{} is unknown here; {remedy}", data.shown()))
}

pub(super) fn scale_target(data: &Data) -> Result<f64, String> {
    let load = match data {
        Data::Integer(number) => *number as f64,
        Data::Float(number) => *number,
        other => return Err(wrong(other, "a load", scale::TARGET_REMEDY)),
    };
    scale::check_target(load).map(|()| load)
}

pub(super) fn header(data: &Data) -> Result<HeaderName, String> {
    let unfit = || wrong(data, "the name of a header", "give one such as `x-request-timeout`");
    match data {
        Data::Text(text) => HeaderName::from_bytes(text.as_bytes()).map_err(|_| unfit()),
        _ => Err(unfit()),
    }
}

pub(super) fn host(data: &Data) -> Result<IpAddr, String> {
    const REMEDY: &str = "give one such as 127.0.0.1, or 0.0.0.0 for every interface of IPv4";
    match data {
        Data::Text(text) => text.parse().map_err(|_| wrong(data, "an IP address", REMEDY)),
        other => Err(wrong(other, "an IP address", REMEDY)),
    }
}

pub(super) fn time(data: &Data) -> Result<Duration, String> {
    let time = time_or_zero(data)?;
    rules::check_time(time).map(|()| time)
}

/// Reads a time that may be 0. Its range is checked by the caller.
pub(super) fn time_or_zero(data: &Data) -> Result<Duration, String> {
    let time = match data {
        Data::Integer(seconds) if *seconds < 0 => Err(format!("{seconds} is negative")),
        Data::Integer(seconds) => {
            u64::try_from(*seconds).map(Duration::from_secs).map_err(|_| format!("{seconds}s is longer than 24h"))
        }
        Data::Float(seconds) if *seconds < 0.0 => Err(format!("{seconds:?} is negative")),
        Data::Float(seconds) if seconds.is_finite() => {
            Duration::try_from_secs_f64(*seconds).map_err(|_| format!("{seconds:?}s is longer than 24h"))
        }
        Data::Text(text) => duration::parse(text),
        other => return Err(wrong(other, "a time", TIME_REMEDY)),
    };
    time.map_err(|fault| format!("{fault}; {TIME_REMEDY}"))
}
