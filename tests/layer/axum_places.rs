//! Everywhere axum takes a layer.

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Path, State};
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodRouter, any, get as on_get, get_service, post};
use http::StatusCode;
use tower_offload::{Cpu, Io, PoolLayer, Pools};

use crate::fixtures::{answer, client, get, locator, pools_of, request, serve, where_am_i, whole};

#[tokio::test]
async fn router_layer_offloads_every_route_and_the_fallback() {
    let pools = Pools::default();
    let app = Router::new()
        .route("/a", on_get(where_am_i))
        .route("/b", post(where_am_i))
        .fallback(where_am_i)
        .layer(PoolLayer::<Cpu>::new(&pools));
    assert_eq!(answer(app.clone(), get("/a")).await.body(), "cpu");
    assert_eq!(answer(app.clone(), request("POST", "/b").map(axum::body::Body::from)).await.body(), "cpu");
    assert_eq!(answer(app, get("/nowhere")).await.body(), "cpu");
}

#[tokio::test]
async fn routes_added_after_router_layer_run_inline() {
    let pools = Pools::default();
    let app = Router::new()
        .route("/a", on_get(where_am_i))
        .layer(PoolLayer::<Cpu>::new(&pools))
        .route("/b", on_get(where_am_i));
    assert_eq!(answer(app.clone(), get("/a")).await.body(), "cpu");
    assert_eq!(answer(app, get("/b")).await.body(), "inline");
}

#[tokio::test]
async fn route_layer_offloads_matched_routes_only() {
    let pools = Pools::default();
    let app =
        Router::new().route("/a", on_get(where_am_i)).route_layer(PoolLayer::<Cpu>::new(&pools)).fallback(where_am_i);
    assert_eq!(answer(app.clone(), get("/a")).await.body(), "cpu");
    assert_eq!(answer(app, get("/nowhere")).await.body(), "inline");
    assert_eq!(pools.get("cpu").unwrap().stats().counts.submitted, 1);
}

#[tokio::test]
async fn method_router_layer_offloads_the_methods_before_it() {
    let pools = Pools::default();
    let methods: MethodRouter =
        on_get(where_am_i).layer(PoolLayer::<Cpu>::new(&pools)).post_service(locator()).put(where_am_i);
    let app: Router = Router::new().route("/a", methods);
    assert_eq!(answer(app.clone(), get("/a")).await.body(), "cpu");
    assert_eq!(answer(app.clone(), request("POST", "/a").map(axum::body::Body::from)).await.body(), "inline");
    let wrong = answer(app, request("DELETE", "/a").map(axum::body::Body::from)).await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers()["allow"], "GET,HEAD,POST,PUT");
}

#[tokio::test]
async fn method_router_route_layer_leaves_a_wrong_method_inline() {
    let pools = Pools::default();
    let app: Router = Router::new().route("/a", on_get(where_am_i).route_layer(PoolLayer::<Cpu>::new(&pools)));
    assert_eq!(answer(app.clone(), get("/a")).await.body(), "cpu");
    let wrong = answer(app, request("POST", "/a").map(axum::body::Body::from)).await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(pools.get("cpu").unwrap().stats().counts.submitted, 1);
}

#[tokio::test]
async fn handler_layer_offloads_one_handler_with_its_extractors() {
    async fn both(State(state): State<u32>, Path(id): Path<u32>, matched: MatchedPath) -> String {
        format!("{state} {id} {} {}", matched.as_str(), where_am_i().await)
    }
    let pools = Pools::default();
    let app =
        Router::new().route("/a/{id}", on_get(both.layer(PoolLayer::<Cpu>::new(&pools))).post(both)).with_state(7);
    assert_eq!(answer(app.clone(), get("/a/3")).await.body(), "7 3 /a/{id} cpu");
    assert_eq!(answer(app, request("POST", "/a/3").map(axum::body::Body::from)).await.body(), "7 3 /a/{id} inline");
}

#[tokio::test]
async fn nested_and_merged_routers_keep_their_pools() {
    let pools = Pools::default();
    let inner = Router::new()
        .route("/{id}", on_get(|Path(id): Path<u32>| async move { format!("{id} {}", where_am_i().await) }))
        .layer(PoolLayer::<Cpu>::new(&pools));
    let merged = Router::new().route("/merged", any(where_am_i)).layer(PoolLayer::<Io>::new(&pools));
    let app = Router::new().nest("/v1", inner).merge(merged).route("/health", on_get(where_am_i));
    assert_eq!(answer(app.clone(), get("/v1/5")).await.body(), "5 cpu");
    assert_eq!(answer(app.clone(), get("/merged")).await.body(), "io");
    assert_eq!(answer(app, get("/health")).await.body(), "inline");
}

#[tokio::test]
async fn one_layer_on_many_routes_shares_one_limit() {
    let pools = pools_of(1, 0);
    let gate = crate::fixtures::Gate::new();
    let held = gate.clone();
    let app = Router::new()
        .route("/hold", on_get(move || async move { held.pass().await }))
        .route("/other", on_get(where_am_i))
        .layer(PoolLayer::<Cpu>::new(&pools));
    let holder = tokio::spawn(answer(app.clone(), get("/hold")));
    gate.arrived(1).await;
    assert_eq!(answer(app, get("/other")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    gate.open(1);
    assert_eq!(holder.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn middleware_on_both_sides_of_the_layer_sees_the_request_and_the_response() {
    #[derive(Clone)]
    struct Before(u32);
    #[derive(Clone)]
    struct After(u32);
    let pools = Pools::default();
    let app: Router = Router::new()
        .route(
            "/a",
            on_get(|axum::Extension(Before(n)): axum::Extension<Before>| async move {
                (axum::Extension(After(n + 1)), where_am_i().await)
            }),
        )
        .layer(PoolLayer::<Cpu>::new(&pools))
        .layer(from_fn(|mut request: axum::extract::Request, next: Next| async move {
            request.extensions_mut().insert(Before(1));
            let response = next.run(request).await;
            let After(n) = *response.extensions().get::<After>().expect("extensions of the response travel");
            assert_eq!(n, 2);
            response
        }))
        .layer(DefaultBodyLimit::disable());
    assert_eq!(answer(app, get("/a")).await.body(), "cpu");
}

#[tokio::test]
async fn serve_dir_reads_its_files_in_a_pool() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.html"), "<p>served</p>").unwrap();
    let pools = Pools::default();
    let files = tower::ServiceBuilder::new()
        .layer(PoolLayer::<Io>::new(&pools))
        .service(tower_http::services::ServeDir::new(folder.path()));
    let app = Router::new().nest_service("/files", files.clone()).route_service("/plain/{*path}", get_service(files));
    let address = serve(app).await;
    let fetch =
        async |path: &str| whole(client().get(format!("http://{address}{path}").parse().unwrap()).await.unwrap()).await;
    let page = fetch("/files/page.html").await;
    assert_eq!(page.body(), "<p>served</p>");
    assert_eq!(page.headers()["content-type"], "text/html");
    assert_eq!(page.headers()["content-length"], "13");
    assert_eq!(fetch("/files/none.html").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(fetch("/files/../Cargo.toml").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(pools.get("io").unwrap().stats().counts.ok, 3);
}
