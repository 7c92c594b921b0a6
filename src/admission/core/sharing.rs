//! Tasks in flight without their own permit: they run inside the permit of another task.
//!
//! A *nested* task is awaited by a task of its pool on the worker that polls both. It gets a permit of its own if one is
//! free, and there is a worker for it. The tasks of a *batch* join the task that a worker took, in the order in which they
//! would start: of the highest level first, and in a level as callers are served. A batch counts as one towards the limit,
//! and its tasks share its time.

use super::super::batch::Join;
use super::super::settings::Offer;
use super::super::slab::{Key, State, UNSHARED};
use super::super::timestamp::Timestamp;
use super::{Admission, Finish, Rejected, Started};
use crate::error::Reason;

/// How many queued tasks one call looks at, at most.
const LOOKS: usize = 256;

impl<T> Admission<T> {
    /// Takes a queued task out of the queue and makes it in flight without a permit: it runs in place, inside the
    /// permit of the task that awaits it. `None` if it does not wait (any more).
    pub fn start_riding(&mut self, now: Timestamp, key: Key) -> Option<T> {
        self.pass(now);
        let index = self.waiting(key)?;
        self.unlink(index);
        self.without_permit += 1;
        let slot = self.slab.at_mut(index);
        // It takes nothing from other callers.
        (slot.state, slot.queue) = (State::InFlight, UNSHARED);
        slot.task.take()
    }

    /// Starts a queued task with a permit of its own, ahead of those before it, because a task in flight awaits it.
    /// `None` if no permit is free, or it does not wait (any more).
    pub fn start_awaited(&mut self, now: Timestamp, key: Key) -> Option<Started<T>> {
        self.pass(now);
        let index = self.waiting(key).filter(|_| self.free_permits() > 0)?;
        let level = usize::from(self.slab.at(index).level);
        Some(self.start(now, level, index))
    }

    /// Admits a task that runs in place, inside the permit of the task that awaits it, without waiting.
    ///
    /// # Errors
    ///
    /// The reason of a rejection: the pool is draining, or the deadline has passed.
    pub fn offer_riding(&mut self, now: Timestamp, offer: Offer) -> Result<Key, Reason> {
        self.pass(now);
        self.counts.submitted += 1;
        self.check(now, offer).inspect_err(|&reason| self.count_unstarted(reason))?;
        self.without_permit += 1;
        Ok(self.slab.insert(State::InFlight, now, offer.level as u8))
    }

    /// Takes queued tasks that join the batch of a task in flight, `most` of them at most, and adds them to `batch`.
    /// `join` decides on each task that waits, in the order in which they would start. Tasks that are found too late
    /// end on the way.
    pub fn take_more(
        &mut self,
        now: Timestamp,
        most: usize,
        mut join: impl FnMut(&T) -> Join,
        batch: &mut Vec<T>,
        rejected: &mut Vec<Rejected<T>>,
    ) {
        self.pass(now);
        let (mut looks, enough) = (0, batch.len() + most);
        for level in 0..self.levels.len() {
            let mut walk = self.levels.get(level).walk();
            while batch.len() < enough && looks < LOOKS {
                let work = self.work();
                let Some(index) = self.levels.get(level).step(&self.slab, &mut walk, work) else { break };
                looks += 1;
                match self.reason_not_to_start(now, index) {
                    Some(reason) => self.reject(index, reason, rejected),
                    None => match self.slab.at(index).task.as_ref().map_or(Join::Skip, &mut join) {
                        Join::Take => batch.extend(self.start_shared(now, index)),
                        Join::Skip => {}
                        Join::Expire => self.reject(index, Reason::DeadlineExceeded, rejected),
                        Join::Stop => return,
                    },
                }
            }
        }
    }

    fn start_shared(&mut self, now: Timestamp, index: u32) -> Option<T> {
        self.unlink(index);
        self.drain_rate.started(now, self.queued > 0);
        self.without_permit += 1;
        let slot = self.slab.at_mut(index);
        (slot.state, slot.since) = (State::InFlight, now);
        let (level, task) = (usize::from(slot.level), slot.task.take());
        self.levels.get(level).started(&self.slab, index);
        task
    }

    /// The place of a queued task whose payload is stored.
    fn waiting(&self, key: Key) -> Option<u32> {
        self.slab.find(key, State::Queued).filter(|&index| self.slab.at(index).task.is_some())
    }

    /// Ends a task that had no permit.
    pub(super) fn finish_shared(&mut self, now: Timestamp, index: u32, finish: Finish) {
        let ran = finish.batch.and(finish.ran).map(super::super::timestamp::nanos);
        self.leave_level(now, index, finish, ran);
    }
}
