//! Visits the nodes of a file, fills the settings and collects every mistake.

use std::collections::{HashMap, HashSet};

use super::hints;
use super::tree::{Data, Node, join};
use super::values::{bytes, cores, flag, host, port, scale_target, time, time_or_zero, workers, wrong};
use crate::config::byte_size;
use crate::config::nearest::list;
use crate::config::pool::{PoolConfig, ThreadPools, Workers};
use crate::config::route::{self, Route};
use crate::config::rules;
use crate::config::scale;
use crate::config::settings::{Config, General, Performance, ServerConfig};
use crate::workload::Workload;

/// A mistake at a node.
#[derive(Debug)]
pub(super) struct Mistake {
    /// The node's number.
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) message: String,
    /// The number of another node, whose line becomes part of the message.
    pub(super) other: Option<usize>,
}

/// The settings, and the mistakes in them. If there are mistakes, the settings must not be used.
pub(super) fn read(root: &Node) -> (Config, Vec<Mistake>) {
    let mut reader = Reader::default();
    reader.find_doubled(root, "");
    let config = reader.config(root);
    let mut mistakes = reader.mistakes;
    mistakes.sort_by_key(|mistake| mistake.at);
    (config, mistakes)
}

/// The value of the entry `app`, which the application reads. An empty section counts as none.
pub(super) fn app(root: &Node) -> Option<&Node> {
    let Data::Mapping(entries) = &root.data else { return None };
    entries
        .iter()
        .find(|(key, _)| matches!(&key.data, Data::Text(text) if text == "app"))
        .map(|(_, value)| value)
        .filter(|value| !matches!(value.data, Data::Null))
}

/// Reads settings, and collects mistakes.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) mistakes: Vec<Mistake>,
}

/// An entry of a mapping, with its full key.
pub(super) struct Entry<'n> {
    pub(super) name: &'n str,
    pub(super) path: String,
    pub(super) key: &'n Node,
    pub(super) value: &'n Node,
}

impl Entry<'_> {
    /// The number of the node to name when the value is wrong.
    pub(super) fn at(&self) -> usize {
        // An empty value has no position in the text.
        if matches!(self.value.data, Data::Null) { self.key.at } else { self.value.at }
    }
}

impl Reader {
    fn config(&mut self, root: &Node) -> Config {
        let mut config = Config::default();
        if matches!(root.data, Data::Null) {
            self.note(root.at, "", "nothing is set here; write a setting, or `{}` for the defaults");
            return config;
        }
        let entries = self.entries(root, root.at, "");
        for entry in self.without_merges(entries) {
            match entry.name {
                "general" => self.general(&entry, &mut config.general),
                "performance" => self.performance(&entry, &mut config.performance),
                "server" => self.server(&entry, &mut config.server),
                "app" => {
                    for entry in self.entries(entry.value, entry.at(), &entry.path) {
                        self.find_unwritable(entry.value, &entry.path);
                    }
                }
                _ => self.unknown(&entry, hints::ROOT),
            }
        }
        config
    }

    fn general(&mut self, section: &Entry<'_>, general: &mut General) {
        for entry in self.section(section) {
            match entry.name {
                "verbose" => self.take(&entry, flag, &mut general.verbose),
                _ => self.unknown(&entry, hints::GENERAL),
            }
        }
    }

    fn server(&mut self, section: &Entry<'_>, server: &mut ServerConfig) {
        let mut delay = None;
        for entry in self.section(section) {
            match entry.name {
                "host" => self.take(&entry, host, &mut server.host),
                "port" => self.take(&entry, port, &mut server.port),
                "shutdown_delay" => {
                    self.take(&entry, time_or_zero, &mut server.shutdown_delay);
                    delay = Some(entry);
                }
                "shutdown_timeout" => self.take(&entry, time, &mut server.shutdown_timeout),
                "header_read_timeout" => self.take(&entry, time, &mut server.header_read_timeout),
                "max_connection_age" => {
                    self.take(&entry, |data| time(data).map(Some), &mut server.max_connection_age);
                }
                _ => self.unknown(&entry, hints::SERVER),
            }
        }
        // Checked last, because `shutdown_timeout` may be below it in the file.
        if let Some(entry) = delay
            && let Err(message) = rules::check_delay(server.shutdown_delay, server.shutdown_timeout)
        {
            self.note(entry.at(), &entry.path, message);
        }
    }

    fn performance(&mut self, section: &Entry<'_>, performance: &mut Performance) {
        let entries = self.section(section);
        let routed = entries.iter().find(|entry| entry.name == "routes").map_or_else(HashSet::new, pools_of_routes);
        let (mut routes, mut scale_by) = (None, None);
        for entry in entries {
            match entry.name {
                "workers" => self.take(&entry, |data| workers(data, &rules::SERVER_WORKERS), &mut performance.workers),
                "cores" => self.take(&entry, cores, &mut performance.cores),
                "keep_alive_timeout" => self.take(&entry, time, &mut performance.keep_alive_timeout),
                "body_budget" => {
                    self.take(&entry, |data| bytes(data, &byte_size::BODY_BUDGET), &mut performance.body_budget);
                }
                "thread_pools" => self.thread_pools(&entry, &routed, &mut performance.thread_pools),
                "trust" => self.trust(&entry, &mut performance.trust),
                "routes" => routes = Some(entry),
                "scale_by" => scale_by = Some(entry),
                "scale_target" => self.take(&entry, scale_target, &mut performance.scale_target),
                _ => self.unknown(&entry, hints::PERFORMANCE),
            }
        }
        // Read last, because the pools that they name may be below them in the file.
        if let Some(routes) = routes {
            performance.routes = self.routes(&routes, &performance.thread_pools);
        }
        if let Some(scale_by) = scale_by {
            performance.scale_by = self.scale_by(&scale_by, &performance.thread_pools);
        }
    }

    /// Reads the pools. `routed` are the names of pools that routes lead to.
    fn thread_pools(&mut self, section: &Entry<'_>, routed: &HashSet<&str>, pools: &mut ThreadPools) {
        let mut given: HashMap<&str, Entry<'_>> = HashMap::new();
        let mut order = Vec::new();
        for entry in self.section(section) {
            if entry.name.contains('/') {
                self.note(entry.key.at, &entry.path, hints::unknown_key(entry.name, &[]));
                continue;
            }
            let short = entry.name.strip_suffix("_workers");
            let name = short.unwrap_or(entry.name);
            let none = short.is_none() && matches!(&entry.value.data, Data::Text(text) if text == "none");
            if none && hints::is_built_in(name) {
                pools.remove(name);
                given.insert(name, entry);
                continue;
            }
            if let (None, false) = (short, matches!(entry.value.data, Data::Mapping(_))) {
                self.note(entry.at(), &entry.path, long_form_expected(&entry));
                continue;
            }
            let meant = hints::built_in_meant_by(name).filter(|meant| *meant != name && short.is_some());
            if let (Some(meant), false) = (meant, routed.contains(name)) {
                let mut message = format!("this would be a pool of its own; did you mean `{meant}_workers`?");
                if rules::check_name(name).is_ok() {
                    message.push_str(&format!(" If not, write `{name}: {{workers: ...}}`"));
                }
                self.note(entry.key.at, &entry.path, message);
                continue;
            }
            if let Err(message) = rules::check_name(name) {
                self.note(entry.key.at, &entry.path, message);
                continue;
            }
            if let Some(earlier) = given.get(name) {
                // A key that is given twice was noted by `find_doubled`.
                if earlier.name != entry.name {
                    let message = format!("pool `{name}` is also given as `{}`; keep one of the two", earlier.name);
                    self.note_pair(entry.key.at, &entry.path, message, earlier.key.at);
                }
                continue;
            }
            if let (Some(place), false) = (hints::place_of(name), has_workers(&entry)) {
                self.note(entry.key.at, &entry.path, format!("this key belongs {place}"));
                continue;
            }
            let known = pools.get(name).cloned();
            let mut pool = known.clone().unwrap_or_else(PoolConfig::auto);
            if short.is_some() {
                self.workers_alone(&entry, name, &mut pool.workers);
            } else {
                self.pool(&entry, &mut pool, known.is_some());
            }
            pools.set(name, pool);
            order.push(name);
            given.insert(name, entry);
        }
        pools.put_first(&order);
    }

    fn workers_alone(&mut self, entry: &Entry<'_>, name: &str, target: &mut Workers) {
        if matches!(entry.value.data, Data::Mapping(_)) {
            let message = format!("this key takes a number alone; for more settings write `{name}: {{workers: ...}}`");
            return self.note(entry.at(), &entry.path, message);
        }
        self.take(entry, |data| workers(data, &rules::WORKERS), target);
    }

    fn routes(&mut self, section: &Entry<'_>, pools: &ThreadPools) -> Vec<Route> {
        let mut routes = Vec::new();
        let mut entries: Vec<Entry<'_>> = Vec::new();
        let mut given = HashSet::new();
        for entry in self.section(section) {
            if !given.insert(entry.name) {
                // It was noted by `find_doubled`.
                continue;
            }
            let Data::Text(pool) = &entry.value.data else {
                let known: Vec<&str> = pools.iter().map(|(name, _)| name.as_str()).collect();
                let remedy = format!("give one of {}", list(&known));
                self.note(entry.at(), &entry.path, wrong(&entry.value.data, "the name of a pool", &remedy));
                continue;
            };
            match Route::parse(entry.name, Workload::from(pool.as_str())) {
                Ok(route) => {
                    routes.push(route);
                    entries.push(entry);
                }
                Err(message) => self.note(entry.key.at, &entry.path, message),
            }
        }
        for fault in route::faults(&routes, pools) {
            let entry = &entries[fault.index];
            match fault.other {
                Some(other) => self.note_pair(entry.key.at, &entry.path, fault.message, entries[other].key.at),
                None => self.note(entry.at(), &entry.path, fault.message),
            }
        }
        routes
    }

    /// Reads the names of pools: a list, or one name.
    fn scale_by(&mut self, section: &Entry<'_>, pools: &ThreadPools) -> Vec<Workload> {
        let nodes = match &section.value.data {
            Data::List(nodes) if !nodes.is_empty() => nodes.as_slice(),
            Data::Text(_) => std::slice::from_ref(section.value),
            other => {
                let message = match other {
                    Data::List(_) => "no pool is given; leave the key out if all pools count".to_owned(),
                    other => wrong(other, "a list of pools", "give one such as `[inference]`"),
                };
                self.note(section.at(), &section.path, message);
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let name = match &node.data {
                Data::Text(name) => Ok(Workload::from(name.as_str())),
                other => Err(wrong(other, "the name of a pool", "give one such as `inference`")),
            };
            let checked = name.and_then(|name| scale::check_name(&name, &names, pools).map(|()| name));
            match checked {
                Ok(name) => names.push(name),
                Err(message) => {
                    let at = if matches!(node.data, Data::Null) { section.key.at } else { node.at };
                    self.note(at, &join(&section.path, &format!("[{index}]")), message);
                }
            }
        }
        names
    }

    /// Reads a value into `target`, or notes why it is not valid.
    pub(super) fn take<T>(&mut self, entry: &Entry<'_>, read: impl FnOnce(&Data) -> Result<T, String>, target: &mut T) {
        if hints::OPTIONAL.contains(&entry.name) && matches!(&entry.value.data, Data::Text(text) if text == "none") {
            return self.note(entry.at(), &entry.path, "`none` is the default; leave this key out");
        }
        match read(&entry.value.data) {
            Ok(value) => *target = value,
            Err(message) => self.note(entry.at(), &entry.path, message),
        }
    }

    pub(super) fn section<'n>(&mut self, entry: &Entry<'n>) -> Vec<Entry<'n>> {
        let entries = self.entries(entry.value, entry.at(), &entry.path);
        self.without_merges(entries)
    }

    /// Removes and notes the entries `<<`, which would merge another mapping.
    fn without_merges<'n>(&mut self, mut entries: Vec<Entry<'n>>) -> Vec<Entry<'n>> {
        entries.retain(|entry| {
            let merges = entry.name == "<<";
            if merges {
                let message = "mappings are not merged here; write the keys out, or give a whole value as an alias, \
                               such as `cpu: *usual`";
                self.note(entry.key.at, &entry.path, message);
            }
            !merges
        });
        entries
    }

    /// The entries of a mapping. A section whose lines are all commented out has none.
    fn entries<'n>(&mut self, node: &'n Node, at: usize, path: &str) -> Vec<Entry<'n>> {
        let mapping = match &node.data {
            Data::Mapping(mapping) => mapping,
            Data::Null => return Vec::new(),
            other => {
                self.note(at, path, wrong(other, "a mapping", "write `key: value` lines"));
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(mapping.len());
        for (key, value) in mapping {
            match &key.data {
                Data::Text(name) => entries.push(Entry { name, path: join(path, &key.data.as_key()), key, value }),
                other => self.note(key.at, path, wrong(other, "a key", "a key here is a word")),
            }
        }
        entries
    }

    /// Notes each key that is given twice in its mapping, also in the section `app`.
    fn find_doubled(&mut self, node: &Node, path: &str) {
        match &node.data {
            Data::Mapping(entries) => {
                let mut given = HashMap::new();
                for (key, value) in entries {
                    let name = key.data.as_key();
                    let path = join(path, &name);
                    // `1` and `"1"` are different keys.
                    let kind = std::mem::discriminant(&key.data);
                    if let Some(first) = given.insert((kind, name), key.at) {
                        self.note_pair(key.at, &path, "the same key is given twice; keep one of the two", first);
                    }
                    self.find_doubled(value, &path);
                }
            }
            Data::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.find_doubled(node, &join(path, &format!("[{index}]")));
                }
            }
            Data::Tagged(_, node) => self.find_doubled(node, path),
            _ => {}
        }
    }

    /// Notes each key and tag of the section `app` that can be read but not written.
    fn find_unwritable(&mut self, node: &Node, path: &str) {
        match &node.data {
            Data::Mapping(entries) => {
                for (key, value) in entries {
                    if !key.data.fits_key() {
                        let message = wrong(&key.data, "a key", "a key is a word, a number, or a list of them");
                        self.note(key.at, path, message);
                    }
                    self.find_unwritable(value, &join(path, &key.data.as_key()));
                }
            }
            Data::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    self.find_unwritable(node, &join(path, &format!("[{index}]")));
                }
            }
            Data::Tagged(tag, inner) => {
                if !is_tag(tag) {
                    // The parser keeps the mark of the tag `!`, and removes it from all others.
                    let word = tag.trim_start_matches('!').escape_debug();
                    self.note(node.at, path, format!("`!{word}` is no tag; a tag is `!` and a word, such as `!Name`"));
                }
                self.find_unwritable(inner, path);
            }
            _ => {}
        }
    }

    pub(super) fn unknown(&mut self, entry: &Entry<'_>, known: &[&str]) {
        self.note(entry.key.at, &entry.path, hints::unknown_key(entry.name, known));
    }

    pub(super) fn note(&mut self, at: usize, key: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake { at, key: key.to_owned(), message: message.into(), other: None });
    }

    fn note_pair(&mut self, at: usize, key: &str, message: impl Into<String>, other: usize) {
        self.mistakes.push(Mistake { at, key: key.to_owned(), message: message.into(), other: Some(other) });
    }
}

fn is_tag(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    word.starts_with(|first: char| first.is_ascii_alphabetic()) && word.bytes().all(plain)
}

/// The names of the pools that routes lead to.
fn pools_of_routes<'n>(routes: &Entry<'n>) -> HashSet<&'n str> {
    let Data::Mapping(entries) = &routes.value.data else { return HashSet::new() };
    let name =
        |(_, value): &'n (Node, Node)| if let Data::Text(name) = &value.data { Some(name.as_str()) } else { None };
    entries.iter().filter_map(name).collect()
}

/// Whether a pool's settings give the number of its workers, in the short or the long form.
fn has_workers(entry: &Entry<'_>) -> bool {
    let Data::Mapping(settings) = &entry.value.data else { return true };
    settings.iter().any(|(key, _)| matches!(&key.data, Data::Text(name) if name == "workers"))
}

/// The message about a pool's key without `_workers` whose value is not a mapping.
fn long_form_expected(entry: &Entry<'_>) -> String {
    hints::short_form(entry.name).unwrap_or_else(|| {
        let name = entry.name.escape_debug();
        let remedy = format!("write `{name}_workers: 4`, or `{name}: {{workers: 4}}`");
        wrong(&entry.value.data, "the settings of a pool", &remedy)
    })
}
