//! The one sampler of all viewers.
//!
//! It reads the numbers of the pools once a second as long as the dashboard exists, so that a page has ten minutes of
//! history when it is opened after an incident. That takes one short lock and an addition of histograms for each pool. The
//! dearer part runs only while somebody looks: the states of threads, the list of tasks, and the texts. Each text is made
//! once a second for all viewers, who share its bytes.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::series::{Series, TICK, missed_between};
use super::view::{Known, View};
use super::{event, page};
use crate::load::Load;
use crate::pool::{Pool, PoolStats};
use crate::pools::Pools;
use crate::sync::lock_std as lock;
use crate::timer;

/// The state that all clones of a dashboard share.
#[derive(Debug)]
pub(super) struct Board {
    pools: Pools,
    /// The identity of the page.
    page: String,
    state: Mutex<State>,
    frames: watch::Sender<Bytes>,
}

#[derive(Debug)]
struct State {
    /// The number of the latest tick. Those that were missed are counted.
    n: u64,
    /// The time of the latest tick.
    at: Instant,
    series: Vec<Series>,
    /// The page of this tick, once somebody has looked.
    view: Option<View>,
    rendered: Rendered,
}

/// The bytes of this tick that were asked for.
#[derive(Debug, Default)]
struct Rendered {
    page: Option<Bytes>,
    history: Option<Bytes>,
}

/// The events of one viewer.
#[derive(Debug)]
pub(super) struct Events {
    /// The history and the latest frame.
    pub(super) first: Bytes,
    /// The frames after that. A viewer who is slow misses some of them.
    pub(super) frames: watch::Receiver<Bytes>,
}

impl Board {
    pub(super) fn new(pools: &Pools) -> Arc<Self> {
        let begun = Instant::now();
        let board = Arc::new(Self::begin(pools, begun));
        let weak = Arc::downgrade(&board);
        let mut due = begun + TICK;
        timer::METRICS.set(due, move || {
            let now = Instant::now();
            weak.upgrade()?.tick(now);
            // In step, unless it was late by more than a tick.
            due = (due + TICK).max(now);
            Some(due)
        });
        board
    }

    /// A board with its first point, before its sampler runs.
    fn begin(pools: &Pools, at: Instant) -> Self {
        let state = State {
            n: 0,
            at,
            series: pools.iter().map(|_| Series::default()).collect(),
            view: None,
            rendered: Rendered::default(),
        };
        let board = Self {
            pools: pools.clone(),
            page: page::identity(pools.names()),
            state: Mutex::new(state),
            frames: watch::Sender::default(),
        };
        board.tick(at);
        board
    }

    pub(super) const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The page of the latest tick.
    pub(super) fn page(&self) -> Bytes {
        let state = &mut *lock(&self.state);
        self.look(state);
        let State { view, rendered, .. } = state;
        let view = view.as_ref().expect("somebody looks");
        rendered.page.get_or_insert_with(|| Bytes::from(page::render(view, &self.page))).clone()
    }

    /// The events of a viewer who comes now.
    pub(super) fn events(&self) -> Events {
        let state = &mut *lock(&self.state);
        self.look(state);
        let State { n, series, view, rendered, .. } = state;
        let first = rendered.history.get_or_insert_with(|| {
            let mut text = event::history(*n, &self.page, series.iter());
            let view = view.as_ref().expect("somebody looks");
            text.extend_from_slice(&event::frame(view, series.iter().map(Series::latest)));
            Bytes::from(text)
        });
        // Subscribed under the lock, so no frame is missed or sent twice.
        Events { first: first.clone(), frames: self.frames.subscribe() }
    }

    /// Takes the next point, and sends its frame to the viewers.
    fn tick(&self, now: Instant) {
        let state = &mut *lock(&self.state);
        let missed = missed_between(state.at, now);
        state.n += 1 + missed as u64;
        state.at = now;
        (state.view, state.rendered) = (None, Rendered::default());
        if self.frames.receiver_count() == 0 {
            for (pool, series) in self.pools.iter().zip(&mut state.series) {
                series.add(now, missed, &pool.numbers(), pool.waits());
            }
            return;
        }
        let stats = self.stats();
        for ((pool, stats), series) in self.pools.iter().zip(&stats).zip(&mut state.series) {
            series.add(now, missed, stats, pool.waits());
        }
        let view = self.view(state, &stats);
        self.frames.send_replace(event::frame(&view, state.series.iter().map(Series::latest)));
        state.view = Some(view);
    }

    /// Makes the texts of the latest tick, if nobody has looked since. Its point is taken anew, so that the texts and the
    /// point are of one instant.
    fn look(&self, state: &mut State) {
        if state.view.is_some() {
            return;
        }
        let (stats, now) = (self.stats(), Instant::now());
        for ((pool, stats), series) in self.pools.iter().zip(&stats).zip(&mut state.series) {
            series.pop();
            series.add(now, 0, stats, pool.waits());
        }
        state.view = Some(self.view(state, &stats));
    }

    fn stats(&self) -> Vec<PoolStats> {
        self.pools.iter().map(Pool::stats).collect()
    }

    fn view(&self, state: &State, stats: &[PoolStats]) -> View {
        let load: Load = self.pools.load();
        let known: Vec<_> = self
            .pools
            .iter()
            .zip(stats)
            .zip(&state.series)
            .map(|((pool, stats), series)| Known {
                stats,
                load: load.pool(stats.name.as_str()),
                runnable: pool.runnable_workers(),
                series,
            })
            .collect();
        View::new(state.n, &known, &load, &self.pools.slow_routes(), self.pools.is_verbose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A board whose sampler does not run.
    fn board() -> Board {
        Board::begin(&Pools::default(), Instant::now())
    }

    #[test]
    fn each_text_is_made_once_a_tick_and_shared() {
        let board = board();
        let pages = [board.page(), board.page()];
        let mut viewers = [board.events(), board.events()];
        assert_eq!(pages[0].as_ptr(), pages[1].as_ptr());
        assert_eq!(viewers[0].first.as_ptr(), viewers[1].first.as_ptr());
        board.tick(Instant::now());
        let frames = viewers.each_mut().map(|viewer| viewer.frames.borrow_and_update().clone());
        assert_eq!(frames[0].as_ptr(), frames[1].as_ptr());
        assert_ne!(board.page().as_ptr(), pages[0].as_ptr());
    }

    #[test]
    fn a_tick_makes_no_text_while_nobody_looks() {
        let board = board();
        let has_view = || lock(&board.state).view.is_some();
        board.tick(Instant::now());
        assert!(!has_view());
        let viewer = board.events();
        assert!(has_view());
        board.tick(Instant::now());
        assert!(has_view());
        drop(viewer);
        board.tick(Instant::now());
        assert!(!has_view());
    }

    #[test]
    fn looking_adds_no_point_however_late_it_is() {
        let now = Instant::now();
        let board = Board::begin(&Pools::default(), now.checked_sub(2 * TICK).expect("the clock runs"));
        board.tick(now.checked_sub(TICK).expect("the clock runs"));
        let points = || lock(&board.state).series[0].values(0).len();
        let before = points();
        board.page();
        drop(board.events());
        assert_eq!(points(), before);
    }

    #[test]
    fn the_sampler_ends_with_the_dashboard() {
        let board = Board::new(&Pools::default());
        let weak = Arc::downgrade(&board);
        drop(board);
        // The sampler may be at work.
        while weak.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
