//! The HTTP servers that are compared: axum with the same handlers, run in different ways.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tower_offload::{Config, Cpu, PoolConfig, PoolLayer, Pools, server};

use crate::child;
use crate::harness::OURS;
use crate::ways::{self, Dedicated, Direct, Job, SpawnBlocking, SpawnBlockingLimited, Speed, Way};

/// What each server is called, in the tables and as a part.
pub const OURS_NICE: &str = "ours, nice 5";
pub const OURS_AUTO: &str = "ours, workers: auto";
pub const OURS_DEFAULT: &str = "ours, every default";
pub const OURS_SERVE: &str = "ours, on server::serve";
pub const OTHERS: [&str; 8] = [
    "bare",
    "spawn_blocking",
    "spawn_blocking + semaphore",
    "Buffer + ConcurrencyLimit",
    "dedicated runtime",
    "resilience-executor",
    "resilience-executor + bulkhead",
    "rayon + oneshot",
];

/// The work behind each path.
struct Jobs {
    short: Job,
    long: Job,
}

/// Serves until the process is ended.
pub fn play(kind: &str, speed: Speed) {
    let jobs = Jobs { short: speed.job(Duration::from_micros(50)), long: speed.job(Duration::from_millis(20)) };
    let runtime = ways::runtime();
    let dedicated = ways::runtime();
    let pools = ways::pools(ways::default_cpu());
    let router = match kind {
        OURS | OURS_SERVE => pooled(&jobs, &pools),
        OURS_NICE => pooled(&jobs, &ways::pools(ways::default_cpu().nice(5))),
        OURS_AUTO => pooled(&jobs, &ways::pools(ways::patient(PoolConfig::auto()))),
        OURS_DEFAULT => pooled(&jobs, &Pools::default()),
        "bare" => routes(&jobs, &Direct),
        "spawn_blocking" => routes(&jobs, &SpawnBlocking),
        "spawn_blocking + semaphore" => routes(&jobs, &SpawnBlockingLimited::default()),
        "Buffer + ConcurrencyLimit" => routes(&jobs, &ways::buffer(&runtime)),
        "dedicated runtime" => routes(&jobs, &Dedicated(dedicated.handle().clone())),
        "resilience-executor" => routes(&jobs, &ways::executor(dedicated.handle())),
        "resilience-executor + bulkhead" => routes(&jobs, &ways::executor_with_bulkhead(dedicated.handle())),
        "rayon + oneshot" => routes(&jobs, &ways::rayon()),
        other => panic!("there is no server `{other}`"),
    };
    let router = router.route("/health", get(|| async { "ok" }));
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine is free");
        child::tell(listener.local_addr().expect("it is bound").port());
        if kind == OURS_SERVE {
            let _ = server::Server::new(&Config::default(), &pools).listener(listener).serve(router).await;
        } else {
            let _ = axum::serve(listener, router).await;
        }
    });
}

/// Handlers that run their job in some way.
fn routes(jobs: &Jobs, way: &impl Way) -> Router {
    let route = |job: Job| {
        let way = way.clone();
        get(move || async move {
            way.run(job).await;
            "ok"
        })
    };
    Router::new().route("/empty", route(Job::EMPTY)).route("/50us", route(jobs.short)).route("/20ms", route(jobs.long))
}

/// Handlers that do their job where they stand, behind a `PoolLayer`.
fn pooled(jobs: &Jobs, pools: &Pools) -> Router {
    routes(jobs, &Direct).layer(PoolLayer::<Cpu>::new(pools))
}
