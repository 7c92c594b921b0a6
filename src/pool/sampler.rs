//! Looks up now and then which workers of a pool the system runs, while more are awake than there are cores.

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

/// Between two samples are at least so many times what one takes, because reading many threads' states is work as well;
/// but never more than [`LONGEST_REST`], because the sampler may have been suspended itself.
const LEAST_REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_millis(100);

/// Starts to sample `pool`; what a sample changes is given to `perform`.
pub(super) fn start(pool: &Arc<Shared>, perform: fn(&Arc<Shared>, Effects<TaskRef>)) {
    let weak = Arc::downgrade(pool);
    TIMER.set(Instant::now() + FIRST, move || weak.upgrade().and_then(|pool| sample(&pool, perform)));
}

fn sample(pool: &Arc<Shared>, perform: fn(&Arc<Shared>, Effects<TaskRef>)) -> Option<Instant> {
    let begun = Instant::now();
    let sampled = pool.dispatch.sample();
    let seen: Vec<_> = sampled.into_iter().map(|worker| worker.seen(thread_state::runs(worker.thread))).collect();
    let (next, effects) = pool.dispatch.learn(pool.now(), &seen);
    let took = begun.elapsed();
    // The pool counts on the sampler from here on, so this must come to its end.
    shielded(|| perform(pool, effects));
    next.map(|next| Instant::now() + rest(next, took))
}

/// The time until the next sample, which is due after `next`, if the last one took so long.
fn rest(next: Duration, took: Duration) -> Duration {
    next.max((took * LEAST_REST).min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_took_long_delays_the_next_one_by_a_tenth_of_a_second_at_most() {
        let millis = Duration::from_millis;
        assert_eq!(rest(millis(1), Duration::from_micros(10)), millis(1));
        assert_eq!(rest(millis(1), millis(2)), millis(40));
        assert_eq!(rest(millis(1), Duration::from_secs(60)), LONGEST_REST);
        assert_eq!(rest(millis(100), Duration::from_secs(60)), millis(100));
    }
}
