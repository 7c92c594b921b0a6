//! Checks that must hold for any input. `fuzz/` runs them under libFuzzer; here they run over its corpus (`fuzz/corpus`)
//! and over generated input.

// Helpers in an integration test count as test code.
#![allow(clippy::unwrap_used)]

mod admission;
mod config;
mod frames;
mod headers;
mod routes;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tower_offload::Reason;
use tower_offload::admission::{Bounds, Discipline, Limit, Settings, Timestamp};

use self::admission::{Call, Extreme, OUTCOMES};
use self::frames::{Script, Step};

/// Every input in the corpus of a fuzz target.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        // The published package has no corpus.
        return Vec::new();
    }
    let entries = fuzz.join("corpus").join(target).read_dir().unwrap();
    let inputs: Vec<_> = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!inputs.is_empty(), "nothing is kept for {target}");
    inputs
}

fn kept_text(target: &str) -> impl Iterator<Item = String> {
    kept(target).into_iter().filter_map(|input| String::from_utf8(input).ok())
}

#[test]
fn the_corpus_of_configurations_passes() {
    kept_text("config").for_each(|text| config::check(&text));
}

#[test]
fn the_corpus_of_routes_passes() {
    kept_text("routes").for_each(|text| routes::check(&text));
}

#[test]
fn the_corpus_of_headers_passes() {
    kept("headers").iter().for_each(|input| headers::check(input));
}

#[test]
fn the_corpus_of_admission_passes() {
    for input in kept("admission") {
        let (settings, seed, calls) = admission::decode(&input);
        admission::check(settings, seed, calls);
    }
}

#[test]
fn the_corpus_of_frames_passes() {
    kept("frames").iter().for_each(|input| frames::check(&frames::decode(input)));
}

/// A body of few or many steps, with a buffer that some of them fill.
fn scripts() -> impl Strategy<Value = Script> {
    let step = prop_oneof![
        6 => prop_oneof![Just(0), 1..200_u16, 1000..9000_u16].prop_map(Step::Data),
        3 => Just(Step::Wait),
        1 => any::<u8>().prop_map(Step::Trailers),
        1 => proptest::bool::weighted(0.2).prop_map(|fails| if fails { Step::Fail } else { Step::Wait }),
    ];
    let steps = prop_oneof![
        2 => proptest::collection::vec(step.clone(), 0..6),
        1 => proptest::collection::vec(step, 0..120),
    ];
    let buffer = prop_oneof![Just(0), 1..500_u16, 500..9000_u16];
    let leaves = proptest::option::weighted(0.3, 0..40_u8);
    (steps, any::<[bool; 3]>(), buffer, leaves).prop_map(|(steps, [exact, in_pool, hold], buffer, leaves_after)| {
        Script { steps, exact, in_pool, hold, buffer, leaves_after }
    })
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let (caller, deadline) = (proptest::option::weighted(0.3, 0..5_u64), proptest::option::weighted(0.3, 0..200_u64));
    let (waits, patient) = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.1));
    let offer = (0..4_usize, caller, deadline.clone(), waits, patient);
    let offer = offer.prop_map(|(level, caller, deadline, waits, patient)| Call::Offer {
        level,
        caller,
        deadline,
        waits,
        patient,
    });
    let outcome = (0..7_usize).prop_map(|which| OUTCOMES[which]);
    let ran = proptest::option::weighted(0.9, 0..50_u64);
    let finish = (any::<usize>(), outcome, ran).prop_map(|(which, outcome, ran)| Call::Finish(which, outcome, ran));
    let call = prop_oneof![
        400 => offer,
        200 => Just(Call::Take),
        100 => any::<usize>().prop_map(Call::Cancel),
        200 => finish,
        20 => any::<usize>().prop_map(Call::Ride),
        30 => (any::<usize>(), proptest::option::of(0..50_u64)).prop_map(|(which, ran)| Call::ReleasePermit(which, ran)),
        20 => deadline.prop_map(|deadline| Call::OfferRiding { deadline }),
        60 => (0..80_usize, any::<u64>()).prop_map(|(most, choice)| Call::TakeMore(most, choice)),
        60 => (any::<usize>(), 1..64_u32, proptest::option::of(0..50_u64))
            .prop_map(|(which, tasks, ran)| Call::FinishShared(which, tasks, ran)),
        100 => Just(Call::Expire),
        200 => (0..60_u64).prop_map(Call::Pass),
        10 => (0..5_usize).prop_map(Call::Limit),
        1 => (0..3_u64).prop_map(Call::Back),
        1 => Just(Call::Pass(3_600_000)),
        5 => Just(Call::Drain),
        10 => Just(Call::RejectAll(Reason::NoWorkers)),
    ];
    proptest::collection::vec(call, 1..400)
}

fn settings() -> impl Strategy<Value = Settings> {
    let limit = prop_oneof![
        (0..5_usize).prop_map(Limit::Fixed),
        (1..4_usize, 0..6_usize).prop_map(|(min, more)| Limit::Adaptive { min, max: min + more }),
    ];
    let discipline = prop_oneof![Just(Discipline::Fifo), Just(Discipline::Adaptive)];
    (limit, 0..20_usize, discipline).prop_map(|(limit, capacity, discipline)| {
        let short = Bounds { min: Duration::from_millis(1), max: Duration::from_millis(10) };
        let timeout = Duration::from_millis(100);
        Settings { limit, capacity, timeout, discipline, target: short, interval: short }
    })
}

/// Durations at their extremes, and some in between.
fn extreme_span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        (0..u64::MAX).prop_map(Duration::from_nanos),
        (0..100_u64).prop_map(Duration::from_millis),
        Just(Duration::MAX),
    ]
}

fn extreme_time() -> impl Strategy<Value = Timestamp> {
    let nanos = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>(), 0..1_000_000_000_u64,];
    nanos.prop_map(Timestamp::from_nanos)
}

fn extreme_limit() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(1), Just(2), 1..100_usize, Just(u32::MAX as usize), Just(usize::MAX)]
}

fn extreme_settings() -> impl Strategy<Value = Settings> {
    let limit = prop_oneof![
        extreme_limit().prop_map(Limit::Fixed),
        (extreme_limit(), extreme_limit()).prop_map(|(min, max)| Limit::Adaptive { min, max }),
    ];
    let bounds = || (extreme_span(), extreme_span()).prop_map(|(min, max)| Bounds { min, max });
    let discipline = prop_oneof![Just(Discipline::Fifo), Just(Discipline::Adaptive)];
    (limit, extreme_limit(), extreme_span(), discipline, bounds(), bounds()).prop_map(
        |(limit, capacity, timeout, discipline, target, interval)| Settings {
            limit,
            capacity,
            timeout,
            discipline,
            target,
            interval,
        },
    )
}

fn extreme_calls() -> impl Strategy<Value = Vec<Extreme>> {
    let caller = proptest::option::of(prop_oneof![Just(0), Just(u64::MAX), 0..3_u64]);
    let call = (extreme_time(), 0..12_u8, caller, proptest::option::of(extreme_time()), extreme_span());
    proptest::collection::vec(call, 1..120)
}

/// Pieces that a configuration is made of, and pieces that break one.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("performance:\n"),
        Just("  thread_pools:\n"),
        Just("    cpu_workers: 3\n"),
        Just("    cpu: {nice: 3}\n"),
        Just("    io: {concurrency: {min: 2, max: "),
        Just("    db: {queue_target: "),
        Just("    db:\n      trust: {deadline: "),
        Just("adaptive"),
        Just("  routes:\n"),
        Just("    GET /a/{x}: cpu\n"),
        Just("    '/{{{a}}}': io\n"),
        Just("general:\n"),
        Just("  verbose: true\n"),
        Just("app:\n"),
        Just("---\n"),
        Just("...\n"),
        Just("&a "),
        Just("*a"),
        Just("!!x "),
        Just("!<y> "),
        Just("!z "),
        Just("? "),
        Just(": "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(", "),
        Just("\n"),
        Just("  "),
        Just("\t"),
        Just("|\n"),
        Just(">-\n"),
        Just("'"),
        Just("\""),
        Just("# "),
        Just(".nan"),
        Just("-1"),
        Just("1e999"),
        Just("<<: "),
        Just("%TAG ! !!\n"),
        Just("\r\n"),
        Just("\u{feff}"),
        Just("ä"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just("\\"),
        Just("~"),
        Just("@"),
        Just("`"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Routes and paths of few letters, so that many paths match a route.
fn routes_and_paths() -> impl Strategy<Value = String> {
    let segment = "(a|b|ab|\\{a\\}|\\{b\\}|a\\{b\\}|\\{\\*a\\}|\\{\\{|\\}\\}|é|[a{}*:/é ]{0,3})";
    let pattern = format!("(GET |pOsT |HEAD )?/?{segment}(/{segment}){{0,3}}");
    let request = "(GET |POST |HEAD |PUT )?(/(a|b|ab|aba|\\{|\\}|é|[a-c%*]{0,3})){1,4}[?]?";
    let lines = (proptest::collection::vec(pattern.leak() as &str, 0..12), proptest::collection::vec(request, 0..12));
    lines.prop_map(|(patterns, requests)| [patterns, vec![String::new()], requests].concat().join("\n"))
}

/// Valid headers, and some that are malformed.
fn headers() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "d[ 0-9.]{0,12}(ns|us|ms|s|m|h|d|S|)",
        "d(86400|24h|1440m|86401|0*1s| 5 ms |1e3|-1|inf)",
        "g[0-9]{0,9}[HMSmuns]?",
        "p(critical|High|NORMAL|low|urgent|) ?",
        "capplication/grpc([+;-].*)?",
        "[dgpc][ -~é\t]{0,40}",
    ];
    let lines = proptest::collection::vec(line, 0..4);
    (0..64_u8, lines).prop_map(|(switches, lines)| [&[switches], lines.join("\n").as_bytes()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_in_one_state_and_answered_once(settings in settings(), calls in calls(), seed: u64) {
        admission::check(settings, seed, calls);
    }

    #[test]
    fn the_frames_of_a_body_arrive_in_their_order_and_every_permit_is_released(script in scripts()) {
        frames::check(&script);
    }

    #[test]
    fn extreme_times_and_settings_overflow_nothing(settings in extreme_settings(), calls in extreme_calls(), seed: u64) {
        admission::check_extremes(settings, seed, calls);
    }

    #[test]
    fn no_text_as_configuration_panics(text in any::<String>()) {
        config::check(&text);
    }

    #[test]
    fn no_yaml_panics(text in yaml_like()) {
        config::check(&text);
    }

    #[test]
    fn every_request_is_sent_to_the_pool_of_its_best_route(text in routes_and_paths()) {
        routes::check(&text);
    }

    #[test]
    fn a_simpler_parser_reads_the_same_terms_from_headers(input in headers()) {
        headers::check(&input);
    }

    #[test]
    fn a_simpler_parser_reads_the_same_terms_from_any_bytes(input in proptest::collection::vec(any::<u8>(), 0..64)) {
        headers::check(&input);
    }
}
