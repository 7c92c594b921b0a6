//! HTTP on loopback: an empty handler and one of 50 µs, asked over 64 connections that are kept.
//!
//! Every server is a process of its own with a runtime thread for each core; the clients are one thread of this process.

use std::thread;
use std::time::{Duration, Instant};

use crate::child::Process;
use crate::client::Load;
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target};
use crate::kernel::{self, Kernel};
use crate::server::{OTHERS, OURS_SERVE};
use crate::ways::Speed;

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(100);
const SPAN: Duration = Duration::from_millis(500);

pub fn run(harness: &mut Harness, speed: Speed) {
    let empty = Target {
        text: "at least 0.85 of bare, ahead of every alternative",
        reached: |medians| medians.ratio_to("bare", 0) >= 0.85 && medians.is_most_but("bare", 0),
    };
    let short = Target { text: "at least 0.97 of bare", reached: |medians| medians.ratio_to("bare", 0) >= 0.97 };
    for (name, path, target) in [("http, empty handler", "/empty", empty), ("http, 50 µs handler", "/50us", short)] {
        if !harness.wants(name) {
            continue;
        }
        let span = harness.span(SPAN);
        let cases = [OURS, OURS_SERVE].into_iter().chain(OTHERS).map(|kind| {
            let mut server = Process::start("server", kind, speed);
            let port = port(&mut server);
            let sample = move || sample(&server, port, path, span);
            Case { name: kind, sample: Box::new(sample) }
        });
        let columns = [Column { name: "throughput", unit: "requests/s" }, kernel::SWITCHES, kernel::TIME];
        harness.run(Scenario {
            name: name.to_owned(),
            columns: &columns,
            cases: cases.collect(),
            baseline: OURS,
            target: Some(target),
        });
    }
}

/// Where a server that was just started listens.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a port is a small whole number")]
pub fn port(server: &mut Process) -> u16 {
    server.number() as u16
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn sample(server: &Process, port: u16, path: &str, span: Duration) -> Vec<f64> {
    let kernel = || Kernel::of(server.id()).ok();
    let load = Load::start(port, path, CONNECTIONS);
    thread::sleep(WARM_UP);
    // To look at every thread of the server takes a while, which is not to count.
    let before = kernel();
    let (answered, began) = (load.answered(), Instant::now());
    thread::sleep(span);
    let (requests, elapsed) = ((load.answered() - answered) as f64, began.elapsed().as_secs_f64());
    let used = kernel().zip(before).map(|(now, before)| now.since(before));
    let [switches, time] = used.map_or([f64::NAN; 2], |used| [used.switches, used.time.as_secs_f64() * 1e6]);
    vec![requests / elapsed, switches / requests, time / requests]
}
