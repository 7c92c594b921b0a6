//! The HTTP servers that are compared: axum with the same handlers, offloaded around the router or inside each handler.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::runtime::Runtime;
use tower::util::MapErrLayer;
use tower_offload::{Config, Cpu, PoolConfig, PoolLayer, Pools, server};
use tower_resilience_executor::{ExecutorError, ExecutorLayer};

use crate::child;
use crate::elsewhere::Elsewhere;
use crate::harness::OURS;
use crate::ways::{self, Dedicated, Direct, Ours, SpawnBlocking, SpawnBlockingLimited, Speed, Task, Way};

/// The names of the parts that serve.
pub const AROUND: &str = "around";
pub const INSIDE: &str = "inside";

/// The kinds of both parts that more than one scenario names.
pub const BARE: &str = "bare";
pub const DEDICATED: &str = "dedicated runtime";
pub const OURS_NICE: &str = "ours, nice 5";
pub const OURS_AUTO: &str = "ours, workers: auto";
pub const OURS_DEFAULT: &str = "ours, every default";
pub const OURS_SERVE: &str = "ours, on server::serve";

/// Each path of the handlers that compute, and how long they do.
const PATHS: [(&str, Duration); 5] = [
    ("/0us", Duration::ZERO),
    ("/20us", Duration::from_micros(20)),
    ("/50us", Duration::from_micros(50)),
    ("/100us", Duration::from_micros(100)),
    ("/20ms", Duration::from_millis(20)),
];

/// Serves handlers that compute where they are polled, behind a layer that moves them.
pub fn around(kind: &str, speed: Speed) {
    let runtime = ways::runtime();
    let dedicated = ways::runtime();
    let bare = routes(speed, &Direct);
    let in_pool = |cpu: PoolConfig| PoolLayer::<Cpu>::new(&ways::pools(cpu));
    let router = match kind {
        BARE => bare,
        OURS => bare.layer(in_pool(ways::default_cpu())),
        OURS_NICE => bare.layer(in_pool(ways::default_cpu().nice(5))),
        OURS_AUTO => bare.layer(in_pool(ways::patient(PoolConfig::auto()))),
        OURS_DEFAULT => bare.layer(PoolLayer::<Cpu>::new(&Pools::default())),
        OURS_SERVE => {
            let pools = ways::pools(ways::default_cpu());
            let router = bare.layer(PoolLayer::<Cpu>::new(&pools));
            return serve(&runtime, router, Some(&pools));
        }
        DEDICATED => bare.layer(Elsewhere::Runtime(dedicated.handle().clone())),
        "resilience-executor" => {
            let executor = ExecutorLayer::new(dedicated.handle().clone());
            bare.layer((MapErrLayer::new(no_error), executor))
        }
        "spawn_blocking" => bare.layer(Elsewhere::SpawnBlocking),
        other => panic!("there is no server `{other}`"),
    };
    serve(&runtime, router, None);
}

/// Serves handlers that each move a closure, or a future, and wait for it.
pub fn inside(kind: &str, speed: Speed) {
    let runtime = ways::runtime();
    let dedicated = ways::runtime();
    let router = match kind {
        BARE => routes(speed, &Direct),
        OURS => routes(speed, &Ours(ways::pools(ways::default_cpu()))),
        "spawn_blocking" => routes(speed, &SpawnBlocking),
        "spawn_blocking + semaphore" => routes(speed, &SpawnBlockingLimited::default()),
        "Buffer + ConcurrencyLimit" => routes(speed, &ways::buffer(&runtime)),
        DEDICATED => routes(speed, &Dedicated(dedicated.handle().clone())),
        "resilience-executor" => routes(speed, &ways::executor(dedicated.handle())),
        "resilience-executor + bulkhead" => routes(speed, &ways::executor_with_bulkhead(dedicated.handle())),
        "rayon + oneshot" => routes(speed, &ways::rayon()),
        other => panic!("there is no server `{other}`"),
    };
    serve(&runtime, router, None);
}

/// Handlers that run their task in some way.
pub fn routes(speed: Speed, way: &impl Way) -> Router {
    PATHS.into_iter().fold(Router::new(), |router, (path, span)| router.route(path, handler(speed.task(span), way)))
}

fn handler(task: Task, way: &impl Way) -> axum::routing::MethodRouter {
    let way = way.clone();
    get(move || async move {
        way.run(task).await;
        "ok"
    })
}

fn no_error(error: ExecutorError<Infallible>) -> Infallible {
    panic!("the handler does not panic: {error}")
}

/// Serves until the process is ended: with axum, or with our server if it gets the pools.
///
/// The health route runs on the server's runtime.
pub fn serve(runtime: &Runtime, router: Router, pools: Option<&Pools>) {
    // Otherwise axum makes the routes anew for each request, or copies them for each connection.
    let router = router.route("/health", get(|| async { "ok" })).with_state(());
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port of this machine is free");
        child::tell(listener.local_addr().expect("it is bound").port());
        if let Some(pools) = pools {
            let _ = server::Server::new(&Config::default(), pools).listener(listener).serve(router).await;
        } else {
            let _ = axum::serve(listener, router.into_make_service()).await;
        }
    });
}
