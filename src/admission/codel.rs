//! How fast a pool works, from its own tasks: what counts as a late start, and when to come again.

use std::time::Duration;

use super::random::Random;
use super::settings::Settings;
use super::timestamp::{Timestamp, nanos};

/// A wait counts as late above this many run times. 5 ms for tasks of 1 ms, the target that folly's Codel has for such
/// work ("Fail at Scale", ACM Queue 2015, names the same).
const TARGET: f64 = 5.0;

/// Nor may the target be more than this part of how long those waited who left: what comes later comes too late.
const PATIENCE: f64 = 0.25;

/// A pool is overloaded when all waits were late for this many targets: CoDel's 100 ms for 5 ms.
const INTERVAL: f64 = 20.0;

/// Within an interval of an overload, this part of one is enough to see the next.
const AGAIN: u64 = 4;

/// A task that waited this many targets is dropped while waits are late: folly's Codel, and Breakwater (OSDI 2020).
const HOPELESS: u32 = 2;

/// A mean forgets with this weight, so it follows a change within about so many tasks.
const MEMORY: u32 = 128;

/// What a caller is told before any task has ended.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The longest that a caller is sent away for.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Codel {
    run: Mean,
    /// What it would be if as many tasks ran as the limit says.
    shared: Mean,
    held: Mean,
    /// How long those waited who left before they were served.
    patience: Mean,
    /// In nanoseconds, like the two below: they are set anew at the end of each task.
    pub(super) target: u64,
    pub(super) hopeless: u64,
    pub(super) interval: u64,
}

/// A mean of the latest values; of all of them while they are few.
#[derive(Clone, Debug, Default)]
struct Mean {
    value: f64,
    weight: u32,
}

/// Whether every wait is late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    since: Option<Timestamp>,
    lasts: bool,
    /// When it last ended.
    ended: Option<Timestamp>,
}

// === impl Codel ===

impl Codel {
    pub(super) fn new(settings: &Settings) -> Self {
        let [run, shared, held, patience] = [const { Mean { value: 0.0, weight: 0 } }; 4];
        let mut codel = Self { run, shared, held, patience, target: 0, hopeless: 0, interval: 0 };
        codel.follow(settings);
        codel
    }

    /// Learns from a task that ended: how long it executed, by what factor that would have been longer if as many ran as
    /// the limit says, and how long it held its permit.
    pub(super) fn learn(&mut self, settings: &Settings, ran: Duration, stretch: f64, held: Duration) {
        self.run.add(nanos(ran));
        self.shared.add(nanos(ran) * stretch);
        self.held.add(nanos(held));
        self.follow(settings);
    }

    /// Learns from a task that left the queue because its caller did, or its deadline passed.
    pub(super) fn lost(&mut self, settings: &Settings, waited: Duration) {
        self.patience.add(waited.as_nanos() as f64);
        self.follow(settings);
    }

    fn follow(&mut self, settings: &Settings) {
        let most = nanos(settings.timeout) / f64::from(2 * HOPELESS);
        let patience = if self.patience.weight == 0 { f64::INFINITY } else { self.patience.value * PATIENCE };
        let target = settings.target.clamp((TARGET * self.shared.value).min(patience)).min(most);
        self.target = target as u64;
        self.hopeless = (target * f64::from(HOPELESS)) as u64;
        self.interval = settings.interval.clamp(INTERVAL * target) as u64;
    }

    /// The mean execution time in nanoseconds.
    pub(super) fn run(&self) -> f64 {
        self.run.value
    }

    /// How long `ahead` tasks take to start, with up to half of that on top, so that those who were refused together do
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
    /// One more wait: that of the task that waits longest, when one is taken. Overload begins when the least wait of an
    /// interval was late, and ends with a wait that is not. Soon after that a part of the interval is enough, as CoDel
    /// too goes on sooner where it has just left off.
    pub(super) fn observe(&mut self, now: Timestamp, wait: u64, codel: &Codel) {
        if wait <= codel.target {
            return self.clear(now);
        }
        let since = *self.since.get_or_insert(now);
        let enough = if self.lasted(now, codel) { codel.interval / AGAIN } else { codel.interval };
        self.lasts |= now.nanos_since(since) >= enough;
    }

    /// Nobody has to wait.
    pub(super) fn clear(&mut self, now: Timestamp) {
        self.since = None;
        if std::mem::take(&mut self.lasts) {
            self.ended = Some(now);
        }
    }

    pub(super) const fn lasts(&self) -> bool {
        self.lasts
    }

    /// Whether there was overload within the last interval.
    pub(super) fn lasted(&self, now: Timestamp, codel: &Codel) -> bool {
        self.lasts || self.ended.is_some_and(|ended| now.nanos_since(ended) < codel.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Bounds;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings(timeout: Duration) -> Settings {
        let wide = Bounds { min: MS, max: MS * 1_000_000 };
        Settings { timeout, target: wide, interval: wide, ..Settings::fixed(1) }
    }

    /// Target, hopeless and interval, in milliseconds.
    fn spans(codel: &Codel) -> [u64; 3] {
        [codel.target, codel.hopeless, codel.interval].map(|nanos| nanos / 1_000_000)
    }

    #[test]
    fn what_is_late_follows_how_long_tasks_run_when_they_share_the_cores() {
        let long = settings(MS * 60_000);
        let mut codel = Codel::new(&long);
        assert_eq!(spans(&codel), [1, 2, 20], "the least, before any has run");
        codel.learn(&long, 10 * MS, 2.0, 40 * MS);
        assert_eq!(codel.run(), 1e7);
        assert_eq!(spans(&codel), [5 * 20, 200, 2_000]);
    }

    #[test]
    fn what_is_late_is_never_more_than_a_fourth_of_the_timeout_or_of_what_callers_wait() {
        let short = settings(200 * MS);
        let mut codel = Codel::new(&short);
        codel.learn(&short, 20 * MS, 1.0, 20 * MS);
        assert_eq!(spans(&codel), [50, 100, 1_000]);
        codel.lost(&short, 40 * MS);
        assert_eq!(spans(&codel), [10, 20, 200]);
    }

    #[test]
    fn who_is_refused_is_sent_away_for_as_long_as_those_ahead_take_to_start() {
        let settings = settings(MS * 60_000);
        let mut codel = Codel::new(&settings);
        let mut random = Random::new(1);
        let mut answers = |codel: &Codel, ahead, in_flight| {
            let answers = (0..1_000).map(|_| codel.retry_after(ahead, in_flight, &mut random)).collect::<Vec<_>>();
            (answers.iter().min().copied(), answers.iter().max().copied())
        };
        let near = |(least, most): (Option<Duration>, Option<Duration>), wait: Duration| {
            let (least, most) = (least.expect("there are some"), most.expect("there are some"));
            assert!(least >= wait && least < wait.mul_f64(1.01), "{least:?} for {wait:?}");
            assert!(most > wait.mul_f64(1.49) && most < wait.mul_f64(1.5), "{most:?} for {wait:?}");
        };
        near(answers(&codel, 6, 3), UNKNOWN);
        codel.learn(&settings, MS, 1.0, 100 * MS);
        near(answers(&codel, 6, 3), 200 * MS);
        near(answers(&codel, 6, 0), 600 * MS);
        assert_eq!(answers(&codel, 1_000_000, 3), (Some(LONGEST), Some(LONGEST)));
    }

    #[test]
    fn after_an_overload_a_fourth_of_the_interval_is_enough_to_see_the_next() {
        let codel = Codel::new(&settings(MS * 60_000));
        let (late, interval) = (codel.target + 1, codel.interval);
        let at = Timestamp::from_nanos;
        let mut lateness = Lateness::default();
        let mut seen = |begun, after, wait| {
            lateness.observe(at(begun), wait, &codel);
            lateness.observe(at(begun + after), wait, &codel);
            let lasts = lateness.lasts();
            lateness.clear(at(begun + after));
            lasts
        };
        assert!(!seen(0, interval, late - 1), "it is not late");
        assert!(!seen(interval, interval - 1, late) && seen(3 * interval, interval, late));
        assert!(!seen(4 * interval, interval / AGAIN - 1, late) && seen(4 * interval, interval / AGAIN, late));
        assert!(!seen(6 * interval, interval / AGAIN, late), "that is long ago");
    }
}
