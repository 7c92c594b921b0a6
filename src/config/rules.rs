//! The rules for the values of settings: their ranges, and the messages about them. They are the same for files and
//! code.

use std::time::Duration;

use super::duration::{self, LONGEST};

/// The range of a whole number.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) min: i128,
    pub(crate) max: i128,
    /// Why zero is not accepted, if it is not.
    pub(crate) zero: &'static str,
    /// The accepted values that are not numbers, for the message.
    pub(crate) or: &'static str,
}

pub(crate) const WORKERS: Count =
    Count { min: 1, max: 4096, zero: "0 workers could never run a task", or: ", or `auto`" };

pub(crate) const SERVER_WORKERS: Count =
    Count { min: 1, max: 1024, zero: "0 threads could never serve a connection", or: ", or `auto`" };

pub(crate) const CORES: Count = Count { min: 1, max: 4096, zero: "0 cores could never run a task", or: ", or `auto`" };

pub(crate) const CONCURRENCY: Count =
    Count { or: ", `adaptive`, or bounds such as `{min: 2, max: 64}`", ..CONCURRENCY_BOUND };

pub(crate) const CONCURRENCY_BOUND: Count =
    Count { min: 1, max: 1_000_000, zero: "a limit of 0 would admit no task", or: "" };

pub(crate) const QUEUE_CAPACITY: Count = Count { min: 0, max: 1_000_000, zero: "", or: "" };

pub(crate) const BATCH_ITEMS: Count =
    Count { min: 1, max: 1_000_000, zero: "a batch of 0 items would run nothing", or: "" };

pub(crate) const BATCH_WEIGHT: Count =
    Count { min: 1, max: i64::MAX as i128, zero: "a batch without weight would run nothing", or: "" };

/// 0 sets no limit.
pub(crate) const MAX_STREAMS: Count = Count { min: 0, max: 10_000_000, zero: "", or: "" };

pub(crate) const SHARE: Count = Count { min: 1, max: 1000, zero: "a pool with a share of 0 would starve", or: "" };

pub(crate) const NICE: Count = Count { min: -20, max: 19, zero: "", or: "" };

#[cfg(feature = "config")]
pub(crate) const PORT: Count = Count { min: 0, max: u16::MAX as i128, zero: "", or: "" };

/// The shortest useful time: the resolution of Tokio's timers.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

/// The longest name of a pool, in bytes.
const LONGEST_NAME: usize = 32;

impl Count {
    /// The accepted values, for the message.
    pub(crate) fn remedy(&self) -> String {
        format!("give a number from {} to {}{}", self.min, self.max, self.or)
    }

    pub(crate) fn check(&self, number: i128) -> Result<(), String> {
        if (self.min..=self.max).contains(&number) {
            return Ok(());
        }
        let fault = if number == 0 {
            self.zero.to_owned()
        } else if number < 0 && self.min >= 0 {
            format!("{number} is negative")
        } else if number < self.min {
            format!("{number} is less than {}", self.min)
        } else {
            format!("{number} is more than {}", self.max)
        };
        Err(format!("{fault}; {}", self.remedy()))
    }
}

/// The accepted times, for the message.
pub(crate) const TIME_REMEDY: &str = "give a time from 1ms to 24h, such as `30` (seconds) or `250ms`";

pub(crate) fn check_time(time: Duration) -> Result<(), String> {
    let fault = if time.is_zero() {
        "0 is no time at all".to_owned()
    } else if time < SHORTEST {
        format!("{} is shorter than 1ms", duration::in_words(time))
    } else if time > LONGEST {
        format!("{} is longer than 24h", duration::in_words(time))
    } else {
        return Ok(());
    };
    Err(format!("{fault}; {TIME_REMEDY}"))
}

/// A delay may be 0. It must be shorter than the timeout of the shutdown, which includes it.
pub(crate) fn check_delay(delay: Duration, timeout: Duration) -> Result<(), String> {
    if delay.is_zero() {
        return Ok(());
    }
    check_time(delay)?;
    if delay < timeout {
        return Ok(());
    }
    let (delay, timeout) = (duration::in_words(delay), duration::in_words(timeout));
    let fault = format!("{delay} is not less than `shutdown_timeout`, which is {timeout} and includes this delay");
    Err(format!("{fault}; give less, or raise `shutdown_timeout`"))
}

/// Checks that the lower bound is not above the upper one.
pub(crate) fn check_order<T: PartialOrd>(min: T, max: T, shown: impl Fn(T) -> String) -> Result<(), String> {
    if min <= max {
        return Ok(());
    }
    // One of the two may be a default, so both are shown.
    Err(format!("`min` {} is more than `max` {}; give both, the smaller one as `min`", shown(min), shown(max)))
}

/// Checks the name of a pool. Names become parts of thread names and values of metric labels, so only plain characters
/// are accepted.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let fault = if name.is_empty() {
        "a pool must have a name".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("the pool's name is longer than {LONGEST_NAME} characters")
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.bytes().all(plain) {
        format!("{name:?} is no name for a pool")
    } else if name == "workers" || name.ends_with("_workers") {
        return Err(format!("{name:?} is no name for a pool, because `NAME_workers` sets the workers of pool NAME"));
    } else {
        return Ok(());
    };
    Err(format!("{fault}; use a lower-case letter, then lower-case letters, digits, `_` and `-`"))
}
