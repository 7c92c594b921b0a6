//! A real Envoy balances two servers by their load reports, with the set-up in `deploy/envoy.yaml`.
//!
//! Needs `envoy` on the path, and is ignored unless asked for:
//! `cargo test --all-features --test envoy -- --ignored`.

#![allow(clippy::unwrap_used, reason = "the functions that tests share are tests too")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tower_offload::report::LoadReport;
use tower_offload::{Io, PoolConfig, PoolLayer, Pools};

/// How long a task takes, and how many requests a second the clients send.
const TASK: Duration = Duration::from_millis(50);
const RATE: f64 = 150.0;

/// A server whose pool has this many workers, and that counts the requests which reach it.
struct Server {
    pools: Pools,
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Server {
    async fn start(workers: usize) -> Self {
        let pools = Pools::builder().pool("io", PoolConfig::new(workers).queue_capacity(0)).build().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = requests.clone();
        let count = move |request: Request<Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            request
        };
        let task = get(|| async { tokio::time::sleep(TASK).await }).route_layer(PoolLayer::<Io>::new(&pools));
        let app = Router::new()
            .route("/", task)
            .layer(LoadReport::new(&pools))
            .layer(axum::middleware::map_request(move |request| std::future::ready(count(request))));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { pools, address, requests }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A running Envoy. Dropping the value kills it.
struct Envoy {
    _process: Child,
    address: SocketAddr,
}

impl Envoy {
    fn start(servers: [&Server; 2]) -> Self {
        let shown = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/envoy.yaml");
        let mut config = std::fs::read_to_string(shown).unwrap();
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).unwrap();
        let (address, admin) = (free(), free());
        let ports = [("8080", address), ("9901", admin), ("3000", servers[0].address), ("3001", servers[1].address)];
        for (shown, address) in ports {
            let (from, to) = (format!("port_value: {shown}}}"), format!("port_value: {}}}", address.port()));
            assert_eq!(config.matches(&from).count(), 1, "{from}");
            config = config.replace(&from, &to);
        }
        let process = Command::new("envoy")
            .args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "--config-yaml", &config])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("`envoy` is installed");
        Self { _process: process, address }
    }
}

/// Sends requests at a constant rate until it is dropped, and asserts that no answer shows the load.
fn clients(envoy: &Envoy) -> JoinSet<()> {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let uri: http::Uri = format!("http://{}/", envoy.address).parse().unwrap();
    let mut clients = JoinSet::new();
    clients.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / RATE));
        loop {
            ticks.tick().await;
            let answer = client.get(uri.clone());
            tokio::spawn(async move {
                if let Ok(response) = answer.await {
                    assert!(!response.headers().contains_key("endpoint-load-metrics"));
                }
            });
        }
    });
    clients
}

/// The part of the requests that the first server gets within this time.
async fn share(servers: [&Server; 2], time: Duration) -> f64 {
    let before = servers.map(Server::requests);
    tokio::time::sleep(time).await;
    let after = servers.map(Server::requests);
    let [first, second] = [0, 1].map(|server| (after[server] - before[server]) as f64);
    first / (first + second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs an Envoy"]
async fn envoy_gives_each_server_what_it_can_do_and_nothing_to_one_that_rejects() {
    let (large, small) = (Server::start(20).await, Server::start(10).await);
    let servers = [&large, &small];
    let envoy = Envoy::start(servers);
    let _clients = clients(&envoy);
    let settle = async {
        // Weights begin to count after `blackout_period`, and a machine that stands still for a moment disturbs them.
        loop {
            let share = share(servers, Duration::from_secs(10)).await;
            println!("the server with twice as many workers gets {share:.4} of the requests");
            if (share / (2.0 / 3.0) - 1.0).abs() <= 0.02 {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), settle).await.expect("the shares are those of the workers");

    let begun = Instant::now();
    // Tasks that do not end take all of its permits.
    let never = Arc::new(tokio::sync::Notify::new());
    let hold = || {
        let never = never.clone();
        large.pools.submit_to_pool("io", async move { never.notified().await }).ok()
    };
    loop {
        while hold().is_some() {}
        let share = share(servers, Duration::from_secs(5)).await;
        println!("after {:.0?} of rejections it gets {share:.4}", begun.elapsed());
        if share < 0.05 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "it still attracts requests");
    }
}
