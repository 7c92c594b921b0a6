//! When a server ends, and what it says about it.

use std::fmt;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use super::signal::Signals;
use crate::pools::DrainReport;

/// How a server ended: what was finished, and what was cut off.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The connections that were open when the shutdown began, or waited to be accepted, and ended in good order.
    pub connections_finished: usize,
    /// The connections that were still open when the time was up. Upgraded ones, such as WebSockets, count as well.
    pub connections_cut_off: usize,
    /// The requests in flight on those connections. They got no answer, or a part of it.
    pub requests_cut_off: usize,
    /// What became of the jobs in the pools.
    pub pools: DrainReport,
    /// How long the shutdown took.
    pub took: Duration,
}

/// What begins a shutdown, and what ends it before its time.
pub(super) struct Triggers {
    signals: Option<Signals>,
    shutdown: Option<Trigger>,
    cut_off: Option<Trigger>,
}

/// The beginning of a shutdown.
pub(super) struct Shutdown {
    /// Who asked for it.
    pub(super) by: &'static str,
    /// Nothing is to be waited for.
    pub(super) at_once: bool,
}

pub(super) type Trigger = Pin<Box<dyn Future<Output = ()> + Send>>;

// === impl ShutdownReport ===

impl ShutdownReport {
    /// Whether every connection and every job was finished.
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
    /// Without a trigger of the user's, the signals of the operating system are heard from here on.
    pub(super) fn new(shutdown: Option<Trigger>, cut_off: Option<Trigger>) -> io::Result<Self> {
        let signals = if shutdown.is_none() { Some(Signals::listen()?) } else { None };
        Ok(Self { signals, shutdown, cut_off })
    }

    /// Waits for what begins the shutdown: the first signal, or the application.
    pub(super) async fn first(&mut self) -> Shutdown {
        let Self { signals, shutdown, cut_off } = self;
        tokio::select! {
            by = signal(signals) => Shutdown { by, at_once: false },
            by = application(shutdown) => Shutdown { by, at_once: false },
            by = application(cut_off) => Shutdown { by, at_once: true },
        }
    }

    /// Waits for what ends the shutdown before its time: the second signal, or the application.
    pub(super) async fn second(&mut self) -> &'static str {
        let Self { signals, cut_off, .. } = self;
        tokio::select! {
            by = signal(signals) => by,
            by = application(cut_off) => by,
        }
    }
}

async fn signal(signals: &mut Option<Signals>) -> &'static str {
    match signals {
        Some(signals) => signals.next().await,
        None => pending().await,
    }
}

async fn application(trigger: &mut Option<Trigger>) -> &'static str {
    match trigger {
        Some(future) => future.await,
        None => return pending().await,
    }
    *trigger = None;
    "the application"
}
