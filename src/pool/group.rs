//! The pools of one `Pools`, which share a clock and a budget of cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::admission::Timestamp;
use crate::budget::Budget;
use crate::config::Cores;
use crate::cores::{self, Allot, CoreBudget, MemberId, Report, TICK};
use crate::load::{PoolLoad, Scale};
use crate::signal::Signal;
use crate::sync::lock_std as lock;
use crate::thread_state;
use crate::timer::TIMER;

/// The time between two readings of the number of cores while the pools work.
const READ_CORES_INTERVAL: Duration = Duration::from_secs(5);

/// The pools of one `Pools`.
pub(crate) struct Group {
    /// Announces a drain.
    pub(super) drain: Arc<Signal>,
    /// The memory for request bodies that are read or queued.
    pub(super) bodies: Budget,
    origin: Instant,
    scale: Scale,
    /// The loads of the pools as they were published last.
    loads: Mutex<BTreeMap<MemberId, PoolLoad>>,
    cores: Cores,
    budget: Mutex<CoreBudget>,
    members: Mutex<BTreeMap<MemberId, Weak<dyn Member>>>,
    /// Whether the timer is set to the next tick.
    ticking: AtomicBool,
    /// The time at which the number of cores was last read.
    cores_read_at: Mutex<Instant>,
}

/// A pool, as its group sees it.
pub(super) trait Member: Send + Sync {
    /// Applies a message of the budget. The result is the pool's report to the budget, if there is one.
    fn apply(self: Arc<Self>, allot: Allot) -> Option<Report>;

    /// The report for a tick. Samples the workers before, if they may hold cores that they do not use.
    fn status(self: Arc<Self>) -> Report;
}

/// A pool's place in its group, for as long as the pool lives.
pub(super) struct Membership {
    pub(super) group: Arc<Group>,
    id: MemberId,
}

impl Group {
    pub(crate) fn new(cores: Cores, drain: Arc<Signal>, bodies: Budget, scale: Scale) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            drain,
            bodies,
            origin: now,
            scale,
            loads: Mutex::default(),
            cores,
            budget: Mutex::new(CoreBudget::new(cores::available(cores))),
            members: Mutex::default(),
            ticking: AtomicBool::new(false),
            cores_read_at: Mutex::new(now),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::default() + self.origin.elapsed()
    }

    /// The instant as a timestamp of this group; the group's start if the instant is earlier.
    pub(super) fn timestamp_of(&self, instant: Instant) -> Timestamp {
        Timestamp::default() + instant.saturating_duration_since(self.origin)
    }

    /// `None` if the timestamp is beyond the range of the clock.
    pub(super) fn instant_of(&self, timestamp: Timestamp) -> Option<Instant> {
        self.origin.checked_add(timestamp.since(Timestamp::default()))
    }

    /// Adds a pool with this share of the cores.
    pub(super) fn join(self: &Arc<Self>, share: u32, member: Weak<dyn Member>) -> Membership {
        let id = lock(&self.budget).add(share);
        lock(&self.members).insert(id, member);
        Membership { group: self.clone(), id }
    }

    /// Reads the number of cores, if the last reading is old enough.
    pub(super) fn read_cores(self: &Arc<Self>) {
        let mut read_at = lock(&self.cores_read_at);
        if read_at.elapsed() < READ_CORES_INTERVAL {
            return;
        }
        *read_at = Instant::now();
        drop(read_at);
        let cores = cores::available(self.cores);
        let allots = lock(&self.budget).set_cores(cores, self.now());
        self.distribute(allots);
    }

    /// The load of the process, from the loads of its pools as they were published last.
    pub(super) fn load_ratio(&self) -> f64 {
        let loads = lock(&self.loads).values().cloned().collect();
        self.scale.load(loads).ratio
    }

    /// The number of cores that the pools share.
    pub(super) fn cores(&self) -> usize {
        lock(&self.budget).cores()
    }

    /// Delivers messages of the budget to their pools, and the reports of these pools to the budget.
    fn distribute(self: &Arc<Self>, mut allots: Vec<Allot>) {
        while let Some(allot) = allots.pop() {
            if let Some(report) = self.member(allot.member).and_then(|member| member.apply(allot)) {
                allots.extend(lock(&self.budget).report(allot.member, report, self.now()));
            }
        }
        // Without samples, a tick would find nothing new.
        let contended = thread_state::IS_KNOWN && lock(&self.budget).is_contended();
        if contended && !self.ticking.swap(true, Ordering::AcqRel) {
            let weak = Arc::downgrade(self);
            TIMER.set(Instant::now() + TICK, move || weak.upgrade().and_then(Self::tick));
        }
    }

    /// Performs a tick. The result is the time of the next one, if one is needed.
    fn tick(self: Arc<Self>) -> Option<Instant> {
        let begun = Instant::now();
        let members: Vec<_> =
            lock(&self.members).iter().filter_map(|(id, member)| Some((*id, member.upgrade()?))).collect();
        let reports: Vec<_> = members.into_iter().map(|(id, member)| (id, member.status())).collect();
        // Stored before `is_contended` is asked: contention that begins later starts the ticks again.
        self.ticking.store(false, Ordering::Release);
        let mut budget = lock(&self.budget);
        let allots = budget.tick(&reports, self.now());
        let goes_on = budget.is_contended() && !self.ticking.swap(true, Ordering::AcqRel);
        drop(budget);
        let took = begun.elapsed();
        self.distribute(allots);
        goes_on.then(|| Instant::now() + thread_state::rest(TICK, took))
    }

    fn member(&self, id: MemberId) -> Option<Arc<dyn Member>> {
        lock(&self.members).get(&id)?.upgrade()
    }
}

// === impl Membership ===

impl Membership {
    /// Sends a report to the budget.
    pub(super) fn report(&self, report: Report) {
        let allots = lock(&self.group.budget).report(self.id, report, self.group.now());
        self.group.distribute(allots);
    }

    /// Keeps the pool's load for that of the process.
    pub(super) fn keep_load(&self, load: PoolLoad) {
        lock(&self.group.loads).insert(self.id, load);
    }

    /// Passes the number of runnable workers to the budget. The result is the number of runnable workers of all pools for
    /// each core.
    pub(super) fn sampled(&self, runnable: usize) -> usize {
        lock(&self.group.budget).sampled(self.id, runnable)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.group.members).remove(&self.id);
        lock(&self.group.loads).remove(&self.id);
        let allots = lock(&self.group.budget).remove(self.id, self.group.now());
        self.group.distribute(allots);
    }
}
