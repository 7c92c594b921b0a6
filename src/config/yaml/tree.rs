//! YAML as a tree of nodes, and the place of each node in the text.
//!
//! The parser reports the position of an error, and no other position. So every node gets a number, in the order of
//! parsing. To find the position of a node, [`locate`] parses the text again and fails at that number. That costs a
//! parse for each mistake, and nothing for a file without mistakes.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use crate::config::error::{ConfigError, Position};

/// The most nodes, with aliases expanded. A few lines of aliases to aliases would otherwise exhaust the memory.
const MOST_NODES: usize = 50_000;
/// The most bytes of text in all nodes, with aliases expanded.
const MOST_TEXT: usize = 4 * 1024 * 1024;
/// The deepest nesting.
const DEEPEST: usize = 32;

const TAG: &str = "a tag has no meaning here; leave it out";

/// A value in the text.
#[derive(Debug)]
pub(super) struct Node {
    /// The number that [`locate`] takes.
    pub(super) at: usize,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
    Tagged(String, Box<Node>),
}

/// Parses a text of one document.
pub(super) fn parse(text: &str) -> Result<Node, ConfigError> {
    let root = document(text, &mut Walk::default())?;
    // The parser silently ignores tags such as `!!python/object`. Written as `!.python/object`, it reports them.
    if text.contains("!!") || text.contains("!<") {
        let shown = text.replace("!!", "!.").replace("!<", "!.");
        let mut walk = Walk { refuse_dotted_tags: true, ..Walk::default() };
        if let Err(error) = first_document(&shown, &mut walk) {
            return Err(ConfigError::new(TAG).at(position(&error)).at_key_path(&walk.path));
        }
    }
    Ok(root)
}

/// The place of the node with this number.
pub(super) fn locate(text: &str, at: usize) -> Option<Position> {
    let mut walk = Walk { stop_at: Some(at), ..Walk::default() };
    position(&first_document(text, &mut walk).err()?)
}

/// A path of keys, as errors show it.
pub(super) fn join(parent: &str, key: &str) -> String {
    match (parent, key) {
        ("", key) => key.to_owned(),
        (parent, index) if index.starts_with('[') => format!("{parent}{index}"),
        (parent, key) => format!("{parent}.{key}"),
    }
}

/// The progress of the parser.
#[derive(Default)]
struct Walk {
    nodes: usize,
    text: usize,
    path: Vec<String>,
    stop_at: Option<usize>,
    refuse_dotted_tags: bool,
    /// Why the parser was stopped, if it was.
    ended: Option<&'static str>,
}

fn document(text: &str, walk: &mut Walk) -> Result<Node, ConfigError> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else { return Ok(Node { at: 0, data: Data::Null }) };
    let root = NodeSeed(walk).deserialize(first).map_err(|error| failed(text, error, walk))?;
    let Some(second) = documents.next() else { return Ok(root) };
    let mut at_its_start = Walk { stop_at: Some(0), ..Walk::default() };
    match NodeSeed(&mut at_its_start).deserialize(second) {
        // The error is in the text after the first document, before a second one begins.
        Err(error) if at_its_start.nodes == 0 => Err(failed(text, error, &at_its_start)),
        result => {
            let place = result.err().as_ref().and_then(position);
            Err(ConfigError::new("a second document begins here; keep one, without `---` between").at(place))
        }
    }
}

fn first_document(text: &str, walk: &mut Walk) -> Result<Node, serde_yaml::Error> {
    match serde_yaml::Deserializer::from_str(text).next() {
        Some(first) => NodeSeed(walk).deserialize(first),
        None => Ok(Node { at: 0, data: Data::Null }),
    }
}

fn position(error: &serde_yaml::Error) -> Option<Position> {
    error.location().map(|place| Position { line: place.line(), column: place.column() })
}

fn failed(text: &str, error: serde_yaml::Error, walk: &Walk) -> ConfigError {
    let place = position(&error);
    if let Some(reason) = walk.ended {
        return ConfigError::new(reason).at(place).at_key_path(&walk.path);
    }
    let mut message = error.to_string();
    if let Some(Position { line, column }) = place {
        message = message.replacen(&format!(" at line {line} column {column}"), "", 1);
    }
    let remedy = place.map_or("", |place| remedy(text, place));
    ConfigError::new(format!("this is not YAML: {message}{remedy}")).at(place)
}

/// The remedy for a common mistake at a syntax error.
fn remedy(text: &str, place: Position) -> &'static str {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    if line.trim_start_matches(' ').starts_with('\t') {
        return "; a tab cannot indent: use blanks";
    }
    // The parser may notice only at the next line.
    let before = text.lines().nth(place.line.wrapping_sub(2)).unwrap_or_default();
    if line.contains("${") || before.contains("${") {
        return "; variables such as `${NAME}` are not replaced: write the value";
    }
    if line.contains("::") {
        return "; an address such as `::` needs quotes: `\"::\"`";
    }
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim_start());
    let is_alias = value.strip_prefix('*').is_some_and(|name| name.starts_with(char::is_alphanumeric));
    if value.starts_with(['*', '@', '%', '`']) && !is_alias {
        return "; a text that begins with such a character needs quotes";
    }
    ""
}

impl ConfigError {
    fn at_key_path(self, path: &[String]) -> Self {
        let key = path.iter().filter(|key| !key.is_empty()).fold(String::new(), |parent, key| join(&parent, key));
        if key.is_empty() { self } else { self.at_key(key) }
    }
}

/// Reads one node and all below it.
struct NodeSeed<'w>(&'w mut Walk);

impl Walk {
    /// Counts a node and gives its number.
    fn begin<E: de::Error>(&mut self) -> Result<usize, E> {
        let at = self.nodes;
        self.nodes += 1;
        if self.stop_at == Some(at) {
            return Err(E::custom("here"));
        }
        if at >= MOST_NODES {
            return Err(self.end("this has more than 50000 values, aliases followed, which no configuration needs"));
        }
        if self.path.len() > DEEPEST {
            return Err(self.end("this is nested more than 32 deep, which no configuration needs"));
        }
        Ok(at)
    }

    fn end<E: de::Error>(&mut self, reason: &'static str) -> E {
        self.ended = Some(reason);
        E::custom(reason)
    }

    fn scalar<E: de::Error>(&mut self, data: Data) -> Result<Node, E> {
        Ok(Node { at: self.begin()?, data })
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        // The parser adds the position of the current node to an error that the visitor returns.
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.0.scalar(Data::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.0.scalar(Data::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.0.scalar(Data::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.0.scalar(Data::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.0.scalar(Data::Integer(value.into()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Node, E> {
        self.0.scalar(Data::Integer(value))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Node, E> {
        self.0.scalar(i128::try_from(value).map_or(Data::Float(value as f64), Data::Integer))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.0.scalar(Data::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        self.0.text += value.len();
        if self.0.text > MOST_TEXT {
            return Err(self.0.end("this has more than 4 MiB of text, aliases followed, which no configuration needs"));
        }
        self.0.scalar(Data::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let at = self.0.begin()?;
        let mut nodes = Vec::new();
        loop {
            self.0.path.push(format!("[{}]", nodes.len()));
            let Some(node) = list.next_element_seed(NodeSeed(&mut *self.0))? else { break };
            self.0.path.pop();
            nodes.push(node);
        }
        self.0.path.pop();
        Ok(Node { at, data: Data::List(nodes) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        let at = self.0.begin()?;
        let mut entries = Vec::new();
        loop {
            // The key is not known yet, but counts towards the depth.
            self.0.path.push(String::new());
            let Some(key) = mapping.next_key_seed(NodeSeed(&mut *self.0))? else { break };
            self.0.path.pop();
            self.0.path.push(key.data.as_key());
            let value = mapping.next_value_seed(NodeSeed(&mut *self.0))?;
            self.0.path.pop();
            entries.push((key, value));
        }
        self.0.path.pop();
        Ok(Node { at, data: Data::Mapping(entries) })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let at = self.0.begin()?;
        let (tag, contents): (String, _) = tagged.variant()?;
        if self.0.refuse_dotted_tags && tag.starts_with('.') {
            return Err(self.0.end(TAG));
        }
        let node = contents.newtype_variant_seed(NodeSeed(self.0))?;
        Ok(Node { at, data: Data::Tagged(tag, Box::new(node)) })
    }
}

impl Data {
    /// Whether it can be written as a key. The parser accepts more keys than the writer.
    pub(super) fn fits_key(&self) -> bool {
        match self {
            Self::Mapping(_) | Self::Tagged(..) => false,
            Self::List(nodes) => nodes.iter().all(|node| node.data.fits_key()),
            _ => true,
        }
    }

    /// A key, as a path shows it.
    pub(super) fn as_key(&self) -> String {
        match self {
            Self::Text(text) => text.escape_debug().to_string(),
            other => other.shown(),
        }
    }

    /// A value, as an error shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("`{value}`"),
            Self::Float(value) => format!("`{value:?}`"),
            Self::Text(text) => match text.char_indices().nth(60) {
                Some((end, _)) => format!("the text {:?}…", &text[..end]),
                None => format!("the text {text:?}"),
            },
            Self::List(_) => "a list".to_owned(),
            Self::Mapping(_) => "a mapping".to_owned(),
            Self::Tagged(tag, _) => format!("a value with the tag `!{}`", tag.escape_debug()),
        }
    }
}
