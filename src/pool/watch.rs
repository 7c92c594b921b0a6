//! Looks now and then which workers of a pool run, while more are awake than there are cores.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::thread_state;
use crate::shield::shielded;
use crate::timer::{self, Alarm};

/// When the first look comes: jobs that take less are done by then.
const FIRST: Duration = Duration::from_millis(1);

/// Between two looks are at least so many times what one takes: looking at many threads is work as well.
const LEAST_REST: u32 = 20;

/// Looks at the workers of one pool.
#[derive(Debug)]
pub(super) struct Watch {
    pool: Weak<Shared>,
}

impl Watch {
    pub(super) fn new(pool: Weak<Shared>) -> Arc<Self> {
        Arc::new(Self { pool })
    }

    pub(super) fn begin(self: &Arc<Self>) {
        let this: Weak<Self> = Arc::downgrade(self);
        timer::WATCH.arm(Instant::now() + FIRST, this);
    }
}

impl Alarm for Watch {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        let begun = Instant::now();
        let pool = self.pool.upgrade()?;
        let awake = pool.dispatch.sample();
        let seen: Vec<_> = awake.into_iter().map(|awake| awake.seen(thread_state::runs(awake.thread))).collect();
        let (next, after) = pool.dispatch.learn(pool.now(), &seen);
        // It is watched from here on, so this must come to its end.
        shielded(|| pool.settle(after));
        next.map(|next| Instant::now() + next.max(begun.elapsed() * LEAST_REST))
    }
}
