//! How tasks ended, counted once each, and the numbers of one instant.

use crate::error::Reason;

/// How a task that was in flight ended.
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
    /// Its answer went out, and the reader of its body stalled.
    Stalled,
    /// It had a permit, but its deadline passed before its first poll.
    Expired,
    /// It had a permit, but no worker could be found for it.
    Rejected,
}

/// Every task that was ever submitted, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The readers of their bodies stalled.
    pub stalled: u64,
    /// Rejected by choice under overload.
    pub shed: u64,
    /// Waited too long.
    pub expired: u64,
    /// Rejected when they were submitted, or because no worker could run them.
    pub rejected: u64,
}

/// One instant of a pool's admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many permits there are.
    pub limit: usize,
    /// How many are in flight: those with a permit, and those that ride in the permit of another.
    pub in_flight: usize,
    /// How many permits are in use. More than `limit` only while an adaptive limit is on its way down.
    pub permits: usize,
    /// How many wait.
    pub queued: usize,
    /// How many may wait.
    pub capacity: usize,
    /// How many were submitted, and how they ended.
    pub counts: Counts,
    /// Whether even the best served tasks wait too long; see
    /// [`Admission::is_overloaded`](super::Admission::is_overloaded).
    pub overloaded: bool,
}

impl Counts {
    /// The tasks that have ended, however they did.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ok + self.error + self.panicked + self.cancelled + self.stalled + self.shed + self.expired + self.rejected
    }

    /// The results by name, as metrics and JSON show them.
    #[must_use]
    pub fn by_result(&self) -> impl ExactSizeIterator<Item = (&'static str, u64)> + use<> {
        [
            ("ok", self.ok),
            ("error", self.error),
            ("panicked", self.panicked),
            ("cancelled", self.cancelled),
            ("stalled", self.stalled),
            ("shed", self.shed),
            ("expired", self.expired),
            ("rejected", self.rejected),
        ]
        .into_iter()
    }

    pub(super) fn finished(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Ok => &mut self.ok,
            Outcome::Error => &mut self.error,
            Outcome::Panicked => &mut self.panicked,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Stalled => &mut self.stalled,
            Outcome::Expired => &mut self.expired,
            Outcome::Rejected => &mut self.rejected,
        } += 1;
    }

    pub(super) fn unstarted(&mut self, reason: Reason) {
        *match reason {
            Reason::QueueTimeout | Reason::DeadlineExceeded => &mut self.expired,
            Reason::Shed => &mut self.shed,
            // The client left, or sent what cannot be read: nobody rejected it.
            Reason::CutOff | Reason::Panicked | Reason::BodyError => &mut self.cancelled,
            Reason::QueueFull
            | Reason::StreamsFull
            | Reason::Draining
            | Reason::NoWorkers
            | Reason::UnknownPool
            | Reason::BadHeader
            | Reason::BodyTooLarge
            | Reason::BodyTimeout
            | Reason::BodyBudget => &mut self.rejected,
        } += 1;
    }
}
