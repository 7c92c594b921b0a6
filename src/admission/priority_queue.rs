//! The waiting tasks by level, each level in order of arrival, and whose turn it is.
//!
//! The highest level that waits is next. A lower level that waits earns [`SHARE`] of the time that tasks of the levels
//! above it run, and has its turn when it has earned the execution time of one of its tasks. So a low level is slow but
//! not starved, and a flood of its tasks costs the levels above no more than that share of the workers' time, however
//! long these tasks run. (A share of the starts would be most of the time if they ran for a hundred times as long.) This
//! is the deficit counter of Shreedhar and Varghese ("Efficient Fair Queuing Using Deficit Round Robin", SIGCOMM 1995).
//! Apollo's router instead moves a task up a level for each task that is taken, which gives a flood of low tasks half of
//! the pool. A low level also gets every permit that no higher level waits for.

use super::fair_queue::{FairQueue, QUEUES};
use super::mean::Mean;
use super::overload::Overload;
use super::slab::{Chain, List, NONE, Slab, UNSHARED};
use super::timestamp::Timestamp;
use crate::terms::Priority;

/// One turn in 33 where all tasks are alike, so that three levels below one cost it less than a tenth.
const SHARE: f64 = 1.0 / 32.0;

/// How many tasks of a level say how long its tasks run.
const MEMORY: u32 = 128;

#[derive(Debug)]
pub(super) struct PriorityQueue {
    /// The most important first.
    levels: [Level; Priority::ALL.len()],
}

#[derive(Debug)]
pub(super) struct Level {
    tasks: List,
    /// The patient ones. They are outside of the virtual queues.
    patient: List,
    /// Execution time in nanoseconds, and what it has earned of it.
    run: Mean,
    earned: f64,
    pub(super) overload: Overload,
    fair: Option<Box<FairQueue>>,
}

/// A walk over the tasks of a level.
#[derive(Debug)]
pub(super) struct Walk {
    newest_first: bool,
    /// The next patient task, or [`NONE`].
    patient: u32,
    tasks: Cursor,
}

/// The next task of a list, or of each virtual queue; [`NONE`] at the end.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack, and nothing is allocated under a pool's lock")]
enum Cursor {
    List(u32),
    Fair([u32; QUEUES]),
}

// === impl PriorityQueue ===

impl PriorityQueue {
    pub(super) fn new() -> Self {
        Self { levels: std::array::from_fn(|_| Level::new()) }
    }

    pub(super) const fn len(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn get(&mut self, level: usize) -> &mut Level {
        &mut self.levels[level]
    }

    pub(super) fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        let level = usize::from(slab.at(index).level);
        self.levels[level].push(slab, index, caller, run);
    }

    pub(super) fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        let level = usize::from(slab.at(index).level);
        self.levels[level].unlink(slab, index);
    }

    /// The level whose turn it is: the highest that waits, or one below it that has earned a turn. `run` is the pool's
    /// execution time.
    pub(super) fn turn(&self, run: f64) -> Option<usize> {
        let first = self.first()?;
        let mut below = first + 1..self.levels.len();
        let earned = |&level: &usize| self.levels[level].earned >= self.levels[level].price(run);
        Some(below.find(|level| !self.levels[*level].is_empty() && earned(level)).unwrap_or(first))
    }

    /// A task of this level is taken.
    pub(super) fn took(&mut self, level: usize, run: f64) {
        let price = self.levels[level].price(run);
        for below in self.levels[level + 1..].iter_mut().filter(|below| !below.is_empty()) {
            below.earned = below.price(run).min(below.earned + price * SHARE);
        }
        if self.first().is_some_and(|first| first < level) {
            self.levels[level].earned -= price;
        }
    }

    /// The task that makes room for one of this level in a full queue of this capacity: of the lowest level below it,
    /// the newest. A level keeps the same share of the places as of the time.
    pub(super) fn least_below<T>(&self, slab: &Slab<T>, level: usize, capacity: usize) -> Option<u32> {
        let keeps = (capacity as f64 * SHARE) as usize;
        let mut lowest = self.levels[level + 1..].iter().rev();
        lowest.find_map(|level| level.least(slab).filter(|_| level.tasks.len() > keeps))
    }

    /// The oldest task of each level, the patient ones left out.
    pub(super) fn oldest(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().filter_map(|level| level.tasks.oldest())
    }

    /// The oldest task of each level, and the oldest patient one.
    pub(super) fn oldest_of_all(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().flat_map(|level| [level.tasks.oldest(), level.patient.oldest()]).flatten()
    }

    /// A task that waits.
    pub(super) fn any(&self) -> Option<u32> {
        self.levels.iter().find_map(|level| level.tasks.oldest().or(level.patient.oldest()))
    }

    /// Permits were free while nothing waited, for this many nanoseconds in all.
    pub(super) fn recover(&mut self, free: f64) {
        self.levels.iter_mut().for_each(|level| level.overload.recover(free));
    }

    /// Whether more work of some level was lost than there was room for.
    pub(super) fn exceed(&self, run: f64, limit: usize) -> bool {
        self.levels.iter().any(|level| level.overload.exceeds(run, limit))
    }

    /// Whether it was, since the lost work of that level was last zero. `free` is what [`recover`](Self::recover) was not
    /// told yet.
    pub(super) fn exceeded(&self, free: f64) -> bool {
        self.levels.iter().any(|level| level.overload.exceeded(free))
    }

    fn first(&self) -> Option<usize> {
        self.levels.iter().position(|level| !level.is_empty())
    }
}

// === impl Level ===

impl Level {
    fn new() -> Self {
        let list = List::new(Chain::Arrival);
        let (run, overload) = (Mean::new(MEMORY), Overload::new());
        Self { tasks: list, patient: list, run, earned: 0.0, overload, fair: None }
    }

    /// The execution time of one of its tasks, which is never zero.
    fn price(&self, run: f64) -> f64 {
        self.run.known().unwrap_or(run).max(1.0)
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.patient.is_empty()
    }

    fn push<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        if self.is_empty() {
            self.earned = 0.0;
        }
        if slab.at(index).patient {
            return self.patient.push(slab, index);
        }
        if let Some(fair) = self.fair(slab, caller, run) {
            fair.push(slab, index, caller, run);
        }
        self.tasks.push(slab, index);
    }

    /// The virtual queues, which there are from the first caller that is named on.
    fn fair<T>(&mut self, slab: &mut Slab<T>, caller: Option<u64>, run: f64) -> Option<&mut FairQueue> {
        if caller.is_some() && self.fair.is_none() {
            // Those that wait already have no caller.
            let mut fair = Box::new(FairQueue::new());
            let mut index = self.tasks.oldest().unwrap_or(NONE);
            while index != NONE {
                fair.push(slab, index, None, run);
                index = self.tasks.after(slab, index);
            }
            self.fair = Some(fair);
        }
        self.fair.as_deref_mut()
    }

    fn unlink<T>(&mut self, slab: &mut Slab<T>, index: u32) {
        if slab.at(index).patient {
            return self.patient.unlink(slab, index);
        }
        self.tasks.unlink(slab, index);
        if let Some(fair) = &mut self.fair {
            fair.unlink(slab, index);
        }
    }

    /// A task starts without having waited.
    pub(super) fn start_at_once<T>(&mut self, slab: &mut Slab<T>, index: u32, caller: Option<u64>, run: f64) {
        if let Some(fair) = self.fair(slab, caller, run) {
            fair.start_at_once(slab, index, caller, run);
        }
    }

    /// A task that has just left the queue starts.
    pub(super) fn started<T>(&mut self, slab: &Slab<T>, index: u32) {
        if let (Some(fair), true) = (&mut self.fair, slab.at(index).queue != UNSHARED) {
            fair.started(slab, index);
        }
    }

    /// A task in flight ends; `ran` is its share of the execution time, if it executed.
    pub(super) fn ended<T>(&mut self, slab: &Slab<T>, index: u32, now: Timestamp, ran: Option<f64>) {
        if let Some(fair) = &mut self.fair {
            fair.ended(slab, index, now, ran.unwrap_or_default());
        }
    }

    /// A permit of this level executed for so long.
    pub(super) fn ran(&mut self, ran: f64) {
        self.run.add(ran);
    }

    pub(super) const fn oldest(&self) -> Option<u32> {
        self.tasks.oldest()
    }

    /// The next task to start. A patient one has its turn when it is the oldest of all. `work` is that of one task.
    pub(super) fn next<T>(&self, slab: &Slab<T>, work: f64) -> Option<u32> {
        let is_oldest = |&index: &u32| self.tasks.oldest().is_none_or(|oldest| slab.is_older(index, oldest));
        if let Some(patient) = self.patient.oldest().filter(is_oldest) {
            return Some(patient);
        }
        let newest_first = self.overload.acts();
        match &self.fair {
            Some(fair) => fair.next(work, newest_first),
            None => self.tasks.first(newest_first),
        }
    }

    /// A walk over the tasks in the order in which they start.
    pub(super) fn walk(&self) -> Walk {
        let newest_first = self.overload.acts();
        let tasks = match &self.fair {
            Some(fair) => Cursor::Fair(fair.walk(newest_first)),
            None => Cursor::List(self.tasks.first(newest_first).unwrap_or(NONE)),
        };
        Walk { newest_first, patient: self.patient.oldest().unwrap_or(NONE), tasks }
    }

    /// The next task of a walk. Only this task may leave the queue before the next step.
    pub(super) fn step<T>(&self, slab: &Slab<T>, walk: &mut Walk, work: f64) -> Option<u32> {
        let next = match &walk.tasks {
            Cursor::List(next) => *next,
            Cursor::Fair(next) => self.fair.as_ref().map_or(NONE, |fair| fair.least_served_of(next, work)),
        };
        let patient = walk.patient;
        if patient != NONE && (next == NONE || slab.is_older(patient, next)) {
            walk.patient = self.patient.after(slab, patient);
            return Some(patient);
        }
        if next == NONE {
            return None;
        }
        match (&mut walk.tasks, &self.fair) {
            (Cursor::Fair(cursor), Some(fair)) => fair.advance(slab, cursor, next, walk.newest_first),
            _ => walk.tasks = Cursor::List(self.tasks.beside(slab, next, walk.newest_first)),
        }
        Some(next)
    }

    /// The task to shed first: the newest of all, or of the caller that has most.
    fn least<T>(&self, slab: &Slab<T>) -> Option<u32> {
        match &self.fair {
            Some(fair) => fair.most(slab).map(|(index, _)| index),
            None => self.tasks.newest(),
        }
    }

    /// The task that makes room for one of this caller: the newest of a caller that has more.
    pub(super) fn least_beside<T>(&self, slab: &Slab<T>, caller: Option<u64>) -> Option<u32> {
        self.fair.as_ref()?.most_beside(slab, caller)
    }
}
