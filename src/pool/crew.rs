//! The workers of a pool, by seat: who is there, who sleeps, and who is to come.
//!
//! Everything here happens under the lock of `dispatch.rs`, whose protocol it serves.

use std::time::Duration;

use super::level::{Level, Seen};
use super::thread_state::{self, ThreadId};
use crate::admission::Timestamp as Moment;
use crate::sync::{Thread, current};
use crate::threads::BARREN;

/// The workers of a pool, by seat.
#[derive(Debug)]
pub(super) struct Crew {
    seats: Vec<Option<Seat>>,
    /// Seats of the workers that sleep, the last one to lie down on top: light load touches few threads.
    asleep: Vec<usize>,
    pub(super) most: usize,
    /// How many may be waking at once.
    most_waking: usize,
    level: Level,
    /// Somebody looks now and then which workers run, and tells the level.
    watched: bool,
    /// Where the next look begins, if it cannot take in all workers.
    looked_at: usize,
    pub(super) present: usize,
    pub(super) waking: usize,
    pub(super) busy: usize,
    /// No thread could be started; no further one is tried before this moment.
    barren_until: Moment,
}

#[derive(Debug, Default)]
struct Seat {
    /// The worker's thread, once it has sat down.
    thread: Option<Thread>,
    id: Option<ThreadId>,
    asleep: bool,
    /// The moment at which it began to poll the job that it has.
    since: Option<Moment>,
}

/// A worker to look at: does it run?
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awake {
    pub(super) thread: ThreadId,
    since: Option<Moment>,
}

/// The worker that is to come.
#[derive(Debug)]
pub(crate) enum Call {
    Nobody,
    Unpark(Thread),
    /// A thread is to be started for this seat.
    Start(usize),
}

/// How many of the workers that are awake are looked at. The others are taken to be like them.
const SAMPLE: usize = 64;

impl Crew {
    pub(super) fn new(most: usize, cores: usize) -> Self {
        Self {
            seats: Vec::new(),
            asleep: Vec::new(),
            most,
            most_waking: cores,
            level: Level::new(cores, most),
            watched: false,
            looked_at: 0,
            present: 0,
            waking: 0,
            busy: 0,
            barren_until: Moment::from_nanos(0),
        }
    }

    /// One more worker, unless enough are waking or awake already, or none can be had.
    pub(super) fn call(&mut self, now: Moment) -> Call {
        if self.waking >= self.most_waking {
            return Call::Nobody;
        }
        if !self.has_room() {
            return Call::Nobody;
        }
        if let Some(thread) = self.call_sleeper() {
            return Call::Unpark(thread);
        }
        // Without any worker a start is tried in any case: if it fails, the jobs that wait for it are answered.
        if self.present >= self.most || (self.present > 0 && now < self.barren_until) {
            return Call::Nobody;
        }
        let free = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        if free == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[free] = Some(Seat::default());
        self.present += 1;
        self.waking += 1;
        Call::Start(free)
    }

    pub(super) fn call_all(&mut self) -> Vec<Thread> {
        std::iter::from_fn(|| self.call_sleeper()).collect()
    }

    fn call_sleeper(&mut self) -> Option<Thread> {
        let top = self.asleep.pop()?;
        let seat = self.seats[top].as_mut()?;
        seat.asleep = false;
        self.waking += 1;
        seat.thread.clone()
    }

    pub(super) fn sit_down(&mut self, seat: usize) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.thread = Some(current());
            seat.id = thread_state::current();
        }
        self.waking -= 1;
    }

    pub(super) fn lie_down(&mut self, seat: usize) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.asleep = true;
        }
        self.asleep.push(seat);
    }

    /// Whether the worker was called. If not, its time is up or it woke for no reason, and its seat leaves the stack.
    pub(super) fn get_up(&mut self, seat: usize) -> bool {
        let called = self.seats[seat].as_ref().is_some_and(|seat| !seat.asleep);
        if called {
            self.waking -= 1;
        } else {
            self.asleep.retain(|&other| other != seat);
            if let Some(seat) = &mut self.seats[seat] {
                seat.asleep = false;
            }
        }
        called
    }

    /// The thread for `seat`, which was called, could not be started.
    pub(super) fn start_failed(&mut self, now: Moment, seat: usize) {
        self.waking -= 1;
        self.barren_until = now + BARREN;
        self.leave(seat);
    }

    /// Until when no thread is tried, since the last one could not be started.
    pub(super) fn barren_until(&self, now: Moment) -> Option<Moment> {
        (now < self.barren_until).then_some(self.barren_until)
    }

    pub(super) fn leave(&mut self, seat: usize) {
        self.seats[seat] = None;
        self.present -= 1;
    }

    /// The worker begins to poll a job.
    pub(super) fn take_up(&mut self, seat: usize, now: Moment) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.since = Some(now);
        }
    }

    /// The worker does not poll the job after all.
    pub(super) fn leave_off(&mut self, seat: usize) {
        if let Some(seat) = &mut self.seats[seat] {
            seat.since = None;
        }
    }

    /// The worker has polled its job.
    pub(super) fn put_down(&mut self, seat: usize, now: Moment) {
        let since = self.seats[seat].as_mut().and_then(|seat| seat.since.take());
        if let Some(since) = since {
            self.level.polled(now.since(since));
        }
    }

    /// How long a poll usually takes.
    pub(super) const fn usual_poll(&self) -> Duration {
        self.level.usual()
    }

    /// Whether there is, or may be, a worker for one more job than `ready` of them wait to be polled.
    pub(super) fn has_room_beside(&self, ready: usize) -> bool {
        self.busy + ready < self.level.current()
    }

    /// Whether one more worker may be awake.
    fn has_room(&self) -> bool {
        self.awake() < self.level.current()
    }

    /// Whether more workers are awake than may be, so that the one that asks takes no further job.
    pub(super) fn has_too_many(&self) -> bool {
        self.awake() > self.level.current()
    }

    /// Whether somebody is to begin to look which workers run. It is answered so once. `pressed`: jobs wait to be taken.
    pub(super) fn wants_watch(&mut self, pressed: bool) -> bool {
        let wanted = thread_state::IS_KNOWN && !self.watched && self.level.is_worth_a_look(self.awake(), pressed);
        self.watched |= wanted;
        wanted
    }

    /// The workers that are awake, or as many of them as are enough to look at: others each time.
    pub(super) fn sample(&mut self) -> Vec<Awake> {
        let seats = self.seats.len();
        let order = (0..seats).map(|step| (self.looked_at + step) % seats);
        let mut sample = Vec::new();
        let mut last = None;
        for seat in order {
            if sample.len() == SAMPLE {
                break;
            }
            if let Some(Seat { id: Some(thread), asleep: false, since, .. }) = self.seats[seat] {
                sample.push(Awake { thread, since });
                last = Some(seat);
            }
        }
        self.looked_at = last.map_or(0, |last| last + 1);
        sample
    }

    /// Learns what the workers do that were looked at; when to look again. `pressed`: jobs wait to be taken.
    pub(super) fn learn(&mut self, now: Moment, seen: &[Seen], pressed: bool) -> Option<Duration> {
        let next = self.level.learn(now, seen, self.awake(), pressed);
        self.watched = next.is_some();
        next
    }

    #[cfg(test)]
    pub(super) fn lower_level(&mut self) {
        self.level.lower();
    }

    fn awake(&self) -> usize {
        self.present - self.asleep.len()
    }
}

// === impl Awake ===

impl Awake {
    pub(super) const fn seen(self, runs: bool) -> Seen {
        Seen { runs, since: self.since }
    }
}

#[cfg(all(test, not(any(tower_offload_loom, tower_offload_shuttle))))]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_nanos(7);

    /// Calls one that is to be started; its seat.
    fn start(crew: &mut Crew, now: Moment) -> Option<usize> {
        match crew.call(now) {
            Call::Start(seat) => Some(seat),
            Call::Nobody => None,
            Call::Unpark(_) => panic!("nobody sleeps"),
        }
    }

    /// So many workers that sit on their seats; this thread stands for each.
    fn seated(workers: usize, most: usize, cores: usize) -> Crew {
        let mut crew = Crew::new(most, cores);
        for seat in 0..workers {
            assert_eq!(start(&mut crew, NOW), Some(seat));
            crew.sit_down(seat);
        }
        assert_eq!((crew.present, crew.waking), (workers, 0));
        crew
    }

    #[test]
    fn no_more_are_waking_at_a_time_than_there_are_cores() {
        let mut crew = Crew::new(8, 2);
        assert_eq!([(); 3].map(|()| start(&mut crew, NOW)), [Some(0), Some(1), None]);
        crew.sit_down(0);
        assert_eq!([(); 2].map(|()| start(&mut crew, NOW)), [Some(2), None]);
        assert_eq!((crew.present, crew.waking), (3, 2));
    }

    #[test]
    fn a_seat_that_was_left_is_the_next_to_be_taken() {
        let mut crew = seated(3, 3, 8);
        assert_eq!(start(&mut crew, NOW), None, "there are no more");
        crew.leave(1);
        assert_eq!([(); 2].map(|()| start(&mut crew, NOW)), [Some(1), None]);
    }

    #[test]
    fn who_lay_down_last_is_called_first_and_before_a_thread_is_started() {
        let mut crew = seated(3, 4, 8);
        (0..3).for_each(|seat| crew.lie_down(seat));
        for waking in 1..=2 {
            assert!(matches!(crew.call(NOW), Call::Unpark(_)));
            assert_eq!(crew.waking, waking);
        }
        assert!(crew.get_up(2) && crew.get_up(1), "they were called");
        assert_eq!(crew.waking, 0);
        assert!(!crew.get_up(0), "it woke for no reason");
        assert_eq!((start(&mut crew, NOW), crew.waking), (Some(3), 1), "nobody sleeps any more");
        crew.lie_down(0);
        assert!(!crew.get_up(0), "it was not called since");
    }

    #[test]
    fn at_the_end_every_sleeper_is_called() {
        let mut crew = seated(3, 3, 1);
        (0..2).for_each(|seat| crew.lie_down(seat));
        assert_eq!((crew.call_all().len(), crew.waking), (2, 2), "however many may be waking otherwise");
        assert!(crew.get_up(0) && crew.get_up(1));
        assert_eq!((crew.call_all().len(), crew.waking), (0, 0));
    }

    #[test]
    fn after_a_failed_start_no_other_is_tried_for_a_while() {
        let mut crew = seated(1, 4, 8);
        assert_eq!(start(&mut crew, NOW), Some(1));
        crew.start_failed(NOW, 1);
        assert_eq!((crew.present, crew.waking), (1, 0));
        let (late, over) = (NOW + (BARREN - Duration::from_nanos(1)), NOW + BARREN);
        for soon in [NOW, late] {
            assert_eq!((start(&mut crew, soon), crew.barren_until(soon)), (None, Some(over)));
        }
        assert_eq!((crew.barren_until(over), start(&mut crew, over)), (None, Some(1)));
    }

    /// Who waits for it is then answered.
    #[test]
    fn without_any_worker_a_start_is_tried_in_any_case() {
        let mut crew = Crew::new(4, 8);
        for _ in 0..3 {
            assert_eq!(start(&mut crew, NOW), Some(0));
            crew.start_failed(NOW, 0);
        }
    }

    #[test]
    fn the_level_says_how_many_may_be_awake_and_busy() {
        let mut crew = seated(3, 8, 2);
        assert!(!crew.has_too_many() && crew.has_room_beside(7) && !crew.has_room_beside(8));
        crew.busy = 3;
        assert!(crew.has_room_beside(4) && !crew.has_room_beside(5));
        crew.lower_level();
        assert!(crew.has_too_many() && !crew.has_room_beside(0));
        crew.lie_down(2);
        assert!(!crew.has_too_many());
        assert!(matches!(crew.call(NOW), Call::Nobody), "two are awake");
        crew.lie_down(1);
        assert!(matches!(crew.call(NOW), Call::Unpark(_)));
    }

    #[test]
    fn how_long_a_job_was_polled_is_told_once_and_not_if_it_was_left_off() {
        let at = |millis| NOW + Duration::from_millis(millis);
        let mut crew = seated(1, 8, 2);
        let untold = format!("{:?}", crew.level);
        crew.take_up(0, NOW);
        crew.leave_off(0);
        crew.put_down(0, at(50));
        assert_eq!(format!("{:?}", crew.level), untold);
        crew.take_up(0, NOW);
        crew.put_down(0, at(50));
        let told = format!("{:?}", crew.level);
        assert_ne!(told, untold);
        crew.put_down(0, at(90));
        assert_eq!(format!("{:?}", crew.level), told);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn one_watch_begins_while_more_are_awake_than_cores_and_another_when_that_has_ended() {
        let mut crew = seated(2, 8, 2);
        assert!(!crew.wants_watch(false));
        assert_eq!(start(&mut crew, NOW), Some(2));
        assert_eq!([(); 2].map(|()| crew.wants_watch(false)), [true, false]);
        crew.leave(2);
        while crew.learn(NOW, &[], false).is_some() {
            assert!(!crew.wants_watch(true), "somebody looks already");
        }
        assert!(!crew.wants_watch(false));
        assert_eq!(start(&mut crew, NOW), Some(2));
        assert!(crew.wants_watch(false));
    }

    /// Each has a job that it took up at the moment of its number.
    #[cfg(target_os = "linux")]
    #[test]
    fn of_many_workers_others_are_looked_at_each_time_and_none_that_sleeps() {
        const MANY: usize = 100;
        let mut crew = seated(MANY, MANY, MANY);
        (0..MANY).for_each(|seat| crew.take_up(seat, Moment::from_nanos(seat as u64)));
        [3, 70].into_iter().for_each(|seat| crew.lie_down(seat));
        let mut look = || {
            let seats = crew.sample().into_iter().map(|awake| awake.since.expect("it has a job").as_nanos() as usize);
            seats.collect::<Vec<_>>()
        };
        let awake: Vec<_> = (0..MANY).filter(|seat| ![3, 70].contains(seat)).collect();
        let in_turn: Vec<_> = awake.iter().copied().cycle().take(3 * SAMPLE).collect();
        assert_eq!([look(), look(), look()].concat(), in_turn);
    }
}
