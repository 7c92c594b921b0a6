//! Layers composed by hand around an axum router: tracing, a timeout, and the pool.
//!
//! ```sh
//! cargo run --release --example service_builder -- 127.0.0.1:3000
//! curl --data-binary @README.md http://127.0.0.1:3000/words
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

#[derive(Serialize)]
struct Words {
    total: usize,
    different: usize,
    most_frequent: Option<String>,
}

/// Counts the words of a text.
async fn words(text: String) -> Json<Words> {
    let mut counts = HashMap::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0_usize) += 1;
    }
    tracing::info!("counted, in the span of the request");
    Json(Words {
        total: counts.values().sum(),
        different: counts.len(),
        most_frequent: counts.into_iter().max_by_key(|(_, count)| *count).map(|(word, _)| word),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter("info,tower_http=debug").with_writer(std::io::stderr).init();
    let cpu = PoolConfig::auto().queue_capacity(256).queue_timeout(Duration::from_secs(2));
    let pools = Pools::builder().pool(Cpu, cpu).build()?;

    let layers = ServiceBuilder::new()
        // Outermost: the trace includes the wait in the queue and the rejections. The worker enters its span.
        .layer(TraceLayer::new_for_http())
        // Outside the pool: the timeout includes the wait in the queue, and a request that times out leaves the queue.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(5)))
        // Innermost: the handler and its extractors run on the pool's workers, once the whole text has arrived.
        .layer(PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(2 << 20).whole()));
    let app = Router::new()
        .route("/words", post(words))
        .route_layer(layers)
        // Added after the layers, so it has none of them: it answers while the pool is full.
        .route("/health", get(async || "ok\n"));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(&address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
