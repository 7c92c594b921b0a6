//! Fairness between the callers of one level: shuffle-sharded virtual queues, served by what each has had.
//!
//! A caller is dealt a hand of [`HAND`] of the [`QUEUES`] queues by its hash, and each of its jobs waits in the
//! shortest of them. The queue that has been served least is next. What a queue has been served is the execution time
//! of its jobs that ended, and the mean of the pool for each that is in flight; a queue that was empty starts where the
//! others stand, so nobody saves up.
//!
//! The numbers and the method are those of Kubernetes' API Priority and Fairness (KEP-1040). While two queues both have
//! jobs waiting, what they have been served differs by at most (2 C + 1) times the longest execution time, C being the
//! concurrency limit: the one that is behind is always taken first, so it is behind by one start at most, and each of
//! the C in flight on either side can turn out longer or shorter than its estimate by no more than the longest.
//!
//! A caller with few jobs is hindered only if *every* queue of its hand is held by heavy callers. The odds for one, four
//! and sixteen heavy callers are 2.3e-10, 4.9e-4 and 0.36.

use super::random::mix;
use super::slab::{Chain, List, Slab};

/// How many virtual queues a level has.
pub(super) const QUEUES: usize = 64;

/// The virtual queue of a job whose level does not tell callers apart.
pub(super) const UNSHARED: u8 = u8::MAX;

/// How many of them a caller may use.
pub(super) const HAND: usize = 8;

#[derive(Debug)]
pub(super) struct Shares {
    queues: [Share; QUEUES],
    /// One bit for each queue that has a job.
    waiting: u64,
    /// What the queue that was taken from last had been served.
    level: f64,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    jobs: List,
    /// Nanoseconds of execution that ended.
    served: f64,
    in_flight: u32,
}

impl Shares {
    pub(super) const fn new() -> Self {
        let share = Share { jobs: List::new(Chain::Share), served: 0.0, in_flight: 0 };
        Self { queues: [share; QUEUES], waiting: 0, level: 0.0 }
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let chosen = self.join(caller, run);
        slab.at_mut(index).share = chosen;
        self.queues[usize::from(chosen)].jobs.push(slab, index);
        self.waiting |= 1 << chosen;
    }

    /// The queue for one more job of this caller, which starts where the others stand if it was empty.
    pub(super) fn join(&mut self, caller: Option<u64>, run: f64) -> u8 {
        let chosen = self.shortest(caller);
        let share = &mut self.queues[chosen];
        if share.jobs.is_empty() {
            share.served = share.served.max(self.level - f64::from(share.in_flight) * run);
        }
        chosen as u8
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let chosen = usize::from(slab.at(index).share);
        self.queues[chosen].jobs.unlink(slab, index);
        if self.queues[chosen].jobs.is_empty() {
            self.waiting &= !(1 << chosen);
        }
    }

    /// The next job of the queue that has been served least.
    pub(super) fn next(&self, run: f64, newest_first: bool) -> Option<u32> {
        let served = |queue: &usize| self.queues[*queue].standing(run);
        let queue = self.waiting().min_by(|a, b| served(a).total_cmp(&served(b)))?;
        let jobs = &self.queues[queue].jobs;
        if newest_first { jobs.newest() } else { jobs.oldest() }
    }

    /// Notes that a job of this queue starts.
    pub(super) fn started(&mut self, share: u8, run: f64) {
        let share = &mut self.queues[usize::from(share)];
        self.level = self.level.max(share.standing(run));
        share.in_flight += 1;
    }

    /// Notes that a job of this queue ended.
    pub(super) fn ended(&mut self, share: u8, ran: f64) {
        let share = &mut self.queues[usize::from(share)];
        share.in_flight -= 1;
        share.served += ran;
    }

    /// The newest job of the longest queue.
    pub(super) fn longest(&self) -> Option<u32> {
        let queue = self.waiting().max_by_key(|&queue| self.queues[queue].jobs.len())?;
        self.queues[queue].jobs.newest()
    }

    /// The newest job of the longest queue, if that is longer than the caller's would be.
    pub(super) fn longer_than(&self, caller: Option<u64>) -> Option<u32> {
        let own = self.queues[self.shortest(caller)].jobs.len();
        let longest = self.longest()?;
        let most = self.waiting().map(|queue| self.queues[queue].jobs.len()).max()?;
        (most > own + 1).then_some(longest)
    }

    fn shortest(&self, caller: Option<u64>) -> usize {
        let hand = deal(caller.unwrap_or(0));
        hand.into_iter().min_by_key(|&queue| self.queues[queue].jobs.len()).expect("a hand is not empty")
    }

    fn waiting(&self) -> impl Iterator<Item = usize> + Clone {
        let mut left = self.waiting;
        std::iter::from_fn(move || {
            let queue = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (queue < QUEUES).then_some(queue)
        })
    }
}

impl Share {
    /// What it has been served, those in flight taken at the pool's mean.
    fn standing(&self, run: f64) -> f64 {
        self.served + f64::from(self.in_flight) * run
    }
}

/// The queues of a caller: the first cards of a deck that its hash shuffled.
pub(super) fn deal(caller: u64) -> [usize; HAND] {
    let mut deck: [u8; QUEUES] = std::array::from_fn(|card| card as u8);
    let mut entropy = mix(caller.wrapping_add(0x9E37_79B9_7F4A_7C15));
    std::array::from_fn(|place| {
        // 64 · 63 · … · 57 is below 2^48, so one hash is enough for the whole hand.
        let left = QUEUES - place;
        let card = place + (entropy % left as u64) as usize;
        entropy /= left as u64;
        deck.swap(place, card);
        usize::from(deck[place])
    })
}
