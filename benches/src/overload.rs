//! A server that is asked for more than it can do, by clients that do not wait for each other and leave when they have
//! waited too long.
//!
//! The handler blocks for 20 ms, and four may do so at a time: 200 requests a second is what there is. Requests arrive by
//! chance at a mean rate, and their latency counts from the moment at which they were due.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_offload::config::Queue;
use tower_offload::{Cpu, PoolConfig, PoolLayer};

use crate::child::{self, Process};
use crate::harness::{Case, Column, Harness, OURS, Scenario, Target, quantile};
use crate::http::port;
use crate::ways::{self, Speed};

const WORK: Duration = Duration::from_millis(20);
const WORKERS: usize = 4;
const CAPACITY: f64 = 200.0;
/// An answer is good if it comes within this time; after it, the client is gone.
const PATIENCE: Duration = Duration::from_millis(500);
const SPAN: Duration = Duration::from_secs(6);
/// Before it, the queue fills: it does not count.
const WARM_UP: Duration = Duration::from_secs(2);
const FIFO: &str = "first in, first out";
const SHED: &str = "ConcurrencyLimit + LoadShed";
const KINDS: [&str; 3] = [OURS, FIFO, SHED];

/// The outcome of one request.
#[derive(Clone, Copy, Debug)]
struct Fate {
    due: Instant,
    latency: Duration,
    /// None if the client left before there was an answer.
    status: Option<u16>,
}

pub fn run(harness: &mut Harness, speed: Speed) {
    for (load, text) in [(0.8, "0.8"), (4.0, "4")] {
        let name = format!("overload, {text} times what the workers can do");
        if !harness.wants(&name) {
            continue;
        }
        let span = harness.span(SPAN).max(WARM_UP + Duration::from_millis(500));
        let columns = [
            Column { name: "good answers, of those possible", unit: "%" },
            Column { name: "p99 of the good", unit: "ms" },
            Column { name: "p99 of refusals", unit: "ms" },
        ];
        let cases = KINDS.map(|kind| case(kind, load, span, speed)).into();
        let target = (load > 1.0).then_some(Target {
            text: "at least 95 % of what is possible is answered well",
            reached: |medians| medians.of(OURS, 0) >= 95.0,
        });
        harness.run(Scenario { name, columns: &columns, cases, baseline: OURS, target });
    }
}

fn case(kind: &'static str, load: f64, span: Duration, speed: Speed) -> Case<'static> {
    let mut seed = 0;
    let sample = move || {
        // A new server for each sample has an empty queue.
        let mut server = Process::start("overload", kind, speed);
        let port = port(&mut server);
        seed += 1;
        sample(&arrive(port, CAPACITY * load, span, seed), span)
    };
    Case { name: kind, sample: Box::new(sample) }
}

#[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 requests")]
fn sample(fates: &[Fate], span: Duration) -> Vec<f64> {
    let good = |fate: &&Fate| fate.status == Some(200) && fate.latency <= PATIENCE;
    let millis = |fate: &Fate| fate.latency.as_secs_f64() * 1e3;
    let possible = (CAPACITY * (span - WARM_UP).as_secs_f64()).min(fates.len() as f64);
    let mut answered: Vec<_> = fates.iter().filter(good).map(millis).collect();
    let mut refused: Vec<_> = fates.iter().filter(|fate| fate.status == Some(503)).map(millis).collect();
    let share = answered.len() as f64 / possible * 100.0;
    vec![share, quantile(&mut answered, 0.99), quantile(&mut refused, 0.99)]
}

/// Sends requests for `span`, and returns the outcomes of the requests that were due after the warm-up.
fn arrive(port: u16, per_second: f64, span: Duration, seed: u64) -> Vec<Fate> {
    let fates = Arc::new(Mutex::new(Vec::new()));
    let collected = fates.clone();
    let client = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let begin = Instant::now();
            let (mut due, mut chance) = (begin, Chance::new(seed));
            let mut requests = tokio::task::JoinSet::new();
            while due < begin + span {
                tokio::time::sleep_until(due.into()).await;
                let fates = collected.clone();
                requests.spawn(async move {
                    let fate = ask(port, due).await;
                    fates.lock().expect("no client panics").push(fate);
                });
                due += Duration::from_secs_f64(chance.exponential() / per_second);
            }
            requests.join_all().await;
            begin
        })
    });
    let begin = client.join().expect("the clients do not fail");
    let fates = fates.lock().expect("no client panics");
    fates.iter().copied().filter(|fate| fate.due >= begin + WARM_UP).collect()
}

/// One request on a new connection, as a new client sends it.
async fn ask(port: u16, due: Instant) -> Fate {
    let status = tokio::time::timeout_at((due + PATIENCE).into(), exchange(port)).await.ok().flatten();
    Fate { due, latency: due.elapsed(), status }
}

async fn exchange(port: u16) -> Option<u16> {
    let server: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = tokio::net::TcpStream::connect(server).await.ok()?;
    stream.write_all(b"GET /work HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Numbers by chance, the same ones for the same seed (splitmix64, Steele and others 2014).
pub struct Chance(u64);

impl Chance {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between arrivals whose mean is 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are taken")]
    pub fn exponential(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln()
    }
}

/// Serves until the process is ended.
pub fn play(kind: &str) {
    let runtime = ways::runtime();
    let pool = PoolConfig::new(WORKERS);
    let blocking = Router::new().route("/work", get(|| async { thread::sleep(WORK) }));
    let router = match kind {
        "ours" => blocking.layer(PoolLayer::<Cpu>::new(&ways::pools(pool))),
        FIFO => blocking.layer(PoolLayer::<Cpu>::new(&ways::pools(pool.queue(Queue::Fifo)))),
        SHED => Router::new()
            .route(
                "/work",
                get(|| async { tokio::task::spawn_blocking(|| thread::sleep(WORK)).await.expect("it sleeps") }),
            )
            .layer(
                ServiceBuilder::new()
                    .layer(HandleErrorLayer::new(|_| async { StatusCode::SERVICE_UNAVAILABLE }))
                    .layer(LoadShedLayer::new())
                    .layer(GlobalConcurrencyLimitLayer::new(WORKERS)),
            ),
        other => panic!("there is no server `{other}`"),
    };
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine is free");
        child::tell(listener.local_addr().expect("it is bound").port());
        let _ = axum::serve(listener, router).await;
    });
}
