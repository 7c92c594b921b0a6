//! How tasks leave the queue without being started: they expire, are shed, or give way to others.
//!
//! **Expiry.** A task ends when it has waited for the queue timeout, or at its own deadline if that is sooner, and never
//! starts after that. The queue timeout needs no timer for each task: without deadlines tasks become due in the order of
//! arrival. Deadlines that come before the queue timeout are in a separate set, the soonest first. A deadline is that of
//! the caller, as gRPC propagates it ("gRPC and Deadlines", grpc.io, 2018).
//!
//! **Room.** A full queue ends what is due; failing that, it sheds the newest task of the lowest level below that of the
//! new task; failing that, the newest of the caller with most tasks, if that is more than the new task's caller would
//! have. "Longest queue drop" has the same for flows in a router (Suter et al., INFOCOM 1998).
//!
//! **Shedding** of useless tasks follows [`overload`](super::super::overload). It happens only when no permit is free.

use super::super::settings::Offer;
use super::super::timestamp::Timestamp;
use super::{Admission, BATCH, LARGE_BATCH, Rejected};
use crate::error::Reason;

impl<T> Admission<T> {
    /// Ends the waiting of tasks that waited too long: of all, or of one batch, so that others get the lock. Then
    /// [`next_expiry`](Self::next_expiry) is now or before.
    pub fn expire(&mut self, now: Timestamp, rejected: &mut Vec<Rejected<T>>) {
        self.pass(now);
        self.end_due(now, LARGE_BATCH, rejected);
    }

    /// When [`expire`](Self::expire) is due next: a task's time is up, or an adaptive limit lets waiting tasks past
    /// those that hold its permits.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let due = self.next_due().map(|(due, ..)| due);
        due.into_iter().chain(self.next_move()).min()
    }

    /// The same for a task that is queued now.
    #[must_use]
    pub fn expiry_of(&self, now: Timestamp, offer: Offer) -> Timestamp {
        let timeout = self.timeout_of(now, offer.patient);
        let expiry = offer.deadline.map_or(timeout, |deadline| deadline.min(timeout));
        self.next_move().map_or(expiry, |next| next.min(expiry))
    }

    fn next_move(&self) -> Option<Timestamp> {
        if !self.is_stalled() {
            return None;
        }
        self.limiter.waits_until(self.started, self.run.value())
    }

    /// Ends the waiting of every task, for `reason`.
    pub fn reject_all(&mut self, reason: Reason, rejected: &mut Vec<Rejected<T>>) {
        while let Some(index) = self.levels.any() {
            self.reject(index, reason, rejected);
        }
    }

    /// Ends what is due; failing that, sheds the task that makes room.
    pub(super) fn make_room(
        &mut self,
        now: Timestamp,
        offer: Offer,
        rejected: &mut Vec<Rejected<T>>,
    ) -> Result<(), Reason> {
        if let Some(index) = self.find_room(now, offer, rejected)? {
            self.reject(index, Reason::Shed, rejected);
        }
        Ok(())
    }

    /// Ends what is due in a full queue. If it is full afterwards, finds the task that makes room: the newest of the
    /// lowest level below, or of a busier caller.
    pub(super) fn find_room(
        &mut self,
        now: Timestamp,
        offer: Offer,
        rejected: &mut Vec<Rejected<T>>,
    ) -> Result<Option<u32>, Reason> {
        self.end_due(now, BATCH, rejected);
        if !self.is_full() {
            return Ok(None);
        }
        let (level, limit) = (offer.level as usize, self.limiter.current());
        let (work, run) = (self.work(), self.run.value());
        let below = self.levels.least_below(&self.slab, level, self.settings.capacity);
        let queue = self.levels.get(level);
        let least = below.or_else(|| queue.least_beside(&self.slab, offer.caller));
        if least.is_none() {
            queue.overload.lost(work, run, limit);
        }
        least.map(Some).ok_or(Reason::QueueFull)
    }

    /// Adds a task that leaves the queue unserved to the lost work of its level. `until` is the time at which its caller
    /// stopped waiting, if that is known.
    pub(super) fn count_lost(&mut self, index: u32, until: Option<Timestamp>) {
        let slot = self.slab.at(index);
        let (work, run, limit) = (self.work(), self.run.value(), self.limiter.current());
        let overload = &mut self.levels.get(usize::from(slot.level)).overload;
        overload.lost(work, run, limit);
        if let Some(until) = until {
            overload.left(until.nanos_since(slot.since) as f64);
        }
    }

    /// Sheds tasks of this level that have waited for so long that they are useless, if they are known to be.
    pub(super) fn shed_useless(&mut self, now: Timestamp, level: usize, rejected: &mut Vec<Rejected<T>>) {
        let queue = self.levels.get(level);
        let Some(useless) = queue.overload.useless() else { return };
        for _ in 0..BATCH {
            match self.levels.get(level).oldest() {
                Some(index) if now.nanos_since(self.slab.at(index).since) > useless => {
                    self.reject(index, Reason::Shed, rejected);
                }
                _ => break,
            }
        }
    }

    /// Ends up to `most` tasks whose time is up.
    pub(super) fn end_due(&mut self, now: Timestamp, most: usize, rejected: &mut Vec<Rejected<T>>) {
        for _ in 0..most {
            match self.next_due() {
                Some((due, index, reason)) if due <= now => self.reject(index, reason, rejected),
                _ => break,
            }
        }
    }

    /// The queued task whose deadline or queue timeout is the soonest, with that time and the reason.
    pub(super) fn next_due(&self) -> Option<(Timestamp, u32, Reason)> {
        let oldest = self.levels.oldest();
        let timeouts = oldest.map(|index| (self.slab.at(index).since + self.settings.timeout, index));
        let timeout = timeouts.min().map(|(due, index)| (due, index, Reason::QueueTimeout));
        let deadline = self.deadlines.first().map(|&(due, index)| (due, index, Reason::DeadlineExceeded));
        timeout.into_iter().chain(deadline).min_by_key(|(due, ..)| *due)
    }

    /// The reason for which a queued task must not start, if there is one.
    pub(super) fn reason_not_to_start(&self, now: Timestamp, index: u32) -> Option<Reason> {
        let slot = self.slab.at(index);
        if slot.task.is_none() {
            return Some(Reason::CutOff);
        }
        if slot.deadline <= now {
            return Some(Reason::DeadlineExceeded);
        }
        (self.timeout_of(slot.since, slot.patient) <= now).then_some(Reason::QueueTimeout)
    }

    /// The queue timeout of a task that was queued at this time. A patient task has none.
    pub(super) fn timeout_of(&self, since: Timestamp, patient: bool) -> Timestamp {
        if patient { Timestamp::MAX } else { since + self.settings.timeout }
    }

    pub(super) fn reject(&mut self, index: u32, reason: Reason, rejected: &mut Vec<Rejected<T>>) {
        let key = self.slab.key(index);
        match reason {
            Reason::DeadlineExceeded => self.count_lost(index, Some(self.slab.at(index).deadline)),
            Reason::QueueTimeout | Reason::Shed => self.count_lost(index, None),
            _ => {}
        }
        self.unlink(index);
        self.count_unstarted(reason);
        let retry_after = self.retry_after(self.clock);
        // A payload is missing only if its caller panicked before it stored one.
        rejected.extend(self.slab.remove(index).map(|task| Rejected { key, task, reason, retry_after }));
    }
}
