//! The workers of a pool, by seat: who is there, who sleeps, and who is to come.
//!
//! Everything here happens under the lock of `dispatch.rs`, whose protocol it serves.

use std::time::Duration;

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

impl Crew {
    pub(super) const fn new(most: usize, most_waking: usize) -> Self {
        Self {
            seats: Vec::new(),
            asleep: Vec::new(),
            most,
            most_waking,
            present: 0,
            waking: 0,
            busy: 0,
            barren_until: Moment::from_nanos(0),
        }
    }

    /// One more worker, unless enough are waking already or none can be had.
    pub(super) fn call(&mut self, now: Moment) -> Call {
        if self.waking >= self.most_waking {
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
}
