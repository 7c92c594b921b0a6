//! Ten minutes of a pool, one point a second, and the numbers of the last ten seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::waits::WaitCounts;
use crate::pool::{Counts, PoolStats};

/// How many points there are: ten minutes.
pub(super) const POINTS: usize = 600;

/// The time from one point to the next.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// How many points rates and waits are taken over.
const RECENT: usize = 10;

/// The numbers of a point, in this order: the queue wait's p99 and p50 in seconds, queued tasks, tasks in flight, active
/// workers, the load, and the tasks a second that ended and that were rejected. A number that is not known is NaN.
pub(super) type Point = [f32; NUMBERS];

pub(super) const NUMBERS: usize = 8;
pub(super) const WAIT_P99: usize = 0;
pub(super) const WAIT_P50: usize = 1;
pub(super) const QUEUED: usize = 2;
pub(super) const IN_FLIGHT: usize = 3;
pub(super) const ACTIVE: usize = 4;
pub(super) const LOAD: usize = 5;
pub(super) const ENDED: usize = 6;
pub(super) const REJECTED: usize = 7;

/// The latest ten minutes of a pool.
#[derive(Debug, Default)]
pub(super) struct Series {
    points: VecDeque<Point>,
    /// The counters at the latest points, oldest first.
    counters: VecDeque<Counters>,
}

/// The counters of a pool at one point.
#[derive(Clone, Debug)]
struct Counters {
    at: Instant,
    counts: Counts,
    waits: WaitCounts,
}

/// What happened in the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Recent {
    pub(super) wait_p50: Option<Duration>,
    pub(super) wait_p99: Option<Duration>,
    /// Tasks a second that began and ended, however they did.
    pub(super) ended: f64,
    /// Those of them with an error or a panic.
    pub(super) failed: f64,
    /// Tasks a second that were shed, expired or rejected.
    pub(super) rejected: f64,
}

impl Series {
    /// Adds the point of this instant, and `missed` points that are not known before it.
    pub(super) fn add(&mut self, at: Instant, missed: usize, stats: &PoolStats, waits: WaitCounts) {
        let now = Counters { at, counts: stats.counts, waits };
        let last = self.counters.back().map(|before| now.since(before));
        self.points.extend(std::iter::repeat_n([f32::NAN; NUMBERS], missed));
        self.points.push_back(point(stats, &last.unwrap_or_default()));
        self.counters.push_back(now);
        self.points.drain(..self.points.len().saturating_sub(POINTS));
        self.counters.drain(..self.counters.len().saturating_sub(RECENT + 1));
    }

    /// Takes the latest point out.
    pub(super) fn pop(&mut self) {
        self.points.pop_back();
        self.counters.pop_back();
    }

    pub(super) fn recent(&self) -> Recent {
        let ends = self.counters.front().zip(self.counters.back());
        ends.map(|(first, last)| last.since(first)).unwrap_or_default()
    }

    pub(super) fn latest(&self) -> Point {
        self.points.back().copied().unwrap_or([f32::NAN; NUMBERS])
    }

    /// The values of one number, oldest first.
    pub(super) fn values(&self, number: usize) -> impl ExactSizeIterator<Item = f32> {
        self.points.iter().map(move |point| point[number])
    }

    /// The greatest of these values that is known.
    pub(super) fn max(&self, number: usize) -> Option<f32> {
        self.values(number).filter(|value| !value.is_nan()).reduce(f32::max)
    }
}

/// How many points are missing between two ticks: the process may have been suspended.
pub(super) fn missed_between(before: Instant, at: Instant) -> usize {
    let ticks = at.duration_since(before).as_secs_f64() / TICK.as_secs_f64();
    (ticks.round() as usize).saturating_sub(1).min(POINTS)
}

fn point(stats: &PoolStats, last: &Recent) -> Point {
    let seconds = |time: Option<Duration>| time.map_or(f32::NAN, |time| time.as_secs_f32());
    let mut point = [f32::NAN; NUMBERS];
    point[WAIT_P99] = seconds(last.wait_p99);
    point[WAIT_P50] = seconds(last.wait_p50);
    point[QUEUED] = stats.queued_tasks as f32;
    point[IN_FLIGHT] = stats.in_flight as f32;
    point[ACTIVE] = stats.active_threads as f32;
    point[LOAD] = stats.load_ratio as f32;
    point[ENDED] = last.ended as f32;
    point[REJECTED] = last.rejected as f32;
    point
}

impl Counters {
    fn since(&self, before: &Self) -> Recent {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return Recent::default();
        }
        let rate = |of: fn(&Counts) -> u64| of(&self.counts).saturating_sub(of(&before.counts)) as f64 / seconds;
        let waits = self.waits.since(&before.waits);
        Recent {
            wait_p50: waits.quantile(0.5),
            wait_p99: waits.quantile(0.99),
            ended: rate(|counts| counts.ok + counts.error + counts.panicked + counts.cancelled + counts.stalled),
            failed: rate(|counts| counts.error + counts.panicked),
            rejected: rate(|counts| counts.shed + counts.expired + counts.rejected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::Pools;

    #[test]
    fn rates_are_those_of_ten_seconds_and_points_those_of_one() {
        let pools = Pools::default();
        let stats = pools.stats().remove(0);
        let counted = |ok, error, shed| {
            let mut stats = stats.clone();
            (stats.counts.ok, stats.counts.error, stats.counts.shed) = (ok, error, shed);
            stats
        };
        let (start, mut series) = (Instant::now(), Series::default());
        series.add(start, 0, &counted(5, 0, 0), WaitCounts::default());
        assert_eq!((series.recent(), series.latest()[ENDED]), (Recent::default(), 0.0));
        series.add(start + TICK, 0, &counted(25, 10, 6), WaitCounts::default());
        assert_eq!((series.latest()[ENDED], series.latest()[REJECTED]), (30.0, 6.0));
        for tick in 2..=10 {
            series.add(start + TICK * tick, 0, &counted(25, 10, 6), WaitCounts::default());
        }
        assert_eq!((series.latest()[ENDED], series.latest()[WAIT_P99].is_nan()), (0.0, true));
        let Recent { ended, failed, rejected, wait_p99, .. } = series.recent();
        assert_eq!((ended, failed, rejected, wait_p99), (3.0, 1.0, 0.6, None));
        series.add(start + TICK * 11, 0, &counted(25, 10, 6), WaitCounts::default());
        assert_eq!(series.recent().ended, 0.0);
    }

    #[test]
    fn ten_minutes_are_kept_and_ticks_that_were_missed_are_gaps() {
        let pools = Pools::default();
        let stats = pools.stats().remove(0);
        let (start, mut series) = (Instant::now(), Series::default());
        let mut add = |at, missed| series.add(at, missed, &stats, WaitCounts::default());
        add(start, 0);
        add(start + TICK * 4, missed_between(start, start + TICK * 4));
        let known: Vec<_> = series.values(QUEUED).map(|value| !value.is_nan()).collect();
        assert_eq!(known, [true, false, false, false, true]);
        series.add(
            start + TICK * 100_000,
            missed_between(start, start + TICK * 100_000),
            &stats,
            WaitCounts::default(),
        );
        assert_eq!((series.values(QUEUED).len(), series.max(QUEUED)), (POINTS, Some(0.0)));
    }
}
