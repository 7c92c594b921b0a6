//! The workers of a pool, by seat: who is there, who sleeps, and who is to come.
//!
//! Everything here happens under the lock of `dispatch.rs`, whose protocol it serves.

use std::time::Duration;

use super::level::{Level, Look};
use super::thread_state::{self, ThreadId};
use crate::admission::Moment;
use crate::sync::{Thread, current};

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
}

/// The worker that is to come.
#[derive(Debug)]
pub(crate) enum Call {
    Nobody,
    Unpark(Thread),
    /// A thread is to be started for this seat.
    Start(usize),
}

/// After a thread could not be started, no other is tried for so long.
const BARREN: Duration = Duration::from_secs(1);

/// How many of the workers that are awake are looked at. The others are taken to be like them.
const SAMPLE: usize = 16;

impl Crew {
    pub(super) fn new(most: usize, cores: usize) -> Self {
        Self {
            seats: Vec::new(),
            asleep: Vec::new(),
            most,
            most_waking: cores,
            level: Level::new(cores, most),
            watched: false,
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
        if self.awake() >= self.level.current() {
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

    pub(super) fn leave(&mut self, seat: usize) {
        self.seats[seat] = None;
        self.present -= 1;
    }

    /// Whether more workers are awake than may be, so that the one that asks takes no further job.
    pub(super) fn has_too_many(&self) -> bool {
        self.awake() > self.level.current()
    }

    /// Whether somebody is to begin to look which workers run. It is answered so once.
    pub(super) fn wants_watch(&mut self) -> bool {
        let wanted = !self.watched && self.level.is_worth_a_look(self.awake());
        self.watched |= wanted;
        wanted
    }

    /// The threads of the workers that are awake, or as many of them as are enough to look at.
    pub(super) fn sample(&self) -> Vec<ThreadId> {
        let awake = self.seats.iter().flatten().filter(|seat| !seat.asleep);
        awake.filter_map(|seat| seat.id).take(SAMPLE).collect()
    }

    /// Learns how many of so many workers that were looked at run; when to look again.
    pub(super) fn learn(&mut self, running: usize, sampled: usize, waiting: bool, taken: bool) -> Option<Duration> {
        let awake = self.awake();
        let running = if sampled == 0 { 0 } else { (running * awake).div_ceil(sampled).min(awake) };
        let next = self.level.learn(Look { awake, running, waiting, taken });
        self.watched = next.is_some();
        next
    }

    fn awake(&self) -> usize {
        self.present - self.asleep.len()
    }
}
