//! The sampler: it periodically reads which workers of a pool are runnable and which are blocked, while more are awake
//! than the pool has cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::{Shared, TaskRef};
use crate::cores::{Sampled, runnable};
use crate::dispatch::Effects;
use crate::shield::shielded;
use crate::thread_state;
use crate::timer::TIMER;

/// The time until the first sample. Shorter tasks cause no sample.
const FIRST: Duration = Duration::from_millis(1);

/// Performs the effects of a sample.
type Perform = fn(&Arc<Shared>, Effects<TaskRef>);

/// Starts to sample `pool`.
pub(super) fn start(pool: &Arc<Shared>, perform: Perform) {
    let weak = Arc::downgrade(pool);
    TIMER.set(Instant::now() + FIRST, move || {
        let pool = weak.upgrade()?;
        let begun = Instant::now();
        let (next, effects) = sample(&pool, false);
        let took = begun.elapsed();
        // The pool starts no other sampler while this one runs, so a panic must not end it.
        shielded(|| perform(&pool, effects));
        next.map(|next| Instant::now() + thread_state::rest(next, took))
    });
}

/// Takes a sample, for the sampler or, if `for_tick`, for a tick of the budget of cores. The result is the time until the
/// sampler's next one, if one is needed.
pub(super) fn sample(pool: &Shared, for_tick: bool) -> (Option<Duration>, Effects<TaskRef>) {
    let (workers, awake) = pool.dispatch.sample();
    let sampled = |(thread, since)| Sampled { runnable: thread_state::runs(thread), since };
    let sample: Vec<_> = workers.into_iter().map(sampled).collect();
    let runnable_per_core = pool.membership.sampled(runnable(&sample, awake));
    let (next, effects) = pool.dispatch.observe(pool.now(), &sample, runnable_per_core, for_tick);
    if next.is_none() {
        pool.membership.sampled(0);
    }
    (next, effects)
}
