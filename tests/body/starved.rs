//! Queued requests take no flow control from the other requests of their HTTP/2 connection.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use http::{Request, StatusCode};
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

use crate::fixtures::{Gate, http2_client, in_time, serve, stats_of, until, whole};

/// axum gives a connection a window of 1 MiB. Five of these bodies fill it if they stay unread.
#[tokio::test]
async fn queued_uploads_delay_no_other_request_of_their_connection() {
    const LENGTH: usize = 200_000;
    let pools = Pools::builder().pool("cpu", PoolConfig::new(2)).build().unwrap();
    let gate = Gate::new();
    let holding = gate.clone();
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1 << 20));
    let length = async |body: Bytes| body.len().to_string();
    let app = Router::new()
        .route("/hold", post(async move || holding.pass().await))
        .route("/pool", post(length))
        .layer(layer)
        .route("/inline", post(length));
    let (address, client) = (serve(app).await, http2_client());
    let send = |path: &str| {
        let frames: Vec<_> = vec![0; LENGTH].chunks(1 << 14).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
        let body = Body::from_stream(tokio_stream::iter(frames));
        let request = Request::post(format!("http://{address}{path}")).body(body).unwrap();
        let client = client.clone();
        tokio::spawn(async move { whole(client.request(request).await.unwrap()).await })
    };
    let held = [send("/hold"), send("/hold")];
    gate.arrived(2).await;
    let queued: Vec<_> = (0..20).map(|_| send("/pool")).collect();
    until(|| stats_of(&pools, "cpu").queued_tasks == 20).await;
    assert_eq!(in_time(send("/inline")).await.unwrap().body(), "200000");
    gate.open(2);
    for response in held {
        assert_eq!(in_time(response).await.unwrap().status(), StatusCode::OK);
    }
    for response in queued {
        assert_eq!(in_time(response).await.unwrap().body(), "200000");
    }
}
