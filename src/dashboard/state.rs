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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::Pools;

    fn idle() -> PoolStats {
        Pools::default().stats().remove(1)
    }

    fn task(running_for: Duration) -> ActiveTask {
        ActiveTask { task_id: 1, function: String::new(), running_for, thread: None }
    }

    fn words(stats: &PoolStats, recent: &Recent, runnable: Option<usize>) -> String {
        state(stats, recent, runnable).1
    }

    #[test]
    fn a_task_is_stuck_at_ten_times_the_mean_but_never_within_five_seconds() {
        let stuck = |mean_run: Option<u64>, seconds| {
            let stats = PoolStats { mean_run: mean_run.map(Duration::from_millis), ..idle() };
            is_stuck(&task(Duration::from_secs(seconds)), &stats)
        };
        assert_eq!([4, 5].map(|seconds| stuck(Some(1), seconds)), [false, true]);
        assert_eq!([29, 30].map(|seconds| stuck(Some(3000), seconds)), [false, true]);
        assert_eq!([299, 300].map(|seconds| stuck(None, seconds)), [false, true]);
    }

    #[test]
    fn every_problem_is_named_and_the_worst_decides() {
        let quiet = Recent::default();
        assert_eq!(state(&idle(), &quiet, None), (Mood::Rest, "idle".to_owned()));
        let works = PoolStats { in_flight: 3, active_threads: 3, ..idle() };
        assert_eq!(state(&works, &quiet, Some(3)), (Mood::Good, "working".to_owned()));
        let queues = PoolStats { queued_tasks: 2, ..works.clone() };
        assert_eq!(state(&queues, &quiet, Some(3)), (Mood::Good, "working, tasks wait".to_owned()));

        let rejects = Recent { rejected: 0.1, failed: 0.1, ..quiet };
        assert_eq!(state(&works, &rejects, None), (Mood::Bad, "rejecting, failing".to_owned()));
        let overloaded = PoolStats { overloaded: true, load_ratio: 1.2, ..works.clone() };
        assert_eq!(words(&overloaded, &quiet, None), "overloaded, short of capacity");
        let stuck = PoolStats { active_tasks: vec![task(Duration::from_secs(400))], draining: true, ..works };
        assert_eq!(words(&stuck, &quiet, None), "stuck, draining");
        let short = PoolStats { load_ratio: 1.01, ..idle() };
        assert_eq!(state(&short, &quiet, None), (Mood::Warn, "short of capacity".to_owned()));
    }

    #[test]
    fn workers_that_are_all_blocked_are_a_problem_if_a_task_waits() {
        let full = PoolStats { in_flight: 30, active_threads: 30, ..idle() };
        let waits = PoolStats { oldest_wait: Duration::from_millis(1), ..full.clone() };
        let shown = |stats, runnable| words(stats, &Recent::default(), runnable);
        assert_eq!(shown(&waits, Some(0)), "all workers blocked");
        assert_eq!(
            (shown(&full, Some(0)), shown(&waits, Some(1)), shown(&waits, None)),
            ("working".into(), "working".into(), "working".into())
        );
    }
}
