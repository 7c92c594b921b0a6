//! Latency of a health route while 64 clients keep a 20 ms CPU handler active, and that handler's throughput.

use crate::child::Process;
use crate::harness::{Column, Harness, OURS, Scenario, Target};
use crate::health;
use crate::server::{AROUND, BARE, DEDICATED, INSIDE, OURS_AUTO, OURS_DEFAULT, OURS_NICE};
use crate::ways::Speed;

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
    let span = harness.span(health::SPAN);
    let case =
        |name, (place, kind): (&str, &str), paths| health::case(name, Process::start(place, kind, speed), paths, span);
    let mut cases = vec![case(IDLE, (AROUND, BARE), Vec::new())];
    for (place, kinds) in SERVERS {
        cases.extend(kinds.iter().map(|&kind| case(kind, (place, kind), vec!["/20ms".to_owned()])));
    }
    let [p50, p99] = health::COLUMNS;
    let columns = [p50, p99, Column { name: "20 ms handler", unit: "requests/s" }];
    let target = Target {
        text: "p99 at most 3 ms, the handler's throughput at least 0.95 of bare",
        reached: |medians| medians.of(OURS, 1) <= 3.0 && medians.ratio_to(BARE, 2) >= 0.95,
    };
    harness.run(Scenario { name: name.to_owned(), columns: &columns, cases, baseline: OURS, target: Some(target) });
}
