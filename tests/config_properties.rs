//! Properties of every configuration: what is written is read as it was.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;
use proptest::prelude::*;
use tower_offload::config::{
    BodyPolicy, Concurrency, Cores, Malformed, OnDrain, Queue, Route, RunBody, Trust, Workers,
};
use tower_offload::{Config, PoolConfig};

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_000_000u64..=86_400_000_000_000).prop_map(Duration::from_nanos),
        (1u64..=86_400_000).prop_map(Duration::from_millis),
        (1u64..=86_400).prop_map(Duration::from_secs),
    ]
}

fn workers(most: usize) -> impl Strategy<Value = Workers> {
    prop_oneof![Just(Workers::Auto), (1..=most).prop_map(Workers::Count)]
}

fn concurrency() -> impl Strategy<Value = Concurrency> {
    prop_oneof![
        Just(Concurrency::Workers),
        (1usize..=1_000_000).prop_map(Concurrency::from),
        (1usize..=1_000_000, 1usize..=1_000_000).prop_map(|(one, other)| (one.min(other)..=one.max(other)).into()),
    ]
}

const KIB: usize = 1024;

/// A size from `min` to `max`, which are whole numbers of KiB.
fn size(min: usize, max: usize) -> impl Strategy<Value = usize> {
    let mib = KIB * KIB;
    prop_oneof![
        min..=max,
        (min / KIB..=max / KIB).prop_map(|size| size * KIB),
        (min.div_ceil(mib)..=max / mib).prop_map(move |size| size * mib)
    ]
}

fn cores() -> impl Strategy<Value = Cores> {
    prop_oneof![Just(Cores::Auto), (1..=4096_usize).prop_map(Cores::Count)]
}

fn header() -> impl Strategy<Value = HeaderName> {
    "(true|null|on|~|e5|012|[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12})"
        .prop_map(|name| HeaderName::from_bytes(name.as_bytes()).expect("these are the characters of a header's name"))
}

prop_compose! {
    fn trust()(
        deadline in proptest::option::of(header()),
        grpc_timeout in any::<bool>(),
        priority in proptest::option::of(header()),
        reject in any::<bool>(),
    ) -> Trust {
        let malformed = if reject { Malformed::Reject } else { Malformed::Ignore };
        let mut trust = Trust::default().grpc_timeout(grpc_timeout).malformed(malformed);
        trust.priority = priority.filter(|header| deadline.as_ref() != Some(header));
        trust.deadline = deadline;
        trust
    }
}

prop_compose! {
    fn body()(
        in_pool in any::<bool>(),
        hold in any::<bool>(),
        buffer in prop_oneof![Just(64 * KIB), size(KIB, KIB * KIB * KIB)],
        stall_timeout in time(),
        end in any::<bool>(),
    ) -> BodyPolicy {
        let mut body = BodyPolicy::default();
        body.run = if in_pool { RunBody::Pool } else { RunBody::Connection };
        body.hold = hold;
        body.buffer = buffer;
        body.stall_timeout = stall_timeout;
        body.on_drain = if end { OnDrain::End } else { OnDrain::Finish };
        body
    }
}

prop_compose! {
    fn pool()(
        workers in workers(4096),
        concurrency in concurrency(),
        queue in 0usize..=1_000_000,
        timeout in time(),
        fifo in any::<bool>(),
        targets in (time(), time(), any::<bool>()),
        keep_alive in time(),
        share in prop_oneof![Just(1), 1u32..=1000],
        stack_size in proptest::option::of(size(64 * KIB, KIB * KIB * KIB)),
        nice in proptest::option::of(-20i32..=19),
        trust in proptest::option::of(trust()),
        streams in (proptest::option::of(body()), prop_oneof![Just(0), 0usize..=10_000_000]),
        plain in any::<bool>(),
    ) -> PoolConfig {
        let mut pool = PoolConfig::auto();
        pool.workers = workers;
        if !plain {
            pool.concurrency = concurrency;
            pool.queue_capacity = queue;
            pool.queue_timeout = timeout;
            pool.queue = if fifo { Queue::Fifo } else { Queue::Adaptive };
            let (one, other, equal) = targets;
            pool = pool.queue_target(one.min(other)..=if equal { one.min(other) } else { one.max(other) });
            pool.keep_alive = keep_alive;
            pool.share = share;
            pool.stack_size = stack_size;
            pool.nice = nice;
            pool.trust = trust;
            let (body, max_streams) = streams;
            pool.body = body.unwrap_or_default();
            pool.max_streams = max_streams;
        }
        pool
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["(io|cpu|inference|embedding|db|cpus|inferense|true|null|on|y|e5)", "[a-z][a-z0-9_-]{0,20}"]
        .prop_filter("that ending is taken", |name: &String| name != "workers" && !name.ends_with("_workers"))
}

fn pattern() -> impl Strategy<Value = String> {
    "((GET|POST|DELETE|propfind) )?/[a-z'\"!&*:,.ä-]{0,6}(/\\{[a-z]{1,4}\\})?(/[a-z#]{1,4})?(/\\{\\*[a-z]{1,4}\\})?"
}

fn app() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[ -~äöü\n\t]{0,12}".prop_map(Into::into),
        "(true|null|~|0x1f|1e3|\\.nan|!!str a|!x|<<|- a|a: b|#c|'|\"|yes|012|--- a)".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[ -~]{0,6}", inner, 0..4)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn config()(
        verbose in any::<bool>(),
        workers in workers(1024),
        (cores, body_budget) in (cores(), size(KIB * KIB, KIB * KIB * KIB * KIB)),
        (scale_target, scale_by) in (0.05_f64..=1.0, proptest::sample::subsequence(vec!["io", "cpu", "db"], 0..=3)),
        times in [time(), time(), time()],
        delay in 0.0..1.0,
        age in proptest::option::of(time()),
        host in any::<IpAddr>(),
        port in any::<u16>(),
        pools in proptest::collection::hash_map(name(), pool(), 0..5),
        patterns in proptest::collection::vec((pattern(), any::<proptest::sample::Index>()), 0..6),
        app in proptest::option::of(proptest::collection::btree_map("[ -~]{0,6}", app(), 0..4)),
    ) -> Config {
        let mut config = Config::default().verbose(verbose);
        config.performance.workers = workers;
        config.performance.cores = cores;
        config.performance.body_budget = body_budget;
        config = config.scale_by(scale_by).scale_target(scale_target);
        [config.performance.keep_alive_timeout, config.server.shutdown_timeout, config.server.header_read_timeout]
            = times;
        let delay = config.server.shutdown_timeout.mul_f64(delay);
        if (Duration::from_millis(1)..config.server.shutdown_timeout).contains(&delay) {
            config.server.shutdown_delay = delay;
        }
        config.server.max_connection_age = age;
        config.server.host = host;
        config.server.port = port;
        for (name, pool) in pools {
            config = config.pool(name, pool);
        }
        let names: Vec<_> = config.performance.thread_pools.iter().map(|(name, _)| name.clone()).collect();
        for (pattern, index) in patterns {
            let Ok(route) = Route::new(&pattern, index.get(&names)) else { continue };
            let with_it = config.clone().route(route);
            if with_it.validate().is_ok() {
                config = with_it;
            }
        }
        match app {
            Some(app) => config.with_app(app).expect("JSON is YAML"),
            None => config,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_as_it_was(config in config()) {
        let text = config.to_yaml().unwrap();
        let read = Config::from_yaml(&text).map_err(|error| format!("{error}\n{text}"));
        prop_assert_eq!(read.as_ref(), Ok(&config));
        let names = |config: &Config| config.performance.thread_pools.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(read.as_ref().map(names), Ok(names(&config)));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = Config::load(&path) {
            prop_assert!(error.file().is_some());
        }
    }

    #[test]
    fn times_are_read_in_every_unit(count in 1u64..=24, unit in 0usize..6) {
        let (name, nanos, scale) = [
            ("ns", 1, 1_000_000), ("us", 1_000, 1_000), ("ms", 1_000_000, 1), ("s", 1_000_000_000, 1),
            ("m", 60_000_000_000, 1), ("h", 3_600_000_000_000, 1),
        ][unit];
        let text = format!("performance:\n  keep_alive_timeout: {}{name}\n", count * scale);
        let config = Config::from_yaml(&text).unwrap();
        prop_assert_eq!(config.performance.keep_alive_timeout, Duration::from_nanos(count * scale * nanos));
    }
}
