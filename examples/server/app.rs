//! The routes, and the three ways in which they get their pools.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_http::classify::ServerErrorsFailureClass;
use tower_http::compression::CompressionLayer;
use tower_http::services::ServeDir;
use tower_http::trace::TraceLayer;
use tower_offload::body::{BodyPolicy, RunBody};
use tower_offload::report::LoadReport;
use tower_offload::stats::InstallError;
use tower_offload::{Config, Dashboard, Inference, MetricsService, PoolLayer, Pools, StatsService, Workload};
use tracing::Span;

use super::body;
use super::export;
use super::files;
use super::model;
use super::models::{self, Models};
use super::notes::{self, Notes};
use super::passwords;
use super::problem::{self, Problem};
use super::settings::Settings;

/// The state and the settings of the handlers.
pub(crate) struct Parts {
    pub(crate) notes: Notes,
    pub(crate) models: Models,
    pub(crate) settings: Settings,
}

/// The whole application. Each request is offloaded once; a request without a pool runs inline.
pub(crate) fn app(parts: Parts, config: &Config, pools: &Pools) -> Result<Router, InstallError> {
    let Parts { notes, models, settings } = parts;
    let (notes, models) = (Arc::new(notes), Arc::new(models));
    let folder = ServeDir::new(settings.files_dir).redirect_path_prefix("/files");

    // By route: `performance.routes` of the settings names the pools. The layer is on a router that is not nested, because
    // it compares whole paths.
    let by_route = Router::new()
        .route("/v1/hash", post(passwords::hash))
        .route("/v1/verify", post(passwords::verify))
        .route("/v1/notes", post(notes::add).get(notes::search))
        .route("/v1/notes/{id}", get(notes::get))
        .with_state(notes.clone())
        .route_layer(PoolLayer::by_route(pools).read_body(body::limits()));

    // The same, and the pool's workers also compress the files: the compression is inside of the pool's layer, and the layer
    // has the bodies in the pool.
    let files = Router::new()
        .nest_service("/files", any(files::get).with_state(folder))
        .layer(CompressionLayer::new())
        .route_layer(PoolLayer::by_route(pools).body(in_pool(config, &Workload::IO)));

    // By type: a marker names the pool of one handler.
    let inference = PoolLayer::<Inference>::new(pools).read_body(body::limits());
    let streamed = in_pool(config, &Workload::INFERENCE).hold();
    let by_type = Router::new()
        // The events are computed when the client takes them, so the permit is held to the last byte.
        .route("/v1/classify/stream", post(model::classify_lines).route_layer(inference.body(streamed)))
        .with_state(models.clone());

    // By extension: middleware puts the name of the pool on the request.
    let export = get(export::export).route_layer(PoolLayer::by_extension(pools)).route_layer(from_fn(name_pool));
    let by_extension = Router::new().route("/v1/notes/export", export).with_state(notes);

    // In batches: the handlers are in no pool and only wait. The inputs of many requests run in a pool together.
    let in_batches = Router::new()
        .route("/v1/classify", post(model::classify))
        .route("/v1/embeddings", post(model::embeddings))
        .with_state(models.clone())
        .route_layer(body::limits());

    // Models are loaded by threads of their own; the handlers only wait. Whoever may call these routes decides what the
    // server runs, so do not expose them to the public.
    let administration = Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{name}", post(models::load).delete(models::unload))
        .with_state(models);

    Ok(Router::new()
        .merge(by_route)
        .merge(files)
        .merge(by_type)
        .merge(by_extension)
        .merge(in_batches)
        .merge(administration)
        .route_service("/", Dashboard::new(pools))
        .route("/health", get(health))
        .route_service("/metrics", MetricsService::install(pools)?)
        .nest_service("/health/thread-pools", StatsService::new(pools))
        .fallback(nowhere)
        .layer(map_response(problem::describe))
        .layer(TraceLayer::new_for_http().make_span_with(span).on_failure(log_failure))
        // On every response, rejections included, for balancers that read it.
        .layer(LoadReport::new(pools)))
}

/// The settings of a pool for the bodies of its responses, but polled by its workers.
fn in_pool(config: &Config, pool: &Workload) -> BodyPolicy {
    let mut policy = config.performance.thread_pools.get(pool).map(|pool| pool.body.clone()).unwrap_or_default();
    policy.run = RunBody::Pool;
    policy
}

/// The span of a request. It does not show the query, nor all of a path that no route has.
fn span(request: &Request) -> Span {
    let path = request.uri().path();
    let end = path.char_indices().nth(256).map_or(path.len(), |(end, _)| end);
    tracing::info_span!("request", method = %request.method(), path = &path[..end])
}

/// Handlers log the reason of their faults, and pools log their overload. So an error status is logged at the level
/// `DEBUG` only: under overload it would be a line for each request.
fn log_failure(failure: ServerErrorsFailureClass, latency: Duration, _span: &Span) {
    match failure {
        ServerErrorsFailureClass::StatusCode(status) => tracing::debug!(%status, ?latency, "answered with an error"),
        ServerErrorsFailureClass::Error(error) => tracing::error!(error, ?latency, "the response broke off"),
    }
}

async fn name_pool(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Workload::DB);
    next.run(request).await
}

async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn nowhere(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}
