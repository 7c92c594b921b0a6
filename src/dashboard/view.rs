//! Everything that the page shows, as texts: the page and its events have the same ones.

use std::cmp::Reverse;

use serde::Serialize;

use super::series::{self, NUMBERS, Recent, Series};
use super::state::{self, Mood};
use super::text::{self, NONE};
use crate::load::{Load, PoolLoad};
use crate::pool::{ActiveTask, PoolStats};
use crate::pools::SlowRoute;
use crate::thread_state;

/// How many running tasks are listed.
const MAX_TASKS: usize = 50;

/// The page at one tick.
#[derive(Debug, Serialize)]
pub(super) struct View {
    /// The number of the tick.
    pub(super) n: u64,
    /// Which pools have a problem.
    pub(super) summary: String,
    pub(super) mood: &'static str,
    /// The load of the process.
    pub(super) load: String,
    /// The oldest stuck task, if there is one.
    pub(super) stuck: String,
    pub(super) pools: Vec<PoolView>,
    pub(super) tasks: Vec<TaskView>,
    /// What the list of tasks does not show, and why.
    pub(super) note: String,
    /// The routes whose handlers hold a thread of the runtime. There are some only if the application observes its routes.
    pub(super) slow: Vec<SlowView>,
}

/// One pool.
#[derive(Debug, Serialize)]
pub(super) struct PoolView {
    #[serde(skip)]
    pub(super) name: String,
    pub(super) mood: &'static str,
    /// The texts of its cells: those of the [`TILES`], and those of the overview.
    pub(super) cells: Vec<String>,
    /// Lines with a label, which not every pool has.
    pub(super) more: Vec<(String, String)>,
}

/// A task that runs.
#[derive(Debug, Serialize)]
pub(super) struct TaskView {
    pub(super) task: String,
    pub(super) function: String,
    pub(super) time: String,
    /// What its thread does.
    pub(super) does: String,
    pub(super) stuck: bool,
}

/// A route whose handler holds a thread of the runtime.
#[derive(Debug, Serialize)]
pub(super) struct SlowView {
    pub(super) route: String,
    pub(super) long_polls: String,
    pub(super) longest: String,
}

/// A tile of a pool's card: it has three cells, for the number, for what belongs to it, and for the greatest value of its
/// sparkline.
#[derive(Debug)]
pub(super) struct Tile {
    pub(super) label: &'static str,
    /// The numbers of a point whose lines are drawn: a solid and a dashed one.
    pub(super) line: usize,
    pub(super) dashed: Option<usize>,
    text_of: fn(f64) -> String,
}

pub(super) const TILES: [Tile; 6] = [
    Tile { label: "Queue wait, p99", line: series::WAIT_P99, dashed: Some(series::WAIT_P50), text_of: seconds },
    Tile { label: "Queued", line: series::QUEUED, dashed: None, text_of: text::number },
    Tile { label: "In flight", line: series::IN_FLIGHT, dashed: None, text_of: text::number },
    Tile { label: "Active workers", line: series::ACTIVE, dashed: None, text_of: text::number },
    Tile { label: "Load", line: series::LOAD, dashed: None, text_of: text::ratio },
    Tile { label: "Ended a second", line: series::ENDED, dashed: Some(series::REJECTED), text_of: text::number },
];

/// The cells that follow those of the tiles: the state of the pool, and its longest wait.
pub(super) const STATE_CELL: usize = TILES.len() * 3;
pub(super) const WAIT_CELL: usize = STATE_CELL + 1;

/// What is known of a pool at one tick.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) stats: &'a PoolStats,
    pub(super) load: Option<&'a PoolLoad>,
    /// How many of its active workers are runnable.
    pub(super) runnable: Option<usize>,
    pub(super) series: &'a Series,
}

impl View {
    /// `verbose`: names of functions and routes, and keys of models, are shown.
    pub(super) fn new(n: u64, pools: &[Known<'_>], load: &Load, slow: &[SlowRoute], verbose: bool) -> Self {
        let states: Vec<_> =
            pools.iter().map(|known| state::state(known.stats, &known.series.recent(), known.runnable)).collect();
        let problems = pools.iter().zip(&states).filter(|(_, (mood, _))| matches!(mood, Mood::Bad | Mood::Warn));
        let problems: Vec<_> = problems.map(|(known, (_, words))| format!("{}: {words}", known.stats.name)).collect();
        let worst = states.iter().map(|(mood, _)| *mood).min_by_key(|mood| *mood as u8).unwrap_or(Mood::Rest);
        let (tasks, note) = tasks(pools, verbose);
        Self {
            n,
            summary: match (pools.is_empty(), problems.is_empty()) {
                (true, _) => "There are no pools: they are disabled.".to_owned(),
                (false, true) => "No pool has a problem.".to_owned(),
                (false, false) => problems.join(" · "),
            },
            mood: worst.name(),
            load: load_of(load),
            stuck: stuck_of(&tasks),
            pools: pools
                .iter()
                .zip(states)
                .map(|(known, (mood, words))| PoolView {
                    name: known.stats.name.to_string(),
                    mood: mood.name(),
                    cells: cells(known, words),
                    more: more(known.stats, verbose),
                })
                .collect(),
            tasks,
            note,
            slow: slow.iter().filter(|_| verbose).map(SlowView::of).collect(),
        }
    }
}

impl SlowView {
    fn of(slow: &SlowRoute) -> Self {
        Self {
            route: slow.route.clone(),
            long_polls: text::count(slow.long_polls),
            longest: text::duration(slow.longest),
        }
    }
}

/// The tasks are listed at the end of the page, so the first stuck one is named at its top.
fn stuck_of(tasks: &[TaskView]) -> String {
    let stuck: Vec<_> = tasks.iter().filter(|task| task.stuck).collect();
    let Some(TaskView { task, function, time, does, .. }) = stuck.first() else { return String::new() };
    let more = match stuck.len() - 1 {
        0 => String::new(),
        more => format!(", and {} more", text::size(more)),
    };
    format!("Stuck: {task} {function}, running for {time}, {does}{more}")
}

fn load_of(load: &Load) -> String {
    let bound = load.bound_by.as_ref().map(|pool| format!(", of {pool}")).unwrap_or_default();
    format!("Load of the process: {}{bound} · CPU {}", text::ratio(load.ratio), text::ratio(load.cpu))
}

fn cells(known: &Known<'_>, state: String) -> Vec<String> {
    let Known { stats, series, .. } = known;
    let Recent { wait_p50, wait_p99, ended, failed, rejected } = series.recent();
    let oldest = if stats.oldest_wait.is_zero() { NONE.to_owned() } else { text::duration(stats.oldest_wait) };
    let texts: [(String, String); TILES.len()] = [
        (text::maybe(wait_p99), format!("p50 {} · oldest {oldest}", text::maybe(wait_p50))),
        (text::size(stats.queued_tasks), format!("of {}", text::size(stats.queue_capacity))),
        (
            text::size(stats.in_flight),
            format!("{} of {} permits", text::size(stats.permits_in_use), text::size(stats.concurrency_limit)),
        ),
        (text::size(stats.active_threads), workers(known)),
        (text::ratio(stats.load_ratio), known.load.map_or_else(String::new, parts)),
        (text::number(ended), format!("{} failed · {} rejected", text::number(failed), text::number(rejected))),
    ];
    let max = |tile: &Tile| {
        let lines = std::iter::once(tile.line).chain(tile.dashed);
        let max = lines.filter_map(|number| series.max(number)).reduce(f32::max);
        max.map_or_else(|| NONE.to_owned(), |max| (tile.text_of)(f64::from(max)))
    };
    let tiles = TILES.iter().zip(texts);
    let mut cells: Vec<_> =
        tiles.flat_map(|(tile, (number, rest))| [number, rest, format!("max {}", max(tile))]).collect();
    // A task that has waited for long and still waits is not in the p99.
    let longest = wait_p99.max(Some(stats.oldest_wait).filter(|oldest| !oldest.is_zero()));
    cells.extend([state, text::maybe(longest)]);
    cells
}

fn workers(known: &Known<'_>) -> String {
    let Known { stats, runnable, .. } = known;
    let threads = format!("{} of {} threads", text::size(stats.workers), text::size(stats.max_workers));
    match runnable.map(|runnable| runnable.min(stats.active_threads)) {
        Some(runnable) => {
            let blocked = stats.active_threads - runnable;
            format!("{} runnable · {} blocked · {threads}", text::size(runnable), text::size(blocked))
        }
        None => threads,
    }
}

fn parts(load: &PoolLoad) -> String {
    format!("permits {} · CPU {}", text::ratio(load.permits), text::ratio(load.cpu))
}

fn more(stats: &PoolStats, verbose: bool) -> Vec<(String, String)> {
    let counts = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
        let shown: Vec<_> = counts
            .filter(|(result, count)| *count > 0 || *result == "ok")
            .map(|(result, count)| format!("{} {result}", text::count(count)))
            .collect();
        shown.join(" · ")
    };
    let mut more = vec![("Results".to_owned(), counts(&mut stats.counts.by_result()))];
    if stats.streams > 0 || stats.streams_limit > 0 {
        let limit =
            if stats.streams_limit > 0 { format!(" of {}", text::size(stats.streams_limit)) } else { String::new() };
        let waiting = text::bytes(stats.stream_buffered_bytes as u64);
        more.push((
            "Streams".to_owned(),
            format!("{}{limit} open · {waiting} wait for clients", text::size(stats.streams)),
        ));
    }
    if let Some(batches) = &stats.batches {
        more.push(("Batches".to_owned(), counts(&mut batches.by_result().into_iter())));
    }
    for slots in &stats.holdings.slots {
        let mut parts = vec![format!("{} in use · {} idle", text::size(slots.in_use), text::size(slots.idle))];
        let some = |count: usize, word| (count > 0).then(|| format!("{} {word}", text::size(count)));
        parts.extend(some(slots.loading, "loading"));
        parts.extend(some(slots.outdated, "outdated"));
        parts.push(format!("generation {}", text::count(slots.generation)));
        // The reason may have a secret, such as the address of a database.
        parts.extend(slots.error.as_ref().map(|_| "the last load failed".to_owned()));
        more.push((format!("Slots {}", slots.name), parts.join(" · ")));
    }
    for models in &stats.holdings.models {
        let keys: Vec<_> = models.loaded.iter().map(|model| model.key.as_str()).collect();
        let keys = if verbose && !keys.is_empty() { format!(" ({})", keys.join(", ")) } else { String::new() };
        let text = format!(
            "{} loaded{keys} · {} loading · {} of {} · {} evicted · {} failed",
            text::size(models.loaded.len()),
            text::size(models.loading.len()),
            text::bytes(models.bytes),
            text::bytes(models.budget_bytes),
            text::count(models.evictions),
            text::count(models.loads_failed),
        );
        more.push((format!("Models {}", models.name), text));
    }
    more
}

/// The running tasks of all pools, oldest first.
fn tasks(pools: &[Known<'_>], verbose: bool) -> (Vec<TaskView>, String) {
    if !verbose {
        return (Vec::new(), "Tasks are listed while general.verbose is on.".to_owned());
    }
    let mut tasks: Vec<_> =
        pools.iter().flat_map(|known| known.stats.active_tasks.iter().map(move |task| (known, task))).collect();
    tasks.sort_by_key(|(_, task)| Reverse(task.running_for));
    let note = match tasks.len() {
        0 => "No task runs.".to_owned(),
        all if all > MAX_TASKS => format!("The {MAX_TASKS} oldest of {} tasks.", text::size(all)),
        _ => String::new(),
    };
    (tasks.into_iter().take(MAX_TASKS).map(|(known, task)| task_of(known, task)).collect(), note)
}

fn task_of(known: &Known<'_>, task: &ActiveTask) -> TaskView {
    let does = match (task.thread, known.runnable) {
        (Some(thread), _) => thread_state::doing(thread).unwrap_or(NONE),
        (None, Some(_)) => "awaits",
        (None, None) => NONE,
    };
    TaskView {
        task: format!("{} #{}", known.stats.name, task.task_id),
        function: task.function.clone(),
        time: text::duration(task.running_for),
        does: does.to_owned(),
        stuck: state::is_stuck(task, known.stats),
    }
}

fn seconds(value: f64) -> String {
    text::duration(std::time::Duration::from_secs_f64(value))
}

/// The series in the form that the page draws: for each number its values, oldest first.
pub(super) fn columns(series: &Series) -> impl Iterator<Item = impl ExactSizeIterator<Item = f32>> {
    (0..NUMBERS).map(|number| series.values(number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pool::{BatchCounts, HoldingStats, LoadedModel, ModelsStats, SlotsStats};
    use crate::pools::Pools;

    fn holding() -> PoolStats {
        let mut stats = Pools::default().stats().remove(2);
        let slots = SlotsStats {
            name: "sessions".to_owned(),
            generation: 2,
            in_use: 3,
            error: Some("postgres://user:secret@db".to_owned()),
            ..SlotsStats::default()
        };
        let loaded = vec![LoadedModel { key: "tenant-7".to_owned(), version: 1, bytes: 5, held: 0 }];
        let models = ModelsStats {
            name: "models".to_owned(),
            budget_bytes: 1_500_000,
            bytes: 27_000,
            loaded,
            ..ModelsStats::default()
        };
        stats.holdings = HoldingStats { slots: vec![slots], models: vec![models] };
        stats.batches = Some(BatchCounts { ok: 7, panicked: 1, ..BatchCounts::default() });
        (stats.streams, stats.stream_buffered_bytes) = (2, 4096);
        stats
    }

    #[test]
    fn what_a_pool_has_beside_tasks_has_lines_where_there_is_any() {
        let shown = |stats: &PoolStats, verbose| -> Vec<_> {
            let more = more(stats, verbose).into_iter();
            more.map(|(label, text)| format!("{label}: {text}").replace('\u{a0}', " ")).collect()
        };
        let plain = Pools::default().stats().remove(0);
        assert_eq!(shown(&plain, true), ["Results: 0 ok"]);
        assert_eq!(
            shown(&holding(), true),
            [
                "Results: 0 ok",
                "Streams: 2 open · 4.1 kB wait for clients",
                "Batches: 7 ok · 1 panicked",
                "Slots sessions: 3 in use · 0 idle · generation 2 · the last load failed",
                "Models models: 1 loaded (tenant-7) · 0 loading · 27 kB of 1.5 MB · 0 evicted · 0 failed",
            ]
        );
        assert!(shown(&holding(), false)[4].starts_with("Models models: 1 loaded · 0 loading"));
    }

    #[test]
    fn the_oldest_tasks_of_all_pools_are_listed() {
        let mut stats = Pools::default().stats();
        let task = |task_id| ActiveTask {
            task_id,
            function: "f".to_owned(),
            running_for: Duration::from_millis(1000 - task_id),
            thread: None,
        };
        stats[0].active_tasks = (1..=MAX_TASKS as u64).map(|id| task(2 * id)).collect();
        stats[1].active_tasks = vec![task(1), task(5)];
        stats[1].mean_run = Some(Duration::ZERO);
        let series = Series::default();
        let known: Vec<_> =
            stats.iter().map(|stats| Known { stats, load: None, runnable: None, series: &series }).collect();
        let (shown, note) = tasks(&known, true);
        let names: Vec<_> = shown.iter().take(4).map(|task| task.task.as_str()).collect();
        assert_eq!((shown.len(), names.as_slice()), (MAX_TASKS, &["cpu #1", "io #2", "io #4", "cpu #5"][..]));
        assert_eq!(note, "The 50 oldest of 52 tasks.");
        assert!(tasks(&known, false).0.is_empty());
    }

    #[test]
    fn the_oldest_stuck_task_is_named_at_the_top() {
        let task = |name: &str, stuck| TaskView {
            task: name.to_owned(),
            function: "GET /files".to_owned(),
            time: "9 s".to_owned(),
            does: "awaits".to_owned(),
            stuck,
        };
        assert_eq!(stuck_of(&[task("io #1", false)]), "");
        let one = [task("io #1", false), task("io #2", true)];
        assert_eq!(stuck_of(&one), "Stuck: io #2 GET /files, running for 9 s, awaits");
        let three = [task("io #2", true), task("io #3", true), task("io #4", true)];
        assert_eq!(stuck_of(&three), "Stuck: io #2 GET /files, running for 9 s, awaits, and 2 more");
    }

    #[test]
    fn the_longest_wait_is_that_of_a_task_that_still_waits_if_it_is_longer() {
        let mut stats = Pools::default().stats().remove(0);
        let series = Series::default();
        let mut shown = |oldest_wait| {
            stats.oldest_wait = oldest_wait;
            let known = Known { stats: &stats, load: None, runnable: None, series: &series };
            cells(&known, String::new())[WAIT_CELL].clone()
        };
        assert_eq!(shown(Duration::ZERO), NONE);
        assert_eq!(shown(Duration::from_secs(11)), "11\u{a0}s");
    }
}
