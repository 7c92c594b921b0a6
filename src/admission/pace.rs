//! How fast a pool works, from its own jobs: what counts as a late start, and when to come again.

use std::time::Duration;

use super::moment::{Moment, nanos};
use super::random::Random;
use super::settings::Settings;

/// A wait counts as late above this many run times. 5 ms for jobs of 1 ms, the target that folly's Codel has for such
/// work ("Fail at Scale", ACM Queue 2015, names the same).
const TARGET: f64 = 5.0;

/// Waits are late for good when all were for this many targets. CoDel's 100 ms for 5 ms is 20; half of that sees a
/// spike in time, and in the simulator costs nothing at ordinary loads.
const INTERVAL: f64 = 10.0;

/// A job that waited this many targets is dropped while waits are late: folly's Codel, and Breakwater (OSDI 2020).
const HOPELESS: u32 = 2;

/// A mean forgets with this weight, so it follows a change within about so many jobs.
const MEMORY: u32 = 128;

/// What a caller is told before any job has ended.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The longest that a caller is sent away for.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Pace {
    run: Mean,
    held: Mean,
    pub(super) target: Duration,
    pub(super) hopeless: Duration,
    pub(super) interval: Duration,
}

/// A mean of the latest values; of all of them while they are few.
#[derive(Clone, Debug, Default)]
struct Mean {
    value: f64,
    weight: u32,
}

/// Since when every wait was late, and until when that counts as overload.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    since: Option<Moment>,
    until: Moment,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(settings: &Settings) -> Self {
        let zero = Duration::ZERO;
        let (run, held) = (Mean::default(), Mean::default());
        let mut pace = Self { run, held, target: zero, hopeless: zero, interval: zero };
        pace.follow(settings);
        pace
    }

    /// Learns from a job that ended: how long it executed, and how long it held its permit.
    pub(super) fn learn(&mut self, settings: &Settings, ran: Duration, held: Duration) {
        self.run.add(nanos(ran));
        self.held.add(nanos(held));
        self.follow(settings);
    }

    fn follow(&mut self, settings: &Settings) {
        let most = settings.timeout / (2 * HOPELESS);
        self.target = settings.target.clamp(TARGET * self.run.value).min(most);
        self.hopeless = self.target * HOPELESS;
        self.interval = settings.interval.clamp(INTERVAL * nanos(self.target));
    }

    /// The mean execution time in nanoseconds.
    pub(super) fn run(&self) -> f64 {
        self.run.value
    }

    /// How long `ahead` jobs take to start, with up to half of that on top, so that those who were refused together do
    /// not come back together.
    pub(super) fn retry_after(&self, ahead: usize, in_flight: usize, random: &mut Random) -> Duration {
        let wait = match self.held.weight {
            0 => nanos(UNKNOWN),
            _ => ahead as f64 * self.held.value / in_flight.max(1) as f64,
        };
        Duration::from_nanos((wait * (1.0 + random.fraction() / 2.0)) as u64).min(LONGEST)
    }
}

// === impl Mean ===

impl Mean {
    fn add(&mut self, value: f64) {
        self.weight = MEMORY.min(self.weight + 1);
        self.value += (value - self.value) / f64::from(self.weight);
    }
}

// === impl Lateness ===

impl Lateness {
    /// One more wait: that of the job that waits longest, when one is taken. Overload begins when the least wait of a
    /// whole interval was late, and ends when a whole interval has passed without a late one.
    pub(super) fn observe(&mut self, now: Moment, wait: Duration, pace: &Pace) {
        if wait <= pace.target {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if self.lasts(now) || now.since(since) >= pace.interval {
            self.until = now + pace.interval;
        }
    }

    /// A job need not wait.
    pub(super) const fn clear(&mut self) {
        self.since = None;
    }

    pub(super) fn lasts(&self, now: Moment) -> bool {
        now < self.until
    }
}
