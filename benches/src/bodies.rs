//! Bodies of responses: what it costs to have them polled in the pool, and what it gains.
//!
//! Each server is a separate process. The clients are in this one.

use std::thread;
use std::time::{Duration, Instant};

use crate::body_server::{
    CHANNEL, FAREWELL, OURS_CONNECTION, OURS_HELD, OURS_LARGE, OURS_WRITER, PART, STALL, raise_limit_of_files,
};
use crate::body_source::PERIOD;
use crate::child::Process;
use crate::client::{self, Load};
use crate::harness::{Case, Column, Harness, OURS, SHORT_ROUNDS, SHORT_SPAN, Scenario, Target, quantile};
use crate::health;
use crate::http::port;
use crate::kernel::Kernel;
use crate::memory;
use crate::server::{BARE, OURS_NICE, OURS_SERVE};
use crate::streams::{self, Open, Readers};
use crate::ways::Speed;

const WARM_UP: Duration = Duration::from_millis(300);
const SPAN: Duration = Duration::from_secs(1);
const STREAMS: usize = 256;
const READY_STREAMS: usize = 500;
const GZIP_CLIENTS: usize = 8;
const SLOW_READERS: usize = 100;
/// The bytes that the system takes in advance for a slow reader. It doubles them.
const SMALL_BUFFER: u32 = 4096;

/// A running server.
struct Server {
    process: Process,
    port: u16,
}

impl Server {
    fn start(kind: &str, speed: Speed) -> Self {
        let mut process = Process::start(PART, kind, speed);
        let port = port(&mut process);
        Self { process, port }
    }
}

pub fn run(harness: &mut Harness, speed: Speed) {
    ordinary(harness, speed);
    large_frames(harness, speed);
    gzip(harness, speed);
    small_frames(harness, speed);
    always_ready(harness, speed);
    idle(harness, speed);
    slow_readers(harness, speed);
    farewells(harness, speed);
}

/// Cases that each sample a server of their own.
fn cases<'a>(kinds: &[&'static str], speed: Speed, sample: impl Fn(&Server) -> Vec<f64> + Copy + 'a) -> Vec<Case<'a>> {
    let case = |&kind| {
        let server = Server::start(kind, speed);
        Case { name: kind, sample: Box::new(move || sample(&server)) }
    };
    kinds.iter().map(case).collect()
}

/// A figure a second of a counter.
#[expect(clippy::cast_precision_loss, reason = "no counter reaches 2^53")]
fn rate(count: impl Fn() -> u64, span: Duration) -> f64 {
    thread::sleep(WARM_UP);
    let (before, began) = (count(), Instant::now());
    thread::sleep(span);
    (count() - before) as f64 / began.elapsed().as_secs_f64()
}

fn ordinary(harness: &mut Harness, speed: Speed) {
    for path in ["/0us", "/20us"] {
        let name = format!("bodies, ordinary route {path}");
        if !harness.wants(&name) {
            continue;
        }
        let span = harness.span(SPAN);
        let sample = move |server: &Server| {
            let load = Load::start(server.port, path, 64);
            vec![rate(|| load.answered(), span)]
        };
        harness.run(Scenario {
            name,
            columns: &[Column { name: "throughput", unit: "requests/s" }],
            cases: cases(&[OURS, OURS_CONNECTION, BARE], speed, sample),
            baseline: OURS,
            target: Some(Target {
                text: "at least 0.97 of the same with bodies on the connection",
                reached: |medians| medians.ratio_to(OURS_CONNECTION, 0) >= 0.97,
            }),
        });
    }
}

fn large_frames(harness: &mut Harness, speed: Speed) {
    let name = "bodies, frames of 64 KiB";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(SHORT_SPAN);
    let sample = move |server: &Server| {
        let readers = Readers::start(server.port, "/large", 4);
        vec![rate(|| readers.bytes(), span) / 1e6]
    };
    let scenario = Scenario {
        name: name.to_owned(),
        columns: &[Column { name: "throughput", unit: "MB/s" }],
        cases: cases(&[OURS, OURS_LARGE, OURS_WRITER, OURS_CONNECTION, BARE, CHANNEL], speed, sample),
        baseline: OURS,
        target: Some(Target { text: "at least 0.90 of bare", reached: |medians| medians.paired(OURS, BARE) >= 0.90 }),
    };
    harness.run_rounds(SHORT_ROUNDS, scenario, Some(BARE));
}

fn gzip(harness: &mut Harness, speed: Speed) {
    let name = "bodies, gzip of 64 MiB for 8 clients";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(health::SPAN);
    let sample = move |server: &Server| {
        let readers = Readers::start(server.port, "/text", GZIP_CLIENTS);
        thread::sleep(WARM_UP);
        let (before, began) = (readers.bytes(), Instant::now());
        let mut latencies = client::on_schedule(server.port, "/health", 400, 32, span);
        #[expect(clippy::cast_precision_loss, reason = "no counter reaches 2^53")]
        let throughput = (readers.bytes() - before) as f64 / began.elapsed().as_secs_f64() / 1e6;
        vec![quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99), throughput]
    };
    let [p50, p99] = health::COLUMNS;
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &[p50, p99, Column { name: "gzip", unit: "MB/s" }],
        cases: cases(&[OURS, OURS_NICE, OURS_WRITER, BARE, CHANNEL], speed, sample),
        baseline: OURS,
        target: Some(Target {
            text: "/health at 400 a second has a p99 of at most 3 ms",
            reached: |medians| medians.of(OURS, 1) <= 3.0,
        }),
    });
}

fn small_frames(harness: &mut Harness, speed: Speed) {
    let name = "bodies, 256 streams of 50 small frames a second";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(2 * SPAN);
    #[expect(clippy::cast_precision_loss, reason = "no counter reaches 2^53")]
    let sample = move |server: &Server| {
        let kernel = || Kernel::of(server.process.id()).ok();
        let before = kernel();
        let mut gaps = streams::gaps(server.port, "/ticks", STREAMS, WARM_UP, span);
        let used = kernel().zip(before).map(|(now, before)| now.since(before));
        let micros = used.map_or(f64::NAN, |used| (used.user + used.time).as_secs_f64() * 1e6);
        // The server sends as many a second before the measured span.
        let share = span.as_secs_f64() / (span + WARM_UP).as_secs_f64();
        let frames = gaps.len() as f64;
        vec![quantile(&mut gaps, 0.5), quantile(&mut gaps, 0.99), micros * share / frames]
    };
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &[
            Column { name: "gap p50", unit: "ms" },
            Column { name: "gap p99", unit: "ms" },
            Column { name: "CPU", unit: "µs a frame" },
        ],
        cases: cases(&[OURS, OURS_CONNECTION, BARE, CHANNEL], speed, sample),
        baseline: OURS,
        target: Some(Target {
            text: "the p99 of the gap at most 2 ms above the period, CPU a frame at most 1.8 of bare",
            reached: |medians| {
                let most = (PERIOD + Duration::from_millis(2)).as_secs_f64() * 1e3;
                medians.of(OURS, 1) <= most && medians.ratio_to(BARE, 2) <= 1.8
            },
        }),
    });
}

fn always_ready(harness: &mut Harness, speed: Speed) {
    for (path, what) in [("/ready", "are always ready"), ("/computed", "compute 100 µs for each frame")] {
        let name = format!("bodies, new requests beside 500 streams that {what}");
        if harness.wants(&name) {
            beside_streams(harness, speed, name, path);
        }
    }
}

fn beside_streams(harness: &mut Harness, speed: Speed, name: String, path: &'static str) {
    const ALONE: &str = "ours, without streams";
    const OUTSIDE: &str = "ours, a route outside of the pool";
    const APART: &str = "ours, the streams on another server";
    let span = harness.span(health::SPAN);
    let sample = move |server: &Server, route: &str, streaming: Option<&Server>| {
        let readers = streaming.map(|server| Readers::start(server.port, path, READY_STREAMS));
        let begun = readers.as_ref().map_or(f64::NAN, Readers::wait_until_begun) * 100.0;
        thread::sleep(WARM_UP);
        let before = readers.as_ref().map_or(0, Readers::bytes);
        let began = Instant::now();
        let mut latencies = client::on_schedule(server.port, route, 100, 32, span);
        #[expect(clippy::cast_precision_loss, reason = "no counter reaches 2^53")]
        let bytes = (readers.as_ref().map_or(0, Readers::bytes) - before) as f64;
        let throughput = bytes / began.elapsed().as_secs_f64() / 1e6;
        vec![quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99), throughput, begun]
    };
    let mut all = cases(&[OURS, OURS_CONNECTION, BARE], speed, move |server| sample(server, "/0us", Some(server)));
    let start = || Server::start(OURS, speed);
    let (server, apart, streaming, alone) = (start(), start(), start(), start());
    all.push(Case { name: OUTSIDE, sample: Box::new(move || sample(&server, "/health", Some(&server))) });
    all.push(Case { name: APART, sample: Box::new(move || sample(&apart, "/0us", Some(&streaming))) });
    all.push(Case { name: ALONE, sample: Box::new(move || sample(&alone, "/0us", None)) });
    harness.run(Scenario {
        name,
        columns: &[
            Column { name: "response p50", unit: "ms" },
            Column { name: "response p99", unit: "ms" },
            Column { name: "streams", unit: "MB/s" },
            Column { name: "streams that begin within 3 s", unit: "%" },
        ],
        cases: all,
        baseline: OURS,
        target: Some(Target {
            text: "the p99 at most 3 times that without the streams",
            reached: |medians| medians.ratio_to(ALONE, 1) <= 3.0,
        }),
    });
}

fn idle(harness: &mut Harness, speed: Speed) {
    let name = "bodies, memory of idle event streams";
    if !harness.wants(name) {
        return;
    }
    raise_limit_of_files();
    let streams = harness.times(10_000).min(files() / 2);
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
    let sample = move |kind: &str| {
        let server = Server::start(kind, speed);
        let id = server.process.id().to_string();
        let resident = || memory::of_process(&id, "VmRSS:");
        // The first connections also make what all share.
        let first = Open::start(server.port, "/idle", 100, None);
        let before = resident();
        let open = Open::start(server.port, "/idle", streams, None);
        let bytes = resident().saturating_sub(before) as f64 / streams as f64;
        drop((first, open));
        vec![bytes]
    };
    let kinds = [OURS, OURS_HELD, OURS_CONNECTION, BARE];
    let cases = kinds.map(|kind| Case { name: kind, sample: Box::new(move || sample(kind)) });
    harness.run(Scenario {
        name: format!("{name}, {streams} of them"),
        columns: &[Column { name: "a stream", unit: "bytes" }],
        cases: cases.into(),
        baseline: OURS,
        target: Some(Target {
            text: "at most 2 KiB more than bare",
            reached: |medians| medians.of(OURS, 0) - medians.of(BARE, 0) <= 2048.0,
        }),
    });
}

/// How many files this process may open.
fn files() -> usize {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.ok().and_then(|(files, _)| usize::try_from(files).ok()).unwrap_or(1024)
}

fn slow_readers(harness: &mut Harness, speed: Speed) {
    let name = "bodies, 100 readers of a byte a second, with a stall timeout of 2 s";
    if !harness.wants(name) {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
    let sample = move |kind: &str| {
        let server = Server::start(kind, speed);
        let id = server.process.id().to_string();
        let before = memory::of_process(&id, "VmHWM:");
        let mut open = Open::start(server.port, "/large", SLOW_READERS, Some(SMALL_BUFFER));
        let (began, mut reads) = (Instant::now(), 0);
        // Without a limit of time, the producers wait for as long as the clients like.
        while streams::number(server.port, "/in_flight") > 0 && began.elapsed() < 2 * STALL {
            if began.elapsed() > Duration::from_secs(reads) {
                open.read_a_byte();
                reads += 1;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let seconds = began.elapsed().as_secs_f64();
        let memory = (memory::of_process(&id, "VmHWM:") - before) as f64 / SLOW_READERS as f64 / 1024.0;
        drop(open);
        vec![seconds, memory]
    };
    let cases = [OURS_SERVE, CHANNEL].map(|kind| Case { name: kind, sample: Box::new(move || sample(kind)) });
    harness.run(Scenario {
        name: name.to_owned(),
        columns: &[
            Column { name: "all permits released after", unit: "s" },
            Column { name: "memory of a reader", unit: "KiB" },
        ],
        cases: cases.into(),
        baseline: OURS_SERVE,
        target: Some(Target {
            text: "every permit released within 2.1 s, with no more memory than four frames of 64 KiB, and the \
                   408 KiB of hyper",
            reached: |medians| medians.of(OURS_SERVE, 0) <= 2.1 && medians.of(OURS_SERVE, 1) <= f64::from(4 * 64 + 408),
        }),
    });
}

fn farewells(harness: &mut Harness, speed: Speed) {
    let name = "bodies, SIGTERM with event streams, ended with a farewell";
    if !harness.wants(name) {
        return;
    }
    raise_limit_of_files();
    let streams = harness.times(1000).min(files() / 2);
    #[expect(clippy::cast_precision_loss, reason = "no more streams than files")]
    let sample = move || {
        let Server { mut process, port } = Server::start(OURS_SERVE, speed);
        let open = Open::start(port, "/idle", streams, None);
        let reader = thread::spawn(move || open.ended_with(FAREWELL));
        let began = Instant::now();
        process.terminate();
        let gone = began.elapsed().as_secs_f64() * 1e3;
        let ended_well = reader.join().expect("the clients do not fail") as f64;
        vec![gone, ended_well / streams as f64 * 100.0]
    };
    harness.run(Scenario {
        name: format!("{name}, {streams} of them"),
        columns: &[
            Column { name: "process gone after", unit: "ms" },
            Column { name: "streams with a farewell and a proper end", unit: "%" },
        ],
        cases: vec![Case { name: OURS_SERVE, sample: Box::new(sample) }],
        baseline: OURS_SERVE,
        target: Some(Target {
            text: "the process gone within 200 ms, every stream ended well",
            reached: |medians| medians.of(OURS_SERVE, 0) <= 200.0 && medians.of(OURS_SERVE, 1) >= 100.0,
        }),
    });
}
