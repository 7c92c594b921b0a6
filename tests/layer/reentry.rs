//! Nested layers: a handler in a pool calls a service behind a layer.

use axum::Router;
use axum::handler::Handler;
use axum::routing::get as on_get;
use tower::Layer;
use tower_offload::{Cpu, Io, PoolLayer};

use crate::fixtures::{answer, get, in_time, locator, place, pools_of, request, stats_of, where_am_i};

#[tokio::test]
async fn the_same_pool_twice_runs_the_inner_one_inline() {
    let pools = pools_of(1, 0);
    let cpu = PoolLayer::<Cpu>::new(&pools);
    let service = cpu.layer(cpu.layer(cpu.layer(locator())));
    assert_eq!(in_time(answer(service, request("GET", "/"))).await.body(), "cpu");
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1);
}

#[tokio::test]
async fn axum_layers_of_one_pool_nest_without_a_deadlock() {
    let pools = pools_of(1, 0);
    let cpu = PoolLayer::<Cpu>::new(&pools);
    let inner = Router::new().route("/a", on_get(where_am_i.layer(cpu.clone())).layer(cpu.clone())).layer(cpu.clone());
    let app = Router::new().nest("/v1", inner).layer(cpu);
    assert_eq!(in_time(answer(app, get("/v1/a"))).await.body(), "cpu");
    assert_eq!(stats_of(&pools, "cpu").counts.submitted, 1);
}

#[tokio::test]
async fn the_layer_nearest_to_the_handler_chooses_where_pools_differ() {
    let pools = pools_of(1, 0);
    let service = PoolLayer::<Cpu>::new(&pools).layer(PoolLayer::<Io>::new(&pools).layer(locator()));
    assert_eq!(in_time(answer(service, request("GET", "/"))).await.body(), "io");
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 1);
    assert_eq!(stats_of(&pools, "io").counts.ok, 1);
}

#[tokio::test]
async fn a_handler_runs_tasks_of_its_own_pool_and_of_others() {
    let pools = pools_of(1, 0);
    let inside = pools.clone();
    let handler = async move || {
        let own = inside.run_in_pool(Cpu, place).await.expect("the own pool runs it inline");
        let other = inside.run_in_pool(Io, place).await.expect("the other pool is free");
        let waited = inside.submit_to_pool("cpu", place).expect("inline").wait().expect("inline");
        format!("{own} {other} {waited} {}", place())
    };
    let app: Router = Router::new().route("/", on_get(handler)).layer(PoolLayer::<Cpu>::new(&pools));
    assert_eq!(in_time(answer(app, get("/"))).await.body(), "cpu io cpu cpu");
    assert_eq!(stats_of(&pools, "cpu").counts.ok, 3, "the inner tasks count as tasks");
}

#[tokio::test]
async fn a_panic_of_the_inner_one_is_answered_by_the_outer_one() {
    async fn panics() -> String {
        panic!("inside")
    }
    let pools = pools_of(1, 0);
    let cpu = PoolLayer::<Cpu>::new(&pools);
    let app: Router = Router::new().route("/", on_get(panics.layer(cpu.clone()))).layer(cpu);
    for _ in 0..2 {
        let answered = in_time(answer(app.clone(), get("/"))).await;
        assert_eq!(answered.status(), 500);
        assert_eq!(crate::fixtures::json(&answered)["reason"], "panicked");
    }
    assert_eq!(stats_of(&pools, "cpu").counts.panicked, 2);
}

#[tokio::test]
async fn two_pools_with_the_same_name_are_two_pools() {
    let (outer, inner) = (pools_of(1, 0), pools_of(1, 0));
    let service = PoolLayer::<Cpu>::new(&outer).layer(PoolLayer::<Cpu>::new(&inner).layer(locator()));
    assert_eq!(in_time(answer(service, request("GET", "/"))).await.body(), "cpu");
    assert_eq!((stats_of(&outer, "cpu").counts.ok, stats_of(&inner, "cpu").counts.ok), (1, 1));
}
