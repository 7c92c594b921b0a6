//! Fairness between the callers of one level: shuffle-sharded virtual queues, served by what each has had.
//!
//! A caller is dealt a hand of [`HAND`] of the [`QUEUES`] queues by its hash, and each of its tasks waits in the
//! shortest of them, those in flight counted; of equal ones, in the one that has been served least. The queue that has
//! been served least is next. What a queue has been served is the execution time of its tasks that ended, and the mean of
//! the pool for each that is in flight; a queue that was empty starts where the others stand, so nobody saves up.
//!
//! The numbers and the method are those of Kubernetes' API Priority and Fairness (KEP-1040). While two queues both have
//! tasks waiting, what they have been served differs by at most (2 C + 1) times the longest execution time, C being the
//! concurrency limit: the one that is behind is always taken first, so it is behind by one start at most, and each of
//! the C in flight on either side can turn out longer or shorter than its estimate by no more than the longest.
//!
//! A caller with few tasks is hindered only if *every* queue of its hand is held by heavy callers. The odds for one, four
//! and sixteen heavy callers are 2.3e-10, 4.9e-4 and 0.36.

use super::random::mix;
use super::slab::{Chain, List, Slab};

/// How many virtual queues a level has.
pub(super) const QUEUES: usize = 64;

/// How many of them a caller may use.
pub(super) const HAND: usize = 8;

#[derive(Debug)]
pub(super) struct Shares {
    queues: [Share; QUEUES],
    /// One bit for each queue that has a task.
    waiting: u64,
    /// What the queue that was taken from last had been served.
    level: f64,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    tasks: List,
    /// Nanoseconds of execution that ended.
    served: f64,
    in_flight: u32,
}

impl Shares {
    pub(super) const fn new() -> Self {
        let share = Share { tasks: List::new(Chain::Share), served: 0.0, in_flight: 0 };
        Self { queues: [share; QUEUES], waiting: 0, level: 0.0 }
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let chosen = self.join(caller, run);
        slab.at_mut(index).share = chosen;
        self.queues[usize::from(chosen)].tasks.push(slab, index);
        self.waiting |= 1 << chosen;
    }

    /// The queue for one more task of this caller, which starts where the others stand if it was empty.
    pub(super) fn join(&mut self, caller: Option<u64>, run: f64) -> u8 {
        let chosen = self.shortest(caller, run);
        let share = &mut self.queues[chosen];
        if share.tasks.is_empty() {
            share.served = share.served.max(self.level - f64::from(share.in_flight) * run);
        }
        chosen as u8
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let chosen = usize::from(slab.at(index).share);
        self.queues[chosen].tasks.unlink(slab, index);
        if self.queues[chosen].tasks.is_empty() {
            self.waiting &= !(1 << chosen);
        }
    }

    /// The next task of the queue that has been served least.
    pub(super) fn next(&self, run: f64, newest_first: bool) -> Option<u32> {
        let served = |queue: &usize| self.queues[*queue].standing(run);
        let queue = self.waiting().min_by(|a, b| served(a).total_cmp(&served(b)))?;
        let tasks = &self.queues[queue].tasks;
        if newest_first { tasks.newest() } else { tasks.oldest() }
    }

    /// Notes that a task of this queue starts.
    pub(super) fn started(&mut self, share: u8, run: f64) {
        let share = &mut self.queues[usize::from(share)];
        self.level = self.level.max(share.standing(run));
        share.in_flight += 1;
    }

    /// Notes that a task of this queue ended.
    pub(super) fn ended(&mut self, share: u8, ran: f64) {
        let share = &mut self.queues[usize::from(share)];
        share.in_flight -= 1;
        share.served += ran;
    }

    /// The newest task of the longest queue.
    pub(super) fn longest(&self) -> Option<u32> {
        let queue = self.waiting().max_by_key(|&queue| self.queues[queue].tasks.len())?;
        self.queues[queue].tasks.newest()
    }

    /// The newest task of the longest queue, if that is longer than the caller's would be.
    pub(super) fn longer_than(&self, caller: Option<u64>) -> Option<u32> {
        let own = self.queues[self.shortest(caller, 0.0)].tasks.len();
        let longest = self.longest()?;
        let most = self.waiting().map(|queue| self.queues[queue].tasks.len()).max()?;
        (most > own + 1).then_some(longest)
    }

    fn shortest(&self, caller: Option<u64>, run: f64) -> usize {
        let hand = deal(caller.unwrap_or(0)).into_iter();
        let shortest = hand.min_by(|&a, &b| {
            let (a, b) = (&self.queues[a], &self.queues[b]);
            a.tasks_in_all().cmp(&b.tasks_in_all()).then(a.standing(run).total_cmp(&b.standing(run)))
        });
        shortest.expect("a hand is not empty")
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
    /// Those that wait, and those in flight.
    fn tasks_in_all(&self) -> usize {
        self.tasks.len() + self.in_flight as usize
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::random::Random;
    use crate::admission::{Admission, Admitted, Offer, Outcome, Settings, Timestamp};
    use std::time::Duration;

    /// The odds that every queue of one hand is in one of `heavy` others: over the number of queues that those cover
    /// together, which grows by a hypergeometric draw with each hand.
    fn closed_form(heavy: usize) -> f64 {
        let choose = |n: usize, k: usize| (0..k).fold(1.0, |all, i| all * (n as f64 - i as f64) / (k - i) as f64);
        let mut covered = [0.0; QUEUES + 1];
        covered[0] = 1.0;
        for _ in 0..heavy {
            let mut next = [0.0; QUEUES + 1];
            for (have, odds) in covered.into_iter().enumerate() {
                for new in 0..=HAND.min(QUEUES - have) {
                    let ways = choose(QUEUES - have, new) * choose(have, HAND - new);
                    next[have + new] += odds * ways / choose(QUEUES, HAND);
                }
            }
            covered = next;
        }
        covered.iter().enumerate().map(|(have, odds)| odds * choose(have, HAND) / choose(QUEUES, HAND)).sum()
    }

    #[test]
    fn the_closed_form_gives_the_published_odds_of_a_collision() {
        for (heavy, odds) in [(1, 2.3e-10), (4, 4.9e-4), (16, 0.36)] {
            let ours = closed_form(heavy);
            assert!((ours / odds - 1.0).abs() < 0.03, "{ours:e} for {heavy}, published {odds:e}");
        }
    }

    #[test]
    fn hands_collide_as_often_as_the_closed_form_says() {
        let mut random = Random::new(7);
        let mut hand = || deal((random.fraction() * 1e18) as u64);
        for (heavy, trials) in [(8, 20_000), (16, 10_000)] {
            let mut hits = 0.0;
            for _ in 0..trials {
                let mut covered = [false; QUEUES];
                (0..heavy).for_each(|_| hand().into_iter().for_each(|queue| covered[queue] = true));
                hits += f64::from(u8::from(hand().into_iter().all(|queue| covered[queue])));
            }
            let (expected, trials) = (closed_form(heavy), f64::from(trials));
            let deviation = (expected * (1.0 - expected) / trials).sqrt();
            assert!((hits / trials - expected).abs() < 4.0 * deviation, "{} for {expected}", hits / trials);
        }
    }

    #[test]
    fn a_hand_has_eight_different_queues() {
        for caller in 0..1000 {
            let mut hand = deal(caller);
            hand.sort_unstable();
            assert!(hand.windows(2).all(|pair| pair[0] < pair[1]) && hand[HAND - 1] < QUEUES, "{hand:?}");
        }
    }

    /// Otherwise the second would wait until all others have had as much as the first.
    #[test]
    fn a_caller_does_not_join_the_queue_of_another_while_it_has_an_idle_one() {
        let second = (2..).find(|&other| deal(other)[0] == deal(1)[0]).expect("one of 64 begins with the same card");
        let mut shares = Shares::new();
        let of_first = shares.join(Some(1), 1e6);
        assert_eq!(usize::from(of_first), deal(1)[0]);
        shares.started(of_first, 1e6);
        assert_ne!(shares.join(Some(second), 1e6), of_first, "it is in flight");
        shares.ended(of_first, 1e9);
        assert_ne!(shares.join(Some(second), 1e6), of_first, "it has had a second");
    }

    /// The caller 1, and one with whom it shares no queue.
    fn callers_apart() -> [u64; 2] {
        let apart = |other: &u64| deal(1).iter().all(|queue| !deal(*other).contains(queue));
        [1, (2..).find(apart).expect("most hands are apart")]
    }

    #[test]
    fn a_queue_that_was_empty_starts_where_the_others_stand_with_what_it_has_in_flight() {
        const RUN: f64 = 1e6;
        let mut shares = Shares::new();
        let [first, second] = callers_apart();
        let first = shares.join(Some(first), RUN);
        shares.started(first, RUN);
        shares.ended(first, 1e9);
        shares.started(first, RUN);
        let join = |shares: &mut Shares| {
            let joined = shares.join(Some(second), RUN);
            (joined, shares.queues[usize::from(joined)].standing(RUN))
        };
        for _ in 0..HAND {
            let (joined, standing) = join(&mut shares);
            assert_eq!(standing, 1e9, "it is idle");
            shares.started(joined, RUN);
        }
        shares.level = 2e9;
        assert_eq!(join(&mut shares).1, 2e9, "each queue of its hand has one in flight");
    }

    /// Runs two callers whose hands are apart against each other; answers how far apart what they had ever was.
    fn divergence(limit: usize, run: impl Fn(u64, u64) -> u64) -> f64 {
        let callers = callers_apart();
        let settings = Settings { timeout: Duration::from_secs(1 << 30), ..Settings::fixed(limit) };
        let mut admission = Admission::new(settings, 1);
        let (mut evicted, mut running, mut had, mut worst) = (Vec::new(), Vec::new(), [0.0_f64; 2], 0.0_f64);
        let mut waiting = [0_u64; 2];
        for step in 0..4000_u64 {
            let now = Timestamp::from_nanos(step * 1000);
            for caller in 0..2 {
                // Each keeps far more waiting than one queue of its hand can give up at once.
                while waiting[caller] < 200 {
                    let offer = Offer { caller: Some(callers[caller]), ..Offer::default() };
                    match admission.offer(now, offer, &mut evicted).expect("there is room") {
                        Admitted::Queued(key) => {
                            admission.store(key, caller);
                            waiting[caller] += 1;
                        }
                        Admitted::InFlight(key) => running.push((step + run(caller as u64, step), caller, key)),
                    }
                }
            }
            running.retain(|&(end, caller, key)| {
                if end <= step {
                    let ran = run(caller as u64, step) * 1000;
                    assert!(admission.finish(now, key, Outcome::Ok, Some(Duration::from_nanos(ran))));
                    had[caller] += ran as f64;
                }
                end > step
            });
            while let Some(taken) = admission.take(now, &mut evicted) {
                waiting[taken.task] -= 1;
                running.push((step + run(taken.task as u64, step), taken.task, taken.key));
            }
            worst = worst.max((had[0] - had[1]).abs());
        }
        assert!(had[0] + had[1] > 0.0);
        worst
    }

    #[test]
    fn callers_that_always_wait_get_the_same_whatever_their_tasks_take() {
        // A hand is eight queues, so a caller's share may stand apart by as many times the bound of one queue.
        for (limit, long) in [(1, 1), (1, 10), (4, 10), (8, 40)] {
            let bound = (HAND * (2 * limit + 1)) as f64 * long as f64 * 1000.0;
            let worst = divergence(limit, |caller, _| if caller == 0 { long } else { 1 });
            assert!(worst <= bound, "{worst} of {bound} with a limit of {limit} and tasks of {long} and 1");
        }
    }
}
