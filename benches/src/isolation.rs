//! Latency of a health route while 64 clients keep a 20 ms CPU handler active, and that handler's throughput.

use std::thread;
use std::time::{Duration, Instant};

use crate::child::Process;
use crate::client::{self, Load};
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target, quantile};
use crate::http::port;
use crate::server::{AROUND, BARE, DEDICATED, INSIDE, OURS_AUTO, OURS_DEFAULT, OURS_NICE};
use crate::ways::Speed;

const CLIENTS: usize = 64;
const PER_SECOND: u32 = 400;
const PROBES: u32 = 32;
const WARM_UP: Duration = Duration::from_millis(300);
const SPAN: Duration = Duration::from_millis(2500);
const IDLE: &str = "bare, nothing else to do";
/// The servers, by the place where they offload. With a handler of 20 ms, the place makes no difference.
const SERVERS: [(&str, &[&str]); 2] = [
    (AROUND, &[OURS, OURS_DEFAULT, OURS_NICE, OURS_AUTO, BARE]),
    (
        INSIDE,
        &[
            "spawn_blocking",
            "spawn_blocking + semaphore",
            "Buffer + ConcurrencyLimit",
            DEDICATED,
            "resilience-executor",
            "resilience-executor + bulkhead",
            "rayon + oneshot",
        ],
    ),
];

pub fn run(harness: &mut Harness, speed: Speed) {
    let name = "isolation, /health beside 64 clients of a 20 ms handler";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(SPAN);
    let mut cases = vec![case(IDLE, (AROUND, BARE), 0, span, speed)];
    for (place, kinds) in SERVERS {
        cases.extend(kinds.iter().map(|&kind| case(kind, (place, kind), CLIENTS, span, speed)));
    }
    let columns = [
        Column { name: "health p50", unit: "ms" },
        Column { name: "health p99", unit: "ms" },
        Column { name: "20 ms handler", unit: "requests/s" },
    ];
    let target = Target {
        text: "p99 at most 3 ms, the handler's throughput at least 0.95 of bare",
        reached: |medians| medians.of(OURS, 1) <= 3.0 && medians.ratio_to(BARE, 2) >= 0.95,
    };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: OURS, target: Some(target) });
}

fn case(
    name: &'static str,
    (place, kind): (&str, &str),
    clients: usize,
    span: Duration,
    speed: Speed,
) -> Case<'static> {
    let mut server = Process::start(place, kind, speed);
    let port = port(&mut server);
    let sample = move || {
        let _server = &server;
        sample(port, clients, span)
    };
    Case { name, sample: Box::new(sample) }
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn sample(port: u16, clients: usize, span: Duration) -> Vec<f64> {
    let load = Load::start(port, "/20ms", clients);
    thread::sleep(WARM_UP);
    let (before, began) = (load.answered(), Instant::now());
    let mut latencies = client::on_schedule(port, "/health", PER_SECOND, PROBES, span);
    let throughput = (load.answered() - before) as f64 / began.elapsed().as_secs_f64();
    vec![quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99), throughput]
}
