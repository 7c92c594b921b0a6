//! Sizes in bytes: as text, such as `512KiB`, and their ranges.

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// Each unit with its size in bytes, the largest first.
const UNITS: [(&str, u64); 5] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// The range of a size.
#[derive(Debug)]
pub(crate) struct Size {
    min: u64,
    max: u64,
    example: &'static str,
}

/// A thread's stack. A smaller one is too small for a handler; a larger one is a mistyped unit.
pub(crate) const STACK: Size = Size { min: 64 * KIB, max: GIB, example: "16MiB" };

/// The buffer of a response's body. Every body that is open may fill one.
pub(crate) const BUFFER: Size = Size { min: KIB, max: GIB, example: "64KiB" };

/// The bodies of requests that wait in memory, in all pools together.
pub(crate) const BODY_BUDGET: Size = Size { min: MIB, max: TIB, example: "256MiB" };

impl Size {
    /// The accepted values, for the message.
    pub(crate) fn remedy(&self) -> String {
        format!("give a size from {} to {}, such as `{}`", in_words(self.min), in_words(self.max()), self.example)
    }

    pub(crate) fn check(&self, bytes: usize) -> Result<(), String> {
        self.narrow(bytes as u64).map(drop)
    }

    /// The size as a number of this machine, if it is in the range.
    pub(crate) fn narrow(&self, bytes: u64) -> Result<usize, String> {
        let fault = if bytes < self.min {
            format!("{} is less than {}", in_words(bytes), in_words(self.min))
        } else if bytes > self.max() {
            self.exceeded_by(&in_words(bytes))
        } else {
            return Ok(usize::try_from(bytes).expect("the maximum is a size of this machine"));
        };
        Err(format!("{fault}; {}", self.remedy()))
    }

    /// Says that a size is more than the maximum, without a remedy.
    pub(crate) fn exceeded_by(&self, size: &str) -> String {
        format!("{size} is more than {}", in_words(self.max()))
    }

    /// The largest size, on a machine of 32 bits no more than its addresses.
    fn max(&self) -> u64 {
        self.max.min(isize::MAX as u64)
    }
}

/// The shortest exact form, such as `16MiB`.
pub(crate) fn in_words(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, length)| bytes > 0 && bytes.is_multiple_of(*length));
    let (name, length) = unit.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / length)
}

/// Reads a whole number with a unit. The error describes the fault, without a remedy.
#[cfg(feature = "config")]
pub(crate) fn parse(text: &str, range: &Size) -> Result<u64, String> {
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
        return Err(format!("`{unit}` is no unit of size (there are TiB, GiB, MiB, KiB and B)"));
    };
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(*length));
    bytes.ok_or_else(|| range.exceeded_by(&format!("`{text}`")))
}
