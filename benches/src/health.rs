//! Latency of `/health` beside clients that saturate other routes, and what these get done.

use std::thread;
use std::time::{Duration, Instant};

use crate::child::Process;
use crate::client::{self, Load};
use crate::harness::{Case, Column, quantile};
use crate::http::port;

/// How long one sample takes.
pub const SPAN: Duration = Duration::from_millis(2500);

/// The columns of the latency; a scenario adds one for the throughput of the saturated routes.
pub const COLUMNS: [Column; 2] = [Column { name: "health p50", unit: "ms" }, Column { name: "health p99", unit: "ms" }];

/// Clients of each saturated route: more than any pool has workers.
const CLIENTS: usize = 64;
const PER_SECOND: u32 = 400;
const PROBES: u32 = 32;
const WARM_UP: Duration = Duration::from_millis(300);

/// A case that samples `server` beside clients of the routes at `paths`.
pub fn case(name: &'static str, mut server: Process, paths: Vec<String>, span: Duration) -> Case<'static> {
    let port = port(&mut server);
    let sample = move || {
        let _server = &server;
        sample(port, &paths, span)
    };
    Case { name, sample: Box::new(sample) }
}

#[expect(clippy::cast_precision_loss, reason = "no server answers 2^53 requests")]
fn sample(port: u16, paths: &[String], span: Duration) -> Vec<f64> {
    let load: Vec<_> = paths.iter().map(|path| Load::start(port, path, CLIENTS)).collect();
    let answered = || load.iter().map(Load::answered).sum::<u64>();
    thread::sleep(WARM_UP);
    let (before, began) = (answered(), Instant::now());
    let mut latencies = client::on_schedule(port, "/health", PER_SECOND, PROBES, span);
    let throughput = (answered() - before) as f64 / began.elapsed().as_secs_f64();
    vec![quantile(&mut latencies, 0.5), quantile(&mut latencies, 0.99), throughput]
}
