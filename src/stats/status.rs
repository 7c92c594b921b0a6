//! The status block in the log: a row for each pool, its running tasks under it, and totals.

use crate::pool::PoolStats;
use crate::pools::Pools;

/// The sums over all pools.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) max_workers: usize,
    pub(super) active: usize,
    pub(super) queued: usize,
}

impl Pools {
    /// Logs the state of every pool: a row each with its busy workers and its queue, the running tasks under it (while
    /// `verbose` is on), and totals.
    pub fn log_current_status(&self) {
        for line in block(&self.stats()) {
            tracing::info!(target: "tower_offload", "{line}");
        }
    }
}

// === impl Totals ===

impl Totals {
    pub(super) fn of(stats: &[PoolStats]) -> Self {
        stats.iter().fold(Self::default(), |sum, pool| Self {
            max_workers: sum.max_workers + pool.max_workers,
            active: sum.active + pool.active_threads,
            queued: sum.queued + pool.queued_tasks,
        })
    }

    /// Busy threads as a share of all that there may be, from 0 to 1.
    pub(super) fn utilization(&self) -> f64 {
        crate::pool::ratio(self.active, self.max_workers)
    }
}

fn block(stats: &[PoolStats]) -> Vec<String> {
    let mut lines = vec!["ThreadPool status:".to_owned()];
    for pool in stats {
        lines.push(row(
            pool.name.as_str(),
            pool.active_threads,
            pool.max_workers,
            pool.utilization(),
            pool.queued_tasks,
        ));
        for task in &pool.active_tasks {
            let seconds = task.running_for.as_secs_f64();
            lines.push(format!("    Task #{}: '{}' running for {seconds:.3}s", task.task_id, task.function));
        }
    }
    let totals = Totals::of(stats);
    lines.push(row("total", totals.active, totals.max_workers, totals.utilization(), totals.queued));
    lines
}

fn row(name: &str, active: usize, most: usize, utilization: f64, queued: usize) -> String {
    let percent = utilization * 100.0;
    format!("  {name:<12} | Workers: {active:>3}/{most:>3} ({percent:>5.1}%) | Queued: {queued:>3}")
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn a_row_lines_up_with_the_others() {
        assert_eq!(row("cpu", 8, 30, 8.0 / 30.0, 2), "  cpu          | Workers:   8/ 30 ( 26.7%) | Queued:   2");
        assert_eq!(row("inference", 20, 20, 1.0, 999), "  inference    | Workers:  20/ 20 (100.0%) | Queued: 999");
    }
}
