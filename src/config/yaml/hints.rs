//! Guesses for messages: the key or the pool that was probably meant.

use crate::config::nearest::{list, nearest};

pub(super) const ROOT: &[&str] = &["general", "performance", "server", "app"];
pub(super) const GENERAL: &[&str] = &["verbose"];
pub(super) const PERFORMANCE: &[&str] = &[
    "workers",
    "cores",
    "keep_alive_timeout",
    "body_budget",
    "scale_by",
    "scale_target",
    "thread_pools",
    "trust",
    "routes",
];
pub(super) const SERVER: &[&str] =
    &["host", "port", "shutdown_delay", "shutdown_timeout", "header_read_timeout", "max_connection_age"];
pub(super) const POOL: &[&str] = &[
    "workers",
    "concurrency",
    "queue_capacity",
    "queue_timeout",
    "queue",
    "queue_target",
    "keep_alive",
    "share",
    "stack_size",
    "nice",
    "trust",
    "batch",
    "body",
    "max_streams",
];
pub(super) const BATCH: &[&str] = &["max_items", "max_weight"];
pub(super) const BODY: &[&str] = &["run", "hold", "buffer", "stall_timeout", "on_drain"];
pub(super) const TRUST: &[&str] = &["deadline", "grpc_timeout", "priority", "malformed"];

/// The numbers and times that are not set by default.
pub(super) const OPTIONAL: &[&str] = &["max_connection_age", "max_weight"];

/// The keys of every section, and where they belong.
const PLACES: [(&[&str], &str); 8] = [
    (ROOT, "at the top level"),
    (GENERAL, "under `general`"),
    (PERFORMANCE, "under `performance`"),
    (SERVER, "under `server`"),
    (POOL, "to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`"),
    (TRUST, "under `trust`, of a pool or of `performance`"),
    (BATCH, "under `batch` of a pool"),
    (BODY, "under `body` of a pool"),
];

pub(super) const BUILT_IN: [&str; 5] = ["io", "cpu", "inference", "embedding", "db"];

/// The message about a key that is not among `known`, the keys of its section.
pub(super) fn unknown_key(given: &str, known: &[&str]) -> String {
    if given.contains('/') {
        return "a route belongs under `performance.routes`".to_owned();
    }
    if known != POOL
        && let Some(message) = pool_elsewhere(given, known)
    {
        return message;
    }
    if given == "threads" {
        return if known.contains(&"workers") { did_you_mean(&["workers"]) } else { elsewhere("workers") };
    }
    let slip = |key: &&&str| given.len() > 5 && strsim::damerau_levenshtein(given, key) <= 2;
    if let Some(key) = known.iter().find(slip) {
        return did_you_mean(&[key]);
    }
    // `keep_alive` of a pool and `keep_alive_timeout` of connections are taken for each other.
    if !given.starts_with("keep_alive")
        && let Some(place) = place_of(given)
    {
        return format!("this key belongs {place}");
    }
    let related = related(given, known);
    if !related.is_empty() {
        return did_you_mean(&related);
    }
    if given == "keep_alive" && known != TRUST {
        return elsewhere("keep_alive_timeout");
    }
    if let Some(place) = place_of(given) {
        return format!("this key belongs {place}");
    }
    if let Some(near) = nearest(given, known) {
        return did_you_mean(&[near]);
    }
    if let Some(key) = meant_elsewhere(given) {
        return elsewhere(key);
    }
    let are = if known.len() == 1 { "key here is" } else { "keys here are" };
    format!("this key is unknown; the {are} {}", list(known))
}

/// The message about a key of `thread_pools` with a number for a value, such as `cpu: 4`, which needs the suffix
/// `_workers`.
pub(super) fn short_form(given: &str) -> Option<String> {
    if matches!(given, "workers" | "threads") {
        let why = "this does not say of which pool; write `NAME_workers`, such as `cpu_workers`";
        return Some(format!("{why} (the threads that serve connections are `performance.workers`)"));
    }
    if BUILT_IN.contains(&given) {
        return None;
    }
    if let Some(place) = place_of(given) {
        return Some(format!("this key belongs {place}"));
    }
    if let Some((name, key)) = pool_and_key(given) {
        return Some(format!("`{key}` of a pool belongs in its long form; write `{name}: {{{key}: ...}}`"));
    }
    let short: Vec<String> = BUILT_IN.iter().map(|name| format!("{name}_workers")).collect();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let workers = |word: &str| nearest(word, &["workers", "threads", "thread"]).is_some();
    let of = |name: &str| format!("{}_workers", built_in_meant_by(name).unwrap_or(name).escape_debug());
    let meant = match (given.rsplit_once(['_', '-']), given.split_once(['_', '-'])) {
        (Some((name, last)), _) if !name.is_empty() && workers(last) => of(name),
        (_, Some((first, name))) if !name.is_empty() && workers(first) => of(name),
        _ => match built_in_meant_by(given) {
            Some(built_in) => of(built_in),
            None => nearest(given, &short)?.to_owned(),
        },
    };
    Some(did_you_mean(&[&meant]))
}

/// A pool and one of its keys, if `given` joins the two as `cpu_queue_capacity` does.
///
/// Keys of a single word count after a built-in pool alone, because `fast_queue` may be the name of a pool. `workers` has
/// a short form.
fn pool_and_key(given: &str) -> Option<(&str, &'static str)> {
    POOL.iter().filter(|key| **key != "workers").find_map(|key| {
        let name = given.strip_suffix(key)?.strip_suffix(['_', '-'])?;
        let is_key = if key.contains('_') { !name.is_empty() } else { BUILT_IN.contains(&name) };
        is_key.then_some((name, *key))
    })
}

/// The built-in pool that was probably meant by a name which differs by a letter or two, or by a plural.
///
/// For names of up to three letters, only plurals and swapped letters count, because `gpu`, `id` and `vdb` are words
/// themselves. Two different letters count only if the first letter is the same: `reference` is not `inference`.
pub(super) fn built_in_meant_by(given: &str) -> Option<&'static str> {
    if let Some(name) = BUILT_IN.into_iter().find(|name| *name == given) {
        return Some(name);
    }
    let lower = given.to_ascii_lowercase();
    let near = |given: &str, name: &str| match name.len() {
        ..=3 => sorted(given) == sorted(name),
        _ => {
            strsim::damerau_levenshtein(given, name)
                <= 1 + usize::from(given.as_bytes().first() == name.as_bytes().first())
        }
    };
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    BUILT_IN.into_iter().find(|name| near(&lower, name) || near(singular, name))
}

/// Whether this is the name of a built-in pool.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// The message about a key such as `cpu` or `cpu_workers` outside `thread_pools`.
fn pool_elsewhere(given: &str, known: &[&str]) -> Option<String> {
    let pools = "under `performance.thread_pools`";
    if BUILT_IN.contains(&given) {
        return Some(format!("this key belongs {pools}"));
    }
    let name = given.strip_suffix("_workers")?;
    Some(match built_in_meant_by(name) {
        Some(built_in) if built_in == name => format!("this key belongs {pools}"),
        Some(built_in) => {
            format!("this key is unknown; did you mean `{built_in}_workers`, which belongs {pools}?")
        }
        None if known.contains(&"workers") => {
            format!("the workers of a pool belong {pools}; the threads that serve connections are `workers`")
        }
        None => format!("the workers of a pool belong {pools}"),
    })
}

/// The key of another section that was probably meant.
fn meant_elsewhere(given: &str) -> Option<&'static str> {
    let all: Vec<&str> = PLACES.into_iter().flat_map(|(keys, _)| keys).copied().collect();
    let last = given.rsplit('.').next().filter(|last| *last != given);
    if let Some(key) = all.iter().find(|key| Some(**key) == last) {
        return Some(key);
    }
    if let [key] = related(given, &all)[..] {
        return Some(key);
    }
    // Short words resemble each other by chance: `cookies` and `cores` differ in a third of their letters.
    nearest(given, &all).filter(|key| given.len() > 5 && key.len() > 5)
}

fn elsewhere(key: &str) -> String {
    let place = place_of(key).unwrap_or_default();
    format!("this key is unknown; did you mean `{key}`, which belongs {place}?")
}

/// The section that a key belongs to, if there is one.
pub(super) fn place_of(key: &str) -> Option<&'static str> {
    PLACES.iter().find(|(keys, _)| keys.contains(&key)).map(|(_, place)| *place)
}

/// The known keys that contain `given` as whole words; or, if `given` contains a known key, those that contain that
/// key.
fn related<'a>(given: &str, known: &[&'a str]) -> Vec<&'a str> {
    let holds = |long: &str, short: &str| format!("_{long}_").contains(&format!("_{short}_"));
    let held = known.iter().filter(|key| holds(given, key)).max_by_key(|key| key.len());
    let word = held.map_or(given, |key| *key);
    known.iter().copied().filter(|key| holds(key, word)).collect()
}

fn sorted(word: &str) -> Vec<u8> {
    let mut letters = word.as_bytes().to_vec();
    letters.sort_unstable();
    letters
}

fn did_you_mean(keys: &[&str]) -> String {
    let one_of = if keys.len() > 1 { "one of " } else { "" };
    format!("this key is unknown; did you mean {one_of}{}?", list(keys))
}
