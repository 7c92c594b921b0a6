//! Queued requests take no flow control from the other requests of their HTTP/2 connection.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use http::{Request, StatusCode};
use tower_offload::body::ReadBody;
use tower_offload::{Cpu, PoolConfig, PoolLayer, Pools};

use crate::fixtures::{http2_client, in_time, serve, whole};

/// axum gives a connection a window of 1 MiB, which the unread bodies of five requests fill.
#[tokio::test]
async fn twenty_uploads_on_one_connection_are_all_answered_by_two_workers() {
    const LENGTH: usize = 200_000;
    let pools = Pools::builder().pool("cpu", PoolConfig::new(2)).build().unwrap();
    let layer = PoolLayer::<Cpu>::new(&pools).read_body(ReadBody::new(1 << 20));
    let handler = async |body: Bytes| body.len().to_string();
    let app = Router::new().route("/pool", post(handler).layer(layer)).route("/inline", post(handler));
    let (address, client) = (serve(app).await, http2_client());
    let uploads: Vec<_> = (0..20)
        .map(|number| {
            // One of them needs no pool.
            let path = if number == 7 { "inline" } else { "pool" };
            let frames: Vec<_> = vec![0; LENGTH].chunks(1 << 14).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
            let body = Body::from_stream(tokio_stream::iter(frames));
            let request = Request::post(format!("http://{address}/{path}")).body(body).unwrap();
            let client = client.clone();
            tokio::spawn(async move { client.request(request).await.unwrap() })
        })
        .collect();
    for upload in uploads {
        let response = whole(in_time(upload).await.unwrap()).await;
        assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "200000"));
    }
}
