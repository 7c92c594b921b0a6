//! The 20 µs handler over HTTP with everything on that watches, and with all of it off.
//!
//! On: `observe`, `Server-Timing`, spans with a subscriber, load reports, metrics that are scraped once a second, and a
//! dashboard with a viewer. A server with each of these alone shows which of them costs. The servers take turns.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tower::ServiceBuilder;
use tower_offload::report::LoadReport;
use tower_offload::{Cpu, Dashboard, MetricsService, PoolLayer};

use crate::child::Process;
use crate::client::Load;
use crate::harness::{Case, Column, Harness, SHORT_ROUNDS, SHORT_SPAN, Scenario, Target};
use crate::http;
use crate::kernel::{self, Kernel};
use crate::server;
use crate::ways::{self, Direct, Speed};

/// The name of the part that serves.
pub const PART: &str = "everything";

const ON: &str = "everything on";
const OFF: &str = "everything off";
const OBSERVE: &str = "observe alone";
const TIMING: &str = "Server-Timing alone";
const SPANS: &str = "spans alone";
const REPORT: &str = "load reports alone";
const METRICS: &str = "metrics alone";
const DASHBOARD: &str = "dashboard alone";
const KINDS: [&str; 8] = [ON, OFF, OBSERVE, TIMING, SPANS, REPORT, METRICS, DASHBOARD];

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_millis(200);

/// A browser and a Prometheus. Dropping the value ends both.
struct Viewers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    let name = "watching, everything on over http, 20 µs handler";
    if !harness.wants(name) {
        return;
    }
    let span = harness.span(SHORT_SPAN);
    let servers = KINDS.map(|kind| {
        let mut server = Process::start(PART, kind, speed);
        let port = http::port(&mut server);
        (kind, server, port)
    });
    let cases = servers.iter().map(|(kind, server, port)| {
        let sample = move || {
            let _viewers = Viewers::of(kind, *port);
            throughput(server, *port, span)
        };
        Case { name: kind, sample: Box::new(sample) }
    });
    let scenario = Scenario {
        name: name.to_owned(),
        columns: &[Column { name: "throughput", unit: "requests/s" }, kernel::CPU],
        cases: cases.collect(),
        baseline: ON,
        target: Some(Target {
            text: "at least 0.95 of everything off",
            reached: |medians| medians.paired(ON, OFF) >= 0.95,
        }),
    };
    harness.run_rounds(SHORT_ROUNDS, scenario, Some(OFF));
}

pub fn play(kind: &str, speed: Speed) {
    let runtime = ways::runtime();
    let pools = ways::pools(ways::default_cpu());
    let on = |part| [ON, part].contains(&kind);
    let mut layer = PoolLayer::<Cpu>::new(&pools);
    if on(TIMING) {
        layer = layer.server_timing();
    }
    if on(SPANS) {
        ways::subscribe();
        layer = layer.spans();
    }
    let (routes, observe, report) =
        (server::routes(speed, &Direct), PoolLayer::observe(&pools), LoadReport::new(&pools));
    // One call of `layer`, because axum boxes the service, its future and its body at each call.
    let mut router = match kind {
        ON => routes.layer(ServiceBuilder::new().layer(report).layer(observe).layer(layer)),
        OBSERVE => routes.layer(ServiceBuilder::new().layer(observe).layer(layer)),
        REPORT => routes.layer(ServiceBuilder::new().layer(report).layer(layer)),
        _ => routes.layer(layer),
    };
    if on(METRICS) {
        let metrics = MetricsService::install(&pools).expect("nobody else installs a recorder");
        router = router.route_service("/metrics", metrics);
    }
    if on(DASHBOARD) {
        router = router.route_service("/", Dashboard::new(&pools));
    }
    server::serve(&runtime, router, None);
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn throughput(server: &Process, port: u16, span: Duration) -> Vec<f64> {
    let load = Load::start_with_body(port, "/20us", CONNECTIONS, "ok");
    thread::sleep(WARM_UP);
    let before = Kernel::of(server.id()).ok();
    let (answered, began) = (load.answered(), Instant::now());
    thread::sleep(span);
    let (requests, elapsed) = ((load.answered() - answered) as f64, began.elapsed().as_secs_f64());
    let used = Kernel::of(server.id()).ok().zip(before).map(|(now, before)| now.since(before));
    let used = used.map_or(f64::NAN, |used| (used.user + used.time).as_secs_f64() * 1e6 / requests);
    vec![requests / elapsed, used]
}

impl Viewers {
    /// Those that a server of this kind has.
    fn of(kind: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        if [ON, DASHBOARD].contains(&kind) {
            let stop = stop.clone();
            threads.push(thread::spawn(move || view(port, &stop)));
        }
        if [ON, METRICS].contains(&kind) {
            let stop = stop.clone();
            threads.push(thread::spawn(move || scrape(port, &stop)));
        }
        Self { stop, threads }
    }
}

fn view(port: u16, stop: &AtomicBool) {
    let mut stream = ask(port, "/", "accept: text/event-stream\r\n");
    while !stop.load(Ordering::Relaxed) && read_some(&mut stream) {}
}

fn scrape(port: u16, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut stream = ask(port, "/metrics", "connection: close\r\n");
        while read_some(&mut stream) {}
        thread::park_timeout(Duration::from_secs(1));
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            assert!(thread.join().is_ok() || thread::panicking(), "a viewer failed");
        }
    }
}

fn ask(port: u16, path: &str, header: &str) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\n").expect("the server reads");
    stream
}

/// Whether there was something to read.
fn read_some(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 65536]).expect("the server answers") > 0
}
