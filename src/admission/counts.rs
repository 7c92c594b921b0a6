//! How jobs ended, counted once each.

use crate::error::Cause;

/// How a job that was in flight ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It gave a value.
    Ok,
    /// It gave an error: for HTTP a status of 500 or above.
    Error,
    /// It panicked.
    Panicked,
    /// Its caller left, or it was cut off.
    Cancelled,
    /// It had a permit, but its deadline passed before its first poll.
    Expired,
}

/// Every job that was ever submitted, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub submitted: u64,
    /// Gave a value.
    pub ok: u64,
    /// Gave an error.
    pub error: u64,
    /// Panicked.
    pub panicked: u64,
    /// Their callers left, or they were cut off.
    pub cancelled: u64,
    /// Refused by choice under overload.
    pub shed: u64,
    /// Waited too long.
    pub expired: u64,
    /// Refused at the door.
    pub rejected: u64,
}

impl Counts {
    /// The jobs that have ended, however they did.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ok + self.error + self.panicked + self.cancelled + self.shed + self.expired + self.rejected
    }

    /// The results by name, as metrics and JSON show them.
    #[must_use]
    pub const fn by_result(&self) -> [(&'static str, u64); 7] {
        [
            ("ok", self.ok),
            ("error", self.error),
            ("panicked", self.panicked),
            ("cancelled", self.cancelled),
            ("shed", self.shed),
            ("expired", self.expired),
            ("rejected", self.rejected),
        ]
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Error => self.error += 1,
            Outcome::Panicked => self.panicked += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Expired => self.expired += 1,
        }
    }

    pub(super) fn refused(&mut self, cause: Cause) {
        match cause {
            Cause::QueueTimeout | Cause::DeadlineExceeded => self.expired += 1,
            Cause::Shed => self.shed += 1,
            Cause::CutOff | Cause::Panicked => self.cancelled += 1,
            Cause::QueueFull | Cause::Draining | Cause::NoWorkers | Cause::UnknownPool => self.rejected += 1,
        }
    }
}
