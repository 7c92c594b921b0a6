//! Every task that is queued or in flight, by key, and the lists that run through them.
//!
//! A list costs two words in each task and nothing else, so a task leaves from the middle as cheaply as from an end.

use super::timestamp::Timestamp;

/// Names one task of one pool. A key is never valid again once its task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// The virtual queue of a task whose level does not tell callers apart.
pub(super) const UNSHARED: u8 = u8::MAX;

/// Above this many slots the memory of a burst is given back once the pool is idle.
const KEPT: usize = 4096;

/// The two lists that a queued task is in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chain {
    /// The tasks of its level, by arrival.
    Arrival = 0,
    /// The tasks of its virtual queue, by arrival.
    Queue = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Queued,
    InFlight,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

/// One task.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) task: Option<T>,
    /// When it was queued.
    pub(super) since: Timestamp,
    /// Its own deadline, or the end of time.
    pub(super) deadline: Timestamp,
    links: [Links; 2],
    generation: u32,
    pub(super) state: State,
    /// Whether it has its own permit. A queued task has none, and neither has a task that runs inside the permit of another.
    pub(super) has_permit: bool,
    pub(super) level: u8,
    /// Its virtual queue, if the level has any.
    pub(super) queue: u8,
    /// The number of its caller, if the level has virtual queues.
    pub(super) caller: u16,
    /// The limiter's mark, which it reads when the task ends.
    pub(super) mark: u8,
    pub(super) patient: bool,
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: slab::Slab<Slot<T>>,
    generation: u32,
}

/// A list's two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    chain: Chain,
    oldest: u32,
    newest: u32,
    len: u32,
}

// === impl Key ===

impl Key {
    pub(super) const fn index(self) -> u32 {
        self.slot
    }

    /// The key as a number, which is never 0.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// `None` for 0.
    pub(crate) fn of_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self { slot: bits as u32, generation: (bits >> 32) as u32 })
    }
}

// === impl Slab ===

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: slab::Slab::new(), generation: 0 }
    }

    pub(super) fn insert(&mut self, state: State, since: Timestamp, level: u8) -> Key {
        self.generation = self.generation.wrapping_add(1).max(1);
        let links = Links { before: NONE, after: NONE };
        let slot = Slot {
            task: None,
            since,
            deadline: Timestamp::MAX,
            links: [links; 2],
            generation: self.generation,
            state,
            has_permit: false,
            level,
            queue: UNSHARED,
            caller: 0,
            mark: 0,
            patient: false,
        };
        let slot = u32::try_from(self.slots.insert(slot)).expect("fewer than 2^32 tasks fit a pool");
        Key { slot, generation: self.generation }
    }

    /// Forgets a task; its key is stale from here on.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.remove(index as usize);
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            self.slots = slab::Slab::new();
        }
        slot.task
    }

    /// The index of a key whose task is in this state.
    pub(super) fn find(&self, key: Key, state: State) -> Option<u32> {
        let slot = self.slots.get(key.slot as usize)?;
        (slot.generation == key.generation && slot.state == state).then_some(key.slot)
    }

    pub(super) fn key(&self, index: u32) -> Key {
        Key { slot: index, generation: self.at(index).generation }
    }

    /// Whether the one arrived before the other. No task waits for so long that 2^31 others come.
    pub(super) fn is_older(&self, one: u32, other: u32) -> bool {
        let (one, other) = (self.at(one).generation, self.at(other).generation);
        one.wrapping_sub(other) > u32::MAX / 2
    }

    pub(super) fn at(&self, index: u32) -> &Slot<T> {
        &self.slots[index as usize]
    }

    pub(super) fn at_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.slots[index as usize]
    }

    fn links(&mut self, index: u32, chain: Chain) -> Option<&mut Links> {
        self.slots.get_mut(index as usize).map(|slot| &mut slot.links[chain as usize])
    }
}

// === impl List ===

impl List {
    pub(super) const fn new(chain: Chain) -> Self {
        Self { chain, oldest: NONE, newest: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn oldest(&self) -> Option<u32> {
        if self.is_empty() { None } else { Some(self.oldest) }
    }

    pub(super) const fn newest(&self) -> Option<u32> {
        if self.is_empty() { None } else { Some(self.newest) }
    }

    pub(super) const fn first(&self, newest_first: bool) -> Option<u32> {
        if newest_first { self.newest() } else { self.oldest() }
    }

    /// The task behind this one, which is the one before it if the newest is first; or [`NONE`].
    pub(super) fn beside<T>(&self, slab: &Slab<T>, index: u32, newest_first: bool) -> u32 {
        let links = slab.at(index).links[self.chain as usize];
        if newest_first { links.before } else { links.after }
    }

    /// The task that arrived next after this one, or [`NONE`].
    pub(super) fn after<T>(&self, slab: &Slab<T>, index: u32) -> u32 {
        slab.at(index).links[self.chain as usize].after
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        slab.at_mut(index).links[self.chain as usize] = Links { before: self.newest, after: NONE };
        match slab.links(self.newest, self.chain) {
            Some(links) => links.after = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.len += 1;
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let Links { before, after } = slab.at(index).links[self.chain as usize];
        match slab.links(before, self.chain) {
            Some(links) => links.after = after,
            None => self.oldest = after,
        }
        match slab.links(after, self.chain) {
            Some(links) => links.before = before,
            None => self.newest = before,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many tasks; then all leave but one.
    fn after_a_burst(tasks: usize) -> (Slab<()>, Key) {
        let mut slab = Slab::new();
        let mut keys: Vec<_> = (0..tasks).map(|_| slab.insert(State::Queued, Timestamp::default(), 0)).collect();
        let last = keys.pop().expect("there are some");
        keys.into_iter().for_each(|key| _ = slab.remove(key.index()));
        assert_eq!((slab.slots.len(), slab.find(last, State::Queued)), (1, Some(last.index())));
        (slab, last)
    }

    #[test]
    fn a_task_costs_its_payload_and_48_bytes() {
        assert_eq!(size_of::<Slot<Box<()>>>(), size_of::<Box<()>>() + 48);
    }

    #[test]
    fn the_memory_of_a_burst_is_given_back_when_its_last_task_has_gone() {
        let (mut slab, last) = after_a_burst(KEPT + 1);
        slab.remove(last.index());
        assert_eq!((slab.slots.capacity(), slab.find(last, State::Queued)), (0, None));
        let next = slab.insert(State::Queued, Timestamp::default(), 0);
        assert_eq!((next.index(), slab.find(next, State::Queued)), (0, Some(0)));
    }

    #[test]
    fn the_places_of_an_ordinary_load_are_kept_and_taken_again() {
        let (mut slab, last) = after_a_burst(KEPT);
        slab.remove(last.index());
        assert!(slab.slots.is_empty() && slab.slots.capacity() >= KEPT);
        let next = slab.insert(State::Queued, Timestamp::default(), 0);
        assert_eq!(next.index(), last.index());
        assert_eq!((slab.find(next, State::Queued), slab.find(last, State::Queued)), (Some(last.index()), None));
    }
}
