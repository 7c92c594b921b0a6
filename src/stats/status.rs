//! The status block in the log: a row for each pool, its running tasks under it, and totals.

use crate::pool::{ActiveTask, PoolStats};
use crate::pools::Pools;

/// The sums over all pools.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) max_workers: usize,
    pub(super) active: usize,
    pub(super) queued: usize,
}

/// The width of the rules that frame the block.
const WIDTH: usize = 60;

impl Pools {
    /// Logs the state of every pool, in the order of the settings, as a block of lines.
    ///
    /// Each line is one event with the level `INFO` and the target `tower_offload`. Running tasks are listed only while
    /// `verbose` is on.
    ///
    /// ```text
    /// ThreadPoolManager Current Status:
    /// ============================================================
    ///   io           | Workers:   3/ 50 (  6.0%) | Queued:   0
    ///   cpu          | Workers:   8/ 30 ( 26.7%) | Queued:   2
    ///     └─ Task #45: heavy_computation (running for 1.2s)
    /// ------------------------------------------------------------
    ///   Total: 11 active threads, 2 queued tasks
    /// ============================================================
    /// ```
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

    /// Active threads as a share of all threads that the pools may have, from 0 to 1.
    pub(super) fn utilization(&self) -> f64 {
        crate::metrics::stats::ratio(self.active, self.max_workers)
    }
}

pub(super) fn block(stats: &[PoolStats]) -> Vec<String> {
    let (heavy, light) = ("=".repeat(WIDTH), "-".repeat(WIDTH));
    let mut lines = vec!["ThreadPoolManager Current Status:".to_owned(), heavy.clone()];
    for pool in stats {
        lines.push(row(pool));
        lines.extend(pool.active_tasks.iter().map(task));
    }
    let totals = Totals::of(stats);
    let total = format!("  Total: {} active threads, {} queued tasks", totals.active, totals.queued);
    lines.extend([light, total, heavy]);
    lines
}

fn row(pool: &PoolStats) -> String {
    let PoolStats { name, active_threads: active, max_workers, queued_tasks: queued, .. } = pool;
    let percent = pool.utilization() * 100.0;
    format!("  {:<12} | Workers: {active:>3}/{max_workers:>3} ({percent:>5.1}%) | Queued: {queued:>3}", name.as_str())
}

fn task(task: &ActiveTask) -> String {
    let seconds = task.running_for.as_secs_f64();
    format!("    └─ Task #{}: {} (running for {seconds:.1}s)", task.task_id, task.function)
}
