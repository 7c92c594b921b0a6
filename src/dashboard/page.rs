//! The page as HTML, with the numbers of one tick. It has its style and its script inside, and is all there is.

use super::text::escape;
use super::view::{PoolView, STATE_CELL, SlowView, TILES, TaskView, View, WAIT_CELL};
use crate::workload::Workload;

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// The browser runs no script and uses no style but those of the page, and asks no other server. A test knows the hashes
/// of a style or a script that has changed.
pub(super) const POLICY: &str = "default-src 'none'; \
    script-src 'sha256-TZ1j39JP35L0YJXS8mKIhvA3xRF934bhI07uwkU6bME='; \
    style-src 'sha256-9CjIRP8zK1bp9FUKcJBv3RmKn/xPI1A6E8Tia6M3nhY='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// The text by which a page that is open notices that the server has another one.
pub(super) fn identity<'a>(pools: impl Iterator<Item = &'a Workload>) -> String {
    pools.fold(env!("CARGO_PKG_VERSION").to_owned(), |text, pool| format!("{text},{pool}"))
}

pub(super) fn render(view: &View, identity: &str) -> String {
    let overview: String = view.pools.iter().enumerate().map(overview).collect();
    let cards: String = view.pools.iter().enumerate().map(card).collect();
    let tasks: String = view.tasks.iter().map(task).collect();
    let slow: String = view.slow.iter().map(slow_route).collect();
    let hidden_if = |is_so| if is_so { " hidden" } else { "" };
    let (no_tasks, no_slow) = (hidden_if(view.tasks.is_empty()), hidden_if(view.slow.is_empty()));
    let no_stuck = hidden_if(view.stuck.is_empty());
    let View { summary, mood, load, note, stuck, .. } = view;
    let [identity, summary, load, note, stuck] = [identity, summary, load, note, stuck].map(escape);
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Workload pools</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body data-page="{identity}">
<header>
<h1>Workload pools</h1>
<span id="live" class="quiet"></span>
<button id="pause" type="button" aria-pressed="false" hidden>Pause</button>
</header>
<main>
<p id="summary" class="summary" role="status" data-mood="{mood}">{summary}</p>
<p id="stuck"{no_stuck}><a href="#running">{stuck}</a></p>
<p id="load" class="quiet">{load}</p>
<noscript><p>These are the numbers of the moment at which the page was loaded. <a href="">Load it again.</a></p></noscript>
<section aria-labelledby="overview">
<h2 id="overview">Overview</h2>
<table class="overview">
<thead><tr><th scope="col">Pool</th><th scope="col">State</th><th scope="col" class="n">Longest wait</th><th scope="col" class="n">Queued</th><th scope="col" class="n">Load</th></tr></thead>
<tbody>{overview}</tbody>
</table>
</section>
<section aria-labelledby="pools">
<h2 id="pools">Pools</h2>
<div class="cards">{cards}</div>
</section>
<section aria-labelledby="running">
<h2 id="running">Running tasks, oldest first</h2>
<p id="note" class="quiet">{note}</p>
<table id="table"{no_tasks}>
<thead><tr><th scope="col">Task</th><th scope="col">Function</th><th scope="col" class="n">Running for</th><th scope="col">Its thread</th></tr></thead>
<tbody id="tasks">{tasks}</tbody>
</table>
</section>
<section id="observed" aria-labelledby="holding"{no_slow}>
<h2 id="holding">Routes that hold a thread of the runtime</h2>
<p class="quiet">In one poll, for more than a millisecond, while other requests wait for the thread. Run them in a pool.</p>
<table>
<thead><tr><th scope="col">Route</th><th scope="col" class="n">Long polls</th><th scope="col" class="n">Longest</th></tr></thead>
<tbody id="slow">{slow}</tbody>
</table>
</section>
</main>
<footer class="quiet">
<p>Lines show ten minutes. Waits, ended, failed and rejected tasks are those of the last ten seconds. Dashed lines: the
p50 of the queue wait, and rejected tasks. Stuck: a task that has run for more than ten times the mean of its pool. Longest wait: the greater of the p99 and of the oldest queued task's.</p>
</footer>
<script>{SCRIPT}</script>
</body>
</html>
"##
    )
}

/// A row of the overview. Its cells are those of the card.
fn overview((index, pool): (usize, &PoolView)) -> String {
    let PoolView { name, mood, cells, .. } = pool;
    let number = |cell: usize| format!(r#"<td class="n" data-c="{cell}">{}</td>"#, escape(&cells[cell]));
    format!(
        "<tr data-pool=\"{index}\" data-mood=\"{mood}\"><th scope=\"row\"><a href=\"#pool-{index}\">{}</a></th>\
         <td class=\"state\" data-c=\"{STATE_CELL}\">{}</td>{}{}{}</tr>\n",
        escape(name),
        escape(&cells[STATE_CELL]),
        number(WAIT_CELL),
        number(3),
        number(12),
    )
}

fn card((index, pool): (usize, &PoolView)) -> String {
    let PoolView { name, mood, cells, more, .. } = pool;
    let tiles: String = TILES
        .iter()
        .enumerate()
        .map(|(number, tile)| {
            let (cell, line) = (number * 3, tile.line);
            let dashed = tile.dashed.map(|dashed| format!(r#" data-dashed="{dashed}""#)).unwrap_or_default();
            let dashed_path = if tile.dashed.is_some() { r#"<path class="dashed"/>"# } else { "" };
            format!(
                "<div><dt>{}</dt><dd class=\"number\" data-c=\"{cell}\">{}</dd><dd class=\"rest\" data-c=\"{}\">{}</dd>\
                 <dd class=\"spark\"><svg viewBox=\"0 0 600 40\" preserveAspectRatio=\"none\" aria-hidden=\"true\" \
                 data-line=\"{line}\"{dashed}><path class=\"area\"/><path class=\"line\"/>{dashed_path}</svg>\
                 <span data-c=\"{}\">{}</span></dd></div>\n",
                tile.label,
                escape(&cells[cell]),
                cell + 1,
                escape(&cells[cell + 1]),
                cell + 2,
                escape(&cells[cell + 2]),
            )
        })
        .collect();
    let more: String =
        more.iter().map(|(label, text)| format!("<dt>{}</dt><dd>{}</dd>", escape(label), escape(text))).collect();
    format!(
        "<article class=\"card\" id=\"pool-{index}\" data-pool=\"{index}\" data-mood=\"{mood}\" aria-labelledby=\"name-{index}\">\n\
         <div class=\"head\"><h3 id=\"name-{index}\">{}</h3><span class=\"state\" data-c=\"{STATE_CELL}\">{}</span></div>\n\
         <dl class=\"tiles\">{tiles}</dl>\n<dl class=\"more\">{more}</dl>\n</article>\n",
        escape(name),
        escape(&cells[STATE_CELL]),
    )
}

fn slow_route(slow: &SlowView) -> String {
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
        escape(&slow.route),
        escape(&slow.long_polls),
        escape(&slow.longest),
    )
}

fn task(task: &TaskView) -> String {
    let (class, stuck) = if task.stuck { (" class=\"stuck\"", "<strong>stuck</strong>: ") } else { ("", "") };
    format!(
        "<tr{class}><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td>{stuck}{}</td></tr>\n",
        escape(&task.task),
        escape(&task.function),
        escape(&task.time),
        escape(&task.does),
    )
}
