//! The state of a pool in words, the worst first.

use std::time::Duration;

use super::series::Recent;
use crate::pool::{ActiveTask, PoolStats};

/// A task is stuck if it has run for this many times the pool's usual run time, and for the minimum. A pool in which
/// nothing has ended yet has no usual run time.
const STUCK_FACTOR: u32 = 10;
const MIN_STUCK: Duration = Duration::from_secs(5);
const STUCK_WITHOUT_MEAN: Duration = Duration::from_secs(300);

/// How bad a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Somebody should look.
    Bad,
    /// Worth knowing.
    Warn,
    Good,
    /// There is nothing to do.
    Rest,
}

/// The run time from which on a task of the pool is stuck.
pub(super) fn stuck_after(stats: &PoolStats) -> Duration {
    stats.mean_run.map_or(STUCK_WITHOUT_MEAN, |mean| mean.saturating_mul(STUCK_FACTOR).max(MIN_STUCK))
}

pub(super) fn is_stuck(task: &ActiveTask, stats: &PoolStats) -> bool {
    task.running_for >= stuck_after(stats)
}

/// The state of a pool. `runnable` is the number of its active workers that are runnable, if that is known.
pub(super) fn state(stats: &PoolStats, recent: &Recent, runnable: Option<usize>) -> (Mood, String) {
    let stuck = stats.active_tasks.iter().filter(|task| is_stuck(task, stats)).count();
    let blocked = runnable == Some(0) && stats.active_threads >= stats.max_workers;
    let problems = [
        (stuck > 0, Mood::Bad, "stuck"),
        (stats.overloaded, Mood::Bad, "overloaded"),
        (recent.rejected > 0.0, Mood::Bad, "rejecting"),
        (recent.failed > 0.0, Mood::Warn, "failing"),
        (blocked && (stats.queued_tasks > 0 || !stats.oldest_wait.is_zero()), Mood::Warn, "all workers blocked"),
        (stats.load_ratio > 1.0, Mood::Warn, "short of capacity"),
        (stats.draining, Mood::Warn, "draining"),
    ];
    let found: Vec<_> = problems.iter().filter(|(is_so, ..)| *is_so).collect();
    if let Some((_, mood, _)) = found.first() {
        let words: Vec<_> = found.iter().map(|(.., word)| *word).collect();
        return (*mood, words.join(", "));
    }
    match stats {
        PoolStats { queued_tasks: 0, in_flight: 0, .. } => (Mood::Rest, "idle".to_owned()),
        PoolStats { queued_tasks: 0, .. } => (Mood::Good, "working".to_owned()),
        _ => (Mood::Good, "working, tasks wait".to_owned()),
    }
}

impl Mood {
    /// As the page marks it. The mark is a sign and not only a colour.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warn => "warn",
            Self::Good => "good",
            Self::Rest => "rest",
        }
    }
}
