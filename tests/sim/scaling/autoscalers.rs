//! The formulas of autoscalers, written from their documentation with their published constants.

use std::collections::VecDeque;

use super::TARGET;

/// The number of servers that an autoscaler wants.
pub(super) trait Autoscaler {
    /// Called each second. `sum` is the sum of the servers' signals, `servers` how many there are, starting ones included.
    fn wanted(&mut self, second: u32, sum: f64, servers: usize) -> usize;
}

/// Kubernetes' HorizontalPodAutoscaler: *⌈sum ÷ target⌉*, nothing within a tolerance of 10%; at most twice as many or four
/// more in 15 s; down to the highest that it wanted within 300 s.
pub(super) struct Hpa {
    period: u32,
    delay: usize,
    seen: VecDeque<f64>,
    wanted: VecDeque<(u32, usize)>,
}

impl Hpa {
    pub(super) fn new(period: u32) -> Self {
        Self { period, delay: 0, seen: VecDeque::new(), wanted: VecDeque::new() }
    }

    /// The signal is that of so many seconds ago.
    pub(super) fn delayed(self, seconds: usize) -> Self {
        Self { delay: seconds, ..self }
    }
}

impl Autoscaler for Hpa {
    fn wanted(&mut self, second: u32, sum: f64, servers: usize) -> usize {
        self.seen.push_back(sum);
        if self.seen.len() > self.delay + 1 {
            self.seen.pop_front();
        }
        if !second.is_multiple_of(self.period) {
            return servers;
        }
        let sum = self.seen[0];
        let ratio = sum / (TARGET * servers as f64);
        let desired = if (ratio - 1.0).abs() <= 0.1 { servers } else { ceil(sum / TARGET) };
        self.wanted.push_back((second, desired));
        self.wanted.retain(|(at, _)| at + 300 > second);
        if desired > servers {
            return desired.min((servers * 2).max(servers + 4));
        }
        let highest = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(desired);
        highest.min(servers)
    }
}

/// Ray Serve: *⌈sum ÷ target⌉*, up when it has wanted more for 30 s, down when it has wanted fewer for 600 s.
#[derive(Default)]
pub(super) struct Ray {
    more_since: Option<u32>,
    fewer_since: Option<u32>,
}

impl Autoscaler for Ray {
    fn wanted(&mut self, second: u32, sum: f64, servers: usize) -> usize {
        if !second.is_multiple_of(5) {
            return servers;
        }
        let desired = ceil(sum / TARGET);
        let since = |since: &mut Option<u32>, is: bool| {
            *since = if is { since.or(Some(second)) } else { None };
            since.map_or(0, |since| second - since)
        };
        let (more, fewer) =
            (since(&mut self.more_since, desired > servers), since(&mut self.fewer_since, desired < servers));
        if more < 30 && fewer < 600 {
            return servers;
        }
        (self.more_since, self.fewer_since) = (None, None);
        desired
    }
}

/// Knative's pod autoscaler: the mean of 60 s, or of 6 s while it panics, which it does for 60 s when that wants at least
/// twice as many; no fewer while it panics, and at most half as many less at a time.
#[derive(Default)]
pub(super) struct Knative {
    sums: VecDeque<f64>,
    panics_until: u32,
    most: usize,
}

impl Autoscaler for Knative {
    fn wanted(&mut self, second: u32, sum: f64, servers: usize) -> usize {
        self.sums.push_back(sum);
        if self.sums.len() > 60 {
            self.sums.pop_front();
        }
        if !second.is_multiple_of(2) {
            return servers;
        }
        let mean = |last: usize| {
            let count = self.sums.len().min(last);
            self.sums.iter().rev().take(count).sum::<f64>() / count as f64
        };
        let (stable, panic) = (ceil(mean(60) / TARGET), ceil(mean(6) / TARGET));
        if panic >= 2 * servers {
            self.panics_until = second + 60;
        }
        if second >= self.panics_until {
            self.most = 0;
            return stable.max(servers / 2);
        }
        self.most = self.most.max(panic).max(servers);
        self.most
    }
}

fn ceil(servers: f64) -> usize {
    // Sums of loads are not exact: ten times 0.7 is not to need eleven servers.
    ((servers - 1e-6).ceil() as usize).max(1)
}
