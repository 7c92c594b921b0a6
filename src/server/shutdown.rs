//! The events that end a server, and the report about its end.

use std::fmt;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Fuse;
use tokio::time::Instant;
use tracing::debug;

use super::signal::{CTRL_C, Signals};
use crate::pools::DrainReport;
use crate::shield::shielded;

/// How long after the first signal another one counts as the same. Some supervisors send theirs twice.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The name of a trigger of the application, where signals have theirs.
const APPLICATION: &str = "the application";

/// How a server ended: what was finished, and what was cut off.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The connections that were open when the server stopped accepting, and ended in good order.
    pub connections_finished: usize,
    /// The connections that were still open at the timeout. Upgraded ones, such as WebSockets, count as well.
    pub connections_cut_off: usize,
    /// The requests in flight on those connections. They got no response, or a part of it.
    pub requests_cut_off: usize,
    /// The tasks in the pools.
    pub pools: DrainReport,
    /// How long the shutdown took, from the signal on.
    pub took: Duration,
}

/// The events that begin a shutdown, and those that end it early.
pub(super) struct Triggers {
    signals: Option<Signals>,
    shutdown: Fuse<Trigger>,
    cut_off: Fuse<Trigger>,
}

/// The beginning of a shutdown.
pub(super) struct Shutdown {
    /// The signal, or the application.
    pub(super) by: &'static str,
    pub(super) begun: Instant,
    /// The server ends without waiting for anything.
    pub(super) at_once: bool,
}

pub(super) type Trigger = Pin<Box<dyn Future<Output = ()> + Send>>;

// === impl ShutdownReport ===

impl ShutdownReport {
    /// Whether every connection and every task was finished.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.connections_cut_off == 0 && self.pools.unfinished() == 0
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections_finished, connections_cut_off, requests_cut_off, pools, took } = self;
        write!(f, "{connections_finished} connections finished")?;
        write!(f, " and {connections_cut_off} cut off with {requests_cut_off} requests in flight")?;
        write!(f, " in {:.3}s; {pools}", took.as_secs_f64())
    }
}

// === impl Triggers ===

impl Triggers {
    /// Listens to the signals of the operating system from here on, unless the application has a trigger.
    pub(super) fn new(shutdown: Option<Trigger>, cut_off: Option<Trigger>) -> io::Result<Self> {
        let signals = if shutdown.is_none() { Some(Signals::listen()?) } else { None };
        // A `Fuse` stays pending if there is no trigger, and after the trigger has completed.
        let [shutdown, cut_off] =
            [shutdown, cut_off].map(|trigger| trigger.map_or_else(Fuse::terminated, Trigger::fuse));
        Ok(Self { signals, shutdown, cut_off })
    }

    /// Waits for the first signal, or for the application.
    pub(super) async fn first(&mut self) -> Shutdown {
        let Self { signals, shutdown, cut_off } = self;
        let (by, at_once) = tokio::select! {
            by = signal(signals) => (by, false),
            () = shutdown => (APPLICATION, false),
            () = cut_off => (APPLICATION, true),
        };
        Shutdown { by, begun: Instant::now(), at_once }
    }

    /// Waits for a second signal, or for the application.
    ///
    /// In the first second after `first`, no signal but the second Ctrl-C counts.
    pub(super) async fn second(&mut self, first: &Shutdown) -> &'static str {
        let Self { signals, cut_off, .. } = self;
        let mut interrupted = first.by == CTRL_C;
        loop {
            let by = tokio::select! {
                by = signal(signals) => by,
                () = &mut *cut_off => return APPLICATION,
            };
            if first.begun.elapsed() >= SAME_SIGNAL || (by == CTRL_C && interrupted) {
                return by;
            }
            interrupted |= by == CTRL_C;
            shielded(|| debug!(target: "tower_offload", by, "this signal counts as the first one"));
        }
    }
}

async fn signal(signals: &mut Option<Signals>) -> &'static str {
    match signals {
        Some(signals) => signals.next().await,
        None => pending().await,
    }
}
