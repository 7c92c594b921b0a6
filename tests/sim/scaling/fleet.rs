//! A fleet of equal servers with one pool each, second by second. The load is measured by the crate's own window.

use std::time::Duration;

use tower_offload::admission::{Demand, Timestamp};
use tower_offload::load::window::{Capacity, Sums, Window};

use super::autoscalers::Autoscaler;
use super::{TARGET, Traffic};

/// What one server can do in a second, how long a task takes, and how many may wait.
const TASKS_PER_SECOND: f64 = 1000.0;
const TASK_SECONDS: f64 = 0.1;
const PERMITS: usize = 100;
const CORES: usize = 2;
const QUEUE: f64 = 1000.0;

/// The longest wait that the objective allows. A rejected task is out of it too.
const LONGEST_WAIT: f64 = 0.5;

/// A server takes so long from the decision until it serves. Its process runs for the last part of it, until its readiness
/// is seen.
const START_SECONDS: u32 = 30;
const READY_SECONDS: u32 = 10;

/// The seconds over which utilization and concurrency are averaged, as the load is.
const AVERAGED: usize = 15;

/// What the autoscaler sees of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The load of the pool.
    Load,
    /// The share of its cores that a server uses. It is at most 1.
    Cpu,
    /// The tasks in flight and queued, over the permits. It stays within the permits and the queue.
    Concurrency,
}

/// One run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Seconds in which tasks were rejected or waited for too long.
    pub(super) out_of_objective: u32,
    pub(super) server_seconds: f64,
    /// The number of servers after each change, with its second.
    pub(super) changes: Vec<(u32, usize)>,
    pub(super) first: usize,
}

struct Server {
    serves_from: u32,
    queue: f64,
    arrived: f64,
    started: f64,
    window: Window,
    used: Vec<f64>,
    concurrent: Vec<f64>,
}

pub(super) struct Fleet {
    signal: Signal,
    servers: Vec<Server>,
}

impl Fleet {
    /// One server.
    pub(super) fn new(signal: Signal) -> Self {
        Self { signal, servers: vec![Server::new(0)] }
    }

    pub(super) fn run(mut self, traffic: Traffic, seconds: u32, autoscaler: &mut dyn Autoscaler) -> Run {
        // The run begins with as many servers as it needs.
        let first = ((traffic(0.0) / TARGET - 1e-6).ceil() as usize).max(1);
        self.servers.resize_with(first, || Server::new(0));
        let mut result = Run { first, ..Run::default() };
        for second in 0..seconds {
            let serving = self.servers.iter().filter(|server| server.serves_from <= second).count();
            let each = traffic(f64::from(second)) * TASKS_PER_SECOND / serving as f64;
            let mut missed = false;
            for server in self.servers.iter_mut().filter(|server| server.serves_from <= second) {
                missed |= server.serve(second, each);
            }
            let sum = self.servers.iter().filter(|server| server.serves_from <= second);
            let sum = sum.map(|server| server.signal(self.signal)).sum();
            result.out_of_objective += u32::from(missed);
            result.server_seconds += self.servers.len() as f64;
            let wanted = autoscaler.wanted(second + 1, sum, self.servers.len());
            if wanted != self.servers.len() {
                // The newest servers go first.
                self.servers.resize_with(wanted, || Server::new(second + START_SECONDS));
                result.changes.push((second, wanted));
            }
        }
        result
    }
}

impl Server {
    fn new(serves_from: u32) -> Self {
        Self {
            serves_from,
            queue: 0.0,
            arrived: 0.0,
            started: 0.0,
            window: Window::new(at(serves_from.saturating_sub(READY_SECONDS))),
            used: vec![0.0; READY_SECONDS as usize],
            concurrent: vec![0.0; READY_SECONDS as usize],
        }
    }

    /// A second of this server. Whether it missed the objective.
    fn serve(&mut self, second: u32, arrivals: f64) -> bool {
        self.arrived += arrivals;
        self.queue += arrivals;
        let started = self.queue.min(TASKS_PER_SECOND);
        self.started += started;
        self.queue -= started;
        let rejected = (self.queue - QUEUE).max(0.0);
        self.queue -= rejected;
        let used = started / TASKS_PER_SECOND;
        self.used.push(used);
        self.concurrent.push((started * TASK_SECONDS + self.queue) / PERMITS as f64);
        let sums = Sums {
            demand: Demand {
                arrived: self.arrived as u64,
                started: self.started as u64,
                failed: 0,
                permit_time: Duration::from_secs_f64(self.started * TASK_SECONDS),
                limit: PERMITS,
            },
            cpu_time: Duration::from_secs_f64(self.started / TASKS_PER_SECOND * CORES as f64),
        };
        self.window.add(at(second + 1), sums, Capacity { permits: PERMITS, cores: CORES });
        rejected > 0.0 || self.queue / TASKS_PER_SECOND > LONGEST_WAIT
    }

    fn signal(&self, signal: Signal) -> f64 {
        match signal {
            Signal::Load => self.window.measure().ratio(),
            Signal::Cpu => mean(&self.used),
            Signal::Concurrency => mean(&self.concurrent),
        }
    }
}

/// How often the number of servers, which begins with `first`, went up after it had gone down, or down after it had gone up.
pub(super) fn turns(first: usize, changes: &[(u32, usize)]) -> usize {
    let numbers: Vec<_> = std::iter::once(first).chain(changes.iter().map(|(_, servers)| *servers)).collect();
    let ups: Vec<_> = numbers.windows(2).map(|pair| pair[1] > pair[0]).collect();
    ups.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn mean(seconds: &[f64]) -> f64 {
    let last = &seconds[seconds.len().saturating_sub(AVERAGED)..];
    last.iter().sum::<f64>() / last.len().max(1) as f64
}

fn at(second: u32) -> Timestamp {
    Timestamp::from_nanos(u64::from(second) * 1_000_000_000)
}
