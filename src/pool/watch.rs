//! Looks now and then which workers of a pool run, while more are awake than there are cores.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::shared::Shared;
use super::thread_state;
use crate::timer::{self, Alarm};

/// When the first look comes: jobs that take less are done by then.
const FIRST: Duration = Duration::from_millis(1);

/// Looks at the workers of one pool, on the timer's thread.
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
        timer::arm(Instant::now() + FIRST, this);
    }
}

impl Alarm for Watch {
    fn ring(self: Arc<Self>) -> Option<Instant> {
        let pool = self.pool.upgrade()?;
        let threads = pool.dispatch.sample();
        let running = threads.iter().filter(|&&thread| thread_state::runs(thread)).count();
        let (next, after) = pool.dispatch.learn(pool.now(), running, threads.len());
        pool.settle(after);
        next.map(|next| Instant::now() + next)
    }
}
