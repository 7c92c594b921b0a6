
/// The layer of a pool that all services share. It reads request bodies first, has those of responses polled by workers,
/// and holds permits until they end.
fn offload() -> tower_offload::PoolLayer<
    tower_offload::select::Fixed,
    tower_offload::reject::Responses,
    tower_offload::reject::Http,
    tower_offload::body::ReadBody,
> {
    static POOLS: std::sync::LazyLock<tower_offload::Pools> = std::sync::LazyLock::new(tower_offload::Pools::default);
    let layer = tower_offload::PoolLayer::<tower_offload::Cpu>::new(&POOLS);
    layer
        .read_body(tower_offload::body::ReadBody::new(64 << 20))
        .body(tower_offload::body::BodyPolicy::in_pool().hold())
}
