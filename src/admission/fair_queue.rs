//! Fairness between the callers of one level: shuffle-sharded virtual queues, of which the least served is next.
//!
//! A caller is dealt a hand of [`HAND`] of the [`QUEUES`] queues by its hash, and each of its tasks waits in the
//! shortest of them, those in flight counted. The queue that has been served least is next. The numbers and the method
//! are those of Kubernetes' API Priority and Fairness (KEP-1040). A caller with few tasks is hindered only if *every*
//! queue of its hand is held by heavy callers. The odds for one, four and sixteen heavy callers are 2.3e-10, 4.9e-4 and
//! 0.36.
//!
//! **What a queue has been served** is the execution time of its tasks that ended, and the mean of the pool for each that
//! is in flight. Only time during which tasks of the level waited counts: a caller that has the pool to itself takes
//! from no other caller. Once the level has no task queued, all counts start again at zero. An empty queue that gets a
//! task joins with the least that any waiting queue has been served, unless it has had more itself: a caller saves up
//! nothing while it is idle, and a new caller does not wait for a full round. (KEP-1040 has the same in "the virtual
//! time at which a queue becomes non-empty".)
//!
//! While two queues both have tasks waiting, what they have been served differs by at most (2 C + 1) times the longest
//! execution time, C being the concurrency limit: the queue that is behind is always taken first, so it is behind by
//! one start at most, and each of the C tasks in flight on either side can turn out longer or shorter than its estimate
//! by no more than the longest.
//!
//! **A full queue** sheds the newest task of the caller with most tasks, queued or in flight, for a caller with fewer.
//! Tasks are counted by caller and not by queue, because in a short queue a heavy caller has one task in each of its
//! virtual queues. The counts are in a table of [`CALLERS`] hash buckets, so the odds that a light caller shares a bucket
//! with one of `n` heavy callers are `n` in [`CALLERS`].

use super::random::mix;
use super::slab::{Chain, List, NONE, Slab, UNSHARED};
use super::timestamp::Timestamp;

/// How many virtual queues a level has.
pub(super) const QUEUES: usize = 64;

/// How many of them a caller may use.
pub(super) const HAND: usize = 8;

/// The number of hash buckets in which queued tasks are counted by caller.
const CALLERS: usize = 4096;

#[derive(Debug)]
pub(super) struct FairQueue {
    queues: [VirtualQueue; QUEUES],
    /// One bit for each queue that has a task waiting.
    waiting: u64,
    /// Since when tasks have waited without a break, and how many such times there were.
    since: Timestamp,
    round: u32,
    /// How many tasks of each caller wait or are in flight.
    held: [u32; CALLERS],
}

#[derive(Clone, Copy, Debug)]
struct VirtualQueue {
    tasks: List,
    /// Nanoseconds of execution in this round.
    served: f64,
    round: u32,
    in_flight: u32,
}

impl FairQueue {
    pub(super) const fn new() -> Self {
        let queue = VirtualQueue { tasks: List::new(Chain::Queue), served: 0.0, round: 0, in_flight: 0 };
        Self { queues: [queue; QUEUES], waiting: 0, since: Timestamp::MAX, round: 0, held: [0; CALLERS] }
    }

    /// A task of this caller waits.
    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let queue = self.join(slab, index, caller, run);
        self.queues[queue].tasks.push(slab, index);
        if self.waiting == 0 {
            (self.since, self.round) = (slab.at(index).since, self.round.wrapping_add(1));
        }
        self.waiting |= 1 << queue;
    }

    /// A task of this caller starts without having waited.
    pub(super) fn start_at_once<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let queue = self.join(slab, index, caller, run);
        self.queues[queue].in_flight += 1;
    }

    /// The queue for one more task of this caller.
    fn join<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) -> usize {
        let chosen = self.shortest(caller);
        let least = self.least_served(run).map_or(0.0, |(standing, _)| standing);
        let round = self.round;
        let queue = &mut self.queues[chosen];
        if queue.tasks.is_empty() {
            queue.served = queue.served_in(round).max(least - f64::from(queue.in_flight) * run);
            queue.round = round;
        }
        let number = number(caller);
        self.held[usize::from(number)] += 1;
        let slot = slab.at_mut(index);
        (slot.queue, slot.caller) = (chosen as u8, number);
        chosen
    }

    /// A task that waits leaves its queue.
    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let slot = slab.at_mut(index);
        let (queue, caller) = (usize::from(slot.queue), slot.caller);
        self.held[usize::from(caller)] -= 1;
        self.queues[queue].tasks.unlink(slab, index);
        if self.queues[queue].tasks.is_empty() {
            self.waiting &= !(1 << queue);
        }
    }

    /// A task that has just left its queue starts.
    pub(super) fn started<T>(&mut self, slab: &Slab<T>, index: u32) {
        let slot = slab.at(index);
        self.held[usize::from(slot.caller)] += 1;
        self.queues[usize::from(slot.queue)].in_flight += 1;
    }

    /// A task in flight ends that executed for so long.
    pub(super) fn ended<T>(&mut self, slab: &Slab<T>, index: u32, now: Timestamp, ran: f64) {
        let slot = slab.at(index);
        if slot.queue == UNSHARED {
            return;
        }
        self.held[usize::from(slot.caller)] -= 1;
        let round = self.round;
        let queue = &mut self.queues[usize::from(slot.queue)];
        queue.in_flight -= 1;
        if self.waiting != 0 {
            let contended = ran.min(now.nanos_since(self.since) as f64);
            (queue.served, queue.round) = (queue.served_in(round) + contended, round);
        }
    }

    /// The next task of the queue that has been served least.
    pub(super) fn next(&self, run: f64, newest_first: bool) -> Option<u32> {
        let (_, queue) = self.least_served(run)?;
        let tasks = &self.queues[queue].tasks;
        tasks.first(newest_first)
    }

    /// The first task of each queue.
    pub(super) fn walk(&self, newest_first: bool) -> [u32; QUEUES] {
        std::array::from_fn(|queue| self.queues[queue].tasks.first(newest_first).unwrap_or(NONE))
    }

    /// Of these, one of each queue, the task of the queue that has been served least; [`NONE`] if there is none.
    pub(super) fn least_served_of(&self, next: &[u32; QUEUES], run: f64) -> u32 {
        let waiting = (0..QUEUES).filter(|&queue| next[queue] != NONE);
        let served = waiting.map(|queue| (self.queues[queue].standing(self.round, run), queue));
        served.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(NONE, |(_, queue)| next[queue])
    }

    /// Replaces this task, in the walk, by the next one of its queue.
    pub(super) fn advance<T>(&self, slab: &Slab<T>, walk: &mut [u32; QUEUES], index: u32, newest_first: bool) {
        let queue = usize::from(slab.at(index).queue);
        walk[queue] = self.queues[queue].tasks.beside(slab, index, newest_first);
    }

    /// The newest task of the caller that has most, and how many that are.
    pub(super) fn most<T>(&self, slab: &Slab<T>) -> Option<(u32, u32)> {
        let newest = self.waiting().filter_map(|queue| self.queues[queue].tasks.newest());
        newest.map(|index| (index, self.held[usize::from(slab.at(index).caller)])).max_by_key(|(_, held)| *held)
    }

    /// The same, if one more task of this caller would leave it with fewer than that one has.
    pub(super) fn most_beside<T>(&self, slab: &Slab<T>, caller: Option<u64>) -> Option<u32> {
        let own = self.held[usize::from(number(caller))] + 1;
        self.most(slab).filter(|(_, held)| *held > own).map(|(index, _)| index)
    }

    /// The waiting queue that has been served least: its service, and its number.
    fn least_served(&self, run: f64) -> Option<(f64, usize)> {
        let served = self.waiting().map(|queue| (self.queues[queue].standing(self.round, run), queue));
        served.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn shortest(&self, caller: Option<u64>) -> usize {
        let hand = deal(caller.unwrap_or(0)).into_iter();
        hand.min_by_key(|&queue| self.queues[queue].tasks_in_all()).expect("a hand is not empty")
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

impl VirtualQueue {
    /// Those that wait, and those in flight.
    fn tasks_in_all(&self) -> usize {
        self.tasks.len() + self.in_flight as usize
    }

    fn served_in(&self, round: u32) -> f64 {
        if self.round == round { self.served } else { 0.0 }
    }

    /// Its service in this round; each task in flight counts as the pool's mean.
    fn standing(&self, round: u32, run: f64) -> f64 {
        self.served_in(round) + f64::from(self.in_flight) * run
    }
}

/// The bucket of a caller.
fn number(caller: Option<u64>) -> u16 {
    (mix(caller.unwrap_or(0)) % CALLERS as u64) as u16
}

/// The queues of a caller: the first cards of a deck that its hash shuffled.
pub(super) fn deal(caller: u64) -> [usize; HAND] {
    let mut deck: [u8; QUEUES] = std::array::from_fn(|card| card as u8);
    let mut entropy = mix(caller.wrapping_add(0x9E37_79B9_7F4A_7C15));
    std::array::from_fn(|position| {
        // 64 · 63 · … · 57 is below 2^48, so one hash is enough for the whole hand.
        let left = QUEUES - position;
        let card = position + (entropy % left as u64) as usize;
        entropy /= left as u64;
        deck.swap(position, card);
        usize::from(deck[position])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::random::Random;
    use crate::admission::slab::State;
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

    /// The caller 1, and another that shares no queue with it.
    fn callers_apart() -> [u64; 2] {
        let apart = |other: &u64| deal(1).iter().all(|queue| !deal(*other).contains(queue));
        [1, (2..).find(apart).expect("most hands are apart")]
    }

    /// A fair queue and the tasks in it, which take a millisecond each.
    struct Fixture {
        fair: FairQueue,
        slab: Slab<()>,
    }

    const RUN: f64 = 1e6;

    impl Fixture {
        fn new() -> Self {
            Self { fair: FairQueue::new(), slab: Slab::new() }
        }

        fn push(&mut self, caller: u64) -> u32 {
            let index = self.slab.insert(State::Queued, Timestamp::default(), 0).index();
            self.fair.push(&mut self.slab, index, Some(caller), RUN);
            index
        }

        fn start_at_once(&mut self, caller: u64) -> u32 {
            let index = self.slab.insert(State::InFlight, Timestamp::default(), 0).index();
            self.fair.start_at_once(&mut self.slab, index, Some(caller), RUN);
            index
        }

        fn next(&mut self) -> u32 {
            let index = self.fair.next(RUN, false).expect("tasks wait");
            self.fair.unlink(&mut self.slab, index);
            self.fair.started(&self.slab, index);
            index
        }

        /// Ends a task at this time, in nanoseconds, that ran for so long.
        fn end(&mut self, index: u32, now: f64, ran: f64) {
            self.fair.ended(&self.slab, index, Timestamp::from_nanos(now as u64), ran);
            self.slab.remove(index);
        }

        fn queue(&self, index: u32) -> usize {
            usize::from(self.slab.at(index).queue)
        }
    }

    /// Otherwise the second would wait until all others have had as much as the first.
    #[test]
    fn a_caller_does_not_join_the_queue_of_another_while_it_has_an_idle_one() {
        let second = (2..).find(|&other| deal(other)[0] == deal(1)[0]).expect("one of 64 begins with the same card");
        let mut fixture = Fixture::new();
        let first = fixture.start_at_once(1);
        assert_eq!(fixture.queue(first), deal(1)[0]);
        let other = fixture.start_at_once(second);
        assert_ne!(fixture.queue(other), fixture.queue(first), "it is in flight");
    }

    #[test]
    fn what_a_caller_had_while_no_other_waited_is_no_debt() {
        let [first, second] = callers_apart();
        let mut fixture = Fixture::new();
        for _ in 0..100 {
            let alone = fixture.start_at_once(first);
            fixture.end(alone, 0.0, 1000.0 * RUN);
        }
        let long: Vec<_> = (0..8).map(|_| fixture.start_at_once(first)).collect();
        (0..20).for_each(|_| _ = fixture.push(second));
        // They took a thousand times as long, and the last of it while another waited.
        long.into_iter().for_each(|index| fixture.end(index, RUN, 1000.0 * RUN));
        fixture.push(first);
        let mut taken = Vec::new();
        for _ in 0..10 {
            let index = fixture.next();
            taken.push(fixture.queue(index));
        }
        assert!(taken.iter().any(|queue| deal(first).contains(queue)), "it waits for one round at most: {taken:?}");
    }

    #[test]
    fn a_newcomer_is_served_next_and_does_not_save_up() {
        let [first, second] = callers_apart();
        let mut fixture = Fixture::new();
        (0..100).for_each(|_| _ = fixture.push(first));
        for round in 1..50 {
            let index = fixture.next();
            fixture.end(index, f64::from(round) * RUN, RUN);
        }
        (0..20).for_each(|_| _ = fixture.push(second));
        let mut had = [0; 2];
        for round in 50..70 {
            let index = fixture.next();
            had[usize::from(deal(second).contains(&fixture.queue(index)))] += 1;
            fixture.end(index, f64::from(round) * RUN, RUN);
        }
        assert!(had[1] >= 10 && had[0] >= 8, "about half each: {had:?}");
    }

    #[test]
    fn at_the_door_the_caller_with_most_gives_way_and_no_one_else() {
        let [first, second] = callers_apart();
        let mut fixture = Fixture::new();
        (0..3).for_each(|_| _ = fixture.push(first));
        let least = fixture.fair.most_beside(&fixture.slab, Some(second));
        assert!(least.is_some_and(|index| deal(first).contains(&fixture.queue(index))));
        assert_eq!(fixture.fair.most_beside(&fixture.slab, Some(first)), None, "it has most itself");
        (0..2).for_each(|_| _ = fixture.push(second));
        assert_eq!(fixture.fair.most_beside(&fixture.slab, Some(second)), None, "both would have three");
    }

    /// Runs two callers whose hands are apart against each other; answers how far apart what they had ever was.
    fn divergence(limit: usize, run: impl Fn(u64, u64) -> u64) -> f64 {
        let callers = callers_apart();
        let settings = Settings { timeout: Duration::from_secs(1 << 30), ..Settings::fixed(limit) };
        let mut admission = Admission::new(settings, 1);
        let (mut rejected, mut running, mut had, mut worst) = (Vec::new(), Vec::new(), [0.0_f64; 2], 0.0_f64);
        let mut waiting = [0_u64; 2];
        for step in 0..4000_u64 {
            let now = Timestamp::from_nanos(step * 1000);
            for caller in 0..2 {
                // Each keeps far more waiting than one queue of its hand can give up at once.
                while waiting[caller] < 200 {
                    let offer = Offer { caller: Some(callers[caller]), ..Offer::default() };
                    match admission.offer(now, offer, &mut rejected).expect("there is room") {
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
            while let Some(taken) = admission.take(now, &mut rejected) {
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
