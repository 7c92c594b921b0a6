//! The throughput of the 20 µs task with metrics and tracing on, and with both off.
//!
//! A recorder and a subscriber are installed once for a process, so each sample has a separate process.

use std::time::Duration;

use tokio::runtime::Runtime;
use tower_offload::{Cpu, MetricsService, Pools};
use tracing::Instrument;

use crate::child::{self, Process};
use crate::harness::{Case, Column, Harness, Scenario, Target};
use crate::ways::{self, Direct, Ours, Speed, Task, Way};

const ON: &str = "metrics and tracing on";
const OFF: &str = "both off";
const VERBOSE: &str = "both on, and two log lines a task";
/// The part that the application pays anyway: a span for each request.
const IN_PLACE_ON: &str = "called in place, tracing on";
const IN_PLACE_OFF: &str = "called in place, tracing off";
const CALLERS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(200);
const SPAN: Duration = Duration::from_millis(800);

/// A task in a span, as a server that traces its requests has it.
#[derive(Clone)]
struct Traced<W>(W);

impl<W: Way> Way for Traced<W> {
    async fn run(&self, task: Task) {
        self.0.run(task).instrument(tracing::info_span!("request", path = "/hash")).await;
    }
}

pub fn run(harness: &mut Harness, speed: Speed) {
    let cases = [ON, OFF, VERBOSE, IN_PLACE_ON, IN_PLACE_OFF].map(|kind| {
        let sample = move || vec![Process::start("observed", kind, speed).number()];
        Case { name: kind, sample: Box::new(sample) }
    });
    let columns = [Column { name: "throughput", unit: "tasks/s" }];
    let target =
        Target { text: "at least 0.95 of the same with both off", reached: |medians| medians.ratio_to(OFF, 0) >= 0.95 };
    let name = "observed, 20 µs task at 64 callers".to_owned();
    harness.run(Scenario { name, columns: &columns, cases: cases.into(), baseline: ON, target: Some(target) });
}

pub fn play(kind: &str, speed: Speed) {
    let runtime = ways::runtime();
    let task = speed.task(Duration::from_micros(20));
    let cpu = ways::default_cpu().queue_capacity(10_000);
    let pools = Pools::builder().pool(Cpu, cpu).verbose(kind == VERBOSE).build().expect("the settings are right");
    let _metrics = (![OFF, IN_PLACE_OFF].contains(&kind)).then(|| {
        ways::subscribe();
        MetricsService::install(&pools).expect("nobody else installs a recorder")
    });
    match kind {
        IN_PLACE_ON | IN_PLACE_OFF => tell(&runtime, &Traced(Direct), task),
        _ => tell(&runtime, &Traced(Ours(pools)), task),
    }
}

fn tell(runtime: &Runtime, way: &impl Way, task: Task) {
    ways::measure(runtime, std::slice::from_ref(way), task, CALLERS, WARM_UP);
    child::tell(ways::measure(runtime, std::slice::from_ref(way), task, CALLERS, SPAN).tasks_per_second);
}
