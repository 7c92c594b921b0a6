//! The exchange of messages between the budget of cores and the pools that share it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::allotment::{Allot, MemberId, Report};
use super::available::available;
use super::core_budget::{CoreBudget, TICK};
use crate::admission::Timestamp;
use crate::config::Cores;
use crate::sync::lock_std as lock;
use crate::thread_state;
use crate::timer::TIMER;

/// The time between two readings of the number of cores while the pools work.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// The cores that pools share. No lock of this is held while a pool is called.
pub(crate) struct SharedCores {
    cores: Cores,
    started: Instant,
    budget: Mutex<CoreBudget>,
    members: Mutex<BTreeMap<MemberId, Weak<dyn Member>>>,
    /// Whether the timer is set to the next tick.
    ticking: AtomicBool,
    /// The time at which the number of cores was last read.
    read_at: Mutex<Instant>,
}

/// A pool, as the budget sees it.
pub(crate) trait Member: Send + Sync {
    /// Applies a message of the budget. The result is the pool's report to the budget, if there is one.
    fn apply(self: Arc<Self>, allot: Allot) -> Option<Report>;

    /// The report for a tick. Samples the workers before, if they may hold cores that they do not use.
    fn status(self: Arc<Self>) -> Report;
}

/// A pool's place in the budget, for as long as the pool lives.
pub(crate) struct Membership {
    cores: Arc<SharedCores>,
    id: MemberId,
}

impl SharedCores {
    pub(crate) fn new(cores: Cores) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            cores,
            started: now,
            budget: Mutex::new(CoreBudget::new(available(cores))),
            members: Mutex::default(),
            ticking: AtomicBool::new(false),
            read_at: Mutex::new(now),
        })
    }

    /// Adds a pool with this share of the cores.
    pub(crate) fn join(self: &Arc<Self>, share: u32, member: Weak<dyn Member>) -> Membership {
        let id = lock(&self.budget).add(share);
        lock(&self.members).insert(id, member);
        Membership { cores: self.clone(), id }
    }

    /// Reads the number of cores, if the last reading is old enough.
    pub(crate) fn read(self: &Arc<Self>) {
        let mut read_at = lock(&self.read_at);
        if read_at.elapsed() < READ_INTERVAL {
            return;
        }
        *read_at = Instant::now();
        drop(read_at);
        let allots = lock(&self.budget).set_cores(available(self.cores), self.now());
        self.distribute(allots);
    }

    /// How many cores there are.
    pub(crate) fn count(&self) -> usize {
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

    fn now(&self) -> Timestamp {
        Timestamp::default() + self.started.elapsed()
    }
}

// === impl Membership ===

impl Membership {
    /// Sends a report to the budget.
    pub(crate) fn report(&self, report: Report) {
        let allots = lock(&self.cores.budget).report(self.id, report, self.cores.now());
        self.cores.distribute(allots);
    }

    /// Passes the number of runnable workers to the budget. The result is the number of runnable workers of all pools for
    /// each core.
    pub(crate) fn sampled(&self, runnable: usize) -> usize {
        lock(&self.cores.budget).sampled(self.id, runnable)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        lock(&self.cores.members).remove(&self.id);
        let allots = lock(&self.cores.budget).remove(self.id, self.cores.now());
        self.cores.distribute(allots);
    }
}
