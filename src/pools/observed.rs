//! The routes whose handlers hold a thread of the runtime for long, as `PoolLayer::observe` finds them.

use std::sync::Mutex;
use std::time::Duration;

use crate::shield::shielded;
use crate::sync::lock_std as lock;

/// The most routes that are kept, and the longest name of one, in bytes. Names come from the application, and may come
/// from its clients by mistake.
const MOST_ROUTES: usize = 64;
const LONGEST_NAME: usize = 128;

/// Long polls of a route from which on it is named. One or two may be a thread that the system has suspended.
const ENOUGH: u64 = 3;

/// A poll of this length names its route at once.
const CERTAIN: Duration = Duration::from_millis(100);

/// A route whose handler held a thread of the runtime for more than a millisecond in one poll.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowRoute {
    /// The method and the route, as the layer names it.
    pub route: String,
    /// Polls that took longer than a millisecond.
    pub long_polls: u64,
    /// The longest of them.
    pub longest: Duration,
}

/// The routes that had long polls.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    routes: Mutex<Vec<SlowRoute>>,
}

impl Observed {
    /// Counts a poll of a route that was too long, and logs the route when it is named for the first time.
    pub(crate) fn long_poll(&self, route: &str, took: Duration) {
        let route = shortened(route);
        let mut routes = lock(&self.routes);
        let known = routes.iter().position(|known| known.route == route);
        if known.is_none() && routes.len() == MOST_ROUTES {
            return;
        }
        let index = known.unwrap_or_else(|| {
            routes.push(SlowRoute { route: route.to_owned(), long_polls: 0, longest: Duration::ZERO });
            routes.len() - 1
        });
        let entry = &mut routes[index];
        let was_named = is_named(entry);
        entry.long_polls += 1;
        entry.longest = entry.longest.max(took);
        let longest = entry.longest;
        let named = !was_named && is_named(entry);
        drop(routes);
        if named {
            shielded(|| {
                tracing::warn!(
                    target: "tower_offload",
                    route, millis = longest.as_millis() as u64,
                    "`{route}` holds a thread of the runtime for {longest:.1?} in one poll: run it in a pool"
                );
            });
        }
    }

    /// The routes that are named, the longest poll first.
    pub(crate) fn slow_routes(&self) -> Vec<SlowRoute> {
        let routes = lock(&self.routes);
        let mut named: Vec<_> = routes.iter().filter(|route| is_named(route)).cloned().collect();
        named.sort_by_key(|route| std::cmp::Reverse(route.longest));
        named
    }
}

fn is_named(route: &SlowRoute) -> bool {
    route.long_polls >= ENOUGH || route.longest >= CERTAIN
}

fn shortened(name: &str) -> &str {
    let end = (0..=name.len().min(LONGEST_NAME)).rev().find(|&end| name.is_char_boundary(end));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tracing::Event;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;

    #[test]
    fn a_route_is_named_after_three_long_polls_or_a_very_long_one() {
        let observed = Observed::default();
        let millis = Duration::from_millis;
        for _ in 0..2 {
            observed.long_poll("GET /a", millis(2));
        }
        assert_eq!(observed.slow_routes(), []);
        observed.long_poll("GET /b", millis(100));
        observed.long_poll("GET /a", millis(3));
        let route = |route: &str, long_polls, longest| SlowRoute {
            route: route.to_owned(),
            long_polls,
            longest: millis(longest),
        };
        assert_eq!(observed.slow_routes(), [route("GET /b", 1, 100), route("GET /a", 3, 3)]);
    }

    /// Counts events.
    struct Events(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Events {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_route_is_logged_once_when_it_is_named() {
        let (observed, events) = (Observed::default(), Arc::default());
        let subscriber = tracing_subscriber::registry().with(Events(Arc::clone(&events)));
        tracing::subscriber::with_default(subscriber, || {
            for logged in [0, 0, 1, 1, 1, 1] {
                observed.long_poll("GET /a", Duration::from_millis(2));
                assert_eq!(events.load(Relaxed), logged);
            }
            observed.long_poll("GET /b", CERTAIN);
        });
        assert_eq!(events.load(Relaxed), 2);
    }

    #[test]
    fn names_from_clients_take_bounded_memory() {
        let observed = Observed::default();
        for number in 0..10_000 {
            observed.long_poll(&format!("{number}{}", "ä".repeat(1000)), CERTAIN);
        }
        let routes = observed.slow_routes();
        assert_eq!(routes.len(), MOST_ROUTES);
        assert!(routes.iter().all(|route| route.route.len() <= LONGEST_NAME));
    }
}
