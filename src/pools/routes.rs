//! The routes of the settings, and which of them have matched a request yet.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::config::Route;
use crate::metrics;
use crate::shield::shielded;
use crate::workload::Workload;

/// The number of requests after which routes that have matched none are reported.
const ENOUGH: u32 = 1000;

/// The routes of the settings, and which of them have matched a request yet.
///
/// Shared by all layers that select by these routes, because a route may be meant for one of several routers.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    all: Vec<Route>,
    matched: Vec<AtomicBool>,
    /// Requests that the layers have seen, counted up to [`ENOUGH`].
    seen: AtomicU32,
}

impl Routes {
    pub(crate) fn new(all: Vec<Route>) -> Self {
        let matched = all.iter().map(|_| AtomicBool::new(false)).collect();
        Self { all, matched, seen: AtomicU32::new(0) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter()
    }

    /// Counts a request that a layer has seen, and the route that matched it, given by its index.
    pub(crate) fn saw(&self, matching: Option<usize>) {
        let first = matching.is_some_and(|index| {
            let matched = &self.matched[index];
            !matched.load(Ordering::Relaxed) && !matched.swap(true, Ordering::Relaxed)
        });
        let reported = self.seen.load(Ordering::Relaxed) >= ENOUGH;
        if !reported && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == ENOUGH {
            self.report();
        } else if first && reported {
            shielded(|| self.publish());
        }
    }

    /// Warns of each route that has matched nothing, once.
    fn report(&self) {
        for route in self.unmatched() {
            shielded(|| {
                tracing::warn!(
                    target: "tower_offload",
                    %route, pool = %route.pool(),
                    "the route `{route}` of the settings has matched none of {ENOUGH} requests, so it offloads nothing; \
                     check its spelling, a `/` at its end, and whether its layer is on a nested router, which needs \
                     `PoolLayer::by_route_under`"
                );
            });
        }
        shielded(|| self.publish());
    }

    fn unmatched(&self) -> impl Iterator<Item = &Route> {
        let all = self.all.iter().zip(&self.matched);
        all.filter(|(_, matched)| !matched.load(Ordering::Relaxed)).map(|(route, _)| route)
    }

    /// Sets the gauge of each pool that a route leads to.
    pub(crate) fn publish(&self) {
        for pool in self.pools() {
            let unmatched = self.unmatched().filter(|route| route.pool() == pool).count();
            metrics::publish_routes(pool, unmatched);
        }
    }

    fn pools(&self) -> Vec<&Workload> {
        let mut pools: Vec<&Workload> = Vec::new();
        for pool in self.all.iter().map(Route::pool) {
            if !pools.contains(&pool) {
                pools.push(pool);
            }
        }
        pools
    }
}

/// Routes that are gone are not unmatched.
impl Drop for Routes {
    fn drop(&mut self) {
        shielded(|| self.pools().into_iter().for_each(|pool| metrics::publish_routes(pool, 0)));
    }
}
