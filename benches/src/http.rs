//! HTTP on loopback: handlers of four lengths, offloaded around the router or inside the handler.
//!
//! Each server is a separate process with a runtime thread for each core; the clients are one thread of this process and
//! keep 64 connections open.

use std::thread;
use std::time::{Duration, Instant};

use crate::child::Process;
use crate::client::Load;
use crate::harness::{Case, Column, Harness, Medians, OURS, Scenario, Target};
use crate::kernel::{self, Kernel};
use crate::perf;
use crate::server::{AROUND, BARE, DEDICATED, INSIDE, OURS_SERVE};
use crate::ways::Speed;

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(100);
const SPAN: Duration = Duration::from_secs(1);
/// How long system calls are counted in each round.
const COUNTED: Duration = Duration::from_millis(300);

/// The handlers, by their microseconds.
const HANDLERS: [&str; 4] = ["0", "20", "50", "100"];
/// The places where a request is offloaded, and the servers that are compared there.
const PLACES: [(&str, &[&str]); 2] = [
    (AROUND, &[OURS, OURS_SERVE, BARE, DEDICATED, "resilience-executor", "spawn_blocking"]),
    (INSIDE, &[OURS, BARE, DEDICATED, "resilience-executor", "spawn_blocking", "rayon + oneshot"]),
];

/// A server that was started for one row.
struct Row {
    kind: &'static str,
    server: Process,
    port: u16,
    path: String,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    for (place, kinds) in PLACES {
        for micros in HANDLERS {
            let name = format!("http {place}, {micros} µs handler");
            if !harness.wants(&name) {
                continue;
            }
            let start = |&kind| {
                let mut server = Process::start(place, kind, speed);
                let port = port(&mut server);
                Row { kind, server, port, path: format!("/{micros}us") }
            };
            let rows: Vec<_> = kinds.iter().map(start).collect();
            let span = harness.span(SPAN);
            harness.run(Scenario {
                name: name.clone(),
                columns: &[
                    Column { name: "throughput", unit: "requests/s" },
                    kernel::USER,
                    kernel::TIME,
                    kernel::CPU,
                    kernel::SWITCHES,
                ],
                cases: cases(&rows, |row| row.throughput(span)),
                baseline: OURS,
                target: Some(throughput_target(place, micros)),
            });
            let span = harness.span(COUNTED);
            harness.run(Scenario {
                name: format!("{name}, system calls of the server for each request"),
                columns: &perf::COLUMNS,
                cases: cases(&rows, |row| row.system_calls(span)),
                baseline: OURS,
                target: (micros == "0").then_some(Target {
                    text: "at most 0.4 futex calls a request",
                    reached: |medians| medians.of(OURS, 0) <= 0.4,
                }),
            });
        }
    }
}

fn cases<'a>(rows: &'a [Row], sample: impl Fn(&Row) -> Vec<f64> + Copy + 'a) -> Vec<Case<'a>> {
    rows.iter().map(|row| Case { name: row.kind, sample: Box::new(move || sample(row)) }).collect()
}

fn throughput_target(place: &str, micros: &str) -> Target {
    /// Whether ours is ahead of every alternative, or within its spread, and has this share of bare at least.
    fn ahead_with(medians: &Medians, share_of_bare: f64) -> bool {
        medians.is_most_or_within_spread_but(BARE, 0) && medians.ratio_to(BARE, 0) >= share_of_bare
    }
    match (place, micros) {
        (INSIDE, _) => Target {
            text: "at least 0.97 of the best alternative, ahead of the dedicated runtime",
            reached: |medians| medians.ratio_to_best_but(BARE, 0) >= 0.97 && medians.ratio_to(DEDICATED, 0) >= 1.0,
        },
        (_, "0") => Target {
            text: "ahead of every alternative or within its spread, at least 0.88 of bare, CPU time at most 1.7 of bare",
            reached: |medians| ahead_with(medians, 0.88) && medians.ratio_to(BARE, 3) <= 1.7,
        },
        (_, "20") => Target {
            text: "ahead of every alternative or within its spread, at least 0.97 of bare",
            reached: |medians| ahead_with(medians, 0.97),
        },
        _ => Target {
            text: "ahead of every alternative or within its spread, at least 0.93 of bare",
            reached: |medians| ahead_with(medians, 0.93),
        },
    }
}

/// The port of a server that was just started.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a port is a small whole number")]
pub fn port(server: &mut Process) -> u16 {
    server.number() as u16
}

impl Row {
    fn load(&self) -> Load {
        let load = Load::start(self.port, &self.path, CONNECTIONS);
        thread::sleep(WARM_UP);
        load
    }

    #[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
    fn throughput(&self, span: Duration) -> Vec<f64> {
        let kernel = || Kernel::of(self.server.id()).ok();
        let load = self.load();
        // To look at every thread of the server takes a while, which is not to count.
        let before = kernel();
        let (answered, began) = (load.answered(), Instant::now());
        thread::sleep(span);
        let (requests, elapsed) = ((load.answered() - answered) as f64, began.elapsed().as_secs_f64());
        let used = kernel().zip(before).map(|(now, before)| now.since(before));
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let used = used.map_or([f64::NAN; 4], |used| {
            [micros(used.user), micros(used.time), micros(used.user + used.time), used.switches]
        });
        std::iter::once(requests / elapsed).chain(used.map(|used| used / requests)).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
    fn system_calls(&self, span: Duration) -> Vec<f64> {
        let load = self.load();
        let counted = perf::count(self.server.id(), || {
            let answered = load.answered();
            thread::sleep(span);
            (load.answered() - answered) as f64
        });
        counted.map_or(vec![f64::NAN; perf::COLUMNS.len()], |(counts, requests)| {
            counts.iter().map(|count| count / requests).collect()
        })
    }
}
