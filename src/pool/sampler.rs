//! Periodically reads which workers of a pool are runnable and which are blocked, while more are awake than the pool has
//! cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::effects::Effects;
use super::runnable::TaskRef;
use super::shared::Shared;
use super::thread_state;
use crate::shield::shielded;
use crate::timer::TIMER;

/// When the first sample is taken: tasks that take less have ended by then.
const FIRST: Duration = Duration::from_millis(1);

/// Performs what a sample changed.
type Perform = fn(&Arc<Shared>, Effects<TaskRef>);

/// Starts to sample `pool`.
pub(super) fn start(pool: &Arc<Shared>, perform: Perform) {
    let weak = Arc::downgrade(pool);
    TIMER.set(Instant::now() + FIRST, move || {
        let pool = weak.upgrade()?;
        let begun = Instant::now();
        let (next, effects) = sample(&pool);
        let took = begun.elapsed();
        // The pool counts on the sampler from here on, so this must come to its end.
        shielded(|| perform(&pool, effects));
        next.map(|next| Instant::now() + thread_state::rest(next, took))
    });
}

/// Takes a sample. When the next one is due, if any.
pub(super) fn sample(pool: &Shared) -> (Option<Duration>, Effects<TaskRef>) {
    let awake = pool.dispatch.sample();
    let sample: Vec<_> = awake.into_iter().map(|worker| worker.sampled(thread_state::runs(worker.thread))).collect();
    let sharing = pool.membership.sampled(pool.dispatch.runnable(&sample));
    let (next, effects) = pool.dispatch.learn(pool.now(), &sample, sharing);
    if next.is_none() {
        pool.membership.sampled(0);
    }
    (next, effects)
}
