//! Configuration files: those that load, those that cannot be read, and those that attack the reader.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use serde::{Deserialize, Serialize};
use tower_offload::config::{
    BatchSettings, BodyPolicy, Concurrency, ConfigError, Cores, Malformed, OnDrain, Queue, QueueTarget, Route, RunBody,
    Trust, Workers,
};
use tower_offload::{Config, Cpu, Db, Embedding, Inference, Io, PoolConfig, Pools};

const FIRST_FORM: &str = "\
general:
  verbose: true
performance:
  workers: 4
  keep_alive_timeout: 30
  thread_pools:
    io_workers: 50
    cpu_workers: 30
    inference_workers: 20
    embedding_workers: 15
    db_workers: 25
";

fn refused(text: &str) -> ConfigError {
    match Config::from_yaml(text) {
        Ok(config) => panic!("was read as {config:?}"),
        Err(error) => error,
    }
}

#[test]
fn the_fixed_first_form_sets_every_key() {
    let config = Config::from_yaml(FIRST_FORM).unwrap();
    assert!(config.general.verbose);
    assert_eq!(config.performance.workers, Workers::Count(4));
    assert_eq!(config.performance.keep_alive_timeout, Duration::from_secs(30));
    let pools = &config.performance.thread_pools;
    assert_eq!(pools.get(Io), Some(&PoolConfig::new(50)));
    assert_eq!(pools.get(Cpu), Some(&PoolConfig::new(30)));
    assert_eq!(pools.get(Inference), Some(&PoolConfig::new(20)));
    assert_eq!(pools.get(Embedding), Some(&PoolConfig::new(15)));
    assert_eq!(pools.get(Db), Some(&PoolConfig::new(25)));
    assert_eq!(pools.iter().len(), 5);
}

#[test]
fn the_long_form_sets_every_key_and_unnamed_pools_keep_their_defaults() {
    let text = "\
performance:
  workers: auto
  cores: 3
  keep_alive_timeout: 1.5
  body_budget: 2GiB
  routes:
    post /v1/embeddings: embedding
    /files/{*path}: thumbnails
  thread_pools:
    cpu_workers: auto
    thumbnails:
      workers: 4
      concurrency: 8
      queue_capacity: 0
      queue_timeout: 250ms
      queue: fifo
      queue_target: 20ms
      keep_alive: 2m
      share: 3
      stack_size: 16MiB
      nice: -5
      trust:
        deadline: X-Request-Timeout
        grpc_timeout: true
        priority: x-priority
        malformed: reject
      body:
        run: pool
        hold: true
        buffer: 16KiB
        stall_timeout: 1.5
        on_drain: end
      max_streams: 100
      batch: {max_items: 64, max_weight: 8192}
    db:
      queue_timeout: \"0.5 s\"
server:
  host: '::1'
  port: 0
  shutdown_delay: 59m
  shutdown_timeout: 1h
  header_read_timeout: 1500us
  max_connection_age: 10m
";
    let config = Config::from_yaml(text).unwrap();
    let performance = &config.performance;
    assert_eq!(performance.workers, Workers::Auto);
    assert_eq!(performance.cores, Cores::Count(3));
    assert_eq!(performance.keep_alive_timeout, Duration::from_millis(1500));
    let thumbnails = PoolConfig::new(4)
        .concurrency(8)
        .queue_capacity(0)
        .queue_timeout(Duration::from_millis(250))
        .keep_alive(Duration::from_secs(120))
        .queue(Queue::Fifo)
        .queue_target(Duration::from_millis(20)..=Duration::from_millis(20))
        .share(3)
        .stack_size(16 * 1024 * 1024)
        .nice(-5)
        .trust(
            Trust::default()
                .deadline(HeaderName::from_static("x-request-timeout"))
                .grpc_timeout(true)
                .priority(HeaderName::from_static("x-priority"))
                .malformed(Malformed::Reject),
        )
        .body(
            BodyPolicy::in_pool()
                .hold()
                .buffer(16 * 1024)
                .stall_timeout(Duration::from_millis(1500))
                .on_drain(OnDrain::End),
        )
        .max_streams(100)
        .batch(BatchSettings::new().max_items(64).max_weight(8192));
    assert_eq!(performance.body_budget, 2 << 30);
    assert_eq!(performance.thread_pools.get("thumbnails"), Some(&thumbnails));
    assert_eq!(performance.thread_pools.get(Cpu), Some(&PoolConfig::auto()));
    assert_eq!(
        performance.thread_pools.get(Db),
        Some(&PoolConfig::new(25).queue_timeout(Duration::from_millis(500))),
        "what the long form leaves out keeps the pool's own default"
    );
    assert_eq!(performance.thread_pools.get(Io), Some(&PoolConfig::new(50)));
    assert_eq!(
        performance.routes,
        [Route::new("POST /v1/embeddings", Embedding).unwrap(), Route::new("/files/{*path}", "thumbnails").unwrap()]
    );
    assert_eq!(config.server.address(), "[::1]:0".parse().unwrap());
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(3600));
    assert_eq!(config.server.shutdown_delay, Duration::from_secs(3540));
    assert_eq!(config.server.header_read_timeout, Duration::from_micros(1500));
    assert_eq!(config.server.max_connection_age, Some(Duration::from_secs(600)));
}

#[test]
fn a_pool_is_adaptive_within_its_bounds_and_trusts_nobody_by_default() {
    let pool = PoolConfig::new(8);
    assert_eq!((pool.concurrency, pool.concurrency_limit()), (Concurrency::Workers, 8));
    assert_eq!(pool.queue, Queue::Adaptive);
    let QueueTarget { min, max, .. } = pool.queue_target;
    assert_eq!((min, max), (Duration::from_millis(5), Duration::from_secs(5)));
    assert_eq!(pool.trust, None);
    let Trust { deadline, grpc_timeout, priority, malformed, .. } = Config::default().performance.trust;
    assert_eq!((deadline, grpc_timeout, priority, malformed), (None, false, None, Malformed::Ignore));
}

#[test]
fn a_pool_without_trust_of_its_own_has_that_of_all_pools() {
    let yaml = "performance:\n  trust: {deadline: x-left, malformed: reject}\n  thread_pools:\n    cpu: {trust: {}}\n";
    let config = Config::from_yaml(yaml).unwrap();
    let expected = Trust::default().deadline(HeaderName::from_static("x-left")).malformed(Malformed::Reject);
    assert_eq!(config.performance.trust, expected);
    let of = |name: &str| config.performance.thread_pools.get(name).unwrap().trust.clone();
    assert_eq!((of("cpu"), of("io")), (Some(Trust::default()), None));
    assert_eq!(Config::from_yaml(&config.to_yaml().unwrap()).unwrap(), config);
    assert_eq!(Config::default().trust(expected.clone()).performance.trust, expected);
}

/// The pools of a file that lists them in no alphabetical order, and leaves out one built-in pool.
const ORDERED: &str = "\
performance:
  thread_pools:
    zip_workers: 2
    db_workers: 5
    archive: {workers: 1}
    embedding: none
    cpu: {workers: 3, queue_capacity: 7}
";

fn names(config: &Config) -> Vec<&str> {
    config.performance.thread_pools.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn pools_keep_the_order_of_the_file_and_the_built_in_ones_that_it_does_not_name_follow() {
    let config = Config::from_yaml(ORDERED).unwrap();
    let order = ["zip", "db", "archive", "cpu", "io", "inference"];
    assert_eq!(names(&config), order);
    let written = config.to_yaml().unwrap();
    assert_eq!(names(&Config::from_yaml(&written).unwrap()), order, "{written}");

    let pools = Pools::new(&config).unwrap();
    assert_eq!(pools.names().map(tower_offload::Workload::as_str).collect::<Vec<_>>(), order);
    assert_eq!(pools.stats().iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), order);
    for name in order {
        assert_eq!(pools.get(name).unwrap().name().as_str(), name);
    }
    assert_eq!(
        pools.get("embedding").unwrap_err().to_string(),
        "there is no pool `embedding`; the pools are `zip`, `db`, `archive`, `cpu`, `io`, `inference`"
    );
}

#[tokio::test]
async fn a_drain_is_reported_in_the_order_of_the_settings() {
    let pools = Pools::new(&Config::from_yaml(ORDERED).unwrap()).unwrap();
    let report = pools.shutdown(Duration::from_secs(30)).await;
    let order: Vec<_> = report.pools.iter().map(|drain| drain.pool.clone()).collect();
    assert_eq!(order, ["zip", "db", "archive", "cpu", "io", "inference"]);
    assert!(report.is_complete());
}

#[test]
fn a_builder_sets_the_cores_too() {
    Pools::builder().cores(3).build().unwrap();
    let error = Pools::builder().cores(0).build().unwrap_err();
    assert!(error.to_string().starts_with("performance.cores: 0 cores could never run a task"), "{error}");
}

#[test]
fn pools_added_in_code_follow_those_there_are() {
    let config = Config::default().pool("zip", PoolConfig::new(1)).pool(Cpu, PoolConfig::new(2));
    assert_eq!(names(&config), ["io", "cpu", "inference", "embedding", "db", "zip"]);
    let config = config.without_built_in_pools().pool("archive", PoolConfig::new(1));
    assert_eq!(names(&config), ["zip", "archive"]);
    let other = Config::default().without_built_in_pools().pool("archive", PoolConfig::new(1));
    assert_eq!(config, other.pool("zip", PoolConfig::new(1)), "the order is no difference");
}

#[test]
fn a_mistake_in_a_route_lists_the_pools_in_the_order_of_the_file() {
    let error = refused(&format!("{ORDERED}  routes:\n    /a: nowhere\n"));
    let listed = "`zip`, `db`, `archive`, `cpu`, `io` and `inference`";
    assert!(error.to_string().contains(listed), "{error}");
}

#[test]
fn a_built_in_pool_that_nobody_uses_can_be_left_out() {
    let config =
        Config::from_yaml("performance:\n  thread_pools: {inference: none, embedding: none, db: none}\n").unwrap();
    let names = |config: &Config| Pools::new(config).unwrap().names().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&config), ["io", "cpu"]);
    assert_eq!(Config::from_yaml(&config.to_yaml().unwrap()).unwrap(), config);
    let own = Config::default().pool("thumbnails", PoolConfig::new(1)).without_built_in_pools();
    assert_eq!(names(&own), ["thumbnails"]);
    assert_eq!(Config::from_yaml(&own.to_yaml().unwrap()).unwrap(), own);
    let kept = Config::default().without_built_in_pools().pool(Cpu, PoolConfig::new(1));
    assert_eq!(names(&kept), ["cpu"]);
    let mut pools = Config::default().performance.thread_pools;
    assert_eq!(pools.remove(Db), Some(PoolConfig::new(25)));
    assert_eq!(pools.remove(Db), None);
}

#[test]
fn an_adaptive_limit_lies_between_1_and_the_workers_unless_its_bounds_are_given() {
    let own = Workers::Auto.count();
    for (settings, expected) in [
        ("{concurrency: 40, workers: 4}", Concurrency::Fixed(40)),
        ("{concurrency: adaptive, workers: 4}", Concurrency::Adaptive { min: 1, max: 4 }),
        ("{workers: 4, concurrency: {}}", Concurrency::Adaptive { min: 1, max: 4 }),
        ("{workers: 4, concurrency: {min: 2}}", Concurrency::Adaptive { min: 2, max: 4 }),
        ("{workers: 4, concurrency: {max: 64}}", Concurrency::Adaptive { min: 1, max: 64 }),
        ("{workers: 4, concurrency: {min: 2, max: 64}}", Concurrency::Adaptive { min: 2, max: 64 }),
        ("{concurrency: adaptive}", Concurrency::Adaptive { min: 1, max: 30 }),
        ("{workers: auto, concurrency: adaptive}", Concurrency::Adaptive { min: 1, max: own }),
    ] {
        let text = format!("performance:\n  thread_pools:\n    cpu: {settings}\n");
        let config = Config::from_yaml(&text).unwrap();
        assert_eq!(config.performance.thread_pools.get(Cpu).unwrap().concurrency, expected, "{settings}");
    }
    assert_eq!(PoolConfig::new(4).adaptive_concurrency(2..=64).concurrency, Concurrency::Adaptive { min: 2, max: 64 });
    assert_eq!(PoolConfig::new(4).adaptive_concurrency(2..=64).concurrency_limit(), 64);
}

#[test]
fn a_bound_of_the_queue_target_that_is_left_out_keeps_its_default() {
    let (low, high) = (Duration::from_millis(5), Duration::from_secs(5));
    for (target, expected) in [
        ("20ms", Duration::from_millis(20)..=Duration::from_millis(20)),
        ("{}", low..=high),
        ("{min: 1}", Duration::from_secs(1)..=high),
        ("{max: 100ms}", low..=Duration::from_millis(100)),
        ("{max: 10s, min: 50ms}", Duration::from_millis(50)..=Duration::from_secs(10)),
    ] {
        let text = format!("performance:\n  thread_pools:\n    cpu: {{queue_target: {target}}}\n");
        let config = Config::from_yaml(&text).unwrap();
        let expected = QueueTarget::from(expected);
        assert_eq!(config.performance.thread_pools.get(Cpu).unwrap().queue_target, expected, "{target}");
    }
}

#[test]
fn the_configuration_at_the_root_begins_with_the_fixed_form_and_loads() {
    let text = include_str!("../config.yaml");
    let plain = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split(" #").next().unwrap_or_default().trim_end().to_owned())
            .filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'))
            .collect()
    };
    let fixed = plain(FIRST_FORM);
    assert_eq!(plain(text)[..fixed.len()], fixed[..]);
    let config = Config::load(concat!(env!("CARGO_MANIFEST_DIR"), "/config.yaml")).unwrap();
    assert_eq!(config, Config::from_yaml(text).unwrap());
    assert!(!config.performance.routes.is_empty());
}

#[test]
fn what_is_commented_out_in_the_configuration_at_the_root_can_be_switched_on() {
    let text: String = include_str!("../config.yaml")
        .lines()
        .map(|line| match line.find("#: ") {
            Some(at) => format!("{}{}\n", &line[..at], &line[at + 3..]),
            None => format!("{line}\n"),
        })
        .collect();
    let config = Config::from_yaml(&text).unwrap();
    let pools = &config.performance.thread_pools;
    let thumbnails = pools.get("thumbnails").unwrap();
    let target = QueueTarget::default();
    assert_eq!((thumbnails.queue, thumbnails.queue_target), (Queue::default(), target), "the defaults are shown");
    assert!(thumbnails.trust.as_ref().is_some_and(|trust| *trust != Trust::default()));
    assert_eq!((thumbnails.share, thumbnails.stack_size), (1, Some(2 << 20)), "these are the defaults as well");
    assert_eq!((&thumbnails.body, thumbnails.max_streams), (&BodyPolicy::default(), 0), "and these");
    assert_eq!(config.performance.body_budget, Config::default().performance.body_budget);
    assert_eq!(config.performance.cores, Cores::Auto);
    assert_eq!(pools.get("transcode"), Some(&PoolConfig::new(8).adaptive_concurrency(2..=64)));
}

#[test]
fn sections_without_content_keep_the_defaults() {
    let config =
        Config::from_yaml("general:\nperformance:\n  thread_pools:\n    # io_workers: 50\n  routes:\n").unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: there is no such file; create it, or name another", path.display()));
    assert!(error.source().is_some());
    assert_eq!(Config::load_or_default(&path).unwrap(), Config::default());

    std::fs::write(&path, "general: {verbos: true}").unwrap();
    let error = Config::load_or_default(&path).unwrap_err();
    assert_eq!(error.file(), Some(path.display().to_string().as_str()));
    assert_eq!((error.line(), error.column(), error.key()), (Some(1), Some(11), Some("general.verbos")));
}

#[test]
fn words_of_the_parser_are_in_the_message_and_no_cause_repeats_them() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    let refused = Config::from_yaml("app: {databse: x}\n").unwrap().app::<Nothing>().unwrap_err();
    assert!(refused.to_string().contains("unknown field `databse`"), "{refused}");
    for error in [refused, Config::from_yaml("general: [").unwrap_err()] {
        assert!(error.source().is_none(), "{error}: {}", error.source().unwrap());
    }
}

#[test]
fn defaults_in_place_of_a_missing_file_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let writer = std::sync::Arc::new(std::fs::File::create(&log).unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).without_time().finish();
    let missing = folder.path().join("config.yaml");
    tracing::subscriber::with_default(subscriber, || Config::load_or_default(&missing)).unwrap();
    let expected = format!(" INFO tower_offload: {} not found, using defaults\n", missing.display());
    assert_eq!(std::fs::read_to_string(log).unwrap(), expected);
}

#[test]
fn a_directory_is_named_as_one() {
    let folder = tempfile::tempdir().unwrap();
    for result in [Config::load(folder.path()), Config::load_or_default(folder.path())] {
        let error = result.unwrap_err();
        let expected = format!("{}: this is a directory; name the file in it", folder.path().display());
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn bytes_that_are_not_utf_8_have_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin1.yaml");
    std::fs::write(&path, b"general:\r\n  # \xc3\xa4 \xe4\r\n  verbose: true\r\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    let expected = format!("{}:2:7: the byte 0xe4 is not UTF-8; save the file as UTF-8", path.display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    assert!(Config::from_yaml("\u{feff}general: {verbose: true}\n").unwrap().general.verbose);
}

#[test]
fn all_mistakes_are_shown_at_once_in_the_order_of_the_file() {
    let error = refused("general: {verbose: 1}\nserver:\n  port: -1\nperformance:\n  workers: 0\n  workers: 1\n");
    let lines: Vec<_> = std::iter::once(&error).chain(error.others()).map(ConfigError::line).collect();
    assert_eq!(lines, [Some(1), Some(3), Some(5), Some(6)]);
    assert_eq!(error.to_string().lines().count(), 4);
}

#[test]
fn a_flood_of_mistakes_is_cut_short() {
    let mut text = "general:\n".to_owned();
    for index in 0..20_000 {
        let _ = writeln!(text, "  key{index}: 1");
    }
    let error = refused(&text);
    assert_eq!(error.others().len(), 16);
    assert_eq!(error.others()[15].message(), "19984 more mistakes follow");
}

#[test]
fn a_file_beyond_every_need_is_refused() {
    let error = refused(&"#".repeat(1024 * 1024 + 1));
    assert_eq!(error.to_string(), "<yaml>: this is larger than 1 MiB, which no configuration needs to be");
}

#[cfg(unix)]
#[test]
fn a_file_without_an_end_is_refused() {
    let error = Config::load("/dev/zero").unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
}

#[test]
fn brackets_without_end_are_refused_before_they_are_parsed() {
    for text in ["[".repeat(1_000_000), "{a: ".repeat(250_000)] {
        assert!(refused(&text).message().contains("more than 10000 brackets"));
    }
}

#[test]
fn an_empty_section_of_the_application_counts_as_none() {
    assert_eq!(Config::from_yaml("app:\n").unwrap(), Config::default());
    assert_eq!(
        Config::default().with_app([1]).unwrap_err().message(),
        "a list is not a mapping; write `key: value` lines"
    );
}

#[test]
fn aliases_that_explode_are_refused() {
    let mut text = "app:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(text, "  a{level}: &a{level} [{inner}]");
    }
    let error = refused(&text);
    assert!(error.message().contains("more than 50000 values"), "{error}");
    assert!(error.key().is_some_and(|key| key.starts_with("app.a")), "{error}");
    assert!(error.line().is_some());
}

#[test]
fn aliases_of_a_long_text_are_refused() {
    let text = format!("app:\n  a: &a {}\n  b: [{}]\n", "x".repeat(500_000), "*a, ".repeat(100));
    assert!(refused(&text).message().contains("more than 4 MiB of text"));
}

#[test]
fn an_alias_of_itself_is_refused() {
    assert!(refused("app: &a\n  b: *a\n").message().contains("nested more than 32 deep"));
}

#[test]
fn deep_nesting_is_refused() {
    for text in ["app: ".to_owned() + &"[".repeat(2_000), "app: ".to_owned() + &"{a: ".repeat(2_000)] {
        let error = refused(&text);
        assert!(error.line().is_some(), "{error}");
    }
    let mut block = String::new();
    for depth in 0..200 {
        let _ = writeln!(block, "{}a:", " ".repeat(depth));
    }
    let error = refused(&block.replacen("a:", "app:", 1));
    assert_eq!((error.line(), error.message().contains("32 deep")), (Some(33), true), "{error}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    database: String,
    #[serde(default)]
    files: Vec<Folder>,
    mode: Option<Mode>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Folder {
    path: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Mode {
    Fast(u8),
    Slow,
}

#[test]
fn the_application_reads_its_own_section() {
    let text = "app:\n  database: notes.db\n  mode: !Fast 3\ngeneral: {verbose: true}\n";
    let settings: Settings = Config::from_yaml(text).unwrap().app().unwrap();
    assert_eq!(settings, Settings { database: "notes.db".into(), files: vec![], mode: Some(Mode::Fast(3)) });
}

#[test]
fn what_the_application_refuses_has_its_place() {
    let cases = [
        (
            "general: {}\napp:\n  # c\n  databse: x\n",
            "<yaml>:4:3: app: unknown field `databse`, expected one of `database`, `files`, `mode`",
        ),
        (
            "app:\n  database: x\n  files:\n    - path: [3]\n",
            "<yaml>:4:13: app.files[0].path: invalid type: sequence, expected a string",
        ),
        ("\napp:\n  files: []\n", "<yaml>:3:3: app: missing field `database`"),
        ("general: {}\n", "<yaml>: app: missing field `database`; add the section `app` with what is missing"),
    ];
    for (text, expected) in cases {
        let error = Config::from_yaml(text).unwrap().app::<Settings>().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = Config::default().app::<Settings>().unwrap_err();
    assert_eq!(error.to_string(), "app: missing field `database`; add the section `app` with what is missing");
}

#[test]
fn the_section_of_the_application_can_be_set_in_code() {
    let settings =
        || Settings { database: "a: b\n".into(), files: vec![Folder { path: "x".into() }], mode: Some(Mode::Slow) };
    let config = Config::default().with_app(settings()).unwrap();
    assert_eq!(config.app::<Settings>().unwrap(), settings());
    let again = Config::from_yaml(&config.to_yaml().unwrap()).unwrap();
    assert_eq!(again, config);
    assert_eq!(again.app::<Settings>().unwrap(), settings());
}

#[test]
fn a_stack_has_a_size_in_bytes_or_in_binary_units() {
    for (text, expected) in [
        ("65536", 64 << 10),
        ("65537B", 65_537),
        ("512KiB", 512 << 10),
        ("'16 MiB'", 16 << 20),
        ("1GiB", 1 << 30),
        ("1048576KiB", 1 << 30),
    ] {
        let text = format!("performance:\n  thread_pools:\n    cpu: {{stack_size: {text}}}\n");
        let config = Config::from_yaml(&text).unwrap();
        let cpu = config.performance.thread_pools.get(Cpu).expect("it is built in");
        assert_eq!(cpu.stack_size, Some(expected), "{text}");
        assert_eq!(Config::from_yaml(&config.to_yaml().unwrap()).unwrap(), config);
    }
}

#[test]
fn bodies_are_polled_on_the_connection_and_hold_nothing_by_default() {
    let policy = PoolConfig::new(1).body;
    assert_eq!((policy.run, policy.hold, policy.buffer), (RunBody::Connection, false, 64 << 10));
    assert_eq!((policy.stall_timeout, policy.on_drain), (Duration::from_secs(30), OnDrain::Finish));
    assert_eq!(PoolConfig::new(1).max_streams, 0);
    assert_eq!(Config::default().performance.body_budget, 256 << 20);
}

#[test]
fn a_key_of_a_body_that_is_left_out_keeps_its_default() {
    let usual = BodyPolicy::on_connection;
    for (body, expected) in [
        ("{}", usual()),
        ("{run: connection}", usual()),
        ("{run: pool}", BodyPolicy::in_pool()),
        ("{hold: true}", usual().hold()),
        ("{buffer: 1KiB}", usual().buffer(1 << 10)),
        ("{buffer: 1073741824}", usual().buffer(1 << 30)),
        ("{stall_timeout: 250ms}", usual().stall_timeout(Duration::from_millis(250))),
        ("{on_drain: finish, stall_timeout: 30}", usual()),
        ("{on_drain: end}", usual().on_drain(OnDrain::End)),
    ] {
        let text = format!("performance:\n  thread_pools:\n    cpu: {{body: {body}}}\n");
        let config = Config::from_yaml(&text).unwrap();
        assert_eq!(config.performance.thread_pools.get(Cpu).unwrap().body, expected, "{body}");
        assert_eq!(Config::from_yaml(&config.to_yaml().unwrap()).unwrap(), config, "{body}");
    }
}

#[test]
fn a_limit_of_streams_is_written_and_read() {
    let config = Config::default().pool(Cpu, PoolConfig::new(1).max_streams(10_000_000)).body_budget(1 << 40);
    let text = config.to_yaml().unwrap();
    assert!(text.contains("\n      max_streams: 10000000\n") && text.contains("\n  body_budget: 1TiB\n"), "{text}");
    assert_eq!(Config::from_yaml(&text).unwrap(), config);
    Pools::builder().body_budget(1 << 20).build().unwrap();
    let error = Pools::builder().body_budget(0).build().unwrap_err();
    assert!(error.to_string().starts_with("performance.body_budget: 0B is less than 1MiB"), "{error}");
}

#[test]
fn bytes_at_the_end_of_a_body_are_not_lost_in_silence() {
    let farewell = OnDrain::EndWith(Bytes::from_static(b"event: close\n\n"));
    let pool = PoolConfig::new(1).body(BodyPolicy::in_pool().on_drain(farewell));
    let config = Config::default().pool("events", pool.clone()).pool("news", pool);
    config.validate().unwrap();
    let expected = "the bytes of `OnDrain::EndWith` cannot be written; set them in code, for the pool or for a layer";
    let error = config.to_yaml().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "performance.thread_pools.events.body.on_drain: {expected}\n\
             performance.thread_pools.news.body.on_drain: {expected}"
        )
    );
    assert_eq!(serde_json::to_value(&config).unwrap_err().to_string(), error.to_string());
}

#[test]
fn bodies_set_in_code_obey_the_same_rules() {
    let body = BodyPolicy::in_pool().buffer(1023).stall_timeout(Duration::ZERO);
    let config =
        Config::default().body_budget((1 << 40) + 1).pool(Cpu, PoolConfig::new(1).body(body).max_streams(10_000_001));
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "performance.body_budget: 1099511627777B is more than 1TiB; give a size from 1MiB to 1TiB, such as `256MiB`\n\
         performance.thread_pools.cpu.body.buffer: 1023B is less than 1KiB; give a size from 1KiB to 1GiB, such as \
         `64KiB`\n\
         performance.thread_pools.cpu.body.stall_timeout: 0 is no time at all; give a time from 1ms to 24h, such as \
         `30` (seconds) or `250ms`\n\
         performance.thread_pools.cpu.max_streams: 10000001 is more than 10000000; give a number from 0 to 10000000"
    );
}

#[test]
fn cores_are_auto_unless_a_number_is_given() {
    assert_eq!(Config::default().performance.cores, Cores::Auto);
    for (text, expected) in [("auto", Cores::Auto), ("1", Cores::Count(1)), ("4096", Cores::Count(4096))] {
        let config = Config::from_yaml(&format!("performance: {{cores: {text}}}\n")).unwrap();
        assert_eq!(config.performance.cores, expected);
    }
    let written = Config::default().cores(3).to_yaml().unwrap();
    assert!(written.contains("\n  cores: 3\n"), "{written}");
}

#[test]
fn cores_shares_and_stacks_built_in_code_obey_the_same_rules() {
    let config = Config::default().cores(0).pool(Cpu, PoolConfig::new(1).share(1001).stack_size(1 << 31));
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "performance.cores: 0 cores could never run a task; give a number from 1 to 4096, or `auto`\n\
         performance.thread_pools.cpu.share: 1001 is more than 1000; give a number from 1 to 1000\n\
         performance.thread_pools.cpu.stack_size: 2GiB is more than 1GiB; give a size from 64KiB to 1GiB, such as \
         `16MiB`"
    );
}

#[test]
fn a_delay_built_in_code_must_be_shorter_than_the_timeout() {
    let mut config = Config::default();
    config.server.shutdown_delay = config.server.shutdown_timeout;
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "server.shutdown_delay: 25s is not less than `shutdown_timeout`, which is 25s and includes this delay; give less, \
         or raise `shutdown_timeout`"
    );
    config.server.shutdown_delay -= Duration::from_millis(1);
    config.validate().unwrap();
}

#[test]
fn values_built_in_code_obey_the_same_rules() {
    let config = Config::default()
        .pool("Thumbs", PoolConfig::new(0).queue_timeout(Duration::ZERO).nice(40))
        .route(Route::new("GET /a/{x}", "nowhere").unwrap())
        .route(Route::new("GET /a/{y}", Cpu).unwrap());
    let error = config.validate().unwrap_err();
    assert_eq!(
        error.to_string(),
        "performance.thread_pools.Thumbs: \"Thumbs\" is no name for a pool; use a lower-case letter, then lower-case \
         letters, digits, `_` and `-`\n\
         performance.thread_pools.Thumbs.workers: 0 workers could never run a task; give a number from 1 to 4096, or \
         `auto`\n\
         performance.thread_pools.Thumbs.queue_timeout: 0 is no time at all; give a time from 1ms to 24h, such as \
         `30` (seconds) or `250ms`\n\
         performance.thread_pools.Thumbs.nice: 40 is more than 19; give a number from -20 to 19\n\
         performance.routes.GET /a/{x}: there is no pool `nowhere`; the pools are `io`, `cpu`, \
         `inference`, `embedding`, `db` and `Thumbs`\n\
         performance.routes.GET /a/{y}: this is the same route as `GET /a/{x}`; keep one of the two"
    );
    assert_eq!(config.to_yaml().unwrap_err().to_string(), error.to_string());
    assert!(PoolConfig::new(1).validate("a_workers").is_err());
}

#[test]
fn settings_for_overload_built_in_code_obey_the_same_rules() {
    let header = HeaderName::from_static;
    let (low, high) = (Duration::from_micros(1), Duration::from_secs(60));
    let (few, many) = (3, 1_000_001);
    for (pool, expected) in [
        (
            PoolConfig::new(1).concurrency(0),
            "concurrency: a limit of 0 would admit no task; give a number from 1 to 1000000, `adaptive`, or bounds \
             such as `{min: 2, max: 64}`",
        ),
        (
            PoolConfig::new(1).adaptive_concurrency(many..=few),
            "concurrency: `min` 1000001 is more than `max` 3; give both, the smaller one as `min`\n\
             performance.thread_pools.own.concurrency.min: 1000001 is more than 1000000; give a number from 1 \
             to 1000000",
        ),
        (
            PoolConfig::new(1).adaptive_concurrency(0..=few),
            "concurrency.min: a limit of 0 would admit no task; give a number from 1 to 1000000",
        ),
        (
            PoolConfig::new(1).adaptive_concurrency(few..=many),
            "concurrency.max: 1000001 is more than 1000000; give a number from 1 to 1000000",
        ),
        (
            PoolConfig::new(1).queue_target(high..=high - low),
            "queue_target: `min` 60s is more than `max` 59999999us; give both, the smaller one as `min`",
        ),
        (
            PoolConfig::new(1).queue_target(low..=high),
            "queue_target.min: 1us is shorter than 1ms; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
        ),
        (
            PoolConfig::new(1).queue_target(high..=high * 60 * 25),
            "queue_target.max: 90000s is longer than 24h; give a time from 1ms to 24h, such as `30` (seconds) or \
             `250ms`",
        ),
        (
            PoolConfig::new(1).trust(Trust::default().priority(header("grpc-timeout"))),
            "trust.priority: `grpc-timeout` is read in a way of its own; write `grpc_timeout: true` for it",
        ),
        (
            PoolConfig::new(1).trust(Trust::default().deadline(header("x-a")).priority(header("x-a"))),
            "trust.priority: `x-a` is also the header of `deadline`; give each its own",
        ),
    ] {
        let error = pool.validate("own").unwrap_err();
        assert_eq!(error.to_string(), format!("performance.thread_pools.own.{expected}"));
    }
}

#[test]
fn pools_that_differ_in_their_workers_alone_are_written_in_short() {
    let config = Config::default().pool(Cpu, PoolConfig::new(7)).pool(Io, PoolConfig::auto().nice(3));
    let text = config.to_yaml().unwrap();
    assert!(text.contains("    cpu_workers: 7\n"), "{text}");
    assert!(text.contains("    io:\n      workers: auto\n"), "{text}");
    assert_eq!(Config::from_yaml(&text).unwrap(), config);
}
