
/// A service in the pool that all tests share. It reads request bodies first, has those of responses polled by workers,
/// and holds permits until they end.
pub(crate) fn around<S, B>(service: S) -> Pooled<S::Error>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    use tower_offload::body::{BodyPolicy, Buffered, ReadBody};
    static POOLS: std::sync::LazyLock<tower_offload::Pools> = std::sync::LazyLock::new(tower_offload::Pools::default);
    let layer = tower_offload::PoolLayer::<tower_offload::Cpu>::new(&POOLS)
        .read_body(ReadBody::new(16 << 20))
        .body(BodyPolicy::in_pool().hold());
    let inner = tower::util::MapRequest::new(service, |request: http::Request<Buffered<Body>>| request.map(Body::new));
    let pooled = tower_layer::Layer::layer(&layer, inner);
    Pooled::new(tower::util::MapResponse::new(pooled, |response: http::Response<_>| response.map(Body::new)))
}

/// A handler in the pool.
pub(crate) fn pooled<F, Fut, B, E>(handler: F) -> Pooled<E>
where
    F: FnMut(http::Request<Body>) -> Fut + Clone + Send + Sync + 'static,
    Fut: std::future::Future<Output = Result<http::Response<B>, E>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Send + 'static,
{
    around(tower::service_fn(handler))
}

pub(crate) type Pooled<E> = tower::util::BoxCloneSyncService<http::Request<Body>, http::Response<Body>, E>;

#[tokio::test]
async fn handlers_run_in_the_pool() {
    let thread = |_| async {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(name)))
    };
    let response = tower::ServiceExt::oneshot(pooled(thread), http::Request::new(Body::empty())).await.unwrap();
    let name = to_bytes(response.into_body()).await.unwrap();
    assert!(name.starts_with(b"offload-cpu-"), "{}", String::from_utf8_lossy(&name));
}
