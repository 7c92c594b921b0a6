//! Jobs by key, and the waiting ones in order: a slab with a doubly linked list through it, so that taking from the
//! front and leaving from the middle both cost the same at any depth.

use super::moment::Moment;

/// Names one job of one pool. A key is never valid again once its job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Free { next: u32 },
    InFlight,
    Queued { before: u32, after: u32, since: Moment, until: Moment, job: Option<T> },
}

/// What a queued job leaves behind when it is taken out.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    pub(super) since: Moment,
    pub(super) job: T,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    oldest: u32,
    newest: u32,
    queued: usize,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, oldest: NONE, newest: NONE, queued: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.queued
    }

    /// A key for a job that is in flight from the start.
    pub(super) fn insert_in_flight(&mut self) -> Key {
        self.insert(State::InFlight)
    }

    /// A key at the end of the queue; its job follows with [`store`](Self::store).
    pub(super) fn push(&mut self, since: Moment, until: Moment) -> Key {
        let before = self.newest;
        let key = self.insert(State::Queued { before, after: NONE, since, until, job: None });
        match self.links(before) {
            Some((_, after)) => *after = key.slot,
            None => self.oldest = key.slot,
        }
        self.newest = key.slot;
        self.queued += 1;
        key
    }

    pub(super) fn store(&mut self, key: Key, value: T) {
        if let Some(State::Queued { job, .. }) = self.get(key) {
            *job = Some(value);
        }
    }

    /// The key that waits longest, and when its waiting must end.
    pub(super) fn oldest(&self) -> Option<(Key, Moment)> {
        let slot = self.slots.get(self.oldest as usize)?;
        match slot.state {
            State::Queued { until, .. } => Some((Key { slot: self.oldest, generation: slot.generation }, until)),
            _ => None,
        }
    }

    /// Takes a queued job out and forgets its key.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waiter<T>> {
        let waiter = self.unlink(key)?;
        self.release(key.slot);
        Some(waiter)
    }

    /// Takes a queued job out; its key is in flight from here on.
    pub(super) fn promote(&mut self, key: Key) -> Option<Waiter<T>> {
        self.unlink(key)
    }

    /// Forgets the key of a job in flight. Answers whether it was one.
    pub(super) fn end(&mut self, key: Key) -> bool {
        let in_flight = matches!(self.get(key), Some(State::InFlight));
        if in_flight {
            self.release(key.slot);
        }
        in_flight
    }

    fn insert(&mut self, state: State<T>) -> Key {
        let slot = self.free;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            if let State::Free { next } = place.state {
                self.free = next;
            }
            place.state = state;
            return Key { slot, generation: place.generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 jobs fit a pool");
        self.slots.push(Slot { generation: 0, state });
        Key { slot, generation: 0 }
    }

    fn release(&mut self, slot: u32) {
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.state = State::Free { next: self.free };
        self.free = slot;
    }

    fn get(&mut self, key: Key) -> Option<&mut State<T>> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(&mut slot.state)
    }

    fn links(&mut self, slot: u32) -> Option<(&mut u32, &mut u32)> {
        match self.slots.get_mut(slot as usize).map(|slot| &mut slot.state) {
            Some(State::Queued { before, after, .. }) => Some((before, after)),
            _ => None,
        }
    }

    fn unlink(&mut self, key: Key) -> Option<Waiter<T>> {
        let state = self.get(key)?;
        if !matches!(state, State::Queued { job: Some(_), .. }) {
            return None;
        }
        let State::Queued { before, after, since, job: Some(job), .. } = std::mem::replace(state, State::InFlight)
        else {
            return None;
        };
        match self.links(before) {
            Some((_, link)) => *link = after,
            None => self.oldest = after,
        }
        match self.links(after) {
            Some((link, _)) => *link = before,
            None => self.newest = before,
        }
        self.queued -= 1;
        Some(Waiter { since, job })
    }
}
